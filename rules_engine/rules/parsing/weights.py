"""Weights and other shares as they are written, in percent, and as they are computed with, as fractions of 1."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from rules_engine.definitions.source import Node, Scalar
from rules_engine.rules.allocation import equal_weights
from rules_engine.rules.parsing.literals import Refusal, describe

#: As many decimals as buckets tell apart.
_DECIMALS = 2


def percent(node: Node, what: str, *, least: float = 0) -> Decimal:
    """Return a percentage.

    Raises
    ------
    Refusal
        if it is no number above ``least`` up to 100, or has more than two decimals.
    """
    value = node.value if isinstance(node, Scalar) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        hint = "write 50 for 50 %" if isinstance(value, str) and value.endswith("%") else None
        raise Refusal("invalid-percent", node, f"{what} is a percentage, not {describe(node)}", hint)
    if not least <= value <= 100:
        raise Refusal("invalid-percent", node, f"{what} is from {least:g} to 100, not {value}")
    number = Decimal(str(value))
    if round(number, _DECIMALS) != number:
        raise Refusal("invalid-percent", node, f"{what} has at most two decimals, and {value} has more")
    return number


def fraction(number: Decimal) -> float:
    """Return a percentage as a fraction of 1."""
    return float(number / 100)


def fractions(weights: Sequence[Decimal | None], node: Node, what: str) -> tuple[float, ...]:
    """Return weights in percent as fractions of 1; without any weight all are equal.

    Raises
    ------
    Refusal
        if some are missing, or they do not sum to 100.
    """
    present = [weight for weight in weights if weight is not None]
    if not present:
        return equal_weights(len(weights))
    if len(present) < len(weights):
        raise Refusal("missing-weight", node, f"some of {what} have a weight and some have none", "give each a weight")
    total = sum(present, Decimal(0))
    if total != 100:
        gap = f"{abs(100 - total)} {'is left' if total < 100 else 'too many'}"
        raise Refusal("wrong-weights", node, f"the weights of {what} sum to {total} and not to 100: {gap}",
                      "change a weight, or leave all of them out for equal ones")  # fmt: skip
    return tuple(fraction(weight) for weight in present)
