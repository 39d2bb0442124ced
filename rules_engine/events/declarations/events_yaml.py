"""``feature_repo/events.yaml``: the declared events, with their properties, retention, id and features.

.. code-block:: yaml

    events:
      purchase:
        description: An order was paid for
        properties:                      # by name: JSON Schema
          order: {type: string}
          amount: {type: number, minimum: 0}
          sku: {type: string}
        required: [amount]
        retention: 400d                  # or `ever`
        id: order                        # the property that identifies a purchase; default: the sender's event_id
        aliases: ["Order Completed"]     # other names under which it is sent
        features:                        # rules read them as `feature: events:spend_30d`
          spend_30d: {sum: amount, within: 30d}
          purchases_7d: {count, within: 7d}
          dear_purchases_7d: {count, within: 7d, where: {amount: {at_least: 100}}}
    traits: profile                      # the feature view that the traits of `identify` calls are written to
"""

from __future__ import annotations

import re
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rules_engine.definitions.envelope import NAME_PATTERN, check_schema
from rules_engine.definitions.source import Entry, Items, Mapping, Node, read_documents, to_plain
from rules_engine.diagnostics import Diagnostic, Span, listing, nearest
from rules_engine.errors import DefinitionError
from rules_engine.events.declarations.features import mentioned, parse_feature
from rules_engine.events.declarations.properties import check_name, property_type
from rules_engine.rules.catalog import Catalog, EventType
from rules_engine.rules.nodes import EventAggregate
from rules_engine.rules.parsing.literals import Refusal, window
from rules_engine.rules.types import INTEGER, STRING, ValueType

_TEXT = {"type": "string"}

#: The JSON Schema of one event; what stands inside properties and features is checked where it is read.
_EVENT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["retention"],
    "additionalProperties": False,
    "properties": {
        "description": {**_TEXT, "description": "What happened, for people."},
        "properties": {
            "type": "object",
            "description": "What the event carries: by name of the property its JSON Schema.",
        },
        "required": {
            "type": "array",
            "items": _TEXT,
            "description": "The properties without which an event is refused.",
        },
        "retention": {"description": "How long events are kept: a duration such as 400d, or `ever`."},
        "id": {
            **_TEXT,
            "description": "The property that tells one event from another; else the sender's event_id does.",
        },
        "aliases": {
            "type": "array",
            "items": {"type": "string", "minLength": 1, "maxLength": 200},
            "description": "Other names under which the event is sent, e.g. `Order Completed`.",
        },
        "features": {
            "type": "object",
            "additionalProperties": {"type": "object"},
            "description": "Named windowed features, e.g. `{count, within: 24h}`; rules read them as `events:NAME`.",
        },
    },
}

#: The JSON Schema of events.yaml, also for editors.
EVENTS_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Event declarations",
    "type": "object",
    "required": ["events"],
    "additionalProperties": False,
    "properties": {
        "events": {"type": "object", "additionalProperties": _EVENT_SCHEMA},
        "traits": {
            **_TEXT,
            "description": "The feature view that `identify` writes traits to, by the names of its features.",
        },
    },
}


@dataclass(frozen=True, slots=True)
class EventDeclaration:
    """One event as events.yaml declares it.

    Attributes
    ----------
    type
        the part that rules use: name, types of properties, retention.
    schemas
        the JSON Schema of each property, by name.
    required
        the properties without which an event is refused.
    id_property
        the property that identifies it; None: the id that the sender gives.
    aliases
        other names under which it is sent.
    """

    type: EventType
    schemas: MappingType[str, Any] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    id_property: str | None = None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EventDeclarations:
    """All that events.yaml declares.

    Attributes
    ----------
    events
        by name.
    features
        the named windowed features, by name without ``events:``.
    traits
        the feature view that the traits of ``identify`` calls are written to; None: to none.
    traits_span
        where that stands.
    """

    events: MappingType[str, EventDeclaration] = field(default_factory=dict)
    features: MappingType[str, EventAggregate] = field(default_factory=dict)
    traits: str | None = None
    traits_span: Span | None = field(default=None, compare=False)

    @property
    def types(self) -> dict[str, EventType]:
        """Return the part of each declaration that rules use, by name of the event."""
        return {name: declaration.type for name, declaration in self.events.items()}


def read_events(path: Path, shown_as: str = "feature_repo/events.yaml") -> EventDeclarations:
    """Read the declarations in a file; none if there is no such file.

    Raises
    ------
    DefinitionError
        with every problem in it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return EventDeclarations()
    except (OSError, UnicodeDecodeError) as error:
        problem = Diagnostic(
            "unreadable-file", Span(shown_as, 1, 1), f"the file cannot be read: {error}", "save it as UTF-8"
        )
        raise DefinitionError([problem]) from error
    return parse_events(text, shown_as)


def parse_events(text: str, file: str = "<events>") -> EventDeclarations:
    """Parse the declarations in a YAML text.

    Raises
    ------
    DefinitionError
        with every problem in it.

    >>> declared = parse_events('''
    ... events:
    ...   visit:
    ...     properties: {source: {type: string}}
    ...     retention: 30d
    ...     features: {visits_7d: {count, within: 7d}}
    ... ''')
    >>> str(declared.events["visit"].type.properties["source"]), str(declared.features["visits_7d"])
    ('string', 'count visit in 7d')
    """
    documents, problems = read_documents(text, file)
    for extra in documents[1:]:
        message = "all events stand in one document, and this is another"
        problems.append(Diagnostic("wrong-shape", extra.span, message, "move its events under the first `events:`"))
    reader = _Reader(problems)
    declarations = reader.read(documents[0]) if documents else EventDeclarations()
    if reader.problems:
        raise DefinitionError(reader.problems)
    return declarations


class _Reader:
    """Reads one document; ``problems`` collects what is wrong with it."""

    def __init__(self, problems: list[Diagnostic]) -> None:
        self.problems = problems
        self._broken: dict[str, set[str]] = {}
        self._features: dict[str, Entry] = {}

    def read(self, document: Node) -> EventDeclarations:
        self.problems += check_schema(document, EVENTS_SCHEMA)
        events = document.get("events") if isinstance(document, Mapping) else None
        if not isinstance(events, Mapping):
            return EventDeclarations()
        declared = {entry.key: self._event(entry, entry.value) for entry in events if isinstance(entry.value, Mapping)}
        catalog = Catalog(events={name: declaration.type for name, declaration in declared.items()})
        features: dict[str, EventAggregate] = {}
        for entry in events:
            for feature in _entries(entry.value, "features"):
                aggregate = self._feature(feature, entry, catalog)
                if aggregate is not None:
                    features[feature.key] = aggregate
        self._check_aliases(events, declared)
        has_traits = isinstance(document, Mapping) and "traits" in document
        traits = document.entry("traits").value if isinstance(document, Mapping) and has_traits else None
        if traits is None:
            return EventDeclarations(declared, features)
        return EventDeclarations(declared, features, str(to_plain(traits)), traits.span)

    def _check_aliases(self, events: Mapping, declared: MappingType[str, EventDeclaration]) -> None:
        """Refuse an alias that is the name of an event, or an alias of another one."""
        owners = {name: name for name in declared}
        for event in events:
            for alias in _items(event.value, "aliases") if isinstance(event.value, Mapping) else ():
                owner = owners.setdefault(str(to_plain(alias)), event.key)
                if owner != event.key:
                    hint = "take it out of one of them"
                    message = f"`{to_plain(alias)}` cannot be an alias of `{event.key}`: it names `{owner}`"
                    self.problems.append(Diagnostic("duplicate-name", alias.span, message, hint))

    def _event(self, entry: Entry, node: Mapping) -> EventDeclaration:
        self._check_name(entry, "an event")
        properties: dict[str, ValueType] = {}
        schemas: dict[str, Any] = {}
        for inner in _entries(node, "properties"):
            try:
                check_name(inner)
                properties[inner.key] = property_type(inner.value)
                schemas[inner.key] = to_plain(inner.value)
            except Refusal as refusal:
                self._broken.setdefault(entry.key, set()).add(inner.key)
                self.problems.append(refusal.diagnostic)
        names = {inner.key: inner for inner in _entries(node, "properties")}
        required = [name for item in _items(node, "required") if (name := self._property(item, names, entry.key))]
        id_property = self._id_property(node, names, properties, entry.key)
        if id_property is not None:
            required.append(id_property)
        event_type = EventType(entry.key, properties, self._retention(node), _text(node, "description"))
        aliases = tuple(str(to_plain(item)) for item in _items(node, "aliases"))
        return EventDeclaration(event_type, schemas, tuple(dict.fromkeys(required)), id_property, aliases)

    def _check_name(self, entry: Entry, what: str) -> None:
        if not re.match(NAME_PATTERN, entry.key):
            hint = "write small letters, digits and underscores, starting with a letter, at most 63"
            message = f"`{entry.key}` cannot be the name of {what}"
            self.problems.append(Diagnostic("invalid-name", entry.key_span, message, hint))

    def _property(self, node: Node, names: MappingType[str, Entry], event: str) -> str | None:
        """Return the name of the property that the node names; None after a problem."""
        name = to_plain(node)
        if not isinstance(name, str):
            return None  # the schema check has reported it
        if name not in names:
            hint = f"`{event}` has {listing(names)}" if names else "declare it in `properties`"
            message = f"the event `{event}` has no property `{name}`"
            self.problems.append(Diagnostic("unknown-property", node.span, message, nearest(name, names) or hint))
            return None
        return name

    def _id_property(
        self, node: Mapping, names: MappingType[str, Entry], properties: MappingType[str, ValueType], event: str
    ) -> str | None:
        name = self._property(node.entry("id").value, names, event) if "id" in node else None
        if name is not None and properties.get(name, STRING) not in (STRING, INTEGER):
            message = f"an id is a string or an integer, and `{name}` is of type {properties[name]}"
            self.problems.append(Diagnostic("operator-type", node.entry("id").value.span, message))
            return None
        return name

    def _retention(self, node: Mapping) -> int | None:
        if "retention" not in node:
            return None  # the schema check has reported it
        try:
            return window(node.entry("retention").value)
        except Refusal as refusal:
            self.problems.append(refusal.diagnostic)
            return None

    def _feature(self, feature: Entry, event: Entry, catalog: Catalog) -> EventAggregate | None:
        self._check_name(feature, "a feature")
        first = self._features.setdefault(feature.key, feature)
        if first is not feature:
            message = f"there is another feature `{feature.key}` at line {first.key_span.line}"
            self.problems.append(Diagnostic("duplicate-feature", feature.key_span, message, "rename one of them"))
        if not isinstance(feature.value, Mapping) or mentioned(feature.value) & self._broken.get(event.key, set()):
            return None
        return parse_feature(feature.value, event, catalog, self.problems)


def _entries(node: Node, key: str) -> tuple[Entry, ...]:
    value = node.get(key) if isinstance(node, Mapping) else None
    return value.entries if isinstance(value, Mapping) else ()


def _items(node: Mapping, key: str) -> tuple[Node, ...]:
    value = node.get(key)
    return value.items if isinstance(value, Items) else ()


def _text(node: Mapping, key: str) -> str:
    value = node.get(key)
    return str(to_plain(value)) if value is not None else ""
