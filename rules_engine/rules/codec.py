"""Checked rules as JSON and back, for the read plan: the request path loads them without YAML, schema or checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any

from rules_engine.rules import nodes
from rules_engine.rules.program import Program
from rules_engine.rules.types import Kind, ValueType

CLASSES: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        nodes.FeatureRef,
        nodes.ContextRef,
        nodes.ClockRef,
        nodes.EventAggregate,
        nodes.EventMatch,
        nodes.PropertyRef,
        nodes.AllOf,
        nodes.AnyOf,
        nodes.Not,
        nodes.Predicate,
        nodes.SequenceStep,
        nodes.Sequence,
        nodes.SegmentRef,
        nodes.Segment,
        ValueType,
    )
}
ENUMS: dict[str, type[Enum]] = {cls.__name__: cls for cls in (nodes.ClockField, nodes.Aggregate, Kind)}


def encode_program(program: Program) -> dict[str, Any]:
    """The program as plain JSON data; positions in files are left out.

    >>> from rules_engine.rules.nodes import FeatureRef, Predicate, Segment
    >>> program = Program({"vip": Segment("vip", Predicate(FeatureRef("user", "spend"), "at_least", 100))})
    >>> decode_program(encode_program(program)) == program
    True
    """
    return {name: encode(program.segments[name]) for name in program.names}


def decode_program(data: Mapping[str, Any]) -> Program:
    """The inverse of :func:`encode_program`.

    Raises
    ------
    ValueError
        if the data was not written by it.
    """
    try:
        return Program({name: decode(segment) for name, segment in data.items()})
    except (KeyError, TypeError) as error:
        raise ValueError(f"not an encoded program: {error!r}") from error


def encode(value: Any) -> Any:
    """A node, and everything inside it, as plain JSON data."""
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


def decode(data: Any, classes: Mapping[str, type] = CLASSES, enums: Mapping[str, Callable[[Any], Any]] = ENUMS) -> Any:
    """The inverse of :func:`encode`, for values of these classes."""
    if isinstance(data, list):
        return tuple(decode(item, classes, enums) for item in data)
    if not isinstance(data, dict):
        return data
    if "enum" in data:
        return enums[data["enum"]](data["value"])
    cls = classes[data["node"]]
    return cls(**{name: decode(data[name], classes, enums) for name in _stored_fields(cls)})


@cache
def _stored_fields(cls: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(cls) if field.name != "span")
