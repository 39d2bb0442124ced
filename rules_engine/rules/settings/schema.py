"""The JSON Schema of the ``project:`` document."""

from __future__ import annotations

from rules_engine.rules.schema_parts import NAME, JsonSchema, SchemaParts, feature_schema, mapping_schema
from rules_engine.rules.settings.frequency import SCHEMA
from rules_engine.rules.settings.nodes import Role
from rules_engine.rules.settings.sinks import sink_schemas
from rules_engine.rules.types import BOOLEAN

_KEYS: JsonSchema = {
    "type": "array",
    "description": "Environment variables that hold keys; several, so that one can take the place of another.",
    "minItems": 1,
    "items": {
        "type": "string",
        "pattern": r"^\$\{[A-Za-z_][A-Za-z0-9_]*\}$(?!\n)",
        "x-hint": "name the environment variable that holds the key, e.g. `${SHOP_KEY}`: a key is a secret",
    },
}
#: The JSON Schema of ``service:``.
SERVICE: JsonSchema = {
    "type": "object",
    "description": "Who may ask and tell over HTTP, once `segments serve` runs.",
    "additionalProperties": False,
    "properties": {
        "keys": {
            "type": "object",
            "description": "By role, the keys that have it.",
            "properties": {
                Role.EVALUATE.value: {**_KEYS, "description": "May ask about public segments: for browsers and apps."},
                Role.TRACK.value: {**_KEYS, "description": "May report events."},
                Role.CONSOLE.value: {**_KEYS, "description": "May look at the console, but not at single people."},
                Role.READ.value: {**_KEYS, "description": "May ask about all segments, and read features and reasons."},
                Role.ADMIN.value: {**_KEYS, "description": "May do everything."},
            },
            "additionalProperties": False,
        },
        "cors": {
            "type": "array",
            "description": "The origins of web pages that may ask.",
            "items": {
                "type": "string",
                "pattern": r"^(https?://[a-z0-9.-]+(:[0-9]+)?|\*)$(?!\n)",
                "x-hint": "write scheme, host and port only, e.g. `https://shop.example`",
            },
        },
        "requests_per_second": {
            "type": "object",
            "description": "By role, how many requests each of its keys may send in a second.",
            "properties": {role.value: {"type": "number", "exclusiveMinimum": 0} for role in Role},
            "additionalProperties": False,
        },
    },
}

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
        "frequency": {
            "x-kind": "frequency",
            "description": "How often triggers may fire for one person, all of them or those with a tag.",
        },
        "service": SERVICE,
        "holdout": {
            "x-kind": "global_holdout",
            "description": "The share of users who take part in no experiment, to compare with all of them.",
        },
    },
}


def describe_parts(parts: SchemaParts) -> dict[str, JsonSchema]:
    """Return by ``x-kind`` of the envelope what stands there."""
    return {
        "frequency": SCHEMA,
        "consents": {"type": "object", "additionalProperties": feature_schema(parts.catalog, BOOLEAN)},
        "sinks": {
            "type": "object",
            "propertyNames": NAME,
            "additionalProperties": {"type": "object", "anyOf": sink_schemas()},
        },
        "global_holdout": mapping_schema({"percent": {"type": "number", "exclusiveMinimum": 0, "maximum": 50}}),
    }
