"""One property of an event in events.yaml: its JSON Schema, checked, and the type that rules read it as.

A property is a single value or a list of values. A schema uses plain keywords of JSON Schema 2020-12: no references,
nothing is fetched, and a keyword that does not apply to the property's type is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

from rules_engine.definitions.source import Entry, Items, Mapping, Node, Scalar, to_plain
from rules_engine.diagnostics import listing, nearest
from rules_engine.events.declarations.schemas import FORMATS, schema_validator
from rules_engine.rules.forms import WHERE_WORDS
from rules_engine.rules.parsing.literals import Refusal, describe
from rules_engine.rules.text import MAX_PATTERN_LENGTH, pattern_problem
from rules_engine.rules.types import BOOLEAN, FLOAT, INTEGER, STRING, TIME, ValueType

#: Keys of an event, next to its properties, in test files, logs and requests.
RESERVED = frozenset({"event", "event_id", "at", "after", "ago", "entity"})

#: Names that mean something else in `where`.
_WORDS_OF_WHERE = frozenset(WHERE_WORDS) - RESERVED

#: The most decimals of a decimal number: amounts up to nine million then have a place in a float.
MAX_DECIMALS = 9

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}\Z")
_TYPES = {"boolean": BOOLEAN, "integer": INTEGER, "number": FLOAT, "string": STRING}

_ALWAYS = ("type", "title", "description", "examples", "enum", "const")
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_WORDS = {
    "boolean": _ALWAYS,
    "integer": (*_ALWAYS, *_NUMBERS),
    "number": (*_ALWAYS, *_NUMBERS),
    "string": (*_ALWAYS, "minLength", "maxLength", "pattern", "format"),
    "array": (*_ALWAYS, "items", "minItems", "maxItems", "uniqueItems"),
}
_EVERY_WORD = frozenset(word for words in _WORDS.values() for word in words)


def check_name(entry: Entry) -> None:
    """Check the name of a property.

    Raises
    ------
    Refusal
        if a property cannot have this name.
    """
    key = Scalar(entry.key, entry.key_span)
    if entry.key in RESERVED:
        raise Refusal(
            "invalid-name", key, f"`{entry.key}` belongs to the event itself", "give the property another name"
        )
    if entry.key in _WORDS_OF_WHERE:
        hint = "give the property another name"
        raise Refusal("invalid-name", key, f"`{entry.key}` means something else in `where`", hint)
    if not _NAME.match(entry.key):
        hint = "write letters, digits and underscores, starting with a letter, at most 63"
        raise Refusal("invalid-name", key, f"`{entry.key}` cannot be the name of a property", hint)


def property_type(node: Node) -> ValueType:
    """Return the type of a property, from its JSON Schema.

    Raises
    ------
    Refusal
        at the first thing in the schema that cannot be used.

    >>> from rules_engine.definitions.source import from_plain
    >>> str(property_type(from_plain({"type": "string", "format": "date-time"})))
    'time'
    >>> str(property_type(from_plain({"type": "number", "multipleOf": 0.01})))
    'float with 2 decimals'
    >>> str(property_type(from_plain({"type": "array", "items": {"type": "integer"}})))
    'list of integer'
    """
    if not isinstance(node, Mapping):
        hint = f"write e.g. `{{type: {node.value}}}`" if isinstance(node, Scalar) and node.value in _WORDS else None
        raise Refusal("wrong-shape", node, f"a property is a JSON Schema, not {describe(node)}", hint)
    name = _type_name(node)
    _check_words(node, name)
    list_type = _list_type(node) if name == "array" else None
    _check_by_jsonschema(node)
    if list_type is not None:
        return list_type
    _check_pattern(node)
    _check_choices(node)
    if name == "number" and "multipleOf" in node:
        return replace(FLOAT, decimals=_decimals(node.entry("multipleOf").value))
    return TIME if _format(node) == "date-time" else _TYPES[name]


def _decimals(node: Node) -> int | None:
    """Return how many decimals multiples of a number have; None for more than are kept."""
    exponent = Decimal(str(to_plain(node))).normalize().as_tuple().exponent
    places = max(0, -exponent) if isinstance(exponent, int) else MAX_DECIMALS + 1
    return places if places <= MAX_DECIMALS else None


def _type_names(node: Mapping) -> list[Any]:
    value = to_plain(node.entry("type").value) if "type" in node else []
    return value if isinstance(value, list) else [value]


def _type_name(node: Mapping) -> str:
    if "type" not in node:
        hint = f"add `type:`, one of {', '.join(_WORDS)}"
        raise Refusal("missing-key", node, "the property has no `type`, which rules have to know", hint)
    value = node.entry("type").value
    names = [name for name in _type_names(node) if name != "null"]
    if len(names) == 1 and isinstance(names[0], str) and names[0] in _WORDS:
        return names[0]
    if len(names) == 1:
        hint = nearest(str(names[0]), _WORDS) or f"write one of {', '.join(_WORDS)}"
        if names[0] == "object":
            hint = "make a property of each of its parts"
        raise Refusal("property-type", value, f"a property cannot be of the type `{names[0]}`", hint)
    raise Refusal("property-type", value, "a property is of one type, or of one type and `null`", "choose one")


def _check_words(node: Mapping, name: str) -> None:
    for entry in node:
        key = Scalar(entry.key, entry.key_span)
        if entry.key.startswith("$"):
            raise Refusal(
                "unknown-key", key, f"`{entry.key}` is not used here", "write the schema out; nothing is fetched"
            )
        if entry.key not in _EVERY_WORD:
            hint = nearest(entry.key, _WORDS[name]) or f"there can be {listing(_WORDS[name], limit=20)}"
            raise Refusal("unknown-key", key, f"there is no `{entry.key}` in the schema of a property", hint)
        if entry.key not in _WORDS[name]:
            hint = f"there can be {listing(_WORDS[name], limit=20)}"
            raise Refusal("invalid-schema", key, f"`{entry.key}` says nothing about a value of type {name}", hint)


def _check_by_jsonschema(node: Mapping) -> None:
    from jsonschema import Draft202012Validator

    plain = to_plain(node)
    validator = Draft202012Validator(Draft202012Validator.META_SCHEMA)
    for error in sorted(validator.iter_errors(plain), key=lambda error: [str(part) for part in error.absolute_path]):
        where = _at(node, list(error.absolute_path))
        raise Refusal("invalid-schema", where, f"this is not JSON Schema: {error.message[:200]}")


def _at(node: Node, path: list[str | int]) -> Node:
    for part in path:
        if isinstance(node, Mapping) and isinstance(part, str) and part in node:
            node = node.entry(part).value
        elif isinstance(node, Items) and isinstance(part, int):
            node = node.items[part]
    return node


def _list_type(node: Mapping) -> ValueType:
    items = node.get("items")
    if items is None:
        raise Refusal(
            "missing-key", node, "a list needs `items`: the schema of its elements", "add e.g. `items: {type: string}`"
        )
    element = property_type(items)
    if element.is_list:
        raise Refusal("property-type", items, "rules cannot read a list of lists", "make a plain list of it")
    return ValueType(element.kind, is_list=True)


def _format(node: Mapping) -> str | None:
    value = node.get("format")
    if value is None:
        return None
    text = to_plain(value)
    if text not in FORMATS:
        hint = nearest(str(text), FORMATS) or f"there are {listing(FORMATS)}"
        raise Refusal("invalid-choice", value, f"the format `{text}` is not checked here", hint)
    return str(text)


def _check_pattern(node: Mapping) -> None:
    value = node.get("pattern")
    if not isinstance(value, Scalar):
        return
    pattern = str(value.value)
    if len(pattern) > MAX_PATTERN_LENGTH:
        message = f"the regular expression has {len(pattern)} characters; at most {MAX_PATTERN_LENGTH} are allowed"
        raise Refusal("regex-too-long", value, message)
    problem = pattern_problem(pattern)
    if problem is not None:
        raise Refusal(problem.code, value, f"this regular expression cannot be used: {problem.message}")


def _check_choices(node: Mapping) -> None:
    """Refuse a listed value that is not of the property's type: it could never come."""
    rest = {entry.key: to_plain(entry.value) for entry in node if entry.key not in ("enum", "const")}
    validator = schema_validator(rest)
    for choice in _choices(node):
        error = next(validator.iter_errors(to_plain(choice)), None)
        if error is not None:
            raise Refusal("literal-type", choice, f"this value is never valid: {error.message[:200]}")


def _choices(node: Mapping) -> Iterator[Node]:
    enum, const = node.get("enum"), node.get("const")
    if isinstance(enum, Items):
        yield from enum.items
    if const is not None:
        yield const
