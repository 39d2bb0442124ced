"""The JSON Schema of a decision's document, and of the cases that test it."""

from __future__ import annotations

from rules_engine.definitions.case_schema import AFTER, INPUTS, INSTANT, MOMENT
from rules_engine.definitions.envelope import NAME_PATTERN
from rules_engine.rules.decisions.parse import MAX_RULES, MAX_VARIANTS
from rules_engine.rules.schema_parts import NAME, JsonSchema, SchemaParts, mapping_schema

_VALUE: JsonSchema = {"description": "What callers get: any JSON, of one type for all variants; null goes with each."}

ENVELOPE: JsonSchema = {
    "type": "object",
    "description": "Which variant somebody gets.",
    "required": ["decision", "variants", "default"],
    "additionalProperties": False,
    "properties": {
        "decision": {
            "type": "string",
            "pattern": NAME_PATTERN,
            "description": "The decision's name: small letters, digits and underscores; no segment has it.",
        },
        "description": {"type": "string", "description": "What is decided, for people."},
        "owner": {"type": "string", "description": "Whom to ask about it."},
        "tags": {"type": "array", "items": {"type": "string"}, "description": "Words to find it by."},
        "public": {
            "type": "boolean",
            "description": "Whether browsers and apps may ask about it, with a key of the role `evaluate`.",
        },
        "variants": {
            "type": "object",
            "minProperties": 1,
            "maxProperties": MAX_VARIANTS,
            "x-kind": "variants",
            "description": "By name, what somebody may get.",
        },
        "rules": {
            "type": "array",
            "maxItems": MAX_RULES,
            "items": {"type": "object"},
            "x-kind": "decision_rules",
            "description": "Who gets what: the first rule that serves somebody decides.",
        },
        "default": {"x-kind": "variant_name", "description": "The variant of everybody else."},
    },
}

_POINT: dict[str, JsonSchema] = {
    "expect": {"type": "string", "description": "The name of the variant."},
    "reason": {
        "enum": ["rule", "split", "experiment", "stopped", "shipped", "default"],
        "description": "Why it is chosen.",
    },
    "rule": {"type": "integer", "minimum": 1, "description": "The rule that decides, counted from 1."},
}

#: The JSON Schema of one case of a test.
CASE: JsonSchema = {
    "type": "object",
    "required": ["name"],
    "additionalProperties": False,
    "oneOf": [{"required": ["expect"]}, {"required": ["shares"]}],
    "properties": {
        **{key: INPUTS[key] for key in ("name", "features", "updated_at", "context", "events", "at")},
        "entity": {"type": "string", "description": "The user's key, on which shares and experiments depend."},
        **_POINT,
        "then": {
            "type": "array",
            "description": "The variants later, if no other events come.",
            "items": {
                "type": "object",
                "required": ["expect"],
                "properties": {"at": INSTANT, "after": AFTER, **_POINT},
                "additionalProperties": False,
                "oneOf": MOMENT["oneOf"],
            },
        },
        "changes": {
            "type": "array",
            "items": {**MOMENT, "properties": {**MOMENT["properties"], "to": {"type": "string"}}},
            "description": "Every instant at which the variant changes, up to the last that the case names.",
        },
        "shares": {
            "type": "object",
            "description": "By variant, the percentage of many users with different keys who get it.",
            "additionalProperties": {"type": "number", "minimum": 0, "maximum": 100},
        },
        "users": {
            "type": "integer",
            "minimum": 100,
            "maximum": 100_000,
            "description": "How many users `shares` counts; 10,000 if it is not given.",
        },
        "within": {
            "type": "number",
            "exclusiveMinimum": 0,
            "description": "By how much a share may differ, in percentage points; 2 if it is not given.",
        },
    },
}


def describe_parts(parts: SchemaParts) -> dict[str, JsonSchema]:
    """Return by ``x-kind`` of the envelope what stands there."""
    weight = {"type": "number", "minimum": 0, "maximum": 100}
    shares = {
        "type": "object",
        "minProperties": 2,
        "propertyNames": NAME,
        "additionalProperties": weight,
        "description": "Several variants, each with its share in percent.",
    }
    rule = mapping_schema(
        {
            "when": {"$ref": "#/definitions/condition", "description": "Who it is for; everybody if it is not given."},
            "serve": {"anyOf": [NAME, shares], "description": "The variant, or several with their shares in percent."},
            "experiment": {
                "type": "string",
                "examples": sorted(parts.names.of("experiment")),
                "description": "The experiment whose arms are served.",
            },
            "seed": {"type": "string", "description": "What shares are counted by; the decision's name by default."},
        },
        (),
    )
    rule["oneOf"] = [{"required": ["serve"]}, {"required": ["experiment"]}]
    return {
        "decision_rules": {"type": "array", "items": rule},
        "variant_name": {"type": "string"},
        "variants": {"type": "object", "minProperties": 1, "additionalProperties": mapping_schema({"value": _VALUE})},
    }
