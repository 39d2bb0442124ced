"""Two sides of an operator, on values from pools rich in edges: every target says what the reference says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import assume, event, given
from hypothesis import strategies as st

from rules_engine.clock import to_micros
from rules_engine.events.state.reading import StateLayout
from rules_engine.features.online.selection import EntityFeatures
from rules_engine.targets.sql import evaluate_duckdb
from rules_engine.targets.stepwise.compile import Checks
from rules_engine.targets.stepwise.view import View
from rules_engine.testing import CONDITION, Scenario
from tests.property import pools
from tests.reference import reference_changes_at, reference_evaluate
from tests.state_target import change_through_state, read_through_state, truth_through_state

NOW = datetime(2024, 1, 1, 12, tzinfo=UTC)
ORDER = ("greater_than", "at_least", "less_than", "at_most", "equals", "not_equals")
TYPES = {"u:n": "Int64", "u:x": "Float64", "u:y": "Float32", "v:n": "Int64", "v:x": "Float64"}
WINDOWS: tuple[Any, ...] = ("1d", "7d", "ever", {"between_ago": ["1d", "7d"]}, {"calendar": "month"})
AGES = tuple(timedelta(days=days) for days in (0, 1, 3, 7, 8, 32, -1))


def number(feast_type: str) -> st.SearchStrategy[Any]:
    pool = {"Int64": pools.INTEGERS, "Float32": pools.FLOATS32}.get(
        feast_type, (*pools.FLOATS, *pools.ENDLESS, float("nan"))
    )
    return st.one_of(st.none(), st.sampled_from(pool))


@st.composite
def values(draw: st.DrawFn, is_left: bool) -> dict[str, Any]:
    """Draw a value: on the left a count is `did`, with its operator elsewhere."""
    form = draw(st.sampled_from(("feature", "feature", "count", "sum", "avg", "max", "last")))
    if form == "feature":
        return {"feature": draw(st.sampled_from(sorted(TYPES)))}
    within = draw(st.sampled_from(WINDOWS))
    name = draw(st.sampled_from(("a", "b")))
    if form == "count":
        return {"did": name, "within": within} if is_left else {"count": {"event": name}, "within": within}
    return {form: {"event": name, "of": "n"}, "within": within}


@st.composite
def conditions(draw: st.DrawFn) -> dict[str, Any]:
    left, right = draw(values(True)), draw(values(False))
    side: dict[str, Any] = right
    scaled = draw(st.sampled_from(("no", "no", "times", "divided", "value")))
    if scaled == "times":
        side = {"of": right, "times": draw(st.sampled_from((0.5, 2, 0.1, 3, 1.25, 0.000001)))}
    elif scaled == "divided":
        side = {"of": right, "divided_by": draw(st.sampled_from((3, 0.5, 7)))}
    elif scaled == "value":
        side = {"of": right, "divided_by": draw(values(False))}
    test = {draw(st.sampled_from(ORDER)): side}
    if "did" in left:
        return {**left, "count": test}
    return {**left, **test, **({"or_missing": True} if "sum" not in left and draw(st.integers(0, 5)) == 0 else {})}


@st.composite
def logs(draw: st.DrawFn) -> list[dict[str, Any]]:
    amounts = st.sampled_from((0, 1, 2, 3, 0.5, 2.5, None, "2"))
    made = st.fixed_dictionaries(
        {"event": st.sampled_from("ab"), "at": st.sampled_from([NOW - age for age in AGES]), "n": amounts}
    )
    return draw(st.lists(made, max_size=5))


def in_steps(scenario: Scenario, wanted: bool) -> bool:
    """Tell whether the worker finds the answer that is wanted."""
    reader, inputs = read_through_state(scenario), scenario.inputs
    view = View(EntityFeatures("someone", inputs.features, inputs.updated_at, inputs.expires_at), reader)
    return Checks(scenario.program, StateLayout(reader.requirements)).segment(CONDITION, wanted)(view, scenario.now)[0]


def is_of_itself(condition: dict[str, Any]) -> bool:
    """Tell whether a value is compared with itself, which is refused."""
    test = condition.get("count", condition)
    side = next(test[name] for name in ORDER if name in test)
    if "did" in condition:
        return bool(side == {"count": {"event": condition["did"]}, "within": condition["within"]})
    return bool(side == {key: part for key, part in condition.items() if key not in (*ORDER, "or_missing")})


@given(st.data(), conditions(), logs())
def test_every_target_is_the_reference(
    data: st.DataObject, condition: dict[str, Any], log: list[dict[str, Any]]
) -> None:
    features = {key: data.draw(number(feast_type)) for key, feast_type in TYPES.items()}
    given_data: dict[str, Any] = {"features": features, "events": log, "types": TYPES, "now": NOW}
    if data.draw(st.booleans()):
        given_data |= {
            "updated_at": {"v": NOW - timedelta(hours=1)},
            "ttl": {"v": data.draw(st.sampled_from(("30m", "2h")))},
        }
    assume(not is_of_itself(condition))
    expected = reference_evaluate(condition, **given_data)
    event(f"answer {expected}")
    scenario = Scenario(condition, **given_data)
    assert scenario.truth() is expected
    assert truth_through_state(scenario) is expected
    assert in_steps(scenario, expected is not False) is (expected is not None)
    answers = evaluate_duckdb(scenario.program, [("someone", scenario.inputs)], to_micros(NOW))
    assert answers["someone"][CONDITION] is expected
    changes_at = reference_changes_at(condition, **given_data)
    expected_change = None if changes_at is None else to_micros(changes_at)
    assert scenario.changes_at() == expected_change
    assert change_through_state(scenario) == expected_change
