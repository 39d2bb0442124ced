# ruff: noqa: E501 - the tables read better in rows
"""When an answer next changes by time alone: each source of change, their composition, and what bounds the search.

tests/property holds the exactness on random definitions; here every source is looked at by itself, with its edge.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rules_engine.clock import DAY, HOUR, LAST_INSTANT, from_micros
from rules_engine.rules.changes import CLOCK_HORIZON, candidates, first_change, reachable
from rules_engine.rules.evaluate import Evaluation
from rules_engine.testing import CONDITION, Scenario

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)  # a Monday

Given = dict[str, Any]


def minutes(number: float) -> timedelta:
    return timedelta(minutes=number)


def event(name: str, at: timedelta = timedelta(0), **properties: Any) -> Given:
    return {"event": name, "at": NOW + at, **properties}


def changes(condition: Mapping[str, Any] | str, now: datetime = NOW, **given: Any) -> list[timedelta]:
    """Every instant from now on at which the answer changes, as distances from now, at most eight of them.

    Each is looked at one microsecond before, where the answer has to be as it was, and at it, where it has to differ.
    """
    scenario = Scenario(condition, now=now, **given)
    found = []
    while len(found) < 8:
        change = scenario.changes_at()
        if change is None:
            return found
        before = answer(scenario, scenario.now)
        assert answer(scenario, change - 1) is before
        assert answer(scenario, change) is not before
        found.append(from_micros(change) - now)
        scenario.now = change
    return found


def answer(scenario: Scenario, at: int) -> bool | None:
    return Evaluation(scenario.program, scenario.inputs, at).segment(CONDITION)


MICROSECOND = timedelta(microseconds=1)

# --- each source ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "given", "expected"),
    [
        ("{feature: u:x, at_least: 5}", {"features": {"u:x": 7}}, []),
        ("{context: x, equals: 1}", {"context": {"x": 1}}, []),
        # an event leaves its window, one comes
        ("{did: a, within: 10m}", {"events": [event("a", -minutes(4))]}, [minutes(6)]),
        ("{did: a, within: 10m}", {"events": [event("a", -minutes(10))]}, []),
        ("{did: a, within: 10m}", {"events": [event("a", minutes(3))]}, [minutes(3), minutes(13)]),
        ("{did: a, within: ever}", {"events": [event("a", minutes(3))]}, [minutes(3)]),
        ("{did: a, within: 10m}", {"events": [event("b", -minutes(4))]}, []),
        ("{did: a, within: 10m, where: {p: 1}}", {"events": [event("a", -minutes(4), p=2)]}, []),
        # events that overlap keep the answer; the last to leave changes it
        ("{did: a, within: 10m}", {"events": [event("a", -minutes(4)), event("a", minutes(6) - MICROSECOND)]}, [minutes(16) - MICROSECOND]),
        ("{did: a, within: 10m}", {"events": [event("a", -minutes(4)), event("a", minutes(6))]}, [minutes(16)]),
        (
            "{did: a, within: 10m}",
            {"events": [event("a", -minutes(4)), event("a", minutes(6) + MICROSECOND)]},
            [minutes(6), minutes(6) + MICROSECOND, minutes(16) + MICROSECOND],
        ),
        ("{did: a, within: 10m, count: {equals: 1}}", {"events": [event("a", -minutes(4)), event("a", -minutes(1))]}, [minutes(6), minutes(9)]),
        # aggregates
        ("{sum: {event: a, of: p}, within: 10m, at_least: 5}", {"events": [event("a", -minutes(9), p=-3), event("a", -minutes(5), p=6)]}, [minutes(1), minutes(5)]),
        ("{avg: {event: a, of: p}, within: 10m, at_least: 5}", {"events": [event("a", -minutes(9), p=3), event("a", -minutes(5), p=6)]}, [minutes(1), minutes(5)]),
        ("{last: {event: a, of: p}, within: 10m, equals: x}", {"events": [event("a", -minutes(9), p="x"), event("a", minutes(2), p="y")]}, [minutes(1), minutes(2), minutes(12)]),
        ("{first: {event: a, of: p}, within: 10m, equals: x}", {"events": [event("a", -minutes(9), p="y"), event("a", -minutes(2), p="x")]}, [minutes(1), minutes(8)]),
        # windows around a time
        ("{feature: u:t, in_last: 1h}", {"features": {"u:t": NOW - minutes(20)}}, [minutes(40)]),
        ("{feature: u:t, in_last: 1h}", {"features": {"u:t": NOW + minutes(20)}}, [minutes(20), minutes(80)]),
        ("{feature: u:t, not_in_last: 1h}", {"features": {"u:t": NOW + minutes(20)}}, [minutes(20), minutes(80)]),
        ("{feature: u:t, in_next: 1h}", {"features": {"u:t": NOW + minutes(90)}}, [minutes(30), minutes(90)]),
        ("{feature: u:t, in_next: 1h}", {"features": {"u:t": NOW}}, []),
        ("{context: t, in_next: 1h}", {"context": {"t": NOW + minutes(30)}}, [minutes(30)]),
        ("{feature: u:t, before: 2026-03-02T13:00:00Z}", {"features": {"u:t": NOW}}, []),
        # a ttl
        ("{feature: u:x, equals: 1}", {"features": {"u:x": 1}, "updated_at": {"u": NOW - minutes(50)}, "ttl": {"u": "1h"}}, [minutes(10) + MICROSECOND]),
        ("{feature: u:x, equals: 1}", {"features": {"u:x": 1}, "updated_at": {"u": NOW - minutes(70)}, "ttl": {"u": "1h"}}, []),
        ("{feature: u:x, equals: 1}", {"features": {"u:x": 2}, "updated_at": {"u": NOW}, "ttl": {"u": "1h"}}, [minutes(60) + MICROSECOND]),
        ("{feature: u:x, exists: false}", {"features": {"u:x": 2}, "updated_at": {"u": NOW}, "ttl": {"u": "1h"}}, [minutes(60) + MICROSECOND]),
        ("{feature: u:x, equals: 1, or_missing: true}", {"features": {"u:x": 1}, "updated_at": {"u": NOW}, "ttl": {"u": "1h"}}, []),
        ("{feature: u:t, in_last: 1h}", {"features": {"u:t": NOW}, "updated_at": {"u": NOW}, "ttl": {"u": "30m"}}, [minutes(30) + MICROSECOND]),
        # sequences
        ("sequence: [{did: a}, {did_not: b, within: 30m}]", {"events": [event("a", -minutes(5))]}, [minutes(25)]),
        ("{sequence: [{did: a}, {did_not: b, within: 30m}], within: 1h}", {"events": [event("a", -minutes(5))]}, [minutes(25), minutes(55)]),
        ("{sequence: [{did: a}, {did_not: b, within: 30m}], within: 1h}", {"events": [event("a", -minutes(5)), event("b", minutes(25))]}, []),
        ("{sequence: [{did: a}, {did_not: b, within: 30m}], within: 1h}", {"events": [event("a", -minutes(5)), event("b", minutes(25) + MICROSECOND)]}, [minutes(25), minutes(55)]),
        ("{sequence: [{did: a}, {did: b, within: 30m}], within: 1h}", {"events": [event("a", -minutes(5)), event("b", minutes(25))]}, [minutes(25), minutes(55)]),
        ("{sequence: [{did: a}, {did: b, within: 30m}], within: 1h}", {"events": [event("a", -minutes(5)), event("b", minutes(26))]}, []),
        ("{sequence: [{did: a}, {did: b}], within: 1h}", {"events": [event("a", -minutes(60)), event("b", -minutes(1))]}, []),
        ("sequence: [{did: a}, {did_not: b, within: 30m}, {did_not: c, within: 45m}]", {"events": [event("a")]}, [minutes(75)]),
        # a new first step opens the sequence again
        ("sequence: [{did: a}, {did_not: b, within: 30m}]", {"events": [event("a", -minutes(40)), event("a", minutes(10))]}, [minutes(10), minutes(40)]),
        # the clock
        ("{clock: time_of_day, at_least: '13:00'}", {}, [minutes(60), minutes(720), minutes(60 + 1440), minutes(720 + 1440), minutes(60 + 2880), minutes(720 + 2880), minutes(60 + 4320), minutes(720 + 4320)]),
        ("{clock: time_of_day, greater_than: '12:00'}", {}, [MICROSECOND, minutes(720), minutes(1440) + MICROSECOND, minutes(720 + 1440), minutes(2880) + MICROSECOND, minutes(720 + 2880), minutes(4320) + MICROSECOND, minutes(720 + 4320)]),
        ("{clock: time_of_day, equals: '12:30:00'}", {}, [minutes(30), minutes(30) + MICROSECOND] + [minutes(30) + timedelta(days=d) + e for d in (1, 2, 3) for e in (timedelta(0), MICROSECOND)]),
        ("{clock: day_of_week, equals: tuesday, timezone: Asia/Tokyo}", {}, [minutes(180), minutes(180 + 1440)] + [timedelta(days=7 * w, minutes=180 + m) for w in (1, 2, 3) for m in (0, 1440)]),
        ("{clock: time_of_day, at_least: '00:00'}", {}, []),
        ("{clock: time_of_day, less_than: '13:00', timezone: {feature: u:zone}}", {"features": {"u:zone": "Mars/Olympus"}}, []),
        (
            "{clock: time_of_day, less_than: '13:00', timezone: {feature: u:zone}}",
            {"features": {"u:zone": "UTC"}, "updated_at": {"u": NOW}, "ttl": {"u": "30m"}},
            [minutes(30) + MICROSECOND],
        ),
    ],
)  # fmt: skip
def test_each_source_of_change(condition: str, given: Given, expected: list[timedelta]) -> None:
    assert changes(condition, **given) == expected


# --- daylight saving ------------------------------------------------------------------------------------------------

NINE_TO_FIVE = "{clock: time_of_day, between: ['09:00', '17:00'], timezone: Europe/Oslo}"


def instants(condition: str, now: str, **given: Any) -> list[str]:
    start = datetime.fromisoformat(now)
    found = [start + change for change in changes(condition, start, **given)]
    return [at.strftime("%m-%d %H:%M") + ("+" if at.microsecond else "") for at in found]


def test_opening_hours_follow_the_clocks() -> None:
    """Clocks in Oslo go forward on 29 March at 01:00 UTC; `between` includes 17:00 sharp, not a microsecond more."""
    assert instants(NINE_TO_FIVE, "2026-03-27T12:00:00Z") == [
        "03-27 16:00+",
        "03-28 08:00",
        "03-28 16:00+",
        "03-29 07:00",
        "03-29 15:00+",
        "03-30 07:00",
        "03-30 15:00+",
        "03-31 07:00",
    ]


def test_a_time_of_day_that_does_not_occur_and_one_that_occurs_twice() -> None:
    half_past_two = "{clock: time_of_day, between: ['02:30', '02:45'], timezone: Europe/Oslo}"
    assert instants(half_past_two, "2026-03-28T12:00:00Z")[:2] == ["03-30 00:30", "03-30 00:45+"]
    assert instants(half_past_two, "2026-10-24T12:00:00Z")[:6] == [
        "10-25 00:30",
        "10-25 00:45+",
        "10-25 01:30",
        "10-25 01:45+",
        "10-26 01:30",
        "10-26 01:45+",
    ]


def test_the_shift_itself_changes_an_answer() -> None:
    """At 02:00 the clocks show 03:00: "before three" ends an hour early, and "from three on" begins."""
    early = "{clock: time_of_day, less_than: '03:00', timezone: Europe/Oslo}"
    assert instants(early, "2026-03-28T23:30:00Z")[0] == "03-29 01:00"
    assert instants(early, "2026-10-25T00:30:00Z")[0] == "10-25 02:00"


def test_a_combination_of_clocks_that_comes_once_a_year() -> None:
    """Nine in New York is two in Oslo only in the weeks in which one of them has not yet changed its clocks."""
    condition = """
    all:
      - {clock: time_of_day, between: ['09:00', '09:00'], timezone: America/New_York}
      - {clock: time_of_day, between: ['14:00', '14:00'], timezone: Europe/Oslo}
    """
    assert instants(condition, "2026-04-15T00:00:00Z")[:2] == ["10-25 13:00", "10-25 13:00+"]
    assert instants(condition, "2026-03-02T00:00:00Z")[0] == "03-08 13:00"


# --- composition ----------------------------------------------------------------------------------------------------

LONG, SHORT = "{did: a, within: 1h}", "{did: b, within: 10m}"
BOTH = {"events": [event("a"), event("b")]}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (f"all: [{LONG}, {SHORT}]", [minutes(10)]),
        (f"any: [{LONG}, {SHORT}]", [minutes(60)]),
        (f"none: [{LONG}, {SHORT}]", [minutes(60)]),
        (f"not: {{all: [{LONG}, {SHORT}]}}", [minutes(10)]),
        (f"all: [{LONG}, {{not: {SHORT}}}]", [minutes(10), minutes(60)]),
        (f"all: [{LONG}, {SHORT}, {{feature: u:x, equals: 1}}]", []),
        (f"any: [{LONG}, {SHORT}, {{feature: u:x, equals: 2}}]", []),
        (f"any: [{LONG}, {{feature: u:y, equals: 2}}]", [minutes(60)]),
        (f"all: [{LONG}, {{feature: u:y, equals: 2}}]", [minutes(60)]),
        ("all: [{in_segment: recent}, {not_in_segment: now}]", [minutes(10), minutes(60)]),
        ("all: [{in_segment: twice_removed}, {did: b, within: 30m}]", [minutes(30)]),
    ],
)
def test_groups_and_references(condition: str, expected: list[timedelta]) -> None:
    segments = {"recent": LONG, "now": SHORT, "twice_removed": "in_segment: recent"}
    assert changes(condition, features={"u:x": 2}, segments=segments, **BOTH) == expected


def test_a_part_that_decides_hides_the_clock() -> None:
    condition = f"all: [{NINE_TO_FIVE}, {{feature: u:x, equals: 1}}]"
    assert changes(condition, features={"u:x": 2}) == []
    assert changes(condition, features={"u:x": 1}) != []


def test_what_is_reachable_goes_through_segments_once() -> None:
    scenario = Scenario("all: [{in_segment: a}, {in_segment: a}]", now=NOW, segments={"a": LONG})
    names = [type(node).__name__ for node in reachable(scenario.program, [scenario.program.segment(CONDITION).when])]
    assert sorted(names) == ["AllOf", "Predicate", "SegmentRef", "SegmentRef"]


def test_candidates_lie_after_now() -> None:
    scenario = Scenario(f"any: [{LONG}, {SHORT}]", now=NOW, **BOTH)
    conditions = reachable(scenario.program, [scenario.program.segment(CONDITION).when])
    assert candidates(conditions, scenario.inputs, scenario.now) == {scenario.now + HOUR, scenario.now + HOUR // 6}
    assert candidates(conditions, scenario.inputs, scenario.now + HOUR) == set()


# --- the search -----------------------------------------------------------------------------------------------------


def every(step: int) -> Any:
    """Clocks that cross a bound at each multiple of a step."""

    def clocks(after: int, until: int) -> Iterator[int]:
        yield from range(after - after % step + step, until + 1, step)

    return clocks


def test_the_first_of_the_given_instants() -> None:
    assert first_change(lambda at: at >= 30, [40, 20, 30, 20], now=5) == 30
    assert first_change(lambda at: at >= 50, [40, 20, 30], now=5) is None
    assert first_change(lambda _: True, [], now=5) is None


def test_clocks_are_followed_between_and_behind_the_instants() -> None:
    asked: list[int] = []

    def answer_at(at: int) -> bool:
        asked.append(at)
        return at >= 25

    assert first_change(answer_at, [12, 28], now=5, clocks=every(10)) == 30 - 2
    assert asked == [5, 10, 12, 20, 28]
    assert first_change(lambda at: at >= 45, [12], now=5, clocks=every(10)) == 50


def test_clocks_are_not_followed_where_they_decide_nothing() -> None:
    asked: list[int] = []
    first_change(asked.append, [12, 28], now=5, clocks=every(10), may_change=lambda after: after == 12)
    assert asked == [5, 12, 20, 28]


def test_the_search_ends() -> None:
    asked = 0

    def never(_at: int) -> bool:
        nonlocal asked
        asked += 1
        return False

    assert first_change(never, [], now=0, clocks=every(DAY)) is None
    assert asked == 1 + CLOCK_HORIZON // DAY


def test_a_date_that_means_never_takes_no_time() -> None:
    started = time.process_time()
    for year in (2099, 9999):
        given = {"features": {"u:t": datetime(year, 12, 31, tzinfo=UTC), "u:x": 2}}
        assert changes("all: [{clock: time_of_day, at_least: '09:00'}, {feature: u:x, equals: 1}]", **given) == []
        condition = "all: [{clock: time_of_day, at_least: '09:00'}, {feature: u:t, in_last: 30d}]"
        found = changes(condition, **given)
        assert found[:1] == ([datetime(2099, 12, 31, 9, tzinfo=UTC) - NOW] if year == 2099 else [])
    assert time.process_time() - started < 2


def test_what_lies_behind_the_calendar_never_comes() -> None:
    assert from_micros(LAST_INSTANT) == datetime(9999, 12, 1, tzinfo=UTC)
    assert changes("{feature: u:t, in_last: 30d}", features={"u:t": datetime(9999, 12, 31, tzinfo=UTC)}) == []
    assert changes("{did: a, within: 999999999w}", events=[event("a")]) == []
    assert changes("{feature: u:t, in_next: 1d}", features={"u:t": datetime(9999, 12, 2, tzinfo=UTC)}) == [
        datetime(9999, 12, 1, tzinfo=UTC) - NOW
    ]


def test_many_events_take_time_in_their_number() -> None:
    """A funnel over one user's click stream: the ways to choose its events are many, the time is not."""
    events = [event("view", -minutes(number)) for number in range(400)]
    condition = "sequence: [{did: view}, {did: view}, {did: view}, {did: view}, {did: view}, {did: buy, within: 1m}]"
    started = time.process_time()
    assert Scenario(condition, events=events, now=NOW).truth() is False
    assert time.process_time() - started < 1
