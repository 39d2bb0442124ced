"""The truth of one predicate on one value. Every evaluation of a single value uses this."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rules_engine.clock import to_micros
from rules_engine.errors import DataError
from rules_engine.rules.nodes import ContextRef, Predicate
from rules_engine.rules.operators import OPERATORS, Argument
from rules_engine.rules.text import fold_case
from rules_engine.rules.types import Kind, Value, ValueType, conform
from rules_engine.rules.undecided import Undecided, judge_undecided

#: True, False, or None for unknown.
Truth = bool | None


def predicate_truth(predicate: Predicate, value: Value, now: int) -> Truth:
    """Return the truth of a predicate on a value of the operand's type; None is a missing value.

    >>> from rules_engine.rules.nodes import FeatureRef
    >>> adult = Predicate(FeatureRef("user", "age"), "at_least", 18)
    >>> predicate_truth(adult, 20, now=0), predicate_truth(adult, None, now=0)
    (True, None)
    """
    operator = OPERATORS[predicate.operator]
    if value.__class__ is Undecided:
        return judge_undecided(predicate, value)
    if operator.name == "exists":
        return (value is not None) is predicate.argument
    if value is None:
        return True if predicate.or_missing else None
    if predicate.ignore_case and operator.argument is not Argument.PATTERN:
        value = fold_case(value)
    return operator.meaning(value, predicate.argument, now)


def as_read(raw: Value, value_type: ValueType | None) -> Value:
    """Return a value as rules read it; one that is not known stays so."""
    return raw if raw.__class__ is Undecided else conform(raw, value_type)


def judge_read(predicate: Predicate, raw: Value, now: int) -> Truth:
    """Return the truth of a predicate on a value as it was read: one of another type is missing."""
    return predicate_truth(predicate, as_read(raw, predicate.operand_type), now)


def context_value(ref: ContextRef, value_type: ValueType | None, context: Mapping[str, Any]) -> Value:
    """Return a context value as rules read it; None if it is not passed and has no default, or is of another type.

    The caller passes times as aware datetimes: a bare number is no time.

    Raises
    ------
    DataError
        if a time has no offset.

    >>> from datetime import UTC, datetime
    >>> from rules_engine.rules.types import TIME
    >>> context_value(ContextRef("at"), TIME, {"at": datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)})
    1000000
    >>> context_value(ContextRef("at"), TIME, {"at": 5}) is None
    True
    """
    passed = context.get(ref.name)
    if passed is None:
        return ref.default
    wants_time = value_type is not None and value_type.kind is Kind.TIME
    try:
        if isinstance(passed, list | tuple | set | frozenset):
            passed = tuple(_context_scalar(item, wants_time) for item in passed)
        else:
            passed = _context_scalar(passed, wants_time)
    except ValueError as error:
        raise DataError(f"{ref}: {error}") from None
    return conform(passed, value_type)


def _context_scalar(value: Any, wants_time: bool) -> Value:
    if isinstance(value, datetime):
        return to_micros(value) if wants_time else value
    return None if wants_time else value
