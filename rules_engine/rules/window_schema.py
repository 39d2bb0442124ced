"""The JSON Schema, for editors, of durations, windows and units of the calendar."""

from __future__ import annotations

from rules_engine.rules.forms import WEEKDAYS
from rules_engine.rules.schema_parts import JsonSchema, mapping_schema
from rules_engine.rules.windows import MAX_UNITS, UNITS

DURATION: JsonSchema = {
    "type": "string",
    "pattern": "^0*[1-9][0-9]*[smhdw]$",
    "description": "A whole number and one of s, m, h, d, w, e.g. 30m or 7d.",
    "examples": ["30m", "24h", "7d", "30d"],
}
WINDOW: JsonSchema = {
    "type": "string",
    "pattern": "^(0*[1-9][0-9]*[smhdw]|ever)$",
    "description": "How far back to look: a duration such as 30m, 24h or 30d, or `ever`.",
    "examples": ["1h", "24h", "7d", "30d", "ever"],
}
_INSTANT: JsonSchema = {"type": "string", "description": "An instant with an offset, e.g. 2026-01-01T00:00:00Z."}
FIXED_ZONE: JsonSchema = {"type": "string", "description": "An IANA name, e.g. Europe/Oslo; without it UTC."}
EVENT_WINDOW: JsonSchema = {
    "description": "When the events happened: a duration such as 30d, `ever`, some time ago, between instants, "
    "or in units of the calendar.",
    "anyOf": [
        WINDOW,
        {
            "type": "object",
            "properties": {
                "between_ago": {
                    "type": "array",
                    "items": WINDOW,
                    "minItems": 2,
                    "maxItems": 2,
                    "description": "Two durations, the nearer one first, e.g. [30d, 60d].",
                }
            },
            "required": ["between_ago"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "properties": {
                "from": {**_INSTANT, "description": "The first instant; without it there is no start."},
                "to": {
                    **_INSTANT,
                    "description": "The instant before which the window ends; without it there is no end.",
                },
            },
            "minProperties": 1,
            "additionalProperties": False,
        },
        {
            "type": "object",
            "properties": {
                "calendar": {"enum": list(UNITS), "description": "The unit."},
                "last": {
                    "anyOf": [{"const": "this"}, {"type": "integer", "minimum": 1, "maximum": MAX_UNITS}],
                    "description": "How many whole units before this one; `this`, or nothing, is this one up to now.",
                },
                "timezone": FIXED_ZONE,
                "first_day": {"enum": list(WEEKDAYS), "description": "The first day of weeks; without it Monday."},
            },
            "required": ["calendar"],
            "additionalProperties": False,
        },
    ],
}

_UNITS: JsonSchema = {"anyOf": [{"const": "this"}, {"type": "integer", "minimum": 1, "maximum": MAX_UNITS}]}

CALENDAR_SPAN: JsonSchema = mapping_schema(
    {
        "calendar": {"enum": list(UNITS), "description": "The unit; without `last` and `next` the one of now."},
        "last": {**_UNITS, "description": "How many whole units before this one."},
        "next": {**_UNITS, "description": "How many whole units after this one."},
        "timezone": FIXED_ZONE,
        "first_day": {"enum": list(WEEKDAYS), "description": "The first day of weeks; without it Monday."},
    },
    ("calendar",),
)
