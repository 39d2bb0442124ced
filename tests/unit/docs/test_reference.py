"""The brute-force reference against answers worked out by hand."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.reference import Truth, reference_changes_at, reference_evaluate

NOW = datetime(2024, 1, 1, 12, tzinfo=UTC)
TICK = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)
TRUTHS: tuple[Truth, ...] = (True, False, None)
LEAVES: dict[Truth, dict[str, Any]] = {
    True: {"feature": "u:one", "equals": 1},
    False: {"feature": "u:one", "equals": 2},
    None: {"feature": "u:none", "equals": 1},
}


def at(seconds: float, event: str = "x", **properties: Any) -> dict[str, Any]:
    """Return an event that many seconds before now."""
    return {"event": event, "at": NOW - timedelta(seconds=seconds), **properties}


def answer(condition: dict[str, Any], **given: Any) -> Truth:
    return reference_evaluate(condition, now=NOW, **given)


def changes(condition: dict[str, Any], **given: Any) -> datetime | None:
    return reference_changes_at(condition, now=NOW, **given)


@pytest.mark.parametrize("left", TRUTHS)
@pytest.mark.parametrize("right", TRUTHS)
def test_groups_follow_kleene(left: Truth, right: Truth) -> None:
    children = [LEAVES[left], LEAVES[right]]
    rank = {False: 0, None: 1, True: 2}
    low, high = sorted((left, right), key=lambda truth: rank[truth])
    opposite = {True: False, False: True, None: None}
    assert answer({"all": children}, features={"u:one": 1}) is low
    assert answer({"any": children}, features={"u:one": 1}) is high
    assert answer({"none": children}, features={"u:one": 1}) is opposite[high]
    assert answer({"not": children[0]}, features={"u:one": 1}) is opposite[left]


@pytest.mark.parametrize(
    ("spec", "value", "expected"),
    [
        ({"equals": 5}, 5.0, True),
        ({"equals": 5}, "5", None),
        ({"equals": 1}, True, None),
        ({"equals": 2**53 + 1}, float(2**53), False),
        ({"at_least": 0}, -0.0, True),
        ({"greater_than": 3}, float("nan"), None),
        ({"greater_than": 3}, float("inf"), True),
        ({"greater_than": 3, "or_missing": True}, None, True),
        ({"greater_than": 3, "or_missing": True}, 3, False),
        ({"exists": True}, float("nan"), False),
        ({"exists": False}, None, True),
        ({"not_in": [1, 2]}, None, None),
        ({"between": [1, 2]}, 2, True),
        ({"equals": "IST", "ignore_case": True}, "\u0130st", True),
        ({"equals": "οδοσ", "ignore_case": True}, "ΟΔΟΣ", True),
        ({"equals": "ss", "ignore_case": True}, "ß", False),
        ({"matches": "a$"}, "a\n", False),
        ({"matches": r"^\s$"}, "\v", False),
        ({"matches": r"^\D[A-C]$", "ignore_case": True}, "xB", True),
        ({"matches": r"[$]"}, "a$b", True),
        ({"includes": 2}, [1, None, 2.0], True),
        ({"includes_none": ["a"]}, [], True),
        ({"includes_all": ["a", "b"]}, ["b"], False),
        ({"includes_any": ["a"]}, None, None),
    ],
)
def test_predicates(spec: dict[str, Any], value: Any, expected: Truth) -> None:
    assert answer({"context": "value", **spec}, context={"value": value}) is expected


def test_windows_exclude_their_start_and_include_now() -> None:
    seen = {"did": "x", "within": "10s"}
    assert answer(seen, events=[at(10)]) is False
    assert answer(seen, events=[at(10 - 1e-6)]) is True
    assert answer(seen, events=[at(0)]) is True
    assert answer(seen, events=[at(-1e-6)]) is False
    assert changes(seen, events=[at(4), at(9)]) == NOW + 6 * SECOND
    assert changes(seen, events=[at(-3)]) == NOW + 3 * SECOND
    assert changes({"did_not": "x", "within": "ever"}, events=[at(1)]) is None


def test_redelivery_counts_once_and_the_first_stored_wins() -> None:
    log = [at(5, event_id="a", n=1), at(3, event_id="a", n=2), at(2, event_id="b", n=4)]
    assert answer({"sum": {"event": "x", "of": "n"}, "within": "1m", "equals": 5}, events=log) is True


def test_aggregates_skip_what_is_no_number() -> None:
    log = [at(4, n=0.1), at(3, n=0.2), at(2, n=0.3), at(1, n="9"), at(1, n=True), at(1, n=float("nan")), at(1)]
    assert answer({"sum": {"event": "x", "of": "n"}, "within": "1m", "equals": 0.6}, events=log) is True
    assert answer({"max": {"event": "x", "of": "n"}, "within": "1m", "equals": 0.3}, events=log) is True
    assert answer({"min": {"event": "x", "of": "n"}, "within": "1s", "equals": 0.3}, events=log) is None
    assert answer({"distinct": {"event": "x", "of": "n"}, "within": "1m", "equals": 5}, events=log) is True
    assert answer({"last": {"event": "x", "of": "n"}, "within": "1m", "exists": True}, events=log) is False


def test_a_trailing_absence_completes_to_the_microsecond() -> None:
    left = {"sequence": [{"did": "x"}, {"did_not": "y", "within": "10s"}], "within": "1m"}
    log = [at(10 - 1e-6)]
    assert answer(left, events=log) is False
    assert changes(left, events=log) == NOW + TICK
    assert answer(left, events=[at(10)]) is True
    assert changes(left, events=[at(10)]) == NOW + 50 * SECOND
    assert answer(left, events=[at(10), at(0, "y")]) is False
    assert answer(left, events=[at(10), at(10, "y")]) is False
    assert answer(left, events=[at(10), at(11, "y")]) is True


def test_anchor_latest_judges_the_latest_first_step_only() -> None:
    steps = [{"did": "x"}, {"did_not": "y", "within": "10s"}]
    log = [at(30), at(5)]
    assert answer({"sequence": steps}, events=log) is False
    assert answer({"sequence": steps, "anchor": "any"}, events=log) is True
    assert changes({"sequence": steps}, events=log) == NOW + 5 * SECOND


def test_chains_are_existential_and_each_event_takes_one_step() -> None:
    steps = [{"did": "x"}, {"did": "y", "within": "5s"}, {"did_not": "z"}, {"did": "x"}]
    assert answer({"sequence": steps}, events=[at(9), at(4, "y"), at(2)]) is True
    assert answer({"sequence": steps}, events=[at(9), at(4, "y"), at(3, "z"), at(2)]) is False
    assert answer({"sequence": steps}, events=[at(9), at(4, "y"), at(2, "z"), at(2)]) is False
    assert answer({"sequence": steps}, events=[at(9), at(3, "y"), at(2)]) is False
    assert answer({"sequence": [{"did": "x"}, {"did": "x"}]}, events=[at(1), at(1)]) is True
    assert answer({"sequence": [{"did": "x"}, {"did": "x"}]}, events=[at(1)]) is False


def test_match_on_holds_for_forbidden_events_too() -> None:
    steps = [{"did": "x"}, {"did_not": "z"}, {"did": "y"}]
    log = [at(9, sku=1), at(5, "z", sku=2), at(4, "z"), at(3, "y", sku=1.0)]
    assert answer({"sequence": steps, "match_on": "sku"}, events=log) is True
    assert answer({"sequence": steps}, events=log) is False
    assert answer({"sequence": steps, "match_on": "sku"}, events=[at(9), at(3, "y")]) is False


def test_ttl_expires_one_microsecond_after_its_age() -> None:
    old = {"features": {"u:n": 1}, "updated_at": {"u": NOW - SECOND}, "ttl": {"u": "1s"}}
    assert answer({"feature": "u:n", "equals": 1}, **old) is True
    assert changes({"feature": "u:n", "equals": 1}, **old) == NOW + TICK


def test_clocks_follow_daylight_saving() -> None:
    late = {"clock": "time_of_day", "at_least": "02:30", "timezone": "Europe/Berlin"}
    before = datetime(2024, 10, 27, 0, 30, tzinfo=UTC)  # 02:30 for the first time
    assert reference_evaluate(late, now=before) is True
    assert reference_changes_at(late, now=before) == datetime(2024, 10, 27, 1, tzinfo=UTC)
    again = datetime(2024, 10, 27, 1, 30, tzinfo=UTC)
    assert reference_changes_at(late, now=again - SECOND) == again
    skipped = {"clock": "time_of_day", "between": ["02:10", "02:50"], "timezone": "Europe/Berlin"}
    march = datetime(2024, 3, 31, 0, 0, tzinfo=UTC)  # 01:00; 02:00 to 03:00 does not exist that day
    assert reference_changes_at(skipped, now=march) == datetime(2024, 4, 1, 0, 10, tzinfo=UTC)
    assert reference_evaluate({**late, "timezone": "Mars/Olympus"}, now=before) is None


def test_a_segment_that_no_clock_can_change_never_changes() -> None:
    never = {"all": [{"clock": "day_of_week", "equals": "monday"}, {"feature": "u:n", "equals": 1}]}
    assert reference_changes_at(never, now=NOW, features={"u:n": 2}) is None
    assert reference_changes_at(never, now=NOW, features={"u:n": 1}) == datetime(2024, 1, 2, tzinfo=UTC)


def test_no_change_is_missed_between_the_instants_that_are_tried() -> None:
    """A random walk over instants finds nothing that the tried instants did not."""
    chance = random.Random(7)
    steps = [
        {"did": "x"},
        {"did_not": "y", "within": "7s"},
        {"did": "x", "within": "20s"},
        {"did_not": "z", "within": "4s"},
    ]
    condition = {
        "any": [
            {"sequence": steps, "within": "30s", "anchor": "any"},
            {"all": [{"did": "y", "within": "3s", "count": {"equals": 2}}, {"feature": "u:t", "in_last": "11s"}]},
        ]
    }
    for _ in range(60):
        log = [at(chance.randint(-20, 30), chance.choice("xyz")) for _ in range(8)]
        given: dict[str, Any] = {"events": log, "features": {"u:t": NOW + chance.randint(-9, 9) * SECOND}}
        due = changes(condition, **given)
        now = answer(condition, **given)
        horizon = NOW + 70 * SECOND if due is None else due
        span = int((horizon - NOW) / TICK)
        for _ in range(40):
            instant = NOW + TICK * chance.randrange(span)
            assert reference_evaluate(condition, now=instant, **given) is now
        if due is not None:
            assert reference_evaluate(condition, now=due, **given) is not now
