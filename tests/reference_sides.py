"""Two sides of an operator, for the brute-force reference; see `tests.reference`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from tests.reference_values import COMPARE, ORDER_OPERATORS, RELATIVE_TIME, Condition, Truth, clean, kind


def right_side(test: Condition) -> Mapping[str, Any] | None:
    """Return what follows an operator, if it is another value."""
    names = [name for name in test if name in COMPARE and name not in RELATIVE_TIME]
    return next((test[name] for name in names if isinstance(test[name], Mapping)), None)


def two_sides(test: Condition, left: Any, value_of: Callable[[Condition], Any]) -> Truth:
    """Compare a value with the one that follows the operator; `value_of` tells what a plain side comes to."""
    name = next(key for key in test if key in COMPARE)
    left, right = clean(left), scaled(test[name], value_of)
    if left is None or right is None or kind(left) != kind(right) or (name in ORDER_OPERATORS and not orders(left)):
        return True if test.get("or_missing") else None
    return bool(
        {
            "equals": left == right,
            "not_equals": left != right,
            "greater_than": left > right,
            "after": left > right,
            "at_least": left >= right,
            "less_than": left < right,
            "before": left < right,
            "at_most": left <= right,
        }[name]
    )


def orders(value: Any) -> bool:
    return kind(value) in ("number", "time")


def scaled(side: Condition, value_of: Callable[[Condition], Any]) -> Any:
    """Return the value of a right side: times and divided by a number as one fraction, then divided by a value."""
    if "of" not in side:
        return clean(value_of(side))
    value, by = clean(value_of(side["of"])), side.get("divided_by", 1)
    factor = Fraction(str(side.get("times", 1))) / (1 if isinstance(by, Mapping) else Fraction(str(by)))
    divisor = clean(value_of(by)) if isinstance(by, Mapping) else 1
    if factor == 1 and not isinstance(by, Mapping):
        return value
    if kind(value) != "number" or (isinstance(by, Mapping) and (kind(divisor) != "number" or divisor == 0)):
        return None
    return clean(float(value) * factor.numerator / factor.denominator / float(divisor))
