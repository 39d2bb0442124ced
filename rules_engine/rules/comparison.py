"""Compares two sides: the value left of an operator with the one right of it, which may be scaled; and calculates."""

from __future__ import annotations

import math
from collections.abc import Callable

from rules_engine.rules.arithmetic import compute
from rules_engine.rules.nodes import Composite, Side, Source, TwoSides
from rules_engine.rules.types import FLOAT, Value, ValueType
from rules_engine.rules.undecided import UNDECIDED, Undecided

#: Returns the value of an operand as a type; None if it is missing.
Read = Callable[[Source, ValueType | None], Value]


def composite_value(operand: Composite, read: Read) -> Value:
    """Return what the parts of an operand come to: how two sides compare, or the result of a calculation."""
    if isinstance(operand, TwoSides):
        return compared(operand, read)
    values = [read(term, FLOAT) for term in operand.terms]
    if any(value.__class__ is Undecided for value in values):
        return UNDECIDED
    return compute(operand.operation, values)


def compared(comparison: TwoSides, read: Read) -> Value:
    """Return -1, 0 or 1 as the left side is below, equal to or above the right one; None if one of them is missing.

    >>> from rules_engine.rules.nodes import FeatureRef
    >>> price, limit = FeatureRef("product", "price"), FeatureRef("user", "limit")
    >>> half = TwoSides(price, Side(limit, times=1, over=2), FLOAT)
    >>> [compared(half, lambda ref, _: {price: 5, limit: top}[ref]) for top in (12, 10, 8, None)]
    [-1, 0, 1, None]
    """
    left, right = read(comparison.left, comparison.type), side_value(comparison.right, comparison.type, read)
    if left is None or right is None:
        return None
    if left.__class__ is Undecided or right.__class__ is Undecided:
        return UNDECIDED
    if comparison.type is None and (_kind(left) != _kind(right) or not isinstance(left, int | float | str)):
        return None
    return (left > right) - (left < right)


def side_value(side: Side, value_type: ValueType | None, read: Read) -> Value:
    """Return the value of a right side. A scaled one is a float; one that is divided by zero is missing."""
    value = read(side.value, value_type)
    if side.is_plain or value is None:
        return value
    divisor = 1.0 if side.divisor is None else read(side.divisor, FLOAT)
    if divisor is None or divisor == 0:
        return None
    if value.__class__ is Undecided or divisor.__class__ is Undecided:
        return UNDECIDED
    scaled = as_float(value) * side.times / side.over / as_float(divisor)
    return None if math.isnan(scaled) else scaled


def as_float(number: int | float) -> float:
    """Return the nearest float; infinite where a whole number is out of the range of floats."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def _kind(value: Value) -> type:
    return float if isinstance(value, int | float) and not isinstance(value, bool) else type(value)
