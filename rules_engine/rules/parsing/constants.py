"""Finds conditions that can never be true, or never be false. They are refused as mistakes.

Each predicate is checked, and in each ``all`` or ``any`` the direct children that read the same operand.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from rules_engine.diagnostics import Diagnostic, Span
from rules_engine.rules.aggregates import AGGREGATES
from rules_engine.rules.forms import WEEKDAYS
from rules_engine.rules.nodes import AllOf, AnyOf, Condition, EventAggregate, Operand, Predicate
from rules_engine.rules.operators import OPERATORS
from rules_engine.rules.types import Kind

_NEGATIONS = {
    "equals": "not_equals",
    "in": "not_in",
    "greater_than": "at_most",
    "at_least": "less_than",
    "exists": "exists",
}
_NEGATIONS |= {opposite: name for name, opposite in _NEGATIONS.items()}

_LOWER = {"greater_than": True, "after": True, "at_least": False}
_UPPER = {"less_than": True, "before": True, "at_most": False}


def constant_problem(condition: Condition, span: Span) -> Diagnostic | None:
    """Return the problem of a condition whose answer is the same for all entities; None if it can differ.

    >>> from rules_engine.diagnostics import NO_SPAN
    >>> from rules_engine.rules.nodes import FeatureRef
    >>> age = FeatureRef("user", "age")
    >>> both = AllOf((Predicate(age, "at_least", 65), Predicate(age, "less_than", 18)))
    >>> constant_problem(both, NO_SPAN).code
    'never-true'
    """
    if isinstance(condition, Predicate):
        return _predicate_problem(condition, span)
    if isinstance(condition, AllOf):
        operand = _contradicting_operand(condition.conditions)
        message = f"nobody can be in this: the conditions on `{operand}` exclude each other"
        return Diagnostic("never-true", span, message, "change one of them, or write `any:`") if operand else None
    if isinstance(condition, AnyOf):
        operand = _contradicting_operand(opposites(condition.conditions))
        message = f"this is never false: every value of `{operand}` fulfils one of the conditions"
        return (
            Diagnostic("never-false", span, message, "change one of them, or write `exists: true`") if operand else None
        )
    return None


def _predicate_problem(predicate: Predicate, span: Span) -> Diagnostic | None:
    if predicate.argument == "" and predicate.operator in ("contains", "starts_with", "ends_with"):
        message = f"every string {predicate.operator.replace('_', ' ')} the empty string"
        return Diagnostic("never-false", span, message, "write the text to look for, or `exists: true`")
    if not _is_count(predicate.operand):
        return None
    if contradictory([predicate]):
        return Diagnostic("never-true", span, f"a count is never like this: `{predicate}`", "a count is 0 or more")
    if contradictory(list(opposites([predicate]))):
        return Diagnostic("never-false", span, f"a count is always like this: `{predicate}`", "a count is 0 or more")
    return None


def _is_count(operand: Operand) -> bool:
    return isinstance(operand, EventAggregate) and AGGREGATES[operand.function].is_count


def opposites(conditions: Iterable[Condition]) -> list[Predicate]:
    """Return the negations of the predicates that have a simple one. Leaving out the others keeps the check sound."""
    negated = []
    for condition in conditions:
        if isinstance(condition, Predicate) and condition.operator in _NEGATIONS:
            argument = not condition.argument if condition.operator == "exists" else condition.argument
            negated.append(
                replace(condition, operator=_NEGATIONS[condition.operator], argument=argument, or_missing=False)
            )
    return negated


def _contradicting_operand(conditions: Iterable[Condition]) -> Operand | None:
    by_operand: dict[Operand, list[Predicate]] = {}
    for condition in conditions:
        if isinstance(condition, Predicate):
            by_operand.setdefault(condition.operand, []).append(condition)
    return next((operand for operand, group in by_operand.items() if len(group) > 1 and contradictory(group)), None)


def contradictory(predicates: list[Predicate]) -> bool:
    """Say whether no value, and no missing value either, fulfils all of these predicates on one operand."""
    if any(predicate.operator == "exists" for predicate in predicates):
        flags = {predicate.argument for predicate in predicates if predicate.operator == "exists"}
        others = [predicate for predicate in predicates if predicate.operator != "exists"]
        if len(flags) == 2:
            return True
        if flags == {False}:
            return any(not predicate.or_missing for predicate in others)
        return bool(others) and _no_value(others)
    return not all(predicate.or_missing for predicate in predicates) and _no_value(predicates)


def _no_value(predicates: list[Predicate]) -> bool:
    plain = [p for p in predicates if not p.ignore_case and OPERATORS[p.operator].boundaries is None]
    lists = [p for p in plain if OPERATORS[p.operator].on_lists]
    if lists or not plain:
        return False
    values = _finite_values(plain)
    if values is not None:
        return not any(all(OPERATORS[p.operator].meaning(value, p.argument, 0) for p in plain) for value in values)
    return _empty_range(plain)


def _finite_values(predicates: list[Predicate]) -> list[Any] | None:
    """Return the only values that are possible at all, if they are finitely many."""
    for predicate in predicates:
        if predicate.operator == "equals":
            return _possible_counts(predicate, [predicate.argument])
        if predicate.operator == "in":
            return _possible_counts(predicate, list(predicate.argument))
    kind = predicates[0].operand_type.kind if predicates[0].operand_type else None
    if kind is Kind.BOOLEAN:
        return [True, False]
    return list(WEEKDAYS) if kind is Kind.DAY_OF_WEEK else None


def _possible_counts(predicate: Predicate, values: list[Any]) -> list[Any]:
    return [value for value in values if value >= 0] if _is_count(predicate.operand) else values


def _empty_range(predicates: list[Predicate]) -> bool:
    low: tuple[Any, bool] = (0, False) if _is_count(predicates[0].operand) else (-math.inf, False)
    high: tuple[Any, bool] = (math.inf, False)
    for predicate in predicates:
        if predicate.operator in _LOWER:
            low = max(low, (predicate.argument, _LOWER[predicate.operator]))
        elif predicate.operator in _UPPER:
            high = min(high, (predicate.argument, not _UPPER[predicate.operator]))
        elif predicate.operator == "between":
            low = max(low, (predicate.argument[0], False))
            high = min(high, (predicate.argument[1], True))
    high = (high[0], not high[1] if high[0] != math.inf else False)
    if _is_whole(predicates[0]) and not _is_float_bound(low, high):
        return bool(_first_integer(*low) > _last_integer(*high))
    return bool(low[0] > high[0] or (low[0] == high[0] and (low[1] or high[1])))


def _is_whole(predicate: Predicate) -> bool:
    """Say whether the operand has only whole values. INTEGER does not suffice, as it may be inferred from a literal."""
    is_time = predicate.operand_type is not None and predicate.operand_type.kind is Kind.TIME
    return is_time or _is_count(predicate.operand)


def _is_float_bound(low: tuple[Any, bool], high: tuple[Any, bool]) -> bool:
    return math.inf in (high[0], -low[0])


def _first_integer(bound: Any, strict: bool) -> int:
    return int(math.floor(bound) + 1 if strict else math.ceil(bound))


def _last_integer(bound: Any, strict: bool) -> int:
    return int(math.ceil(bound) - 1 if strict else math.floor(bound))
