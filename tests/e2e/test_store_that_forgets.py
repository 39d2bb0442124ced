"""A store that was emptied, or that evicts, is noticed by whoever asks it, and filled again by our own commands."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis

from rules_engine import AsyncSegmentClient, SegmentClient
from rules_engine.delivery.queues import queue_key
from rules_engine.errors import ProjectError, StoreDataError
from rules_engine.folders import Project
from rules_engine.read_plan import Connection
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.redis.eviction import check_eviction
from rules_engine.redis.server import RedisServer
from rules_engine.redis.store_mark import mark_key
from tests.commands import bad, good
from tests.e2e.conftest import agreeing
from tests.e2e.test_cli_project import without_store

NOW = datetime(2026, 2, 1, tzinfo=UTC)  # what counts as now in a new project

EVENTS = "events:\n  purchase:\n    properties: {sku: {type: string}}\n    retention: 400d\n"

SEGMENTS = """\
segment: never_bought
when: {did_not: purchase, within: 365d}
---
segment: bought
when: {did: purchase, within: 365d}
---
trigger: voucher
on_enter: never_bought
send: [{stream: vouchers}]
"""

BUYERS = [f"buyer{number}" for number in range(60)]
OTHERS = [f"c{number:03}" for number in range(1, 13)]  # of the customers that a new project has


@pytest.fixture
def shop(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A project in which sixty people bought something; a worker has seen it."""
    root = tmp_path / "shop"
    good("init", root)
    (root / "feature_repo/events.yaml").write_text(EVENTS)
    (root / "segments/bought.yaml").write_text(SEGMENTS)
    good("apply", "--repo", root)
    good("materialize", "--repo", root)
    rows = [
        {"entity": buyer, "event": "purchase", "at": (NOW - timedelta(days=place)).isoformat(), "event_id": buyer}
        for place, buyer in enumerate(BUYERS)
    ]
    (root / "events.jsonl").write_text("\n".join(map(json.dumps, rows)))
    good("ingest", root / "events.jsonl", "--repo", root)
    good("run", "--once", "--repo", root)
    with agreeing(root, request):
        yield root


def emptied(root: Path) -> None:
    with redis.Redis.from_url(EmbeddedStore(root).url) as client:
        client.flushall()


def answers(root: Path) -> dict[str, frozenset[str]]:
    with SegmentClient.from_repo(root) as client:
        return {found.entity: found.segments for found in client.lookup_many([*BUYERS, *OTHERS])}


def test_an_emptied_store_is_an_error_until_it_is_filled_again(shop: Path) -> None:
    before = answers(shop)
    assert all("bought" in before[buyer] for buyer in BUYERS)
    with SegmentClient.from_repo(shop) as client:
        assert client.is_member("buyer1", "bought")
        assert not client.is_member("buyer1", "never_bought")
        assert not client.is_member("nobody", "vip")  # what was true of the store a moment ago is not relied on
        emptied(shop)
        for ask in (
            lambda: client.lookup("buyer1"),
            lambda: client.lookup_many(BUYERS),
            lambda: client.is_member("buyer1", "never_bought"),
            lambda: client.is_member("c001", "vip"),
            lambda: client.explain("buyer1", "never_bought"),
            lambda: client.features("c001"),
        ):
            with pytest.raises(StoreDataError, match="the online store") as caught:
                ask()
            assert "was emptied or replaced" in str(caught.value.hint)

    async def ask_all() -> None:
        async with AsyncSegmentClient.from_repo(shop) as client:
            for segments in (["never_bought"], ["vip"], None):
                with pytest.raises(StoreDataError):
                    await client.lookup("buyer1", segments=segments)
                with pytest.raises(StoreDataError):
                    await client.lookup_many(BUYERS, segments=segments)

    asyncio.run(ask_all())
    with SegmentClient.from_repo(shop, on_error="no_match") as client:
        found = client.lookup("buyer1")
        assert found.segments == frozenset()
        assert isinstance(found.error, StoreDataError)
    assert "segments apply" in bad("lookup", "buyer1", "--repo", shop)
    assert "does not hold the event states" in bad("run", "--once", "--repo", shop)

    said = without_store("apply", "--repo", shop)
    assert "build the states of purchase from the event log: 60 events of 60 users" in said
    assert "segments materialize" in bad("lookup", "c001", "--repo", shop)
    assert "the online store does not hold it" in good("materialize", "--repo", shop)
    assert answers(shop) == before


def test_nobody_enters_for_the_second_time_because_the_store_forgot(shop: Path) -> None:
    emptied(shop)
    without_store("apply", "--repo", shop)
    good("materialize", "--repo", shop)
    good("run", "--once", "--repo", shop)
    with redis.Redis.from_url(EmbeddedStore(shop).url) as client:
        assert client.xlen(queue_key("shop", "stream:vouchers")) == 0
    assert answers(shop)["c001"] >= {"never_bought"}


@pytest.mark.parametrize("since", ["run --once", "apply"])
def test_materialize_starts_over_whatever_was_written_since(shop: Path, since: str) -> None:
    before = answers(shop)
    emptied(shop)
    (bad if since.startswith("run") else without_store)(*since.split(), "--repo", shop)
    said = good("materialize", "--repo", shop)
    assert said.count("the online store does not hold it") == 2
    good("apply", "--repo", shop)
    assert answers(shop) == before


@pytest.mark.disagreeing("the mark is gone in the end")
def test_a_mark_that_was_evicted_alone_is_an_error_too(shop: Path) -> None:
    with SegmentClient.from_repo(shop) as client:
        before = client.lookup("c001", segments=["vip"]).segments
        assert not client.lookup("nobody", segments=["vip"]).segments
        with redis.Redis.from_url(EmbeddedStore(shop).url) as server:
            server.delete(mark_key("shop"))
        assert client.lookup("c001", segments=["vip"]).segments == before, "what is answered rests on what is there"
        with pytest.raises(StoreDataError):
            client.lookup("nobody", segments=["vip"])
        with pytest.raises(StoreDataError):
            client.lookup("buyer1", segments=["bought"])


# --- eviction --------------------------------------------------------------------------------------------------------


@pytest.fixture
def on_server(
    make_project: Callable[..., Project], store: EmbeddedStore, client: redis.Redis
) -> Iterator[tuple[Project, redis.Redis]]:
    """A project on a server of one's own, and the server."""
    yaml = (
        "project: shop\nprovider: local\nregistry: ../.segments/registry.db\noffline_store: {type: duckdb}\n"
        "entity_key_serialization_version: 3\n"
        f"online_store: {{type: redis, connection_string: '{store.connection_string}'}}\n"
    )
    definitions = (
        "from feast import Entity, FeatureView, Field, FileSource, ValueType\nfrom feast.types import Int64\n"
        "user = Entity(name='user', join_keys=['user_id'], value_type=ValueType.STRING)\n"
        "source = FileSource(name='ages', path='ages.parquet', timestamp_field='event_timestamp')\n"
        "ages = FeatureView(name='ages', entities=[user], source=source, schema=[Field(name='age', dtype=Int64)])\n"
    )
    files = {
        "feature_repo/feature_store.yaml": yaml,
        "feature_repo/definitions.py": definitions,
        "segments/adults.yaml": "segment: adults\nwhen: {feature: ages:age, at_least: 18}\n",
    }
    yield make_project(files), client
    client.config_set("maxmemory-policy", "noeviction")


@pytest.mark.disagreeing("the source has no file")
@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_server_that_evicts_is_refused(on_server: tuple[Project, redis.Redis], policy: str) -> None:
    project, client = on_server
    good("apply", "--repo", project.root)
    client.config_set("maxmemory-policy", policy)
    for command in (["apply"], ["materialize"], ["run", "--once"]):
        said = bad(*command, "--repo", project.root)
        assert f"maxmemory-policy {policy}" in said
        assert "noeviction" in said
    client.config_set("maxmemory-policy", "noeviction")
    good("run", "--once", "--repo", project.root)


@pytest.mark.disagreeing("the source has no file")
def test_the_first_request_warns_of_a_server_that_evicts_or_does_not_say(
    on_server: tuple[Project, redis.Redis], store: EmbeddedStore, caplog: pytest.LogCaptureFixture
) -> None:
    project, client = on_server
    good("apply", "--repo", project.root)

    def warnings(root: Path) -> list[str]:
        caplog.clear()
        with caplog.at_level(logging.WARNING, "rules_engine.store"), SegmentClient.from_repo(root) as asked:
            asked.lookup("nobody")
            asked.lookup("nobody")
        return [record.getMessage() for record in caplog.records]

    assert warnings(project.root) == []
    client.config_set("maxmemory-policy", "allkeys-random")
    (warning,) = warnings(project.root)
    assert "maxmemory-policy allkeys-random" in warning
    client.config_set("maxmemory-policy", "noeviction")
    client.acl_setuser("reader", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all", "-info"])
    try:
        spelt = f"{store.connection_string},username=reader,password=secret"
        server = RedisServer(Connection("redis", spelt), project.root)
        with caplog.at_level(logging.WARNING, "rules_engine.store"):
            check_eviction(server)
        assert "is not known whether it evicts keys" in caplog.text
    finally:
        client.acl_deluser("reader")


def test_a_cluster_or_server_whose_policy_is_refused_is_named(store: EmbeddedStore, client: redis.Redis) -> None:
    client.config_set("maxmemory-policy", "allkeys-lfu")
    try:
        with pytest.raises(ProjectError, match="allkeys-lfu") as caught:
            check_eviction(RedisServer(Connection("redis", store.connection_string), Path()))
        assert str(store.socket_path) in str(caught.value)
    finally:
        client.config_set("maxmemory-policy", "noeviction")
