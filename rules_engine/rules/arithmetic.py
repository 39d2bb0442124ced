"""Arithmetic in rules: what several numbers come to. It is that of floats, and so the same in every target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum
from functools import reduce
from operator import add, mul

from rules_engine.rules.types import FLOAT, Value, conform


class Operation(Enum):
    """Names what is done with numbers."""

    TOTAL = "total"
    DIFFERENCE = "difference"
    PRODUCT = "product"
    RATIO = "ratio"


#: How an operation is shown.
SIGNS = {Operation.TOTAL: "+", Operation.DIFFERENCE: "-", Operation.PRODUCT: "*", Operation.RATIO: "/"}

#: The operations on exactly two numbers; the others take two or more.
ON_TWO = frozenset({Operation.DIFFERENCE, Operation.RATIO})


def compute(operation: Operation, values: Sequence[Value]) -> float | None:
    """Return what values come to; None if one is missing or no number, or if the result is no finite number.

    >>> compute(Operation.PRODUCT, [3, 2.5]), compute(Operation.DIFFERENCE, [1, 3])
    (7.5, -2.0)
    >>> compute(Operation.RATIO, [1, 0]) is None, compute(Operation.TOTAL, [1, None]) is None
    (True, True)
    """
    present = [conform(value, FLOAT) for value in values]
    if None in present:
        return None
    try:
        result = _on_floats(operation, [float(value) for value in present])
    except (OverflowError, ZeroDivisionError):
        return None
    return result if math.isfinite(result) else None


def _on_floats(operation: Operation, numbers: Sequence[float]) -> float:
    match operation:
        case Operation.TOTAL:
            return reduce(add, numbers)
        case Operation.PRODUCT:
            return reduce(mul, numbers)
        case Operation.DIFFERENCE:
            return numbers[0] - numbers[1]
        case Operation.RATIO:
            return numbers[0] / numbers[1]
