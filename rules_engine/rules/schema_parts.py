"""Parts of the editors' JSON Schema that documents of several kinds share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from rules_engine.definitions.envelope import NAME_PATTERN
from rules_engine.rules.catalog import EVENT_VIEW, Catalog
from rules_engine.rules.types import ValueType

JsonSchema = dict[str, Any]

DURATION: JsonSchema = {"$ref": "#/definitions/duration"}
NAME: JsonSchema = {"type": "string", "pattern": NAME_PATTERN.removesuffix("(?!\\n)")}
TIME_OF_DAY: JsonSchema = {"type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?$"}
SCALAR: JsonSchema = {"type": ["boolean", "number", "string"]}


@dataclass(frozen=True, slots=True)
class Names:
    """The names that a project's files define: of documents by their kind, of sinks with their kind, of consents.

    >>> Names({"segment": ("vip",)}).of("segment")
    ('vip',)
    """

    documents: Mapping[str, Collection[str]] = field(default_factory=dict)
    sinks: Mapping[str, str | None] = field(default_factory=dict)
    consent: Collection[str] = ()

    def of(self, kind: str) -> Collection[str]:
        """Return the names of the documents of a kind."""
        return self.documents.get(kind, ())


@dataclass(frozen=True, slots=True)
class SchemaParts:
    """The inputs of the schemas of all kinds of documents.

    Attributes
    ----------
    catalog
        the features and events that may be named.
    names
        the names that the project's files define.
    where
        gives the schema of ``where`` for an event; None is any event.
    """

    catalog: Catalog
    names: Names
    where: Callable[[str | None], JsonSchema]


def mapping_schema(
    properties: Mapping[str, JsonSchema], required: Collection[str] | None = None, description: str = ""
) -> JsonSchema:
    """Return the schema of a mapping with these keys, all of which are required unless ``required`` names some."""
    schema: JsonSchema = {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties if required is None else required),
        "additionalProperties": False,
    }
    return {**schema, "description": description} if description else schema


def feature_schema(catalog: Catalog, value_type: ValueType | None) -> JsonSchema:
    """Return the schema of the name of a feature of a type, or of any type."""
    features = [
        feature.key for feature in catalog.features.values() if value_type in (None, feature.type) and feature.type
    ]
    if value_type is None:
        features += [f"{EVENT_VIEW}:{name}" for name in catalog.event_features]
    return {"enum": sorted(features)} if features and catalog.closed else {"type": "string"}
