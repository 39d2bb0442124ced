"""Many reports at once: what is good counts, what is not is set aside with its reason, nothing is half done."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from rules_engine.clock import to_micros
from rules_engine.errors import StoreUnavailableError
from rules_engine.events import streams
from rules_engine.events.declarations.validation import Rejection
from rules_engine.events.refused import Refused
from rules_engine.events.streams import refused_key, stream_keys
from rules_engine.folders import Project
from rules_engine.read_plan import Connection, PlanFeature, PlanView, ReadPlan
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.redis.feast_layout import field_number
from rules_engine.sdk import SegmentClient
from rules_engine.sdk import tracking as sdk_tracking
from rules_engine.sdk.rules import Rules
from rules_engine.sdk.tracking import Report, Tracker
from rules_engine.stream.event_sink import EventSink
from rules_engine.stream.refused import refused_events, replay_refused
from tests.event_shop import EVENTS, NOW, shop_plan
from tests.stores import put_into_effect

AT = to_micros(NOW)

SEGMENTS = """\
segment: keen
when: {did: view, within: 1h, count: {at_least: 2}}
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "segments").mkdir()
    return Project(tmp_path)


@pytest.fixture
def plan(store: EmbeddedStore, project: Project) -> ReadPlan:
    types = {"plan": "String", "age": "Int64", "tags": "Array(String)"}
    features = tuple(PlanFeature(name, kind, field_number("profile", name)) for name, kind in types.items())
    plan = shop_plan(Connection("redis", store.connection_string), SEGMENTS, events=EVENTS + "traits: profile\n")
    fields = vars(plan) | {"views": (PlanView("profile", "profile", features),)}
    plan = ReadPlan(**{name: value for name, value in fields.items() if name != "definitions_version"})
    put_into_effect(plan, project)
    return plan


@pytest.fixture
def tracker(plan: ReadPlan, project: Project) -> Iterator[Tracker]:
    tracker = Tracker(Rules(plan), project.root, None)
    yield tracker
    tracker.close()


def report(number: int = 0, entity: object = "u", event: object = "view", **traits: Any) -> Report:
    return Report(entity, event, AT - number, f"e{number}", {"page": "a"}, traits or None)


def test_what_is_good_counts_and_what_is_not_is_set_aside(
    tracker: Tracker, project: Project, client: redis.Redis
) -> None:
    given = [
        report(1),
        report(2, event="veiw"),
        Refused(b"what", Rejection("invalid-event", "no object")),
        report(3),
        report(4, entity=""),
        Report("u", "view", AT + 2 * to_micros(NOW), "e5"),
    ]
    found = tracker.take(given, "segment")
    codes = [None if one is None else one.code for one in found]
    assert codes == [None, "unknown-event", "invalid-event", None, "missing-entity", "future-instant"]
    with SegmentClient(project) as asked:
        assert asked.lookup("u").segments == {"keen"}
    assert sum(client.xlen(key) for key in stream_keys("shop")) == 2
    sink = EventSink(project, tracker.rules)
    total, newest = refused_events(sink, 10)
    assert total == 4
    assert {one["source"] for one in newest} == {"segment"}
    sink.close()


def test_taken_twice_it_counts_once(tracker: Tracker, project: Project) -> None:
    for _ in range(3):
        assert tracker.take([report(1)], "segment") == [None]
    with SegmentClient(project) as asked:
        assert not asked.is_member("u", "keen")
        assert asked.features("u", ["events:views_1h"]) == {"events:views_1h": 1}


def test_what_was_refused_can_be_replayed_when_it_is_declared(tracker: Tracker, project: Project) -> None:
    tracker.take([report(1, event="veiw"), report(2, event="veiw")], "segment")
    events = EVENTS.replace("retention: 30d", "retention: 30d\n    aliases: [veiw]", 1)
    declared = shop_plan(tracker.rules.plan.connection, SEGMENTS, events=events)
    sink = EventSink(project, Rules(declared))
    assert replay_refused(sink) == (2, 0)
    sink.close()


def test_traits_are_features_at_once(tracker: Tracker, project: Project) -> None:
    assert tracker.take([report(9, event=None, plan="pro", age=41, tags=["a", "b"], unknown=1)], "segment") == [None]
    with SegmentClient(project) as asked:
        features = ["profile:plan", "profile:age", "profile:tags"]
        assert asked.features("u", features) == dict(zip(features, ["pro", 41, ["a", "b"]], strict=True))
        tracker.take([report(5, event=None, age=None)], "segment")
        assert asked.features("u", features) == {"profile:plan": "pro", "profile:age": None, "profile:tags": ["a", "b"]}
        tracker.take([report(7, event=None, plan="late")], "segment")
        assert asked.features("u", ["profile:plan"]) == {"profile:plan": "pro"}


def test_a_trait_of_the_wrong_type_keeps_the_whole_report_out(tracker: Tracker, project: Project) -> None:
    (found,) = tracker.take([report(1, plan="pro", age="41")], "segment")
    assert found == Rejection("invalid-trait", "`age`: '41' is not of the type Int64")
    with SegmentClient(project) as asked:
        assert asked.features("u", ["profile:plan", "events:views_1h"]) == {"profile:plan": None, "events:views_1h": 0}


def test_a_trait_of_tomorrow_does_not_keep_later_ones_out(tracker: Tracker, project: Project) -> None:
    ahead = int(timedelta(hours=20).total_seconds() * 1e6)
    received = tracker.rules.now(None)
    tracker.take([Report("u", None, max(received, AT) + ahead, "a", traits={"plan": "pro"})], "segment")
    tracker.take([Report("u", None, max(received, AT) + ahead, "b", traits={"plan": "free"})], "segment")
    with SegmentClient(project) as asked:
        assert asked.features("u", ["profile:plan"]) == {"profile:plan": "free"}


def test_nothing_is_taken_while_too_much_waits(
    tracker: Tracker, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker.take([report(1)], "segment")
    monkeypatch.setattr(sdk_tracking, "MAX_WAITING", streams.PARTITIONS)
    monkeypatch.setattr(sdk_tracking, "_LOOK_EVERY", 1)
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match="events wait to be logged"):
            tracker.take([report(2), report(3, event="other")], "segment")
    assert sum(client.xlen(key) for key in stream_keys("shop")) == 1
    assert client.xlen(refused_key("shop")) == 0
