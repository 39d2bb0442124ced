"""Warnings of sums and means of floats that are compared as if they were decimals."""

from __future__ import annotations

import pytest

from rules_engine.deploy.lint.amounts import lint_amounts
from rules_engine.rules.catalog import Catalog, EventType
from rules_engine.rules.load import load_text
from rules_engine.rules.types import FLOAT, INTEGER, Kind, ValueType

PROPERTIES = {"amount": FLOAT, "cents": INTEGER, "price": ValueType(Kind.FLOAT, decimals=2)}
CATALOG = Catalog(events={"buy": EventType("buy", PROPERTIES)})


def warned_of(aggregate: str, test: str) -> list[tuple[str, int]]:
    text = f"segment: s\nwhen: {{{aggregate}, within: 30d, {test}}}\n"
    return [(warning.code, warning.span.line) for warning in lint_amounts(load_text(text, CATALOG))]


@pytest.mark.parametrize("function", ["sum", "avg"])
@pytest.mark.parametrize("test", ["at_least: 59.9", "equals: 60", "in: [60, 70]", "between: [1, 59.9]"])
def test_a_sum_of_floats_that_is_compared_as_decimals_is_warned_of(function: str, test: str) -> None:
    assert warned_of(f"{function}: {{event: buy, of: amount}}", test) == [("inexact-sum", 2)]


@pytest.mark.parametrize(
    ("aggregate", "test"),
    [
        ("sum: {event: buy, of: amount}", "at_least: 60"),
        ("sum: {event: buy, of: price}", "at_least: 59.9"),
        ("avg: {event: buy, of: price}", "equals: 59.9"),
        ("sum: {event: buy, of: cents}", "equals: 5990"),
        ("max: {event: buy, of: amount}", "equals: 59.9"),
        ("avg: {event: buy, of: amount}", "exists: true"),
    ],
)
def test_nothing_else_is(aggregate: str, test: str) -> None:
    assert warned_of(aggregate, test) == []
