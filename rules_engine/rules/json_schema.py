"""The JSON Schema that editors use to complete and check definition and test files as they are written.

Every kind of document describes itself. Draft 7, which the YAML language server understands. What a schema cannot say
(cycles, retention, contradictions) `segments validate` says.
"""

from __future__ import annotations

from collections.abc import Collection
from copy import deepcopy

from rules_engine.definitions.case_schema import schema_of_tests
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.condition_schema import ConditionSchema
from rules_engine.rules.document import DocumentKind
from rules_engine.rules.kinds import KINDS
from rules_engine.rules.schema_parts import JsonSchema, Names, SchemaParts
from rules_engine.rules.segments.lists import VIEW


def build_schema(catalog: Catalog, segments: Collection[str] = (), names: Names | None = None) -> JsonSchema:
    """Return the schema of definition and test files, with the names that the catalog and the project's files hold.

    Parameters
    ----------
    catalog
        the features and events that may be named.
    segments
        the names of the segments.
    names
        the names of segments, sinks and consents, in place of ``segments``.

    >>> schema = build_schema(Catalog(), ["vip"])
    >>> schema["definitions"]["segment_name"]["examples"]
    ['vip']
    """
    names = Names({"segment": segments}) if names is None else names
    conditions = ConditionSchema(catalog, names.of("segment"))
    parts = SchemaParts(catalog, names, conditions.where)
    documents = {f"{kind.name}_document": _envelope(kind) for kind in KINDS.values()}
    documents |= {f"{kind.name}_test_document": _tests(kind, parts) for kind in KINDS.values() if kind.case is not None}
    described = conditions.definitions()
    for kind in KINDS.values():
        described |= kind.schema(parts)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Segment definitions",
        "type": "object",
        "anyOf": [{"$ref": f"#/definitions/{name}"} for name in documents],
        "definitions": {**documents, **described},
    }


def _envelope(kind: DocumentKind) -> JsonSchema:
    """Return the schema of a document, with references where the envelope leaves something open."""
    schema = deepcopy(kind.envelope) | kind.editor_rules
    for name, part in schema["properties"].items():
        if "x-kind" in part:
            reference = f"#/definitions/{part['x-kind']}"
            schema["properties"][name] = {"$ref": reference, "description": part["description"]}
    return schema


def _tests(kind: DocumentKind, parts: SchemaParts) -> JsonSchema:
    """Return the schema of a document of tests, which gives features by name."""
    schema = deepcopy(schema_of_tests(kind.name, kind.case or {}, sorted(parts.names.of(kind.name))))
    case = schema["properties"]["cases"]["items"]
    features = {key: {"description": feature.description} for key, feature in parts.catalog.features.items()}
    case["properties"]["features"] |= {
        "properties": features,
        "patternProperties": {f"^{VIEW}:": {"type": ["boolean", "null"], "description": "Whether on the list."}},
        "additionalProperties": not parts.catalog.closed,
    }
    return schema
