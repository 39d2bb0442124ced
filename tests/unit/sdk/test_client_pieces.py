"""Older events in pieces: read with the state by every client, and as long-lived and as damaged as the state is."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from rules_engine.clock import DAY, to_micros
from rules_engine.deploy.backfill import KEPT_FOR, Backfill
from rules_engine.errors import StoreDataError
from rules_engine.events.state.reading import StateLayout
from rules_engine.events.state.requirements import requirements_of
from rules_engine.events.state.store import StateStore
from rules_engine.events.state.stored import pieces_key
from rules_engine.folders import Project
from rules_engine.read_plan import Connection
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.redis.feast_layout import KeyMaker, sibling_key
from rules_engine.rules.aggregates import Aggregate
from rules_engine.rules.inputs import Event
from rules_engine.rules.nodes import EventAggregate, EventMatch
from rules_engine.rules.program import Program
from rules_engine.sdk import AsyncSegmentClient, SegmentClient, event_rules
from rules_engine.sdk.rules import Rules
from rules_engine.sdk.tracking import open_states
from rules_engine.stream.worker import Worker
from rules_engine.targets.stepwise.outlooks import Outlooks
from tests.event_shop import NOW, SEGMENTS, checked, members, random_raw, shop_plan
from tests.stores import put_into_effect

LOG = checked(random_raw(random.Random(5), 400))


@pytest.fixture
def rules(store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch) -> Rules:
    monkeypatch.setattr(event_rules, "requirements_of", partial(requirements_of, piece=20))
    return Rules(shop_plan(Connection("redis", store.connection_string)))


@pytest.fixture
def project(tmp_path: Path, rules: Rules) -> Project:
    (tmp_path / "segments").mkdir()
    project = Project(tmp_path)
    put_into_effect(rules.plan, project)
    return project


@pytest.fixture
def client(store: EmbeddedStore) -> Iterator[Any]:
    with redis.Redis.from_url(store.url) as client:
        yield client


@pytest.fixture
def key(client: Any, rules: Rules) -> bytes:
    """Return the key of the state of a user of whom many events are kept."""
    states = open_states(rules, client)
    for start in range(0, len(LOG), 30):
        states.update({"u": LOG[start : start + 30]}, to_micros(NOW))
    key = sibling_key(KeyMaker("shop", "user_id", 3)("u"), rules.events.name)
    assert client.exists(key, pieces_key(key)) == 2
    return key


def test_every_client_reads_pieces_where_the_outlook_does_not_tell(project: Project, key: bytes, rules: Rules) -> None:
    log = [*LOG, Event("view", to_micros(NOW), "view:more", {"page": "a", "seconds": 300.0})]

    async def ask() -> tuple[frozenset[str], object, str]:
        async with AsyncSegmentClient(project) as other:
            lookup = await other.lookup("u")
            return lookup.segments, await other.features("u"), str(await other.explain("u", "keen"))

    with SegmentClient(project) as client:
        client.track("u", "view", {"page": "a", "seconds": 300}, at=NOW, event_id="more")
        expected = members(rules, log, to_micros(NOW))
        assert "ended_on_a" in expected
        for _ in range(2):  # before a worker has taken it in, and afterwards
            assert client.lookup("u").segments == expected
            assert [one.segments for one in client.lookup_many(["u", "u"])] == [expected, expected]
            assert asyncio.run(ask()) == (expected, client.features("u"), str(client.explain("u", "keen")))
            Worker(project).run(once=True)


def test_a_piece_that_is_lost_is_damage_that_a_rebuild_mends(
    project: Project, key: bytes, client: Any, rules: Rules
) -> None:
    (name, *_) = client.hkeys(pieces_key(key))
    client.hdel(pieces_key(key), name)
    before = NOW - timedelta(seconds=1)  # which the outlook does not tell
    with SegmentClient(project) as shop:
        assert shop.lookup("u").segments == members(rules, LOG, to_micros(NOW)), "the outlook needs no pieces"
        with pytest.raises(StoreDataError, match="older events are lacking"):
            shop.lookup("u", at=before)
        open_states(rules, client).rebuild({"u": LOG}, to_micros(NOW))
        assert shop.lookup("u", at=before).segments == members(rules, LOG, to_micros(before))
        open_states(rules, client).rebuild({"u": []}, to_micros(NOW))
        assert client.exists(key, pieces_key(key)) == 0


def test_pieces_live_as_long_as_their_state(client: Any) -> None:
    key, program = b"{u}:events:week", Program({})
    views = EventAggregate(Aggregate.COUNT, EventMatch("view"), within=7 * DAY)
    requirements = requirements_of(program, {"views": views}, piece=20)
    states = StateStore(client, lambda _: key, requirements, Outlooks(program, StateLayout(requirements)), expires=True)
    states.update({"u": [Event("view", to_micros(NOW) - place, str(place)) for place in range(90)]}, to_micros(NOW))
    assert client.hlen(pieces_key(key)) > 0
    lives = [client.pttl(name) for name in (key, pieces_key(key))]
    assert min(lives) > 0
    assert max(lives) - min(lives) < 10_000
    for command in states.reported("u", Event("view", to_micros(NOW), "view:waits", {"page": "a"})):
        client.execute_command(*command)
    assert [client.pttl(name) for name in (key, pieces_key(key))] == [-1, -1]


def test_apply_lets_old_pieces_expire_with_their_states(
    project: Project, key: bytes, client: Any, store: EmbeddedStore
) -> None:
    more = SEGMENTS + "---\nsegment: viewed\nwhen: {did: view, within: 20d, count: {at_least: 4}}\n"
    plan = shop_plan(Connection("redis", store.connection_string), more)
    backfill = Backfill(project, plan)
    backfill.prepare()
    plan.save(project.read_plan)
    backfill.finish()
    backfill.close()
    assert all(0 < client.ttl(name) <= KEPT_FOR for name in (key, pieces_key(key)))
