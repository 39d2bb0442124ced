"""The first step of a query: one pass over the table of features, in which missing values become NULL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlglot import exp

from rules_engine.errors import UnsupportedError
from rules_engine.rules.nodes import FeatureRef
from rules_engine.rules.types import INTEGER, STRING, TIME, Kind
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
    """Return a column of an input table with NaN as NULL, floats widened, and instants in microseconds."""
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


class Projection:
    """The columns that a step projects from an input table: each once, under its own name."""

    def __init__(self, engine: Engine, timestamps: bool) -> None:
        self.columns: dict[str, Sql] = {}
        self._engine = engine
        self._timestamps = timestamps
        self._claimed: dict[str, str] = {}
        engine.claim_name(ENTITY, self._claimed)

    def read(self, columns: Sequence[Column], folded: bool = False) -> list[Stored]:
        """Project the columns of a key. Return the forms for later steps, also in lower case if ``folded``.

        Raises
        ------
        UnsupportedError
            if two names are equal to the engine.
        """
        return [self._read(each, folded and each.type == STRING) for each in columns]

    def _read(self, each: Column, folded: bool) -> Stored:
        if each.name not in self.columns:
            self.add(each.name, cleaned(self._engine, each, self._timestamps))
        if not folded:
            return Stored(each.type, column(each.name))
        name = f"{each.name} (lower case)"
        if name not in self.columns:
            self.add(name, self._engine.folded(column(each.name)))
        return Stored(each.type, column(each.name), folded=column(name))

    def add(self, name: str, value: Sql) -> None:
        """Project a value under a name."""
        self._engine.claim_name(name, self._claimed)
        self.columns[name] = value


def as_projection(name: str, value: Sql) -> Sql:
    """Return an input column unchanged, or a value under a name."""
    return value if value == column(name) else aliased(value, name, quoted=True)


class FeatureStep:
    """Collects the columns of the table of features that rules read, and writes the step that projects them."""

    def __init__(self, engine: Engine, tables: Tables, now: int) -> None:
        self._engine = engine
        self._tables = tables
        self._now = now
        self._projection = Projection(engine, tables.timestamps)
        self._views: dict[str, str] = {}

    def feature(self, ref: FeatureRef, folded: bool = False) -> list[Stored]:
        """Return the forms in which a feature is stored.

        Raises
        ------
        UnsupportedError
            if the tables do not name its column.
        """
        if ref.key not in self._tables.feature_columns:
            raise UnsupportedError(
                f"the SQL target is not told in which column the feature `{ref.key}` is, nor its type"
            )
        before = set(self._projection.columns)
        values = self._projection.read(self._tables.feature_columns[ref.key], folded)
        self._views.update(dict.fromkeys(self._projection.columns.keys() - before, ref.view))
        return values

    def bucket(self, seed: str) -> list[Stored]:
        """Return the bucket of the entity, worked out once for each seed.

        Raises
        ------
        UnsupportedError
            if the engine cannot.
        """
        name = f"bucket by {seed}"
        if name not in self._projection.columns:
            if self._engine.bucket is None:
                raise UnsupportedError(
                    f"{self._engine.name}: the hash of the sample `{seed}` is not said in its SQL",
                    hint="write the sample into a file with `segments export`, and join that; DuckDB has the hash",
                )
            unit = cast(column(self._tables.unit), "VARCHAR")
            self._projection.add(name, self._engine.bucket(unit, seed))
        return [Stored(INTEGER, column(name))]

    def context(self, name: str, folded: bool = False) -> list[Stored]:
        """Return the forms in which a context value that differs by entity is stored."""
        values = self._projection.read(self._tables.context_columns[name], folded)
        return [replace(value, time_is_integer=False) for value in values]

    def context_given(self, name: str) -> Sql:
        """Say whether a context value was passed at all; NaN is a value here."""
        flag = f"{name} (given)"
        raw = [is_not_null(column(each.name)) for each in self._tables.context_columns[name]]
        if flag not in self._projection.columns:
            self._projection.add(flag, any_of(raw))
        return column(flag)

    def query(self) -> exp.Select:
        """Return the step: the entity, and every column that was read."""
        columns = [as_projection(name, self._fresh(name, value)) for name, value in self._projection.columns.items()]
        return select(column(ENTITY), *columns, source=exp.to_table(self._tables.features, dialect=self._engine.name))

    def _fresh(self, name: str, value: Sql) -> Sql:
        """Return a value, or NULL if its row is past the ttl of its view: now > updated_at + ttl."""
        view = self._views.get(name)
        if view is None or view not in self._tables.updated_at or view not in self._tables.ttl:
            return value
        observed = column(self._tables.updated_at[view])
        if self._tables.timestamps:
            observed = self._engine.micros(observed)
        expired = at_most(self._engine, Stored(TIME, observed), self._now - self._tables.ttl[view], strict=True)
        return case((expired, exp.Null()), default=value)
