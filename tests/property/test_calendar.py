"""Units of the calendar and anniversaries, near changes of the clock, ends of months and leap days."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import event, given
from hypothesis import strategies as st

from rules_engine.clock import to_micros
from rules_engine.targets.index.rule_index import RuleIndex
from rules_engine.targets.sql import evaluate_duckdb
from rules_engine.testing import CONDITION, Scenario
from tests.property.test_windows import NOWS, ZONES
from tests.reference import reference_changes_at, reference_evaluate

TICK = timedelta(microseconds=1)
UNITS = {"in_calendar": ("day", "week", "month", "quarter"), "anniversary_in": ("day", "week", "month")}


@st.composite
def conditions(draw: st.DrawFn) -> dict[str, Any]:
    operator = draw(st.sampled_from(sorted(UNITS)))
    span: dict[str, Any] = {
        "calendar": draw(st.sampled_from(UNITS[operator])),
        "timezone": draw(st.sampled_from(ZONES)),
    }
    side = draw(st.sampled_from(("", "last", "next")))
    if side:
        span[side] = draw(st.sampled_from(("this", 1, 2, 7)))
    if span["calendar"] == "week":
        span["first_day"] = draw(st.sampled_from(("monday", "sunday")))
    return {"feature": "u:at", operator: span}


@st.composite
def values(draw: st.DrawFn, now: datetime) -> datetime:
    """Draw an instant near a midnight some days from now, in another year, or the leap day."""
    if draw(st.integers(0, 5)) == 0:
        return datetime(draw(st.sampled_from((1904, 1992, 2000, 2024))), 2, 29, tzinfo=UTC)
    local = now.astimezone(ZoneInfo(draw(st.sampled_from(ZONES))))
    days = draw(st.sampled_from((-92, -31, -8, -7, -1, 0, 1, 2, 7, 8, 29, 31, 61)))
    midnight = datetime(local.year, local.month, local.day, tzinfo=local.tzinfo) + timedelta(days=days)
    moved = midnight.astimezone(UTC) + draw(st.sampled_from((-1, 0, 1))) * timedelta(seconds=1)
    years = draw(st.sampled_from((0, 0, 1, 4, 34)))
    return moved.replace(year=moved.year - years, day=min(moved.day, 28) if moved.month == 2 else moved.day)


@given(st.data(), conditions(), st.sampled_from(NOWS))
def test_every_target_is_the_reference(data: st.DataObject, condition: dict[str, Any], now: datetime) -> None:
    value = data.draw(values(now))
    given_data: dict[str, Any] = {"features": {"u:at": value}, "types": {"u:at": "UnixTimestamp"}, "now": now}
    expected = reference_evaluate(condition, **given_data)
    event(f"answer {expected}")
    scenario = Scenario(condition, **given_data)
    assert scenario.truth() is expected
    answers = evaluate_duckdb(scenario.program, [("someone", scenario.inputs)], to_micros(now))
    assert answers["someone"][CONDITION] is expected
    members, until = RuleIndex(scenario.program).match_until(scenario.inputs, scenario.now)
    assert (CONDITION in members) is expected
    changes_at = scenario.changes_at()
    assert until == changes_at
    due = reference_changes_at(condition, **given_data)
    assert changes_at == (None if due is None else to_micros(due))
