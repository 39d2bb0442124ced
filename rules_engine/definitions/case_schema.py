"""The parts of the JSON Schema of ``*.test.yaml`` files that the cases of every kind of document share."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

INSTANT = {"type": "string", "description": "An instant with an offset, e.g. 2026-01-31T09:00:00Z."}
AFTER = {"type": "string", "description": "How long after the start, e.g. 31m."}
AGO = {"type": "string", "description": "How long before the start, e.g. 2h."}
MOMENT: dict[str, Any] = {
    "type": "object",
    "properties": {"at": INSTANT, "after": AFTER},
    "additionalProperties": False,
    "oneOf": [{"required": ["at"]}, {"required": ["after"]}],
}
_PAST: dict[str, Any] = {
    **MOMENT,
    "properties": {**MOMENT["properties"], "ago": AGO},
    "oneOf": [*MOMENT["oneOf"], {"required": ["ago"]}],
}
_EVENT = {
    "type": "object",
    "description": "Something that the entity did; other keys are its properties.",
    "required": ["event"],
    "oneOf": _PAST["oneOf"],
    "properties": {"event": {"type": "string"}, **_PAST["properties"], "event_id": {"type": "string"}},
}

#: By key, what every case gives: its name, and what is known of the entity. A kind takes those that it has a use for.
INPUTS: dict[str, dict[str, Any]] = {
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
    "entity": {
        "type": "string",
        "description": "The user's key, by which samples and holdouts are drawn. Without it, who is in a sample is "
        "unknown, and nobody is held out.",
    },
    "at": {**INSTANT, "description": "Where the clock starts; the project's `now` if it is not given."},
}


def schema_of_tests(kind: str, case: dict[str, Any], names: Collection[str] = ()) -> dict[str, Any]:
    """Return the JSON Schema of a document of tests.

    Parameters
    ----------
    kind
        the kind of document that is tested: ``test: NAME`` tests a segment, and ``test: {KIND: NAME}`` another kind.
    case
        the schema of one case.
    names
        those that an editor offers.
    """
    name: dict[str, Any] = {"type": "string", "description": f"The name of the {kind} under test."}
    name |= {"examples": list(names)} if names else {}
    tested = {"type": "object", "required": [kind], "additionalProperties": False, "properties": {kind: name}}
    return {
        "type": "object",
        "description": f"Tests of one {kind}.",
        "required": ["test", "cases"],
        "additionalProperties": False,
        "properties": {
            "test": name if kind == "segment" else tested,
            "description": {"type": "string"},
            "cases": {"type": "array", "minItems": 1, "items": case},
        },
    }
