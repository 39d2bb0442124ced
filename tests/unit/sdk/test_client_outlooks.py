"""Outlooks: lookups by what was worked out when the events came answer as the full log would."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import redis

from rules_engine.clock import from_micros, to_micros
from rules_engine.events.state.outlook import stamp_of
from rules_engine.folders import Project
from rules_engine.read_plan import Connection
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.rules.inputs import Inputs, in_order
from rules_engine.sdk import SegmentClient
from rules_engine.sdk.rules import Rules
from rules_engine.sdk.tracking import open_states
from rules_engine.stream.worker import Worker
from rules_engine.targets.index.rule_index import RuleIndex
from tests.event_shop import NOW, SEGMENTS, checked, instants, members, random_raw, shop_plan
from tests.stores import put_into_effect


@pytest.fixture
def project(tmp_path: Path, store: EmbeddedStore) -> Project:
    (tmp_path / "segments").mkdir()
    project = Project(tmp_path)
    put_into_effect(shop_plan(Connection("redis", store.connection_string)), project)
    return project


@pytest.fixture
def shop(project: Project) -> Iterator[SegmentClient]:
    with SegmentClient(project) as client:
        yield client


@pytest.fixture
def client(store: EmbeddedStore) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(store.url) as client:
        yield client


def stored(client: redis.Redis) -> bytes:
    """Return what is kept of the only user."""
    (key,) = [key for key in client.keys("*events:*") if key.startswith(b"{") and not key.endswith(b":pieces")]
    content = client.get(key)
    assert isinstance(content, bytes)
    return content


def rules_of(store: EmbeddedStore, segments: str = SEGMENTS) -> Rules:
    return Rules(shop_plan(Connection("redis", store.connection_string), segments))


@pytest.mark.slow
@pytest.mark.parametrize("number", [3, 40, 1_600, 6_000])
def test_answers_are_those_of_the_full_log(
    shop: SegmentClient, store: EmbeddedStore, client: redis.Redis, number: int
) -> None:
    rules, log = rules_of(store), checked(random_raw(random.Random(number), number))
    states = open_states(rules, client)
    for start in range(0, len(log), 700):  # a part at a time, out of order, some twice
        states.update({"u": log[start : start + 700]}, to_micros(NOW))
    assert stamp_of(stored(client)) == rules.events.outlooks.stamp
    assert len(stored(client)) < 20_000
    for at in instants():
        membership = shop.lookup("u", at=at)
        assert membership.segments == members(rules, log, to_micros(at)), at
    _, change = RuleIndex(rules.program).match_until(Inputs(events=in_order(log)), to_micros(NOW))
    assert shop.lookup("u").changes_at == (None if change is None else from_micros(change))
    assert not shop.lookup("u").undecided


def test_an_event_hides_the_outlook_until_a_worker_has_taken_it(
    project: Project, shop: SegmentClient, store: EmbeddedStore, client: redis.Redis
) -> None:
    stamp = rules_of(store).events.outlooks.stamp
    shop.track("u", "view", {"page": "b"}, at=NOW - timedelta(minutes=5))
    Worker(project).run(once=True)
    assert stamp_of(stored(client)) == stamp
    assert "ended_on_a" not in shop.lookup("u")
    shop.track("u", "view", {"page": "a"}, at=NOW - timedelta(minutes=1))
    assert stamp_of(stored(client)) is None
    assert "ended_on_a" in shop.lookup("u")
    Worker(project).run(once=True)
    assert stamp_of(stored(client)) == stamp
    assert "ended_on_a" in shop.lookup("u")
    assert [one.segments for one in shop.lookup_many(["u", "nobody"])] == [
        shop.lookup("u").segments,
        shop.lookup("nobody").segments,
    ]


def test_a_question_about_the_past_is_answered_by_the_events(
    project: Project, shop: SegmentClient, client: redis.Redis
) -> None:
    shop.track("u", "view", {"page": "a"}, at=NOW - timedelta(seconds=20))
    Worker(project).run(once=True)
    assert stamp_of(stored(client)) is not None
    assert "ended_on_a" in shop.lookup("u")
    assert "ended_on_a" not in shop.lookup("u", at=NOW - timedelta(seconds=30))


def test_a_worker_renews_outlooks_of_other_thresholds(
    project: Project, shop: SegmentClient, store: EmbeddedStore, client: redis.Redis
) -> None:
    shop.track("u", "cart", {"sku": "x", "value": 60.0}, at=NOW - timedelta(days=2))
    Worker(project).run(once=True)
    assert "spent" not in shop.lookup("u")
    segments = SEGMENTS.replace("greater_than: 100", "greater_than: 50")
    earlier, later = rules_of(store), rules_of(store, segments)
    assert earlier.events.name == later.events.name, "the same is kept for both"
    put_into_effect(later.plan, project)
    with SegmentClient(project) as renewed:
        assert stamp_of(stored(client)) == earlier.events.outlooks.stamp
        assert "spent" in renewed.lookup("u")
        Worker(project).run(once=True)
        assert stamp_of(stored(client)) == later.events.outlooks.stamp
        assert "spent" in renewed.lookup("u")
