"""Nodes as JSON and back, for the read plan: the request path loads them without YAML, schema or checks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any

from rules_engine.rules import nodes
from rules_engine.rules.aggregates import Aggregate
from rules_engine.rules.arithmetic import Operation
from rules_engine.rules.calendar_spans import CalendarSpan
from rules_engine.rules.types import Kind, ValueType
from rules_engine.rules.windows import AgoWindow, BeforeWindow, CalendarWindow, FixedWindow

CLASSES: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        nodes.FeatureRef,
        nodes.ContextRef,
        nodes.ClockRef,
        nodes.BucketRef,
        nodes.EventAggregate,
        nodes.EventMatch,
        nodes.PropertyRef,
        nodes.EventTime,
        nodes.Side,
        nodes.TwoSides,
        nodes.Calculation,
        nodes.ComputedValue,
        nodes.AllOf,
        nodes.AnyOf,
        nodes.Not,
        nodes.Predicate,
        nodes.SequenceStep,
        nodes.Sequence,
        nodes.SegmentRef,
        ValueType,
        AgoWindow,
        FixedWindow,
        CalendarWindow,
        BeforeWindow,
        CalendarSpan,
    )
}
ENUMS: dict[str, type[Enum]] = {
    cls.__name__: cls for cls in (nodes.ClockField, nodes.TimePart, Aggregate, Kind, Operation)
}


def encode_part(part: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return named nodes as one part of a read plan's ``definitions``; no part if there are none."""
    return {part: {name: encode(values[name]) for name in sorted(values)}} if values else {}


def decode_part(part: str, definitions: Mapping[str, Any], types: Iterable[type] = ()) -> dict[str, Any]:
    """Return the inverse of :func:`encode_part`.

    Raises
    ------
    ValueError
        if the data was not written by it.
    """
    return decode_named(part, definitions.get(part, {}), types)


def decode_named(what: str, data: Mapping[str, Any], types: Iterable[type]) -> dict[str, Any]:
    """Return nodes by name; ``types`` are their classes and enumerations besides those of conditions.

    Raises
    ------
    ValueError
        if the data is none of such nodes; ``what`` names it in the message.
    """
    enums = ENUMS | {cls.__name__: cls for cls in types if issubclass(cls, Enum)}
    classes = CLASSES | {cls.__name__: cls for cls in types if is_dataclass(cls)}
    try:
        return {name: decode(node, classes, enums) for name, node in data.items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"not encoded {what}: {error!r}") from error


def encode(value: Any) -> Any:
    """Return a node, and everything inside it, as plain JSON data."""
    if isinstance(value, Enum):
        return {"enum": type(value).__name__, "value": value.value}
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    if is_dataclass(value):
        data = {"node": type(value).__name__}
        for name in _stored_fields(value.__class__):
            data[name] = encode(getattr(value, name))
        return data
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} has no place in a rule")


def decode(data: Any, classes: Mapping[str, type] = CLASSES, enums: Mapping[str, type[Enum]] = ENUMS) -> Any:
    """Return the inverse of :func:`encode`, for values of these classes."""
    if isinstance(data, list):
        return tuple(decode(item, classes, enums) for item in data)
    if not isinstance(data, dict):
        return data
    if "enum" in data:
        return enums[data["enum"]](data["value"])
    cls = classes[data["node"]]
    return cls(**{name: decode(data[name], classes, enums) for name in _stored_fields(cls) if name in data})


@cache
def _stored_fields(cls: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(cls) if field.name != "span")
