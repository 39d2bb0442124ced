"""Decide without data whether one condition implies another: whether it is true only where the other is true.

The decision is sound, not complete: True is certain, False means only that no proof was found.
"""

from __future__ import annotations

from rules_engine.rules.aggregates import Aggregate
from rules_engine.rules.nodes import AllOf, AnyOf, Condition, EventAggregate, Not, Predicate, SegmentRef
from rules_engine.rules.parsing.constants import contradictory, opposites
from rules_engine.rules.program import Program


def implies(program: Program, condition: Condition, other: Condition) -> bool:
    """Tell whether ``other`` is true for every entity for which ``condition`` is true.

    >>> from rules_engine.rules.nodes import FeatureRef
    >>> age = FeatureRef("user", "age")
    >>> old, adult = Predicate(age, "at_least", 65), Predicate(age, "at_least", 18)
    >>> implies(Program({}), old, adult), implies(Program({}), adult, old)
    (True, False)
    """
    if isinstance(condition, Predicate) and isinstance(other, Predicate):
        return condition == other or _predicate_implies(condition, other)
    condition, other = _resolved(program, condition), _resolved(program, other)
    if condition == other:
        return True
    if isinstance(condition, AnyOf):
        return all(implies(program, part, other) for part in condition.conditions)
    if isinstance(other, AllOf):
        return all(implies(program, condition, part) for part in other.conditions)
    if isinstance(condition, AllOf) and any(implies(program, part, other) for part in condition.conditions):
        return True
    if isinstance(other, AnyOf):
        return any(implies(program, condition, part) for part in other.conditions)
    if isinstance(condition, Not) and isinstance(other, Not):
        # In Kleene's logic a negation is true exactly where its operand is false.
        return _false_implies_false(program, condition.condition, other.condition)
    return isinstance(condition, Predicate) and isinstance(other, Predicate) and _predicate_implies(condition, other)


def _resolved(program: Program, condition: Condition) -> Condition:
    while isinstance(condition, SegmentRef) and condition.name in program.segments:
        condition = program.segments[condition.name].when
    return condition


def _false_implies_false(program: Program, condition: Condition, other: Condition) -> bool:
    """Tell whether ``other`` is false wherever ``condition`` is false; shown only for groups of the same parts."""
    condition, other = _resolved(program, condition), _resolved(program, other)
    if condition == other:
        return True
    if isinstance(condition, AnyOf):  # all its parts are false
        return any(_false_implies_false(program, part, other) for part in condition.conditions)
    if isinstance(other, AllOf):
        return any(_false_implies_false(program, condition, part) for part in other.conditions)
    return False


def _predicate_implies(condition: Predicate, other: Predicate) -> bool:
    if _is_more_often(condition, other):
        return True
    if condition.operand != other.operand or (condition.or_missing and not other.or_missing):
        return False
    opposite = opposites([other])
    return bool(opposite) and contradictory([condition, *opposite])


def _is_more_often(condition: Predicate, other: Predicate) -> bool:
    """Tell whether both are minimum counts of the same events, of which ``other`` is no stricter in window or count."""
    first, second = condition.operand, other.operand
    if not (isinstance(first, EventAggregate) and isinstance(second, EventAggregate)):
        return False
    if {condition.operator, other.operator} != {"at_least"} or {first.function, second.function} != {Aggregate.COUNT}:
        return False
    if first.window != second.window:
        return False
    wider = second.within is None or (first.within is not None and first.within <= second.within)
    return first.match == second.match and wider and bool(condition.argument >= other.argument)
