"""The registry of the kinds of documents, in the order in which they are read.

A kind is a folder of this package whose ``kind.py`` describes it. Packages above that need an entry for each kind have
tables made with :func:`for_every_kind`, which refuses a table that lacks a kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from rules_engine.rules.catalog import Catalog
from rules_engine.rules.condition_schema import ConditionSchema
from rules_engine.rules.decisions.kind import DECISION
from rules_engine.rules.document import DocumentKind
from rules_engine.rules.experiments.kind import EXPERIMENT
from rules_engine.rules.groups.kind import GROUP
from rules_engine.rules.metrics.kind import METRIC
from rules_engine.rules.schema_parts import Names, SchemaParts
from rules_engine.rules.segments.kind import SEGMENT
from rules_engine.rules.settings.kind import PROJECT
from rules_engine.rules.triggers.kind import TRIGGER

_T = TypeVar("_T")


def registry(kinds: Iterable[DocumentKind]) -> dict[str, DocumentKind]:
    """Return the kinds by name.

    Raises
    ------
    ValueError
        if two kinds have the same name, or a description is incomplete.

    >>> from dataclasses import replace
    >>> registry([replace(PROJECT, schema=lambda parts: {})])
    Traceback (most recent call last):
    ValueError: the kind `project` names `consents` in its envelope, and does not describe it in its schema
    """
    by_name: dict[str, DocumentKind] = {}
    for kind in kinds:
        if kind.name in by_name:
            raise ValueError(f"there are two kinds of documents named `{kind.name}`")
        _check(kind)
        by_name[kind.name] = kind
    return by_name


def _check(kind: DocumentKind) -> None:
    properties = kind.envelope["properties"]
    if kind.name not in kind.envelope["required"] or kind.name not in properties:
        raise ValueError(f"the envelope of the kind `{kind.name}` does not require `{kind.name}:`")
    for key, part in properties.items():
        if not part.get("description"):
            raise ValueError(f"the key `{key}` of the kind `{kind.name}` has no description")
    conditions = ConditionSchema(Catalog())
    described = kind.schema(SchemaParts(Catalog(), Names(), conditions.where)).keys() | conditions.definitions().keys()
    for inside in sorted({part["x-kind"] for part in properties.values() if "x-kind" in part} - described):
        raise ValueError(
            f"the kind `{kind.name}` names `{inside}` in its envelope, and does not describe it in its schema"
        )
    if not kind.encode({}).keys() <= set(kind.plan_parts.values()):
        raise ValueError(f"the kind `{kind.name}` is carried by read plans in parts that plans do not show")


def for_every_kind(
    what: str, table: Mapping[str, _T], among: Callable[[DocumentKind], bool] = lambda _: True
) -> Mapping[str, _T]:
    """Return the table, if it has an entry for every kind.

    Parameters
    ----------
    what
        the name of the table, for the error.
    among
        says of a kind whether it needs an entry.

    Raises
    ------
    ValueError
        if a kind is missing, or one is not registered.
    """
    needed = {kind.name for kind in KINDS.values() if among(kind)}
    for name in sorted(needed ^ table.keys()):
        raise ValueError(f"{what}: {'there is no entry for' if name in needed else 'it has an entry for'} `{name}`")
    return table


#: Settings come first, as other documents name the sinks and consents in them; experiments come before decisions, which
#: serve their arms.
KINDS: Mapping[str, DocumentKind] = registry((PROJECT, SEGMENT, GROUP, METRIC, EXPERIMENT, DECISION, TRIGGER))
