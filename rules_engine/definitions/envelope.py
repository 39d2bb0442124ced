"""The documents of the files in ``segments/``: their kinds, and the JSON Schema of what surrounds the conditions.

jsonschema checks the envelope; the conditions inside are checked by the language itself, whose messages know the types.
"""

from __future__ import annotations

import json
from typing import Any

from rules_engine.definitions.source import Entry, Items, Mapping, Node, Scalar
from rules_engine.diagnostics import Diagnostic, listing, nearest

#: ``$`` alone would let a line break through at the end.
NAME_PATTERN = r"^[a-z][a-z0-9_]{0,62}$(?!\n)"
_TEXT = {"type": "string"}

#: By kind, the JSON Schema of a document; ``{"x-kind": ...}`` marks what the language checks itself.
ENVELOPES: dict[str, dict[str, Any]] = {
    "segment": {
        "type": "object",
        "description": "Who belongs to this segment.",
        "required": ["segment", "when"],
        "additionalProperties": False,
        "properties": {
            "segment": {
                "type": "string",
                "pattern": NAME_PATTERN,
                "description": "The segment's name: small letters, digits and underscores.",
            },
            "description": {**_TEXT, "description": "What the segment means, for people."},
            "owner": {**_TEXT, "description": "Whom to ask about it."},
            "tags": {"type": "array", "items": {"type": "string"}, "description": "Words to find it by."},
            "when": {"x-kind": "condition", "description": "The condition under which someone belongs to the segment."},
        },
    },
    "trigger": {
        "type": "object",
        "description": "What is done when somebody enters or leaves a segment, or an event comes.",
        "required": ["trigger", "send"],
        "additionalProperties": False,
        "properties": {
            "trigger": {
                "type": "string",
                "pattern": NAME_PATTERN,
                "description": "The trigger's name: small letters, digits and underscores.",
            },
            "description": {**_TEXT, "description": "What the trigger is for, for people."},
            "owner": {**_TEXT, "description": "Whom to ask about it."},
            "tags": {"type": "array", "items": {"type": "string"}, "description": "Words to find it by."},
            "on_enter": {"x-kind": "segment", "description": "It starts when somebody enters this segment."},
            "on_exit": {"x-kind": "segment", "description": "It starts when somebody's membership of this ends."},
            "on_event": {"x-kind": "event", "description": "It starts when such an event comes."},
            "if": {"x-kind": "condition", "description": "Judged when it is due: it fires only if this is true."},
            "delay": {"x-kind": "duration", "description": "How long it waits before it fires."},
            "cancel_if": {"x-kind": "condition", "description": "Judged as long as it waits: true ends the waiting."},
            "cooldown": {"x-kind": "duration", "description": "How long it does not fire again for one entity."},
            "cap": {"x-kind": "cap", "description": "How often it fires for one entity, in how long a time."},
            "quiet_hours": {"x-kind": "quiet_hours", "description": "The local times at which it does not fire."},
            "requires_consent": {"x-kind": "consent", "description": "The consent, by its name in `project:`."},
            "holdout": {"x-kind": "holdout", "description": "The share of entities that get nothing, to compare with."},
            "send": {"x-kind": "send", "description": "The sinks that the action goes to."},
            "payload": {"x-kind": "payload", "description": "What the action tells: names and values."},
        },
    },
    "project": {
        "type": "object",
        "description": "Settings of the whole project; at most one in all files.",
        "required": ["project"],
        "additionalProperties": False,
        "properties": {
            "project": {"type": "string", "description": "The project's name, for people."},
            "description": {**_TEXT, "description": "What the project is about, for people."},
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
    },
}

_PYTHON_WORDS = {"object": "a mapping", "array": "a list", "string": "a string", "boolean": "true or false"}


def document_kind(document: Node) -> str | Diagnostic:
    """The kind of a document: its first key."""
    expected = f"a document starts with {' or '.join(f'`{kind}:`' for kind in ENVELOPES)}"
    if not isinstance(document, Mapping) or not document.entries:
        return Diagnostic("wrong-shape", document.span, "a definition is a mapping", expected)
    first = document.entries[0]
    if first.key in ENVELOPES:
        return first.key
    hint = nearest(first.key, ENVELOPES) or expected
    present = next((kind for kind in ENVELOPES if kind in document), None)
    if present:
        hint = f"write `{present}:` first"
    return Diagnostic("unknown-kind", first.key_span, f"`{first.key}` is not a kind of definition", hint)


def check_schema(document: Node, schema: dict[str, Any]) -> list[Diagnostic]:
    """The problems that jsonschema finds in a document, each at its place.

    >>> from rules_engine.definitions.source import from_plain
    >>> [problem.code for problem in check_schema(from_plain({"segment": "A b", "whn": {}}), ENVELOPES["segment"])]
    ['invalid-name', 'missing-key', 'unknown-key']
    """
    from jsonschema import Draft202012Validator

    from rules_engine.definitions.source import to_plain

    errors = Draft202012Validator(schema).iter_errors(to_plain(document))
    problems = [problem for error in errors for problem in _diagnose(document, error)]
    return sorted(problems, key=lambda problem: (problem.code, problem.span.line, problem.span.column))


def _diagnose(document: Node, error: Any) -> list[Diagnostic]:
    node, entry = _find(document, list(error.absolute_path))
    what = f"`{entry.key}`" if entry else "this"
    match error.validator:
        case "additionalProperties" if isinstance(node, Mapping):
            known = error.schema.get("properties", {})
            return [_unknown_key(unknown, known) for unknown in node if unknown.key not in known]
        case "required":
            key = next(name for name in error.validator_value if f"'{name}' is a required" in error.message)
            return [Diagnostic("missing-key", node.span, f"{what} needs `{key}`", f"add `{key}: ...`")]
        case "type":
            wanted = error.validator_value if isinstance(error.validator_value, list) else [error.validator_value]
            expected = " or ".join(_PYTHON_WORDS.get(name, f"a {name}") for name in wanted)
            advice = "quote it" if expected == "a string" else None
            return [Diagnostic("wrong-shape", node.span, f"{what} is {expected}, not {_kind_of(node)}", advice)]
        case "pattern":
            hint = "write small letters, digits and underscores, starting with a letter, at most 63"
            return [Diagnostic("invalid-name", node.span, f"{what} has a name that cannot be used", hint)]
        case "enum":
            choices = [str(choice) for choice in error.validator_value]
            nearest_choice = nearest(str(getattr(node, "value", "")), choices)
            return [Diagnostic("invalid-choice", node.span, f"{what} is one of {listing(choices)}", nearest_choice)]
        case "oneOf":
            if not isinstance(node, Mapping):
                return []  # that it is no mapping is told already
            choices = [choice["required"][0] for choice in error.validator_value]
            given = [choice for choice in choices if choice in node]
            said = f"not both `{given[0]}` and `{given[1]}`" if given else "which is missing"
            return [Diagnostic("missing-key", node.span, f"{what} needs one of {listing(choices)}, {said}")]
        case "minItems" | "minProperties":
            return [Diagnostic("empty-list", node.span, f"{what} is empty")]
        case _:
            return [Diagnostic("wrong-shape", node.span, f"{what}: {error.message[:200]}")]


def _unknown_key(entry: Entry, known: dict[str, Any]) -> Diagnostic:
    hint = nearest(entry.key, known) or f"there can be {listing(known)}"
    if " " in entry.key and isinstance(entry.value, Scalar) and entry.value.value is None:
        hint = "inside `{...}` a comma ends a value: put the whole text in quotes"
    return Diagnostic("unknown-key", entry.key_span, f"there is no key `{entry.key}` here", hint)


def _find(document: Node, path: list[str | int]) -> tuple[Node, Entry | None]:
    node, entry = document, None
    for part in path:
        if isinstance(node, Mapping) and isinstance(part, str):
            entry = node.entry(part)
            node = entry.value
        elif isinstance(node, Items) and isinstance(part, int):
            node, entry = node.items[part], None
    return node, entry


def _kind_of(node: Node) -> str:
    if isinstance(node, Items):
        return "a list"
    if isinstance(node, Mapping):
        return "a mapping"
    if node.value is None:
        return "nothing"
    return f"the string `{node.value}`" if isinstance(node.value, str) else f"`{json.dumps(node.value)}`"
