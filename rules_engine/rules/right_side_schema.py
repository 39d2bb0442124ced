"""The JSON Schema, for editors, of the value right of an operator."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rules_engine.rules.aggregates import PROPERTY_AGGREGATES
from rules_engine.rules.forms import SCALED_OPTIONAL
from rules_engine.rules.schema_parts import JsonSchema, mapping_schema

#: Another value instead of a literal, which may be multiplied and divided.
RIGHT_SIDE: JsonSchema = {"$ref": "#/definitions/right_side"}

_VALUE: JsonSchema = {"$ref": "#/definitions/right_value"}
_FACTOR: JsonSchema = {"type": "number", "exclusiveMinimum": 0, "examples": [0.5, 2]}


def right_side_definitions(features: JsonSchema, sources: Sequence[JsonSchema], window: JsonSchema) -> JsonSchema:
    """Return the definitions of right sides, by name.

    Parameters
    ----------
    features
        the names of features.
    sources
        by event, what an aggregate may be of: an event and its property.
    window
        the schema of ``within``.
    """
    values = [
        mapping_schema({"feature": features}, description="The value now of another feature."),
        mapping_schema(
            {"context": {"type": "string"}, "default": {"description": "The value where the caller passes none."}},
            ("context",),
            "A value passed with the request.",
        ),
    ]
    if sources:
        event = {"$ref": "#/definitions/event_name"}
        counted = mapping_schema({"event": event, "where": {"$ref": "#/definitions/where"}}, ("event",))
        of_property: JsonSchema = {"anyOf": list(sources)}
        aggregates = [("count", counted, "how many such events there were")]
        aggregates += [(row.function.value, of_property, row.summary) for row in PROPERTY_AGGREGATES]
        values += [
            mapping_schema({name: of, "within": window}, description=f"{summary.capitalize()}.")
            for name, of, summary in aggregates
        ]
    return {"right_value": {"anyOf": values}, "right_side": {"anyOf": [*values, _scaled(_VALUE)]}}


def _scaled(value: JsonSchema) -> JsonSchema:
    """Return the schema of a value that is multiplied or divided."""
    times, divided_by = SCALED_OPTIONAL
    return mapping_schema(
        {
            "of": value,
            times: {**_FACTOR, "description": "What the value is multiplied by."},
            divided_by: {"anyOf": [_FACTOR, value], "description": "What it is divided by: a number or a value."},
        },
        ("of",),
        "A value, multiplied or divided.",
    )


def property_side(properties: Collection[str]) -> JsonSchema:
    """Return the schema of another property of the same event; without names, of any."""
    name: JsonSchema = {"enum": sorted(properties)} if properties else {"type": "string"}
    value = mapping_schema({"property": name}, description="Another property of the same event.")
    return {"anyOf": [value, _scaled(value)]}
