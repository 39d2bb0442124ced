"""Windows that are no rolling duration, near changes of the clock, ends of months and leap days."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import event, given
from hypothesis import strategies as st

from rules_engine.clock import to_micros
from rules_engine.targets.sql import evaluate_duckdb
from rules_engine.testing import CONDITION, Scenario
from tests.property.test_sequences import in_steps
from tests.reference import reference_changes_at, reference_evaluate
from tests.state_target import change_through_state, truth_through_state

NOWS = (
    datetime(2024, 3, 31, 0, 59, 59, 999_999, tzinfo=UTC),
    datetime(2024, 10, 27, 1, tzinfo=UTC),
    datetime(2024, 2, 29, 23, 30, tzinfo=UTC),
    datetime(2024, 1, 1, tzinfo=UTC),
    datetime(2024, 5, 31, 22, tzinfo=UTC),
    datetime(2011, 12, 31, 12, tzinfo=UTC),
)
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Beirut",
    "Pacific/Apia",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
)
TICK = timedelta(microseconds=1)


@st.composite
def windows(draw: st.DrawFn, now: datetime) -> Any:
    form = draw(st.sampled_from(("ago", "fixed", "calendar", "calendar", "calendar")))
    if form == "ago":
        nearer, farther = draw(st.sampled_from((("1d", "2d"), ("7d", "30d"), ("1d", "ever"))))
        return {"between_ago": [nearer, farther]}
    if form == "fixed":
        days = draw(st.sampled_from((-30, -7, -1, 1)))
        bounds = {"from": now + timedelta(days=days), "to": now + timedelta(days=days + 3)}
        kept = draw(st.sampled_from((("from", "to"), ("from",), ("to",))))
        return {key: bounds[key].isoformat() for key in kept}
    unit = draw(st.sampled_from(("day", "day", "week", "month")))
    window = {"calendar": unit, "timezone": draw(st.sampled_from(ZONES)), "last": draw(st.sampled_from(("this", 1, 2)))}
    return {**window, "first_day": draw(st.sampled_from(("monday", "sunday")))} if unit == "week" else window


@st.composite
def conditions(draw: st.DrawFn, now: datetime) -> dict[str, Any]:
    within = draw(windows(now))
    return draw(
        st.sampled_from(
            [
                {"did": "a", "within": within},
                {"did_not": "a", "within": within},
                {"did": "a", "within": within, "count": {"equals": 2}},
                {"sum": {"event": "a", "of": "n"}, "within": within, "at_least": 2},
                {"min": {"event": "a", "of": "n"}, "within": within, "at_least": 1},
                {"last": {"event": "a", "of": "n"}, "within": within, "equals": 1},
                {"first": {"event": "a", "of": "n"}, "within": within, "equals": 1},
                {"distinct": {"event": "a", "of": "n"}, "within": within, "at_least": 2},
            ]
        )
    )


@st.composite
def logs(draw: st.DrawFn, now: datetime) -> list[dict[str, Any]]:
    zone = ZoneInfo(draw(st.sampled_from(ZONES)))
    local = now.astimezone(zone)
    days = st.sampled_from((-62, -32, -31, -30, -14, -8, -7, -3, -2, -1, 0, 1))
    instants = st.builds(
        lambda day, midnight, ticks: (
            (
                (datetime(local.year, local.month, local.day, tzinfo=zone) if midnight else local) + timedelta(days=day)
            ).astimezone(UTC)
            + ticks * TICK
        ),
        days,
        st.booleans(),
        st.sampled_from((-1, 0, 1)),
    )
    made = st.fixed_dictionaries({"event": st.just("a"), "at": instants, "n": st.sampled_from((0, 1, 2))})
    return draw(st.lists(made, min_size=1, max_size=4))


@given(st.data(), st.sampled_from(NOWS))
def test_every_target_is_the_reference(data: st.DataObject, now: datetime) -> None:
    condition, log = data.draw(conditions(now)), data.draw(logs(now))
    expected = reference_evaluate(condition, events=log, now=now)
    scenario = Scenario(condition, events=log, now=now)
    assert scenario.truth() is expected
    assert truth_through_state(scenario) is expected
    assert in_steps(scenario) is (expected is True)
    answers = evaluate_duckdb(scenario.program, [("someone", scenario.inputs)], to_micros(now))
    assert answers["someone"][CONDITION] is expected
    changes_at = reference_changes_at(condition, events=log, now=now)
    expected_change = None if changes_at is None else to_micros(changes_at)
    assert scenario.changes_at() == expected_change
    assert change_through_state(scenario) == expected_change
    event(f"answer {expected}")
