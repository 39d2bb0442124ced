"""Reads what follows an operator: checked against the operand's type, converted to what evaluation compares."""

from __future__ import annotations

import math
from typing import Any

from rules_engine.clock import parse_duration, parse_instant, parse_time_of_day
from rules_engine.definitions.source import Items, Node, Scalar
from rules_engine.diagnostics import Diagnostic, nearest
from rules_engine.rules.forms import WEEKDAYS
from rules_engine.rules.operators import Argument, Operator
from rules_engine.rules.text import fold_case
from rules_engine.rules.types import BOOLEAN, FLOAT, INTEGER, STRING, TIME, Kind, ValueType

_EXAMPLES = {
    Kind.BOOLEAN: "`true` or `false`",
    Kind.INTEGER: "a number",
    Kind.FLOAT: "a number",
    Kind.STRING: "a string",
    Kind.TIME: "an instant, e.g. `2026-01-31T09:00:00Z`",
    Kind.TIME_OF_DAY: "a time of day, e.g. `09:30`",
    Kind.DAY_OF_WEEK: "a day, `monday` to `sunday`",
}


class Refusal(Exception):
    """One literal was refused; carries the diagnostic."""

    def __init__(self, code: str, node: Node, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.diagnostic = Diagnostic(code, node.span, message, hint)


def describe(node: Node) -> str:
    """Return what stands there, for a message.

    >>> from rules_engine.definitions.source import from_plain
    >>> describe(from_plain("5")), describe(from_plain(5)), describe(from_plain([1]))
    ('the string "5"', 'the number 5', 'a list')
    """
    if isinstance(node, Items):
        return "a list"
    if not isinstance(node, Scalar):
        return "a mapping"
    if node.value is None:
        return "nothing"
    if isinstance(node.value, bool):
        return f"`{str(node.value).lower()}`"
    return f'the string "{_shorten(node.value)}"' if isinstance(node.value, str) else f"the number {node.value}"


def _shorten(text: str, limit: int = 40) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def infer_type(operator: Operator, node: Node) -> ValueType | None:
    """Return the operand's type as the literal tells it, where nothing declares one.

    Raises
    ------
    Refusal
        if the operator compares no values of that type: nothing is above `true`.

    >>> from rules_engine.definitions.source import from_plain
    >>> from rules_engine.rules.operators import OPERATORS
    >>> str(infer_type(OPERATORS["equals"], from_plain(5)))
    'integer'
    """
    if operator.argument is Argument.FLAG:
        return None
    if operator.argument in (Argument.DURATION, Argument.CALENDAR) or operator.name in ("before", "after"):
        return TIME
    first = node.items[0] if isinstance(node, Items) and node.items else node
    value = first.value if isinstance(first, Scalar) else None
    scalar = _scalar_type(value)
    if scalar == STRING and Kind.STRING not in operator.kinds:
        scalar = TIME
    if scalar is not None and scalar.kind not in operator.kinds and operator.argument is not Argument.TEXT:
        raise Refusal("literal-type", first, f"`{operator.name}` cannot compare with {describe(first)}")
    return ValueType(scalar.kind, operator.on_lists) if scalar else None


def _scalar_type(value: Any) -> ValueType | None:
    for python_type, value_type in ((bool, BOOLEAN), (int, INTEGER), (float, FLOAT), (str, STRING)):
        if isinstance(value, python_type):
            return value_type
    return None


def refuse_null(node: Node) -> None:
    """Refuse null, which nothing is equal to.

    Raises
    ------
    Refusal
        if the node is null.
    """
    if isinstance(node, Scalar) and node.value is None:
        raise Refusal(
            "null-literal", node, "nothing is equal to a missing value", "use `exists: false`, or `or_missing: true`"
        )


def literal(node: Node, value_type: ValueType | None, ignore_case: bool) -> Any:
    """Return one literal of a type; without a type any scalar passes.

    Raises
    ------
    Refusal
        if it is null, not finite, of another type, or not in the type's format.
    """
    refuse_null(node)
    if not isinstance(node, Scalar):
        raise Refusal("literal-type", node, f"a single value is expected here, not {describe(node)}")
    value = node.value
    _refuse_extreme_number(node, value)
    if value_type is None:
        return value
    if not _is_written_as(value, value_type.kind):
        expected = _EXAMPLES.get(value_type.kind, f"a {value_type.kind.value}")
        hint = "remove the quotes" if isinstance(value, str) and value_type.kind.is_number else None
        if value_type.kind in (Kind.STRING, Kind.TIME, Kind.TIME_OF_DAY):
            hint = "quote it"
        raise Refusal(
            "literal-type", node, f"{describe(node)} is not of the type {value_type.kind.value}: write {expected}", hint
        )
    if value_type.kind is Kind.STRING and ignore_case:
        return fold_case(str(value))
    return _CONVERSIONS.get(value_type.kind, lambda scalar: scalar.value)(node)


def _refuse_extreme_number(node: Node, value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise Refusal("non-finite-literal", node, f"{value} is not a number that a value can be compared with")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise Refusal("number-too-large", node, "this number does not fit into 64 bits", "no feature can hold it")


def _is_written_as(value: Any, kind: Kind) -> bool:
    if kind is Kind.BOOLEAN:
        return isinstance(value, bool)
    if kind.is_number:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, str)


def _instant(node: Scalar) -> int:
    try:
        return parse_instant(str(node.value))
    except ValueError as error:
        code = "instant-without-offset" if "has no offset" in str(error) else "invalid-instant"
        raise Refusal(code, node, str(error)) from None


def _time_of_day(node: Scalar) -> int:
    try:
        return parse_time_of_day(str(node.value))
    except ValueError as error:
        raise Refusal("invalid-time-of-day", node, str(error)) from None


def _weekday(node: Scalar) -> str:
    if node.value not in WEEKDAYS:
        hint = nearest(str(node.value), WEEKDAYS) or f"write one of {', '.join(WEEKDAYS)}"
        raise Refusal("invalid-choice", node, f"`{node.value}` is not a day of the week", hint)
    return str(node.value)


_CONVERSIONS = {Kind.TIME: _instant, Kind.TIME_OF_DAY: _time_of_day, Kind.DAY_OF_WEEK: _weekday}


def duration(node: Node) -> int:
    """Return a duration in microseconds.

    Raises
    ------
    Refusal
        if it is none.
    """
    if not isinstance(node, Scalar) or not isinstance(node.value, str):
        hint = (
            f"write the unit, e.g. `{node.value}m`"
            if isinstance(node, Scalar) and isinstance(node.value, int)
            else None
        )
        raise Refusal(
            "invalid-duration", node, f"{describe(node)} is not a duration: write e.g. `30m`, `24h`, `7d`", hint
        )
    if node.value == "ever":
        raise Refusal("ever-not-allowed", node, "`ever` is not a length of time; write a duration, e.g. `30d`")
    try:
        return parse_duration(node.value)
    except ValueError as error:
        code = "invalid-duration"
        if "no time at all" in str(error):
            code = "zero-duration"
        elif "months and years" in str(error):
            code = "calendar-duration"
        raise Refusal(code, node, str(error)) from None


def instant(node: Node) -> int:
    """Return an instant in microseconds.

    Raises
    ------
    Refusal
        if it is no ISO 8601 instant with an offset.
    """
    if not isinstance(node, Scalar) or not isinstance(node.value, str):
        hint = "write e.g. `2026-01-01T00:00:00Z`"
        raise Refusal("invalid-instant", node, f"an instant is text in ISO 8601, not {describe(node)}", hint)
    return _instant(node)


def window(node: Node) -> int | None:
    """Return a duration in microseconds, or None for ``ever``.

    Raises
    ------
    Refusal
        if it is neither.
    """
    if isinstance(node, Scalar) and node.value == "ever":
        return None
    return duration(node)
