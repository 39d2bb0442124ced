"""The operator table: complete, consistent, and every row's promises kept."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules_engine.clock import DAY, HOUR
from rules_engine.definitions.source import read_documents, to_plain
from rules_engine.rules.forms import FORMS
from rules_engine.rules.nodes import Predicate
from rules_engine.rules.operators import (
    COUNT_OPERATORS,
    OPERATORS,
    Argument,
    operators_for,
    require_complete,
)
from rules_engine.rules.parsing.conditions import ConditionParser
from rules_engine.rules.predicates import predicate_truth
from rules_engine.rules.types import Kind, ValueType
from tests.docs_pages import shop

SHOP = shop()

#: Values to try on an operator's example, by the kind of its operand.
POOL: dict[Kind, list[Any]] = {
    Kind.BOOLEAN: [True, False],
    Kind.INTEGER: [0, 17, 18, 64, 65],
    Kind.FLOAT: [0.0, 17.5, 100.0],
    Kind.STRING: ["", "NO", "US", "FI", "free", "pro", "a@example.edu", "+4712345678", "+1900", "no.edu"],
    Kind.TIME: [
        0,
        1_700_000_000_000_000,
        1_772_452_800_000_000 - HOUR,
        1_772_452_800_000_000 + DAY,
        1_772_452_800_000_000 + 40 * DAY,
    ],
}
NOW = 1_772_452_800_000_000


def example(name: str) -> Predicate:
    [document], problems = read_documents(OPERATORS[name].example, "example")
    assert not problems
    parser = ConditionParser(SHOP)
    parsed = parser.condition(document)
    assert not parser.problems
    assert isinstance(parsed, Predicate)
    return parsed


def values_for(predicate: Predicate) -> list[Any]:
    assert predicate.operand_type is not None
    if not predicate.operand_type.is_list:
        return POOL[predicate.operand_type.kind]
    return [(), ("vip",), ("news",), ("news", "sms", "x"), ("banned",), ("banned", "vip")]


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operators_example_uses_it_and_gives_both_answers(name: str) -> None:
    predicate = example(name)
    assert predicate.operator == name
    answers = [predicate_truth(predicate, value, NOW) for value in [*values_for(predicate), None]]
    assert {True, False} <= set(answers)
    assert (answers[-1] is None) is (OPERATORS[name].missing == "unknown")


@pytest.mark.parametrize("name", OPERATORS)
def test_a_missing_value_is_unknown_or_as_it_was_chosen(name: str) -> None:
    predicate = example(name)
    if name == "exists":
        assert predicate_truth(predicate, None, NOW) is (not predicate.argument)
        return
    assert predicate_truth(predicate, None, NOW) is None
    assert predicate_truth(replace(predicate, or_missing=True), None, NOW) is True
    for value in values_for(predicate):
        assert predicate_truth(replace(predicate, or_missing=True), value, NOW) is predicate_truth(
            predicate, value, NOW
        )


def test_every_row_is_written_for_people() -> None:
    for name, operator in OPERATORS.items():
        assert operator.name == name
        assert operator.kinds, name
        assert operator.summary, name
        assert operator.summary[0].islower() or operator.summary[0] == "`", name
        assert not operator.summary.endswith("."), name
    assert len({operator.summary for operator in OPERATORS.values()}) == len(OPERATORS)


def test_options_and_boundaries_stand_where_they_mean_something() -> None:
    for operator in OPERATORS.values():
        assert not operator.foldable or Kind.STRING in operator.kinds
        assert (operator.boundaries is not None) is (operator.argument in (Argument.DURATION, Argument.CALENDAR))
        assert operator.argument is not Argument.DURATION or operator.kinds == {Kind.TIME}
    assert [name for name, operator in OPERATORS.items() if operator.missing == "known"] == ["exists"]


ORDERED = "equals not_equals in not_in exists greater_than at_least less_than at_most between"


@pytest.mark.parametrize(
    ("kind", "is_list", "names"),
    [
        (Kind.BOOLEAN, False, "equals not_equals in not_in exists"),
        (Kind.INTEGER, False, ORDERED),
        (Kind.FLOAT, False, ORDERED),
        (Kind.STRING, False, "equals not_equals in not_in exists contains starts_with ends_with matches"),
        (
            Kind.TIME,
            False,
            f"{ORDERED} before after in_last not_in_last in_next in_calendar anniversary_in",
        ),
        (Kind.TIME_OF_DAY, False, ORDERED),
        (Kind.DAY_OF_WEEK, False, "equals not_equals in not_in exists"),
        (Kind.BYTES, False, "exists"),
        (Kind.BYTES, True, "exists"),
        (Kind.STRING, True, "exists includes includes_any includes_all includes_none"),
        (Kind.TIME, True, "exists includes includes_any includes_all includes_none"),
    ],
)
def test_which_operators_a_type_takes(kind: Kind, is_list: bool, names: str) -> None:
    assert operators_for(kind, is_list) == tuple(names.split())


def test_every_operator_is_taken_by_some_type() -> None:
    taken = {name for kind in Kind for is_list in (False, True) for name in operators_for(kind, is_list)}
    assert taken == OPERATORS.keys()


def test_the_operators_of_a_count() -> None:
    assert sorted(COUNT_OPERATORS) == [
        "at_least",
        "at_most",
        "between",
        "equals",
        "greater_than",
        "in",
        "less_than",
        "not_equals",
        "not_in",
    ]


def test_a_target_without_an_operator_does_not_come_to_be() -> None:
    require_complete("whole", OPERATORS)
    with pytest.raises(TypeError, match=r"target half: operators without a lowering: equals; unknown operators: like"):
        require_complete("half", [*(OPERATORS.keys() - {"equals"}), "like"])


# --- meanings -------------------------------------------------------------------------------------------------------

numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)


@given(numbers, numbers)
def test_the_orders_agree_with_each_other(value: float, bound: float) -> None:
    names = COUNT_OPERATORS - {"between", "in", "not_in"}
    holds = {name: OPERATORS[name].meaning(value, bound, 0) for name in names}
    assert holds["at_least"] is not holds["less_than"]
    assert holds["at_most"] is not holds["greater_than"]
    assert holds["equals"] is (holds["at_least"] and holds["at_most"])
    assert holds["not_equals"] is not holds["equals"]
    assert OPERATORS["between"].meaning(value, (bound, bound), 0) is holds["equals"]


@given(st.integers(0, 2**60), st.integers(1, 2**50), st.integers(0, 2**60))
def test_a_moving_window_changes_at_its_boundaries_only(value: int, width: int, now: int) -> None:
    for name in ("in_last", "not_in_last", "in_next"):
        operator = OPERATORS[name]
        assert operator.boundaries is not None
        edges = sorted(operator.boundaries(value, width, now))
        for edge in edges:
            assert operator.meaning(value, width, edge - 1) is not operator.meaning(value, width, edge)
        inside = [edge for edge in edges if edge <= now]
        since = max(inside) if inside else -1
        assert operator.meaning(value, width, now) is operator.meaning(value, width, since)
    assert OPERATORS["in_last"].meaning(value, width, now) is not OPERATORS["not_in_last"].meaning(value, width, now)
    assert not (OPERATORS["in_last"].meaning(value, width, now) and OPERATORS["in_next"].meaning(value, width, now))


@given(st.lists(st.sampled_from("abc")), st.lists(st.sampled_from("abcd"), min_size=1))
def test_the_operators_of_lists_agree_with_each_other(stored: list[str], wanted: list[str]) -> None:
    value, argument = tuple(stored), tuple(wanted)
    holds = {name: OPERATORS[f"includes_{name}"].meaning(value, argument, 0) for name in ("any", "all", "none")}
    assert holds["any"] is not holds["none"]
    assert holds["all"] is all(OPERATORS["includes"].meaning(value, one, 0) for one in wanted)
    assert holds["all"] <= holds["any"]


def test_the_tables_examples_are_one_condition_each() -> None:
    for one in (*OPERATORS.values(), *FORMS.values()):
        [document], problems = read_documents(one.example, "example")
        assert not problems
        assert json.dumps(to_plain(document))
    assert all(form.head in form.example for form in FORMS.values())


def test_types_are_shown_as_people_say_them() -> None:
    assert [str(ValueType(kind)) for kind in Kind][:4] == ["boolean", "integer", "float", "string"]
    assert str(ValueType(Kind.TIME, is_list=True)) == "list of time"
