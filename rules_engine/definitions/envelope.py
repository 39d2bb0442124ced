"""Check what surrounds the conditions of a document: its kind, and its keys by a JSON Schema.

jsonschema checks the envelope; the conditions inside are checked by the language itself, whose messages know the types.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

from rules_engine.definitions.source import Entry, Items, Mapping, Node, Scalar, to_plain
from rules_engine.diagnostics import Diagnostic, listing, nearest

#: ``$`` alone would let a line break through at the end.
NAME_PATTERN = r"^[a-z][a-z0-9_]{0,62}$(?!\n)"

#: The keywords that :func:`surely_fits` knows; a schema with others is left to jsonschema.
_QUICKLY_CHECKED = frozenset(
    {"type", "pattern", "items", "properties", "required", "description", "x-kind", "x-hint", "additionalProperties"}
)
_SCALAR_TYPES = {str: "string", bool: "boolean", type(None): "null"}

_PYTHON_WORDS = {"object": "a mapping", "array": "a list", "string": "a string", "boolean": "true or false"}


def document_kind(document: Node, kinds: Collection[str]) -> str | Diagnostic:
    """Return the kind of a document, which is its first key, or what is wrong with it."""
    expected = f"a document starts with {' or '.join(f'`{kind}:`' for kind in kinds)}"
    if not isinstance(document, Mapping) or not document.entries:
        return Diagnostic("wrong-shape", document.span, "a definition is a mapping", expected)
    first = document.entries[0]
    if first.key in kinds:
        return first.key
    hint = nearest(first.key, kinds) or expected
    present = next((kind for kind in kinds if kind in document), None)
    if present:
        hint = f"write `{present}:` first"
    return Diagnostic("unknown-kind", first.key_span, f"`{first.key}` is not a kind of definition", hint)


def check_schema(document: Node, schema: dict[str, Any]) -> list[Diagnostic]:
    """Return the problems that jsonschema finds in a document, each at its place.

    >>> from rules_engine.definitions.source import from_plain
    >>> schema = {"properties": {"limit": {"type": "integer"}}, "required": ["name"], "additionalProperties": False}
    >>> [problem.code for problem in check_schema(from_plain({"limit": "5", "nme": "a"}), schema)]
    ['missing-key', 'unknown-key', 'wrong-shape']
    """
    if surely_fits(document, schema):
        return []
    from jsonschema import Draft202012Validator

    errors = Draft202012Validator(schema).iter_errors(to_plain(document))
    problems = [problem for error in errors for problem in _diagnose(document, error)]
    return sorted(problems, key=lambda problem: (problem.code, problem.span.line, problem.span.column))


def surely_fits(node: Node, schema: dict[str, Any] | bool) -> bool:
    """Tell whether a document fits a schema, where that is quickly seen; if not, jsonschema decides.

    Most documents fit, and jsonschema takes many times as long.

    >>> from rules_engine.definitions.source import from_plain
    >>> schema = {"properties": {"public": {"type": "boolean"}}, "additionalProperties": False}
    >>> surely_fits(from_plain({"public": True}), schema), surely_fits(from_plain({"public": "yes"}), schema)
    (True, False)
    """
    if isinstance(schema, bool):
        return schema
    if not schema.keys() <= _QUICKLY_CHECKED:
        return False
    if "type" in schema and _type_of(node) != schema["type"]:
        return False
    if "pattern" in schema and not (_type_of(node) == "string" and re.search(schema["pattern"], str(to_plain(node)))):
        return False
    if isinstance(node, Items):
        return all(surely_fits(item, schema.get("items", True)) for item in node.items)
    if isinstance(node, Scalar):
        return True
    properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    return all(key in node for key in schema.get("required", ())) and all(
        surely_fits(entry.value, properties.get(entry.key, others)) for entry in node
    )


def _type_of(node: Node) -> str | None:
    """Return the type's name in JSON Schema; None for numbers, of which one may have two types."""
    if isinstance(node, Scalar):
        return _SCALAR_TYPES.get(type(node.value))
    return "object" if isinstance(node, Mapping) else "array"


def _diagnose(document: Node, error: Any) -> list[Diagnostic]:
    node, entry = _find(document, list(error.absolute_path))
    what = f"`{entry.key}`" if entry else "this"
    match error.validator:
        case "additionalProperties" if isinstance(node, Mapping):
            allowed = error.schema.get("properties", {})
            return [_unknown_key(unknown, allowed) for unknown in node if unknown.key not in allowed]
        case "required":
            key = next(name for name in error.validator_value if f"'{name}' is a required" in error.message)
            return [Diagnostic("missing-key", node.span, f"{what} needs `{key}`", f"add `{key}: ...`")]
        case "type":
            types = error.validator_value if isinstance(error.validator_value, list) else [error.validator_value]
            expected = " or ".join(_PYTHON_WORDS.get(name, f"a {name}") for name in types)
            advice = error.schema.get("x-hint") or ("quote it" if expected == "a string" else None)
            return [Diagnostic("wrong-shape", node.span, f"{what} is {expected}, not {_kind_of(node)}", advice)]
        case "pattern":
            if "x-hint" in error.schema:
                return [
                    Diagnostic("invalid-value", node.span, f"{what} cannot be {_kind_of(node)}", error.schema["x-hint"])
                ]
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
            present = [choice for choice in choices if choice in node]
            problem = f"not both `{present[0]}` and `{present[1]}`" if present else "which is missing"
            return [Diagnostic("missing-key", node.span, f"{what} needs one of {listing(choices)}, {problem}")]
        case "minItems" | "minProperties":
            return [_too_few(node, what, error.validator_value)]
        case _:
            return [Diagnostic("wrong-shape", node.span, f"{what}: {error.message[:200]}")]


def _too_few(node: Node, what: str, least: int) -> Diagnostic:
    count = len(node.items if isinstance(node, Items) else node.entries if isinstance(node, Mapping) else ())
    if not count:
        return Diagnostic("empty-list", node.span, f"{what} is empty")
    return Diagnostic(
        "too-few-entries", node.span, f"{what} has {count} of at least {least} entries", "add another one"
    )


def _unknown_key(entry: Entry, properties: dict[str, Any]) -> Diagnostic:
    hint = nearest(entry.key, properties) or f"there can be {listing(properties)}"
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
