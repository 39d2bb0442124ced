"""The ``list:`` of a segment: a file that names its members, in place of a condition."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import PurePosixPath

from rules_engine.definitions.source import Mapping, Node
from rules_engine.diagnostics import Span
from rules_engine.rules.catalog import Catalog, Feature
from rules_engine.rules.nodes import FeatureRef, ListFile, Predicate, Segment
from rules_engine.rules.parsing.document_keys import keys_of
from rules_engine.rules.parsing.literals import Refusal
from rules_engine.rules.parsing.operand_checks import string_value
from rules_engine.rules.schema_parts import JsonSchema, mapping_schema
from rules_engine.rules.types import BOOLEAN

#: The feature view that holds who is on which list; `segments apply` writes it.
VIEW = "segment_lists"

#: The kinds of files that a list may be.
SUFFIXES = (".csv", ".parquet")

_FILE: JsonSchema = {
    "type": "string",
    "description": "A .csv or .parquet file in segments/, by its path from the project's folder.",
    "examples": ["segments/lists/vip.csv"],
}
_COLUMN: JsonSchema = {"type": "string", "description": "The column of keys; by default the entity's join key."}
SCHEMA: JsonSchema = {"anyOf": [_FILE, mapping_schema({"file": _FILE, "column": _COLUMN})]}


def list_file(node: Node) -> ListFile:
    """Return the file that a node names.

    >>> from rules_engine.definitions.source import from_plain
    >>> list_file(from_plain("segments/lists/vip.csv")).file
    'segments/lists/vip.csv'

    Raises
    ------
    Refusal
        if it lies outside of ``segments/``, or is no CSV or Parquet file.
    """
    column = None
    if isinstance(node, Mapping):
        keys = keys_of(node, "list", ("file", "column"))
        column = string_value(keys.entry("column").value, "the name of a column")
        node = keys.entry("file").value
    text = string_value(node, "the path of a file, e.g. `segments/lists/vip.csv`")
    path = PurePosixPath(text)
    if path.parts[:1] != ("segments",) or ".." in path.parts:
        hint = "write its path from the project's folder on, e.g. `segments/lists/vip.csv`"
        raise Refusal("invalid-list", node, f"`{text}` does not lie in `segments/`", hint)
    if path.suffix not in SUFFIXES:
        raise Refusal("invalid-list", node, f"a list is a {' or '.join(SUFFIXES)} file, and `{text}` is none")
    return ListFile(path.as_posix(), column, node.span)


def with_lists(catalog: Catalog, segments: Iterable[Segment]) -> Catalog:
    """Return a catalog that also has the features of lists, which the first `segments apply` defines."""
    names = [segment.name for segment in segments if segment.list is not None]
    lists = {f"{VIEW}:{name}": Feature(VIEW, name, BOOLEAN, "Bool", f"Is on the list {name}") for name in names}
    return replace(catalog, features={**lists, **catalog.features}) if lists else catalog


def is_on(segment: str, span: Span) -> Predicate:
    """Return the condition of being on the list of a segment: never unknown, as who is not on it is off it."""
    return Predicate(FeatureRef(VIEW, segment), "exists", True, BOOLEAN, span=span)
