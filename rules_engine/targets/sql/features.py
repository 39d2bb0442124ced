"""The first step of a query: one pass over the table of features, in which what is missing becomes NULL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlglot import exp

from rules_engine.errors import UnsupportedError
from rules_engine.rules.nodes import FeatureRef
from rules_engine.rules.types import TIME, Kind
from rules_engine.targets.sql.engines import Engine
from rules_engine.targets.sql.expressions import (
    Sql,
    aliased,
    any_of,
    case,
    cast,
    column,
    is_not_null,
    select,
)
from rules_engine.targets.sql.tables import ENTITY, Column, Tables
from rules_engine.targets.sql.values import Stored, at_most


def cleaned(engine: Engine, stored: Column, timestamps: bool) -> Sql:
    """A column of an input table with NaN as NULL, floats widened, and instants in microseconds."""
    value = column(stored.name)
    if stored.type is None:
        return value
    if stored.type.kind is Kind.FLOAT:
        return engine.list_of_doubles(value) if stored.type.is_list else engine.without_nan(cast(value, "DOUBLE"))
    if stored.type.kind is Kind.TIME and timestamps:
        if stored.type.is_list:
            raise UnsupportedError(
                f"`{stored.name}` is a list of timestamps",
                hint="store its instants as BIGINT, microseconds since the epoch",
            )
        return engine.micros(value)
    return value


def lower_case_name(name: str) -> str:
    """The column that holds a string in lower case."""
    return f"{name} (lower case)"


def projected(
    engine: Engine, columns: Sequence[Column], seen: dict[str, Sql], timestamps: bool, folded: bool
) -> list[Stored]:
    """Make sure that a step projects the columns of a key, by their own names, and tell how later steps read them."""
    values = []
    for each in columns:
        if each.name not in seen:
            seen[each.name] = cleaned(engine, each, timestamps)
        stored = Stored(each.type, column(each.name))
        if folded and each.type is not None and each.type.kind is Kind.STRING and not each.type.is_list:
            name = lower_case_name(each.name)
            seen.setdefault(name, engine.folded(column(each.name)))
            stored = replace(stored, folded=column(name))
        values.append(stored)
    return values


class FeatureStep:
    """Collects what rules read of the table of features, and writes the step that projects it once."""

    def __init__(self, engine: Engine, tables: Tables, now: int) -> None:
        self._engine = engine
        self._tables = tables
        self._now = now
        self._columns: dict[str, Sql] = {}
        self._views: dict[str, str] = {}

    def feature(self, ref: FeatureRef, folded: bool = False) -> list[Stored]:
        """The forms in which a feature is stored.

        Raises
        ------
        UnsupportedError
            if the tables do not tell in which column it is.
        """
        if ref.key not in self._tables.feature_columns:
            raise UnsupportedError(
                f"the SQL target is not told in which column the feature `{ref.key}` is, nor its type"
            )
        before = set(self._columns)
        values = self._read(self._tables.feature_columns[ref.key], folded)
        self._views.update(dict.fromkeys(self._columns.keys() - before, ref.view))
        return values

    def context(self, name: str, folded: bool = False) -> list[Stored]:
        """The forms in which a context value is stored that differs by entity."""
        values = self._read(self._tables.context_columns[name], folded)
        return [replace(value, time_is_integer=False) for value in values]

    def context_given(self, name: str) -> Sql:
        """Whether a context value was passed at all; NaN is a value here."""
        flag = f"{name} (given)"
        raw = [is_not_null(column(each.name)) for each in self._tables.context_columns[name]]
        self._columns.setdefault(flag, any_of(raw))
        return column(flag)

    def _read(self, columns: Sequence[Column], folded: bool) -> list[Stored]:
        return projected(self._engine, columns, self._columns, self._tables.timestamps, folded)

    def query(self) -> exp.Select:
        """The step: the entity, and every column that was read."""
        columns = [
            column(name) if value == column(name) else aliased(value, name, quoted=True)
            for name, value in ((name, self._fresh(name, value)) for name, value in self._columns.items())
        ]
        return select(column(ENTITY), *columns, source=exp.to_table(self._tables.features, dialect=self._engine.name))

    def _fresh(self, name: str, value: Sql) -> Sql:
        """NULL for a value whose row is past the ttl of its view: now > updated_at + ttl."""
        view = self._views.get(name)
        if view is None or view not in self._tables.updated_at or view not in self._tables.ttl:
            return value
        observed = column(self._tables.updated_at[view])
        if self._tables.timestamps:
            observed = self._engine.micros(observed)
        expired = at_most(self._engine, Stored(TIME, observed), self._now - self._tables.ttl[view], strict=True)
        return case((expired, exp.Null()), default=value)
