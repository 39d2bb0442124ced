"""Sequences over few events, few properties and very few instants, so that steps meet at one instant all the time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import event, given
from hypothesis import strategies as st

from rules_engine.clock import to_micros
from rules_engine.events.state.reading import StateLayout
from rules_engine.features.online.selection import EntityFeatures
from rules_engine.targets.sql import evaluate_duckdb
from rules_engine.targets.stepwise.compile import Checks
from rules_engine.targets.stepwise.view import View
from rules_engine.testing import CONDITION, Scenario
from tests.reference import reference_changes_at, reference_evaluate
from tests.state_target import change_through_state, read_through_state, truth_through_state

NOW = datetime(2024, 1, 1, 12, tzinfo=UTC)
INSTANTS = tuple(NOW + timedelta(minutes=minute) for minute in (-4, -3, -2, -1, 0, 1))
WITHIN = ("1m", "2m", "3m")
WHERE: tuple[dict[str, Any], ...] = ({}, {"where": {"n": 1}}, {"where": {"n": {"at_least": 1}}})

EVENTS = st.lists(
    st.fixed_dictionaries(
        {"event": st.sampled_from("aab"), "at": st.sampled_from(INSTANTS), "n": st.sampled_from((0, 1, 2))}
    ),
    min_size=1,
    max_size=6,
)


@st.composite
def sequences(draw: st.DrawFn) -> dict[str, Any]:
    steps: list[dict[str, Any]] = []
    for head in draw(st.sampled_from(("++", "+-", "+++", "+-+", "+--", "++-+", "+-++", "+--+", "++++", "+-+-"))):
        step = {"did" if head == "+" else "did_not": draw(st.sampled_from("aab")), **draw(st.sampled_from(WHERE))}
        steps.append(step | ({"within": draw(st.sampled_from(WITHIN))} if steps and draw(st.booleans()) else {}))
    for step in reversed(steps):
        if "did" in step:
            break
        step.setdefault("within", "1m")
    sequence: dict[str, Any] = {"sequence": steps}
    if draw(st.booleans()):
        sequence["within"] = "11m"
    if draw(st.booleans()):
        sequence["anchor"] = draw(st.sampled_from(("any", "latest")))
    if draw(st.integers(0, 3)) == 0:
        sequence["match_on"] = "n"
    return sequence


def in_steps(scenario: Scenario) -> bool:
    reader = read_through_state(scenario)
    checks = Checks(scenario.program, StateLayout(reader.requirements))
    return checks.segment(CONDITION, True)(View(EntityFeatures("someone", {}, {}, {}), reader), scenario.now)[0]


@given(sequences(), EVENTS)
def test_every_target_without_sql_is_the_reference(condition: dict[str, Any], events: list[dict[str, Any]]) -> None:
    expected = reference_evaluate(condition, events=events, now=NOW)
    scenario = Scenario(condition, events=events, now=NOW)
    assert scenario.truth() is expected
    assert truth_through_state(scenario) is expected
    assert in_steps(scenario) is expected
    changes_at = reference_changes_at(condition, events=events, now=NOW)
    expected_change = None if changes_at is None else to_micros(changes_at)
    assert scenario.changes_at() == expected_change
    assert change_through_state(scenario) == expected_change
    event(f"answer {expected}")


@given(st.lists(sequences(), min_size=4, max_size=4), st.lists(EVENTS, min_size=8, max_size=8))
def test_sql_is_the_evaluator(conditions: list[dict[str, Any]], logs: list[list[dict[str, Any]]]) -> None:
    segments = {f"s{number}": condition for number, condition in enumerate(conditions)}
    scenarios = [Scenario(conditions[0], events=log, now=NOW, segments=segments) for log in logs]
    everything = [event for log in logs for event in log]
    program = Scenario(conditions[0], events=everything, now=NOW, segments=segments).program
    users = [(f"user {number}", scenario.inputs) for number, scenario in enumerate(scenarios)]
    answers = evaluate_duckdb(program, users, to_micros(NOW))
    for number, log in enumerate(logs):
        for name, condition in segments.items():
            expected = Scenario(condition, events=log, now=NOW).truth()
            assert answers[f"user {number}"][name] is expected, (condition, log)
