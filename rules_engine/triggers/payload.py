"""Computes the values that an action carries, as JSON."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any

from rules_engine.clock import format_instant
from rules_engine.events.state.reading import StateReader
from rules_engine.features.online.selection import EntityFeatures
from rules_engine.rules.aggregates import AGGREGATES
from rules_engine.rules.inputs import Event
from rules_engine.rules.nodes import EventAggregate, FeatureRef
from rules_engine.rules.triggers.nodes import Constant, EventProperty, Trigger
from rules_engine.rules.types import Kind, Value, ValueType, conform
from rules_engine.rules.undecided import Undecided

_INT64 = range(-(2**63), 2**63)


def payload_of(
    trigger: Trigger,
    features: EntityFeatures,
    reader: StateReader,
    at: int,
    types: Mapping[str, ValueType | None],
    properties: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the payload of a trigger that fires at an instant; what is missing is None.

    ``properties`` are those of the event that started it, from :func:`properties_of`.
    """
    return {
        name: properties.get(value.name)
        if isinstance(value, EventProperty)
        else _value(value, features, reader, at, types)
        for name, value in trigger.payload
    }


def properties_of(trigger: Trigger, event: Event) -> dict[str, Any]:
    """Return the properties of an event that a trigger's payload names, as JSON; what is missing is left out.

    >>> from rules_engine.rules.nodes import EventMatch
    >>> from rules_engine.rules.triggers.nodes import OnEvent
    >>> trigger = Trigger("thank", OnEvent(EventMatch("buy")), (), payload=(("what", EventProperty("sku")),))
    >>> properties_of(trigger, Event("buy", 0, "buy:1", {"sku": "A1", "price": 5}))
    {'sku': 'A1'}
    """
    named = [value for _, value in trigger.payload if isinstance(value, EventProperty)]
    values = {each.name: as_json(conform(event.properties.get(each.name), each.type), each.type) for each in named}
    return {name: value for name, value in values.items() if value is not None}


def feature_at(features: EntityFeatures, ref: FeatureRef, at: int) -> Value:
    """Return a feature's value at an instant; None if it is missing or past its view's ttl."""
    expires_at = features.expires_at.get(ref.view)
    return None if expires_at is not None and at >= expires_at else features.values.get(ref.key)


def _value(
    value: FeatureRef | EventAggregate | Constant,
    features: EntityFeatures,
    reader: StateReader,
    at: int,
    types: Mapping[str, ValueType | None],
) -> Any:
    match value:
        case Constant():
            return as_json(value.value, None)
        case FeatureRef():
            value_type = types.get(value.key)
            return as_json(conform(feature_at(features, value, at), value_type), value_type)
        case EventAggregate():
            shown = None if AGGREGATES[value.function].is_count else value.of_type
            result = reader.aggregate(value, at)
            return None if isinstance(result, Undecided) else as_json(conform(result, value.type), shown)


def as_json(value: Value, value_type: ValueType | None) -> Any:
    """Return a value as JSON has it: times are ISO 8601, bytes base64; an infinite number, which JSON lacks, is None.

    >>> from rules_engine.rules.types import TIME
    >>> as_json(0, TIME), as_json((1.5, None), None), as_json(b"a", None), as_json(2**70, None)
    ('1970-01-01T00:00:00Z', [1.5, None], 'YQ==', 1.1805916207174113e+21)
    """
    if isinstance(value, tuple):
        return [as_json(item, value_type) for item in value]
    if value_type is not None and value_type.kind is Kind.TIME and isinstance(value, int):
        return format_instant(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int) and value not in _INT64:
        value = _as_float(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _as_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf
