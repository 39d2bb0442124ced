"""The JSON Schema of ``*.test.yaml`` files: segments' answers and triggers' doings on a simulated clock."""

from __future__ import annotations

from typing import Any

_INSTANT = {"type": "string", "description": "An instant with an offset, e.g. 2026-01-31T09:00:00Z."}
_AFTER = {"type": "string", "description": "How long after the start, e.g. 31m."}
_MOMENT: dict[str, Any] = {
    "type": "object",
    "properties": {"at": _INSTANT, "after": _AFTER},
    "additionalProperties": False,
    "oneOf": [{"required": ["at"]}, {"required": ["after"]}],
}
_PAST = {
    **_MOMENT,
    "properties": {**_MOMENT["properties"], "ago": {"type": "string", "description": "How long before the start."}},
    "oneOf": [{"required": ["at"]}, {"required": ["after"]}, {"required": ["ago"]}],
}
_VERDICT = {"enum": [True, False, "unknown"], "description": "Whether the entity is in the segment."}

_EVENT = {
    "type": "object",
    "description": "Something that the entity did; other keys are its properties.",
    "required": ["event"],
    "oneOf": [{"required": ["at"]}, {"required": ["after"]}, {"required": ["ago"]}],
    "properties": {
        "event": {"type": "string"},
        "at": _INSTANT,
        "after": _AFTER,
        "ago": {"type": "string", "description": "How long before the start, e.g. 2h."},
        "event_id": {"type": "string"},
    },
}

_CASE = {
    "type": "object",
    "required": ["name", "expect"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "description": "What the case shows."},
        "features": {"type": "object", "description": "Values by VIEW:NAME; what is not listed is missing."},
        "updated_at": {
            "type": "object",
            "additionalProperties": _PAST,
            "description": "By feature view: when its row was observed, from which its ttl runs. "
            "A view that is not listed does not expire.",
        },
        "context": {"type": "object", "description": "Values passed with the request."},
        "events": {"type": "array", "items": _EVENT},
        "at": {**_INSTANT, "description": "Where the clock starts; the project's `now` if it is not given."},
        "expect": {**_VERDICT, "description": "The answer at the start: true, false or unknown."},
        "then": {
            "type": "array",
            "description": "The answers later, if no other events come.",
            "items": {
                "type": "object",
                "required": ["expect"],
                "properties": {"at": _INSTANT, "after": _AFTER, "expect": _VERDICT},
                "additionalProperties": False,
                "oneOf": [{"required": ["at"]}, {"required": ["after"]}],
            },
        },
        "enters": {"type": "array", "items": _MOMENT, "description": "Every instant at which the entity enters."},
        "exits": {"type": "array", "items": _MOMENT, "description": "Every instant at which the entity leaves."},
    },
}

#: The JSON Schema of one test document.
TEST_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "Tests of one segment.",
    "required": ["test", "cases"],
    "additionalProperties": False,
    "properties": {
        "test": {"type": "string", "description": "The name of the segment under test."},
        "description": {"type": "string"},
        "cases": {"type": "array", "minItems": 1, "items": _CASE},
    },
}

_REASONS = ["holdout", "condition", "consent", "timezone", "quiet_hours", "cooldown", "cap"]


def _outcome(**further: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "array",
        "items": {**_MOMENT, "properties": {**_MOMENT["properties"], **further}},
    }


_TRIGGER_CASE = {
    "type": "object",
    "required": ["name"],
    "additionalProperties": False,
    "properties": {
        **{key: _CASE["properties"][key] for key in ("name", "features", "updated_at", "events", "at")},  # type: ignore[index]
        "entity": {
            "type": "string",
            "description": "The user's key, on which `holdout` depends; if it is not given, the user is not held out.",
        },
        "until": {
            **_MOMENT,
            "description": "How far the clock runs; else to the last instant that is named.",
        },
        "fires": {
            **_outcome(payload={"type": "object", "description": "Some of what is sent, by name."}),
            "description": "Every instant at which it fires.",
        },
        "cancelled": {**_outcome(), "description": "Every instant at which it is cancelled."},
        "suppressed": {
            **_outcome(reason={"enum": _REASONS, "description": "What keeps it from firing."}),
            "description": "Every instant at which it is due and does not fire.",
        },
    },
}

#: The JSON Schema of one test document of a trigger.
TRIGGER_TEST_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "Tests of one trigger.",
    "required": ["test", "cases"],
    "additionalProperties": False,
    "properties": {
        "test": {
            "type": "object",
            "required": ["trigger"],
            "additionalProperties": False,
            "properties": {"trigger": {"type": "string", "description": "The name of the trigger under test."}},
        },
        "description": {"type": "string"},
        "cases": {"type": "array", "minItems": 1, "items": _TRIGGER_CASE},
    },
}
