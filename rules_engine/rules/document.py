"""The description of a kind of document, and the names that its parser may use. The registry is in ``kinds.py``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from rules_engine.definitions.source import Mapping as MappingNode
from rules_engine.diagnostics import Diagnostic
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.nodes import FeatureRef, Segment
from rules_engine.rules.schema_parts import JsonSchema, SchemaParts


@dataclass(slots=True)
class Scope:
    """The names that a document may use, and the problems so far.

    A parser leaves out the parts that it refuses, and adds the reasons to ``problems``. A name whose value was refused
    has the value None, so that references to it are not refused as well.

    Attributes
    ----------
    catalog
        features and events.
    names
        the names that the files define, by kind of document.
    sinks
        the kind of each sink that the project's settings configure, by name.
    consent
        the feature that is true for entities with the consent, by name.
    served
        by experiment, the variant that each of its arms serves.
    problems
        the problems, in the order in which they were found.
    """

    catalog: Catalog
    names: Mapping[str, Collection[str]] = field(default_factory=dict)
    sinks: dict[str, str | None] = field(default_factory=dict)
    consent: dict[str, FeatureRef | None] = field(default_factory=dict)
    served: dict[str, Mapping[str, str] | None] = field(default_factory=dict)
    problems: list[Diagnostic] = field(default_factory=list)

    @property
    def segments(self) -> Collection[str]:
        """Return the names of all segments."""
        return self.names.get("segment", ())


@dataclass(frozen=True, slots=True)
class DocumentKind:
    """A kind of document: everything that the language has to know about it. Its values are its nodes by name.

    Attributes
    ----------
    name
        the document's first key.
    envelope
        the JSON Schema of the document; ``{"x-kind": ...}`` marks a part that ``parse`` checks and ``schema`` gives.
    parse
        returns the node of a document, or None if a part of it was refused.
    encode, decode
        turn the values into parts of a read plan's ``definitions``, and back.
    plan_parts
        the parts of ``definitions`` whose changed names a plan shows, each by the word that the plan shows for them.
    single
        True if all files together may hold only one such document.
    check
        returns the problems of the values together, such as references in a circle.
    conditions
        returns the conditions inside the values as segments, by unique names.
    features
        returns the features (``VIEW:NAME``) that the values read besides those of the conditions.
    schema
        returns the JSON Schema, for editors, of each ``x-kind`` in the envelope.
    editor_rules
        JSON Schema for the whole document that only editors apply, because the parser's message is better.
    case
        the JSON Schema of a case in a ``*.test.yaml`` file; None if documents of this kind have no tests.
    """

    name: str
    envelope: JsonSchema
    parse: Callable[[MappingNode, Scope], Any | None]
    encode: Callable[[Mapping[str, Any]], dict[str, Any]]
    decode: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    plan_parts: Mapping[str, str]
    single: bool = False
    check: Callable[[Mapping[str, Any]], list[Diagnostic]] = lambda _values: []
    conditions: Callable[[Mapping[str, Any]], Mapping[str, Segment]] = lambda _values: {}
    features: Callable[[Mapping[str, Any]], AbstractSet[str]] = lambda _values: frozenset()
    schema: Callable[[SchemaParts], Mapping[str, JsonSchema]] = lambda _parts: {}
    editor_rules: JsonSchema = field(default_factory=dict)
    case: JsonSchema | None = None
