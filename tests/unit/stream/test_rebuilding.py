"""States that late events or damage spoiled are named, listed, and rebuilt; and what is kept has a bound."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from typer.testing import CliRunner

from rules_engine.cli.main import app
from rules_engine.clock import DAY, now_micros, to_micros
from rules_engine.errors import StoreDataError
from rules_engine.events.state.waiting import split, waiting_events
from rules_engine.events.streams import FIELD, encode_raw, partition_of, stream_key, stream_keys
from rules_engine.folders import Project
from rules_engine.read_plan import Connection, ReadPlan
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.redis.feast_layout import KeyMaker, sibling_key
from rules_engine.sdk import SegmentClient
from rules_engine.sdk.rules import Rules
from rules_engine.stream.commit import RECORD
from rules_engine.stream.event_sink import EventSink
from rules_engine.stream.rebuilding import rebuild_states
from rules_engine.stream.worker import Worker
from tests.event_shop import NOW, shop_plan
from tests.stores import put_into_effect

VALUE = "events:cart_value"


@pytest.fixture
def project(tmp_path: Path, store: EmbeddedStore) -> Project:
    project = Project(tmp_path)
    (tmp_path / "segments").mkdir()
    (tmp_path / "feature_repo").mkdir()
    (tmp_path / "feature_repo/feature_store.yaml").touch()
    put_into_effect(shop_plan(Connection("redis", store.connection_string)), project)
    return project


def run(project: Project, *arguments: str) -> Any:
    return CliRunner().invoke(app, [*arguments, "--repo", str(project.root)])


def send(client: redis.Redis, entity: str, days_ago: float, identity: str, value: float = 1.0) -> None:
    at = (NOW - timedelta(days=days_ago)).isoformat()
    raw = encode_raw(entity, "cart", at, identity, {"sku": "x", "value": value})
    client.xadd(stream_key("shop", partition_of(entity)), {FIELD: raw})


def value(project: Project, entity: str) -> Any:
    with SegmentClient(project) as shop:
        return shop.features(entity, [VALUE])[VALUE]


def state_key(project: Project, entity: str, name: bytes | None = None) -> bytes:
    plan = ReadPlan.load(project.read_plan)
    key = KeyMaker(plan.project, plan.join_key, plan.key_version)
    return sibling_key(key(entity), name or Rules(plan).events.name)


def test_an_event_that_is_reported_too_late_is_counted_listed_and_taken_when_asked_for(
    project: Project, client: redis.Redis
) -> None:
    for number in range(30):
        send(client, "u", 20, f"a{number}")
    Worker(project).run(once=True)
    assert value(project, "u") == 30
    send(client, "u", 300, "late")
    send(client, "u", 20, "a3")  # a redelivery: it looks the same to the state
    assert Worker(project).run(once=True).late == 1
    assert value(project, "u") == 30
    listed = run(project, "ingest", "--late")
    assert (listed.exit_code, listed.output) == (0, "u\n1 entity to rebuild: `segments ingest --rebuild`\n")
    assert "Rebuilt the states of 1 entity" in run(project, "ingest", "--rebuild").output
    assert value(project, "u") == 31
    assert run(project, "ingest", "--late").output == "0 entities to rebuild\n"


def test_an_event_that_waits_for_a_worker_waits_behind_a_rebuilt_state_too(
    project: Project, client: redis.Redis
) -> None:
    send(client, "u", 20, "a")
    Worker(project).run(once=True)
    with SegmentClient(project) as shop:
        shop.track("u", "cart", {"sku": "x", "value": 5.0}, at=NOW, event_id="b")
    sink = EventSink(project, Rules(ReadPlan.load(project.read_plan)))
    sink.log([("u", event) for event in waiting(client, project)])  # as far as a worker comes before it is killed
    assert rebuild_states(project, sink, ["u"]) == set()
    assert [event.id for event in waiting(client, project)] == ["cart:b"]
    assert value(project, "u") == 6
    Worker(project).run(once=True)
    assert waiting(client, project) == []
    assert value(project, "u") == 6


def waiting(client: redis.Redis, project: Project) -> list[Any]:
    return waiting_events(split(client.get(state_key(project, "u")))[1])


@pytest.mark.parametrize("damage", [b"\x00", b"\xf5\x00", b"junk" * 20])
@pytest.mark.parametrize("what", ["state", "record", "both"])
def test_one_damaged_entity_is_named_hurts_nobody_else_and_can_be_mended(
    project: Project, client: redis.Redis, damage: bytes, what: str
) -> None:
    for user in ("u", "v"):
        send(client, user, 1, "a")
    Worker(project).run(once=True)
    for part, key in (("state", state_key(project, "u")), ("record", state_key(project, "u", RECORD))):
        if what in (part, "both"):
            assert client.exists(key)
            client.set(key, damage)
    for user in ("u", "v"):
        send(client, user, 0.5, "b")
    Worker(project).run(once=True)
    assert sum(client.xlen(key) for key in stream_keys("shop")) == 0
    assert value(project, "v") == 2
    if what != "record":
        with pytest.raises(StoreDataError) as raised:
            value(project, "u")
        assert "segments ingest --rebuild" in str(raised.value.hint)
    listed = json.loads(run(project, "ingest", "--late", "--format", "json").stdout)
    assert listed == {"total": 1, "entities": ["u"]}
    mended = run(project, "ingest", "--rebuild", "--entity", "u")
    assert mended.exit_code == 0, mended.output
    assert value(project, "u") == 2
    send(client, "u", 0.1, "c")
    Worker(project).run(once=True)
    assert value(project, "u") == 3


def test_an_ingest_mends_a_damaged_state_on_its_way(project: Project, client: redis.Redis) -> None:
    path = project.root / "carts.csv"
    rows = [f"{user},cart,{(NOW - timedelta(days=1)).isoformat()},x,1" for user in ("u", "v")]
    path.write_text("\n".join(["entity,event,at,sku,value", *rows]))
    assert run(project, "ingest", str(path)).exit_code == 0
    client.set(state_key(project, "u"), b"junk")
    assert "the states of 1 entity were rebuilt" in run(project, "ingest", str(path)).output
    assert (value(project, "u"), value(project, "v")) == (1, 1)


def test_rebuilding_an_entity_that_the_log_does_not_know_removes_its_state(
    project: Project, client: redis.Redis
) -> None:
    client.set(state_key(project, "w"), b"junk")
    assert run(project, "ingest", "--rebuild", "--entity", "w").exit_code == 0
    assert not client.exists(state_key(project, "w"))


# --- growth ---------------------------------------------------------------------------------------------------------

RECENT = "segment: keen\nwhen: {did: view, within: 1h}\n"
RECENT_EVENTS = "events:\n  view: {properties: {page: {type: string}}, retention: 30d}\n"


@pytest.mark.slow
@pytest.mark.parametrize("events", [2_000, 30_000])
def test_keys_grow_with_entities_and_not_with_events(
    tmp_path: Path, store: EmbeddedStore, client: redis.Redis, events: int
) -> None:
    project, entities = Project(tmp_path), 500
    put_into_effect(
        shop_plan(Connection("redis", store.connection_string), RECENT, now=None, events=RECENT_EVENTS), project
    )
    now = now_micros()
    pipeline = client.pipeline()
    for number in range(events):
        entity = f"u{number % entities}"
        raw = encode_raw(entity, "view", now - number, str(number), {}) if number % 50 else b"{bad"
        pipeline.xadd(stream_key("shop", partition_of(entity)), {FIELD: raw})
    pipeline.execute()
    Worker(project).run(once=True)
    keys = client.keys("*")
    of_entities = [key for key in keys if key.startswith(b"{") and (b"}:events:" in key or b"}:triggers" in key)]
    assert len(of_entities) <= 2 * entities
    assert len(keys) - len(of_entities) <= 16 + 16 + 10, "streams, timers, and what a project has once"
    assert sum(client.xlen(key) for key in stream_keys("shop")) == 0
    for key in of_entities:
        if b"}:events:" in key:  # an entity that is never seen again leaves no state behind
            assert 0 < client.pttl(key) <= (3 * DAY) // 1_000, key


def test_a_state_that_expires_soon_is_kept_while_an_event_waits(
    tmp_path: Path, store: EmbeddedStore, client: redis.Redis
) -> None:
    project = Project(tmp_path)
    put_into_effect(
        shop_plan(Connection("redis", store.connection_string), RECENT, now=None, events=RECENT_EVENTS), project
    )
    with SegmentClient(project) as shop:
        shop.track("u", "view", {}, event_id="a")
        Worker(project).run(once=True)
        key = state_key(project, "u")
        client.pexpire(key, 60_000)
        shop.track("u", "view", {}, event_id="b")
        assert client.pttl(key) == -1
        Worker(project).run(once=True)
        assert client.pttl(key) > 60_000


def test_a_total_is_kept_for_ever(project: Project, client: redis.Redis) -> None:
    send(client, "u", 1, "a")
    Worker(project).run(once=True)
    assert client.pttl(state_key(project, "u")) == -1
    assert to_micros(NOW) == ReadPlan.load(project.read_plan).now
