"""Read one event: its properties, the local time at which it happened, and whether a rule means it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from rules_engine.rules.arithmetic import compute
from rules_engine.rules.comparison import compared
from rules_engine.rules.local_time import local_time
from rules_engine.rules.nodes import (
    AllOf,
    AnyOf,
    ComputedValue,
    Condition,
    EventMatch,
    EventTime,
    EventValue,
    Not,
    Operand,
    Predicate,
    PropertyRef,
    TimePart,
    TwoSides,
)
from rules_engine.rules.predicates import Truth, predicate_truth
from rules_engine.rules.truth import all_of, any_of, negate
from rules_engine.rules.types import Value, ValueType, conform
from rules_engine.rules.walk import where_predicates
from rules_engine.rules.zone_offsets import local_midnight


def selects(match: EventMatch, name: str, properties: Mapping[str, Value], at: int) -> bool:
    """Say whether an event matches: it has the name, and every condition of ``where`` is true.

    >>> selects(EventMatch("purchase"), "purchase", {}, at=0)
    True
    """
    return name == match.event and all(_truth(condition, properties, at) is True for condition in match.where)


def _truth(condition: Condition, properties: Mapping[str, Value], at: int) -> Truth:
    match condition:
        case Predicate():
            # No operator reads the clock here: times relative to now are refused in `where`.
            return predicate_truth(condition, _operand(condition, properties, at), 0)
        case AllOf(conditions):
            return all_of([_truth(inner, properties, at) for inner in conditions])
        case AnyOf(conditions):
            return any_of([_truth(inner, properties, at) for inner in conditions])
        case Not(inner):
            return negate(_truth(inner, properties, at))
        case _:
            raise TypeError(f"{condition} is not about one event")


def _operand(predicate: Predicate, properties: Mapping[str, Value], at: int) -> Value:
    def read(part: Operand, value_type: ValueType | None) -> Value:
        assert isinstance(part, PropertyRef | EventTime), predicate
        value = part.name if isinstance(part, PropertyRef) else part
        return conform(read_value(value, properties, at), value_type)

    operand = predicate.operand
    return compared(operand, read) if isinstance(operand, TwoSides) else read(operand, predicate.operand_type)


def read_value(value: EventValue, properties: Mapping[str, Value], at: int) -> Value:
    """Return what an event has of a value; None if it is missing.

    >>> read_value("sku", {"sku": "A1"}, at=0), read_value(EventTime(TimePart.DAY_OF_WEEK), {}, at=0)
    ('A1', 'thursday')
    """
    match value:
        case str():
            return properties.get(value)
        case EventTime():
            return _local_time(value, at)
        case ComputedValue(operation, terms):
            return compute(operation, [properties.get(term) if isinstance(term, str) else term for term in terms])
        case _:
            assert_never(value)


def reads_instant(value: EventValue) -> bool:
    """Say whether a value depends on when the event happened, and not on its properties only."""
    return isinstance(value, EventTime)


def properties_of(value: EventValue) -> tuple[str, ...]:
    """Return the names of the properties that a value is read from.

    >>> from rules_engine.rules.arithmetic import Operation
    >>> properties_of(ComputedValue(Operation.PRODUCT, ("quantity", "price", 0.5)))
    ('quantity', 'price')
    """
    match value:
        case str():
            return (value,)
        case EventTime():
            return ()
        case ComputedValue(terms=terms):
            return tuple(term for term in terms if isinstance(term, str))
        case _:
            assert_never(value)


def match_reads_instant(match: EventMatch) -> bool:
    """Say whether it depends on when an event happened whether it is meant.

    >>> weekend = Predicate(EventTime(TimePart.DAY_OF_WEEK), "in", ("saturday", "sunday"))
    >>> match_reads_instant(EventMatch("view", (Not(weekend),))), match_reads_instant(EventMatch("view"))
    (True, False)
    """
    return any(isinstance(predicate.operand, EventTime) for predicate in where_predicates(match))


def _local_time(time: EventTime, at: int) -> Value:
    if time.part is TimePart.DAY:
        return local_midnight(at, time.timezone)
    local = local_time(at, time.timezone)
    if local is None:
        return None
    return local[0] if time.part is TimePart.TIME_OF_DAY else local[1]
