"""The JSON Schema of a segment's document, and of the cases that test it."""

from __future__ import annotations

from rules_engine.definitions.case_schema import AFTER, INPUTS, INSTANT, MOMENT
from rules_engine.definitions.envelope import NAME_PATTERN
from rules_engine.rules.schema_parts import JsonSchema

ENVELOPE: JsonSchema = {
    "type": "object",
    "description": "Who belongs to this segment.",
    "required": ["segment"],
    "additionalProperties": False,
    "properties": {
        "segment": {
            "type": "string",
            "pattern": NAME_PATTERN,
            "description": "The segment's name: small letters, digits and underscores.",
        },
        "description": {"type": "string", "description": "What the segment means, for people."},
        "owner": {"type": "string", "description": "Whom to ask about it."},
        "tags": {"type": "array", "items": {"type": "string"}, "description": "Words to find it by."},
        "public": {
            "type": "boolean",
            "description": "Whether browsers and apps may ask about it, with a key of the role `evaluate`.",
        },
        "when": {"x-kind": "condition", "description": "The condition under which someone belongs to the segment."},
        "list": {"x-kind": "list", "description": "In place of `when`: the file that names the members."},
    },
}

#: What only editors apply of it: the parser says it better.
EDITOR_RULES: JsonSchema = {"oneOf": [{"required": ["when"]}, {"required": ["list"]}]}

_VERDICT = {"enum": [True, False, "unknown"], "description": "The answer: true, false or unknown."}

#: The JSON Schema of one case of a test.
CASE: JsonSchema = {
    "type": "object",
    "required": ["name", "expect"],
    "additionalProperties": False,
    "properties": {
        **{key: INPUTS[key] for key in ("name", "features", "updated_at", "context", "events", "at", "entity")},
        "expect": {**_VERDICT, "description": "The answer at the start: true, false or unknown."},
        "then": {
            "type": "array",
            "description": "The answers later, if no other events come.",
            "items": {
                "type": "object",
                "required": ["expect"],
                "properties": {"at": INSTANT, "after": AFTER, "expect": _VERDICT},
                "additionalProperties": False,
                "oneOf": [{"required": ["at"]}, {"required": ["after"]}],
            },
        },
        "enters": {"type": "array", "items": MOMENT, "description": "Every instant at which the entity enters."},
        "exits": {"type": "array", "items": MOMENT, "description": "Every instant at which the entity leaves."},
    },
}
