"""YAML text to a tree of nodes that know where they stand.

Scalars follow YAML 1.2's core schema: ``NO``, ``on``, ``yes`` and ``12:30`` are strings. Explicit tags are refused,
aliases may not refer to themselves nor multiply beyond a bound, and size and depth are bounded: definitions are
untrusted input.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from rules_engine.definitions.characters import HiddenCharacter, hidden_characters
from rules_engine.diagnostics import Diagnostic, Span
from rules_engine.errors import DefinitionError

MAX_BYTES = 1_000_000
MAX_DEPTH = 60
MAX_NODES = 50_000

#: What a plain scalar begins with that may be something else than text; nothing at all is one of them.
_NO_WORD = frozenset(["", *"~nNtTfF+-.0123456789"])
_NULL = re.compile(r"(~|null|Null|NULL)?\Z")
_TRUE = re.compile(r"(true|True|TRUE)\Z")
_FALSE = re.compile(r"(false|False|FALSE)\Z")
_INTEGER = re.compile(r"[-+]?[0-9]{1,400}\Z", re.ASCII)
_OCTAL = re.compile(r"0o[0-7]{1,400}\Z")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]{1,400}\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z", re.ASCII)
_INFINITY = re.compile(r"([-+]?)\.(inf|Inf|INF)\Z")
_NAN = re.compile(r"\.(nan|NaN|NAN)\Z")


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value: None, bool, int, float or str."""

    value: bool | int | float | str | None
    span: Span


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    items: tuple[Node, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a mapping with its value."""

    key: str
    key_span: Span
    value: Node


@dataclass(frozen=True, slots=True)
class Mapping:
    """A mapping; keys are strings, in the order of the text."""

    entries: tuple[Entry, ...]
    span: Span
    #: True if entries were left out because of a problem that is already reported.
    incomplete: bool = False
    _by_key: dict[str, Entry] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_key", {entry.key: entry for entry in self.entries})

    def get(self, key: str) -> Node | None:
        entry = self._by_key.get(key)
        return entry.value if entry else None

    def entry(self, key: str) -> Entry:
        return self._by_key[key]

    def __contains__(self, key: str) -> bool:
        return key in self._by_key

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)


Node = Scalar | Items | Mapping

_Content = ScalarEvent | SequenceStartEvent | MappingStartEvent


class _Refused(Exception):
    """Carries the diagnostic that ends the reading of a text."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(diagnostic.message)
        self.diagnostic = diagnostic


def core_scalar(text: str) -> bool | int | float | str | None:
    """Return a plain scalar by YAML 1.2's core schema.

    >>> [core_scalar(text) for text in ("NO", "true", "010", "1e3", "~", "12:30")]
    ['NO', True, 10, 1000.0, None, '12:30']
    """
    if text[:1] not in _NO_WORD:
        return text
    if _NULL.match(text):
        return None
    if _TRUE.match(text) or _FALSE.match(text):
        return bool(_TRUE.match(text))
    if _INTEGER.match(text):
        return int(text)
    if _OCTAL.match(text) or _HEXADECIMAL.match(text):
        return int(text, 0)
    if _FLOAT.match(text):
        return float(text)
    if match := _INFINITY.match(text):
        return -math.inf if match[1] == "-" else math.inf
    return math.nan if _NAN.match(text) else text


def read_documents(text: str, file: str) -> tuple[list[Node], list[Diagnostic]]:
    r"""Return every document of a YAML text, and the problems found; a syntax error ends the reading at its place.

    >>> documents, problems = read_documents("a: 1\na: 2", "x.yaml")
    >>> problems[0].code, str(problems[0].span)
    ('duplicate-key', 'x.yaml:2:1')
    """
    if len(text) > MAX_BYTES:
        span = Span(file, 1, 1)
        message = f"the file has {len(text):,} characters; at most {MAX_BYTES:,} are read"
        return [], [Diagnostic("file-too-large", span, message, "split it into several files")]
    return _Reader(text, file).read()


def to_plain(node: Node) -> Any:
    """Return a node as plain dicts, lists and scalars.

    >>> to_plain(read_documents("a: [1, NO]", "x.yaml")[0][0])
    {'a': [1, 'NO']}
    """
    if isinstance(node, Scalar):
        return node.value
    if isinstance(node, Items):
        return [to_plain(item) for item in node.items]
    return {entry.key: to_plain(entry.value) for entry in node}


def from_plain(data: Any, file: str = "<condition>", depth: int = 0) -> Node:
    """Return plain Python data as nodes, for conditions written in code. Aware datetimes become instants.

    Raises
    ------
    TypeError
        on a value that YAML has no place for.
    DefinitionError
        if it is nested too deeply; ``depth`` is that of the data itself.
    """
    span = Span(file, 1, 1)
    if depth > MAX_DEPTH:
        raise DefinitionError([_too_deep(span)])
    if data is None or isinstance(data, bool | int | float | str):
        return Scalar(data, span)
    if isinstance(data, datetime):
        return Scalar(data.isoformat(), span)
    if isinstance(data, list | tuple):
        return Items(tuple(from_plain(item, file, depth + 1) for item in data), span)
    if isinstance(data, dict) and all(isinstance(key, str) for key in data):
        return Mapping(tuple(Entry(key, span, from_plain(value, file, depth + 1)) for key, value in data.items()), span)
    raise TypeError(f"a condition holds dicts with string keys, lists and scalars, not {type(data).__name__}: {data!r}")


def _too_deep(span: Span) -> Diagnostic:
    message = f"nested more than {MAX_DEPTH} levels deep"
    return Diagnostic("too-deep", span, message, "name parts as segments of their own")


def _height(node: Node) -> int:
    """Count the levels of lists and mappings that a node holds below itself."""
    inside = node.items if isinstance(node, Items) else ()
    if isinstance(node, Mapping):
        inside = tuple(entry.value for entry in node)
    return 1 + max(map(_height, inside)) if inside else 0


class _Reader:
    """Builds nodes from PyYAML's parse events."""

    def __init__(self, text: str, file: str) -> None:
        self._text = text
        self._file = file
        self._lines = text.splitlines()
        self._next_event: Callable[[], Any]
        self._problems: list[Diagnostic] = []
        self._anchors: dict[str, tuple[Node, int, int] | None] = {}  # the node, its size and its height
        self._count = 0

    def read(self) -> tuple[list[Node], list[Diagnostic]]:
        documents: list[Node] = []
        try:
            self._next_event = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(self._text).get_event
            for event in iter(self._next_event, None):
                if isinstance(event, DocumentStartEvent):
                    self._anchors = {}
                    documents.append(self._node(self._next_event(), 0))
        except _Refused as refused:
            self._problems.append(refused.diagnostic)
        except UnicodeEncodeError as error:  # half of a surrogate pair, which JSON can spell and UTF-8 cannot
            span = self._span_at(*self._position(error.start))
            message = f"this is not YAML: the character {error.object[error.start]!a} does not stand for anything"
            self._problems.append(Diagnostic("yaml-syntax", span, message, "remove it"))
        except yaml.YAMLError as error:
            self._problems.append(self._syntax_problem(error))
        return [document for document in documents if not _is_empty(document)], self._problems

    def _syntax_problem(self, error: yaml.YAMLError) -> Diagnostic:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        line, column = (mark.line + 1, mark.column + 1) if mark else self._position(getattr(error, "position", 0))
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "not YAML"
        context = getattr(error, "context", None)
        message = f"this is not YAML: {problem}" + (f" ({context})" if context else "")
        hint = "indent with spaces, close brackets and quotes, and quote texts that hold `: ` or start with a sign"
        return Diagnostic("yaml-syntax", self._span_at(line, column), message, hint)

    def _position(self, position: int) -> tuple[int, int]:
        """Return the line and column of an offset into the text."""
        before = self._text[:position]
        return before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1

    def _span_at(self, line: int, column: int, length: int = 1) -> Span:
        text = self._lines[line - 1] if 0 < line <= len(self._lines) else ""
        longest = len(text) - column + 1
        if length > longest:
            length = longest
        return Span(self._file, line, column, length if length > 0 else 1, text)

    def _span(self, event: Event) -> Span:
        start, end = event.start_mark, event.end_mark
        assert start is not None, event
        assert end is not None, event
        line, column = start.line, start.column
        return self._span_at(line + 1, column + 1, end.column - column if end.line == line else 10_000)

    def _refuse(self, code: str, span: Span, message: str, hint: str | None = None) -> _Refused:
        return _Refused(Diagnostic(code, span, message, hint))

    def _node(self, event: AliasEvent | _Content, depth: int) -> Node:
        span = self._span(event)
        self._count += 1
        if self._count > MAX_NODES:
            raise self._too_many("file-too-large", span)
        if depth > MAX_DEPTH:
            raise _Refused(_too_deep(span))
        if isinstance(event, AliasEvent):
            return self._alias(event, span, depth)
        if event.tag is not None:
            raise self._refuse("yaml-tag", span, f"YAML tags such as `{event.tag}` are not allowed", "remove the tag")
        if event.anchor is None:
            return self._content(event, span, depth)
        before = self._count
        self._anchors[event.anchor] = None
        node = self._content(event, span, depth)
        self._anchors[event.anchor] = (node, self._count - before + 1, _height(node))
        return node

    def _too_many(self, code: str, span: Span) -> _Refused:
        message = f"the file holds more than {MAX_NODES:,} values"
        return self._refuse(code, span, message, "split it, or use fewer aliases")

    def _alias(self, event: AliasEvent, span: Span, depth: int) -> Node:
        anchor = str(event.anchor)
        if anchor not in self._anchors:
            raise self._refuse("yaml-alias", span, f"there is no anchor `&{anchor}` before this alias")
        anchored = self._anchors[anchor]
        if anchored is None:
            raise self._refuse("yaml-alias", span, f"the alias `*{anchor}` refers to itself", "write the value out")
        node, size, height = anchored
        self._count += size
        if self._count > MAX_NODES:
            raise self._too_many("yaml-alias" if size > 1 else "file-too-large", span)
        if depth + height > MAX_DEPTH:
            raise _Refused(_too_deep(span))
        return node

    def _content(self, event: _Content, span: Span, depth: int) -> Node:
        if isinstance(event, ScalarEvent):
            plain = event.implicit[0] and not event.style
            return Scalar(core_scalar(event.value) if plain else event.value, span)
        if isinstance(event, SequenceStartEvent):
            items = []
            while not isinstance(inner := self._next_event(), SequenceEndEvent):
                items.append(self._node(inner, depth + 1))
            return Items(tuple(items), self._collection_span(span, inner))
        return self._mapping(span, depth)

    def _collection_span(self, span: Span, end: Event) -> Span:
        if end.end_mark is not None and end.end_mark.line + 1 == span.line:
            return self._span_at(span.line, span.column, end.end_mark.column + 1 - span.column)
        return span

    def _mapping(self, span: Span, depth: int) -> Mapping:
        entries: dict[str, Entry] = {}
        incomplete = False
        while not isinstance(event := self._next_event(), MappingEndEvent):
            key = self._node(event, depth + 1)
            value = self._node(self._next_event(), depth + 1)
            if not isinstance(key, Scalar) or not isinstance(key.value, str):
                shown = f"`{json.dumps(key.value)}`" if isinstance(key, Scalar) else "this"
                message = f"a key must be a string, and {shown} is none"
                self._problems.append(Diagnostic("key-not-string", key.span, message, "quote it"))
                incomplete = True
            elif hidden := hidden_characters(key.value):
                self._problems += [_hidden_in(key, character) for character in hidden]
                incomplete = True
            elif key.value in entries:
                first = entries[key.value].key_span
                message = f"the key `{key.value}` appears twice; it was first given at line {first.line}"
                self._problems.append(Diagnostic("duplicate-key", key.span, message, "remove one of them"))
            else:
                entries[key.value] = Entry(key.value, key.span, value)
        return Mapping(tuple(entries.values()), self._collection_span(span, event), incomplete)


def _hidden_in(scalar: Scalar, character: HiddenCharacter) -> Diagnostic:
    """Report a character of a key or a value, at its own place where it stands there as it is."""
    return Diagnostic(character.code, place_in(scalar, character.index), character.message, character.hint)


def place_in(scalar: Scalar, index: int) -> Span:
    """Return where a character of a text stands; where it is written as an escape, the place of the whole text."""
    span, text = scalar.span, str(scalar.value)
    start = span.column - 1
    place = -1
    for _ in range(text[: index + 1].count(text[index])):
        place = span.text.find(text[index], max(start, place + 1))
        if place < 0:
            return span
    return Span(span.file, span.line, place + 1, 1, span.text)


def _is_empty(node: Node) -> bool:
    return isinstance(node, Scalar) and node.value is None
