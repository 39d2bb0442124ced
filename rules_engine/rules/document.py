"""Describes a kind of document, and what its parser may use: the registry of kinds is in ``kinds.py``."""

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
    """Holds what a document may name, and the problems found so far.

    A parser leaves out what it refuses and adds the reason to ``problems``; under a name whose value was refused
    stands None, so that what refers to it is not refused as well.

    Attributes
    ----------
    catalog
        features and events.
    names
        by kind of document, the names that the files define.
    sinks
        by name, the kind of sink that the project's settings configure.
    consent
        by name, the feature that is true where the consent was given.
    problems
        what is wrong, in the order in which it was found.
    """

    catalog: Catalog
    names: Mapping[str, Collection[str]] = field(default_factory=dict)
    sinks: dict[str, str | None] = field(default_factory=dict)
    consent: dict[str, FeatureRef | None] = field(default_factory=dict)
    problems: list[Diagnostic] = field(default_factory=list)

    @property
    def segments(self) -> Collection[str]:
        """Return the names of all segments."""
        return self.names.get("segment", ())


@dataclass(frozen=True, slots=True)
class DocumentKind:
    """One kind of document: everything that the language has to know of it. No part can be left out.

    Values of the kind are its nodes by name.

    Attributes
    ----------
    name
        the document's first key.
    single
        True if all files together may hold one such document only.
    envelope
        the JSON Schema of the document; ``{"x-kind": ...}`` marks what ``parse`` checks, which ``schema`` describes.
    parse
        returns the node of a document, or None if a part of it was refused.
    check
        returns what is wrong with the values together, such as references in a circle.
    conditions
        returns the conditions inside the values as segments, by names that tell them apart.
    features
        returns the features (``VIEW:NAME``) that the values read besides those of the conditions.
    schema
        returns, for editors, the JSON Schema by ``x-kind`` of what the envelope leaves open.
    editor_rules
        JSON Schema that editors apply to the whole document besides the envelope: the parser says it better.
    encode, decode
        return the values as parts of a read plan's ``definitions``, and the other way round.
    plan_parts
        by the word that a plan shows, the part of ``definitions`` in which names are added, changed and removed.
    case
        the JSON Schema of one case in a ``*.test.yaml`` file; None if documents of this kind have no tests.
    """

    name: str
    single: bool
    envelope: JsonSchema
    parse: Callable[[MappingNode, Scope], Any | None]
    check: Callable[[Mapping[str, Any]], list[Diagnostic]]
    conditions: Callable[[Mapping[str, Any]], Mapping[str, Segment]]
    features: Callable[[Mapping[str, Any]], AbstractSet[str]]
    schema: Callable[[SchemaParts], Mapping[str, JsonSchema]]
    editor_rules: JsonSchema
    encode: Callable[[Mapping[str, Any]], dict[str, Any]]
    decode: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    plan_parts: Mapping[str, str]
    case: JsonSchema | None
