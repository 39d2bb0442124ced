"""The JSON Schema of the ``project:`` document."""

from __future__ import annotations

from rules_engine.rules.schema_parts import NAME, JsonSchema, SchemaParts, feature_schema
from rules_engine.rules.settings.sinks import sink_schemas
from rules_engine.rules.types import BOOLEAN

ENVELOPE: JsonSchema = {
    "type": "object",
    "description": "Settings of the whole project; at most one in all files.",
    "required": ["project"],
    "additionalProperties": False,
    "properties": {
        "project": {"type": "string", "description": "The project's name, for people."},
        "description": {"type": "string", "description": "What the project is about, for people."},
        "now": {
            "type": "string",
            "description": "The instant that counts as now where none is given: for historical data. "
            "Leave it out for live data.",
        },
        "consent": {
            "x-kind": "consents",
            "description": "By name, the feature that is true where somebody consented.",
        },
        "sinks": {"x-kind": "sinks", "description": "By name, where the actions of triggers go."},
    },
}


def describe_parts(parts: SchemaParts) -> dict[str, JsonSchema]:
    """Return by ``x-kind`` of the envelope what stands there."""
    return {
        "consents": {"type": "object", "additionalProperties": feature_schema(parts.catalog, BOOLEAN)},
        "sinks": {
            "type": "object",
            "propertyNames": NAME,
            "additionalProperties": {"type": "object", "anyOf": sink_schemas()},
        },
    }
