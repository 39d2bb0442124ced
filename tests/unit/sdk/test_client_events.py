"""The clients on event conditions: what was tracked is seen at once, and answered as the full log would be."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from rules_engine.clock import to_micros
from rules_engine.errors import DataError, StoreDataError, StoreUnavailableError, UnknownNameError
from rules_engine.events.state.requirements import requirements_of
from rules_engine.events.streams import decode_raw, partition_of, stream_key
from rules_engine.folders import Project
from rules_engine.read_plan import Connection, PlanFeature, PlanView, ReadPlan
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.redis.store_mark import mark_key
from rules_engine.rules.changes import changes_at
from rules_engine.rules.inputs import Event, Inputs, in_order
from rules_engine.sdk import AsyncSegmentClient, SegmentClient, event_rules
from rules_engine.sdk.rules import Rules
from rules_engine.stream.worker import Worker
from tests.event_shop import NOW, SEGMENTS, checked, instants, members, random_raw, shop_plan
from tests.stores import put_into_effect


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "segments").mkdir()
    return Project(tmp_path)


@pytest.fixture
def shop(project: Project, store: EmbeddedStore) -> Iterator[SegmentClient]:
    put_into_effect(shop_plan(Connection("redis", store.connection_string)), project)
    with SegmentClient(project) as client:
        yield client


def send(client: SegmentClient, entity: str, raw: dict[str, Any]) -> str:
    at = datetime.fromisoformat(raw["at"])
    return client.track(entity, raw["event"], raw["properties"], at=at, event_id=raw["event_id"])


def test_a_lookup_sees_what_was_tracked_before(shop: SegmentClient) -> None:
    for number in range(3):
        assert "keen" not in shop.lookup("u")
        shop.track("u", "view", {"page": "a"}, at=NOW - timedelta(minutes=number))
    assert {"keen", "ended_on_a"} <= shop.lookup("u").segments
    assert not shop.is_member("u", "idle")
    assert shop.is_member("other", "idle")
    assert "3" in str(shop.explain("u", "keen"))


BUSY = """\
segment: busy
when: {did: view, within: 1d, count: {at_least: 2105}}
---
segment: quiet
when: {not_in_segment: busy}
---
segment: spent_much
when: {sum: {event: cart, of: value}, within: 1d, at_least: 2103}
---
segment: seen
when: {did: view, within: 1d, count: {at_least: 900}}
"""


def track_much(client: SegmentClient) -> None:
    for number in range(2_110):
        at = NOW - timedelta(seconds=2_110 - number)
        client.track("u", "view", {"page": "a"}, at=at, event_id=f"v{number}")
        client.track("u", "cart", {"value": 1}, at=at, event_id=f"c{number}")


@pytest.mark.slow
def test_thousands_of_events_are_counted(project: Project, store: EmbeddedStore) -> None:
    put_into_effect(shop_plan(Connection("redis", store.connection_string), BUSY), project)
    with SegmentClient(project) as client:
        track_much(client)
        for _ in range(2):  # before a worker has seen them, and afterwards
            found = client.lookup("u")
            assert found.segments == {"busy", "spent_much", "seen"}
            assert not found.undecided
            assert "is 2110" in str(client.explain("u", "spent_much"))
            Worker(project).run(once=True)
            assert found.changes_at == NOW + timedelta(days=1, seconds=-2_105)
        assert client.lookup("u", at=found.changes_at).segments == {"quiet", "spent_much", "seen"}


@pytest.mark.slow
def test_more_events_than_are_kept_leave_answers_unknown_and_say_so(
    project: Project, store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_rules, "requirements_of", partial(requirements_of, bound=1_000))
    put_into_effect(shop_plan(Connection("redis", store.connection_string), BUSY), project)
    with SegmentClient(project) as client:
        track_much(client)
        Worker(project).run(once=True)
        found = client.lookup("u")
        assert found.segments == {"seen"}
        assert found.undecided == {"busy", "quiet", "spent_much"}
        assert found.to_dict()["undecided"] == ["busy", "quiet", "spent_much"]
        shown = str(client.explain("u", "busy"))
        assert "unknown" in shown
        assert "is at least 1" in shown
        assert "more than 1,000 events came, and the oldest of them are not kept" in shown
        assert client.lookup("other").undecided == frozenset()
        known_from = client.lookup("u", segments=["spent_much"]).changes_at
        assert known_from is None  # what is kept goes out of the window after what was dropped: it stays below
        later = client.lookup("u", segments=["quiet"]).changes_at
        assert later is not None
        assert client.lookup("u", segments=["quiet"], at=later).segments == {"quiet"}
        assert not client.lookup("u", segments=["quiet"], at=later).undecided


def test_a_pending_absence_comes_true_when_changes_at_says(shop: SegmentClient) -> None:
    shop.track("u", "cart", {"sku": "x"}, at=NOW)
    found = shop.lookup("u", segments=["abandoned"])
    assert not found.segments
    assert found.changes_at == NOW + timedelta(minutes=30)
    assert shop.is_member("u", "abandoned", at=NOW + timedelta(minutes=30))
    shop.track("u", "purchase", {"sku": "x", "order": "1"}, at=NOW + timedelta(minutes=29))
    assert not shop.is_member("u", "abandoned", at=NOW + timedelta(minutes=30))


def test_features_of_events_are_read_with_the_others(shop: SegmentClient) -> None:
    assert shop.features("u") == {
        "events:views_1h": 0, "events:longest_view_1d": None, "events:last_page_1d": None, "events:cart_value": 0,
    }  # fmt: skip
    shop.track("u", "view", {"page": "b", "seconds": 5}, at=NOW - timedelta(hours=2))
    shop.track("u", "cart", {"value": 0.1})
    assert shop.features("u", ["events:last_page_1d", "events:cart_value"]) == {
        "events:last_page_1d": "b",
        "events:cart_value": 0.1,
    }
    with pytest.raises(UnknownNameError):
        shop.features("u", ["events:nothing"])


@pytest.mark.parametrize("seed", range(6))
def test_lookups_answer_as_the_plain_evaluator_over_the_full_log(
    shop: SegmentClient, project: Project, seed: int
) -> None:
    entropy = random.Random(seed)
    rules = Rules(ReadPlan.load(project.read_plan))
    logs = {f"u{number}": random_raw(entropy, entropy.randint(1, 25)) for number in range(6)}
    with ThreadPoolExecutor(4) as threads:  # the same entity's events come from several threads at once
        pairs = [(entity, raw) for entity, log in logs.items() for raw in log]
        entropy.shuffle(pairs)
        list(threads.map(lambda pair: send(shop, *pair), pairs))
    seen = set()
    for at in instants():
        for found in shop.lookup_many(list(logs), at=at):
            log, now = checked(logs[found.entity]), to_micros(at)
            assert found.segments == members(rules, log, now), (found.entity, at)
            seen |= found.segments
            change = found.changes_at
            assert (None if change is None else to_micros(change)) == next_change(rules, log, now)
    assert len(seen) >= 4  # something happens


def next_change(rules: Rules, log: list[Event], now: int) -> int | None:
    """When the plain evaluator first finds another set of segments over the full log."""
    inputs = Inputs(events=in_order(log))
    conditions = [rules.program.segment(name).when for name in rules.program.names]
    at: int | None = now
    while at is not None and members(rules, log, at) == members(rules, log, now):
        changes = [changes_at(rules.program, condition, inputs, at) for condition in conditions]
        at = min((change for change in changes if change is not None), default=None)
    return at


def test_an_event_sent_twice_counts_once(shop: SegmentClient) -> None:
    identity = shop.track("u", "cart", {"value": 60})
    assert shop.track("u", "cart", {"value": 60}, event_id=identity) == identity
    assert shop.features("u", ["events:cart_value"]) == {"events:cart_value": 60}


@pytest.mark.parametrize(
    ("event", "properties", "message"),
    [
        ("veiw", {}, "unknown-event.*view"),
        ("cart", {"value": -1}, "invalid-property: `value`"),
        ("cart", {"value": "60"}, "invalid-property: `value`"),
        ("purchase", {"order": "1"}, "missing-property: `sku`"),
        ("view", {"x": object()}, "x|JSON"),
        ("view", [], "invalid-event|properties"),
    ],
)
def test_an_event_that_is_not_as_declared_is_refused_and_changes_nothing(
    shop: SegmentClient, client: redis.Redis, event: str, properties: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        shop.track("u", event, properties)
    assert client.keys() == [mark_key("shop")], "nothing but what says what the store holds"


def test_an_event_far_in_the_future_and_one_without_an_entity_are_refused(shop: SegmentClient) -> None:
    with pytest.raises(DataError, match="future-instant"):
        shop.track("u", "view", at=max(NOW, datetime.now(UTC)) + timedelta(days=2))
    with pytest.raises(DataError, match="empty"):
        shop.track("", "view")
    with pytest.raises(DataError, match="offset"):
        shop.track("u", "view", at=datetime(2026, 3, 1))  # noqa: DTZ001


def test_what_is_tracked_waits_in_the_stream_for_the_log(shop: SegmentClient, client: redis.Redis) -> None:
    identity = shop.track("u", "purchase", {"sku": "x", "order": "1", "due": NOW})
    ((_, fields),) = client.xrange(stream_key("shop", partition_of("u")))
    assert decode_raw(fields[b"event"]) == {
        "entity": "u",
        "event": "purchase",
        "at": "2026-03-01T00:00:00Z",
        "event_id": identity,
        "properties": {"sku": "x", "order": "1", "due": "2026-03-01T00:00:00Z"},
    }


def test_features_and_state_come_in_one_round_trip(project: Project, store: EmbeddedStore, client: redis.Redis) -> None:
    plan = shop_plan(Connection("redis", store.connection_string))
    view = PlanView("user", "user", (PlanFeature("age", "Int64", 7),))
    put_into_effect(ReadPlan(**{**vars(plan), "views": (view,)}), project)
    with SegmentClient(project) as shop, client.monitor() as monitor:
        shop.track("u", "view", {"page": "a"})
        shop.features("u", ["user:age", "events:views_1h"])  # the first request looks at the server as well
        shop.features("u", ["user:age", "events:views_1h"])
        client.ping()
        commands = []
        for command in monitor.listen():
            if command["command"] == "PING":
                break
            if command["client_type"] != "lua":
                commands.append(command["command"].split(" ")[0])
    commands = [name for name in commands if name != "CLIENT"]  # a new connection introduces itself
    assert commands[-3:] == ["HMGET", "EVAL", "HMGET"], "the features, the state, and whether the store holds them"


def test_the_asynchronous_client_tracks_and_sees(shop: SegmentClient, project: Project) -> None:
    async def use() -> tuple[bool, dict[str, Any], int]:
        async with AsyncSegmentClient(project) as other:
            for _ in range(3):
                await other.track("u", "view", {"page": "a"}, at=NOW)
            many = await other.lookup_many(["u", "v"], segments=["keen"])
            return (
                await other.is_member("u", "keen"),
                await other.features("u", ["events:views_1h"]),
                sum("keen" in one for one in many),
            )

    assert asyncio.run(use()) == (True, {"events:views_1h": 3}, 1)
    assert shop.is_member("u", "keen")


def test_an_instant_before_what_is_kept_is_refused(shop: SegmentClient, project: Project) -> None:
    shop.track("u", "view", at=NOW)
    assert shop.is_member("u", "idle", at=NOW - timedelta(hours=1))  # nothing is gone yet
    for _ in range(10):
        shop.track("u", "view", at=NOW)
    assert shop.is_member("u", "idle", at=NOW - timedelta(hours=1))  # what waits is put in as it is
    Worker(project).run(once=True)
    with pytest.raises(DataError, match="answers from"):
        shop.lookup("u", at=NOW - timedelta(hours=1))


def test_new_definitions_read_a_state_of_their_own(shop: SegmentClient, project: Project, store: EmbeddedStore) -> None:
    shop.track("u", "view", {"page": "a"}, at=NOW)
    other = SEGMENTS + "---\nsegment: viewed\nwhen: {did: view, within: 20d}\n"
    put_into_effect(shop_plan(Connection("redis", store.connection_string), other), project)
    with SegmentClient(project) as fresh:
        assert not fresh.is_member("u", "viewed")  # nothing was backfilled here
        fresh.track("u", "view", {"page": "a"}, at=NOW)
        assert fresh.is_member("u", "viewed")
    assert shop.lookup("u", at=NOW).segments is not None


def test_a_damaged_state_is_an_error_of_the_store(shop: SegmentClient, client: redis.Redis) -> None:
    shop.track("u", "view", at=NOW)
    (key,) = [name for name in client.scan_iter() if name.startswith(b"{")]
    client.append(key, b"x")
    with pytest.raises(StoreDataError, match="damaged"):
        shop.lookup("u")


def test_a_store_that_is_down_is_an_error_and_a_closed_client_says_so(project: Project) -> None:
    shop_plan(Connection("redis", "127.0.0.1:1")).save(project.read_plan)
    client = SegmentClient(project)
    with pytest.raises(StoreUnavailableError):
        client.track("u", "view")
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.track("u", "view")


def test_the_embedded_store_is_started_for_an_event(make_store: Callable[..., EmbeddedStore], project: Project) -> None:
    server = make_store(project.root)
    put_into_effect(shop_plan(Connection("embedded")), project)
    with SegmentClient(project) as client:
        client.track("u", "view", at=NOW)
        server.stop()
        client.track("u", "view", at=NOW)
        assert client.features("u", ["events:views_1h"])["events:views_1h"] in (1, 2)
