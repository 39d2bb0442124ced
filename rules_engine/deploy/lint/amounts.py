"""Warnings about sums and means of amounts with fractions."""

from __future__ import annotations

from collections.abc import Iterator

from rules_engine.diagnostics import Diagnostic, Severity
from rules_engine.rules.aggregates import Aggregate
from rules_engine.rules.load import Definitions
from rules_engine.rules.nodes import EventAggregate, Predicate
from rules_engine.rules.types import FLOAT
from rules_engine.rules.walk import walk

_ADDING = (Aggregate.SUM, Aggregate.AVG)
_EQUALITY = ("equals", "not_equals", "in", "not_in")


def lint_amounts(definitions: Definitions) -> Iterator[Diagnostic]:
    """Yield a warning for each sum or mean of floats that is compared as if it were one of decimals.

    A limit without a fraction is not warned of: hardly any sum comes so close to it.
    """
    for segment in definitions.program.segments.values():
        for node in walk(segment.when):
            if isinstance(node, Predicate) and _adds_floats(node) and _is_decimal(node):
                operand = node.operand
                assert isinstance(operand, EventAggregate), node
                message = (
                    f"`{operand.of}` is not declared as a decimal number, so its {operand.function.value} may miss it "
                    "by a trifle: 0.7 and 0.1 come to a little less than 0.8"
                )
                hint = (
                    f"add `multipleOf: 0.01` to `{operand.of}` of `{operand.match.event}` in feature_repo/events.yaml"
                )
                yield Diagnostic("inexact-sum", node.span, message, hint, Severity.WARNING)


def _adds_floats(predicate: Predicate) -> bool:
    operand = predicate.operand
    if not isinstance(operand, EventAggregate) or operand.function not in _ADDING:
        return False
    return isinstance(operand.of, str) and operand.of_type == FLOAT


def _is_decimal(predicate: Predicate) -> bool:
    """Say whether a predicate tells equality, or a limit with a fraction."""
    argument = predicate.argument if isinstance(predicate.argument, tuple) else (predicate.argument,)
    has_fraction = any(isinstance(number, float) and not number.is_integer() for number in argument)
    return predicate.operator in _EQUALITY or (predicate.operator != "exists" and has_fraction)
