"""Values and arguments as people write them."""

from __future__ import annotations

import json
from typing import Any

from rules_engine.clock import format_duration, format_instant, format_time_of_day
from rules_engine.rules.operators import OPERATORS, Argument
from rules_engine.rules.types import Kind, Value, ValueType


def format_value(value: Value, value_type: ValueType | None = None) -> str:
    """Return a value for people: instants and times of day spelled out, strings quoted where YAML would need it.

    >>> from rules_engine.rules.types import TIME
    >>> format_value("NO"), format_value(True), format_value(0, TIME), format_value(None)
    ('"NO"', 'true', '1970-01-01T00:00:00Z', 'missing')
    """
    if value is None:
        return "missing"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(format_value(item, value_type) for item in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if value_type is not None and value_type.kind is Kind.TIME and isinstance(value, int):
        return format_instant(value)
    if value_type is not None and value_type.kind is Kind.TIME_OF_DAY and isinstance(value, int):
        return format_time_of_day(value)
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)


def format_argument(operator: str, argument: Any, value_type: ValueType | None = None) -> str:
    """Return what an operator compares with, as it was written; ``value_type`` is that of the operand.

    >>> format_argument("in", ("NO", "SE"))
    '["NO", "SE"]'
    """
    shape = OPERATORS[operator].argument
    if shape is Argument.DURATION:
        return format_duration(argument)
    if shape is Argument.CALENDAR:
        return str(argument)
    if shape is Argument.PATTERN:
        return json.dumps(argument.removeprefix("(?i)"), ensure_ascii=False)
    if shape in (Argument.FLAG, Argument.TEXT):
        return format_value(argument)
    return format_value(argument, value_type)
