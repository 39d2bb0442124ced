"""Read all entities as of many instants in one reading of Parquet files on this machine, a group of entities at a time.

Of each entity and view the newest row before each instant is kept, so that a group is as large as its answers need and
no larger, however many rows lie between two instants.
"""

# ruff: noqa: S608  # whatever stands in the SQL is a quoted name or text, or a number

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rules_engine.features.column_values import as_declared
from rules_engine.features.offline import newest
from rules_engine.features.offline.parquet import unreadable
from rules_engine.features.offline.point_in_time import OfflineUsers
from rules_engine.features.offline.source_file import SourceFile, quoted
from rules_engine.features.offline.view_columns import row_instant

#: About how many values of source rows one group of users has.
_VALUES_PER_GROUP = 10_000_000

_MEMORY_LIMIT = "1GB"

#: Of nobody; a table of this type made here would import pandas with the module.
_OTHERS = pa.schema([("entity", pa.large_string()), ("at", pa.int64())])

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Instants:
    """Instants at equal distances, in microseconds.

    >>> list(Instants(10, 5, 3))
    [10, 15, 20]
    """

    first: int
    every: int
    count: int

    def __iter__(self) -> Iterator[int]:
        return (self.first + number * self.every for number in range(self.count))

    def __len__(self) -> int:
        return self.count

    @property
    def last(self) -> int:
        """Return the last instant."""
        return self.first + (self.count - 1) * self.every


class History:
    """Some users, who can be asked for as of each of the instants in turn.

    Attributes
    ----------
    done
        how far the reading is, from 0 to 1, when these users are done.
    """

    def __init__(self, key: str, entities: pa.Array, views: Sequence[_ViewRows], done: float) -> None:
        self._key = key
        self._entities = entities
        self._views = views
        self.done = done

    @property
    def entities(self) -> pa.Array:
        """Return all users, including those who only appear later."""
        return self._entities

    def at(self, step: int) -> pa.RecordBatch:
        """Return the users who are known at an instant, given by its number. Call it in ascending order."""
        places = [view.newest(step) for view in self._views]
        present = np.flatnonzero(np.any([rows >= 0 for rows in places], axis=0))
        columns = {self._key: self._entities.take(pa.array(present))}
        for view, rows in zip(self._views, places, strict=True):
            columns |= view.columns(rows[present])
        return pa.record_batch(columns)


class _ViewRows:
    """Rows of one view, and which of them is each user's newest."""

    def __init__(self, owners: Integers, steps: Integers, columns: dict[str, pa.Array], users: int) -> None:
        self._order = np.argsort(steps, kind="stable")
        self._steps, self._owners = steps[self._order], owners
        self._columns = columns
        self._newest: Integers = np.full(users, -1, dtype=np.int64)
        self._seen = 0

    def newest(self, step: int) -> Integers:
        """Return by entity the place of the newest row; -1 without one."""
        end = int(np.searchsorted(self._steps, step, side="right"))
        rows = self._order[self._seen : end]  # in the order of the steps, so that the newest is written last
        self._newest[self._owners[rows]] = rows
        self._seen = end
        return self._newest

    def columns(self, rows: Integers) -> dict[str, pa.Array]:
        places = pa.array(rows, mask=rows < 0)
        return {name: column.take(places) for name, column in self._columns.items()}


class OfflineHistory(OfflineUsers):
    """All entities with some of their features, as of many instants: those that have a row by then."""

    @property
    def is_available(self) -> bool:
        """Tell whether the views lie in files that can be read so."""
        return newest.has_duckdb() and all(path is not None for path in self._paths())

    def groups(self, instants: Instants, others: pa.Table | None = None, least: int = 1) -> Iterator[History]:
        """Read all entities, some at a time.

        Parameters
        ----------
        others
            entities that count without a row too: ``entity``, and from when on, ``at``, in microseconds.
        least
            the entities come in so many groups or more.

        Raises
        ------
        ProjectError
            if the offline store cannot be read.
        DataError
            if a column is not of the type that the feature declares.
        """
        sources = [source for source in self._opened() if source is not None]
        try:
            with newest.database(self._repo.project.state_dir, _MEMORY_LIMIT) as connection:
                connection.register("others", _OTHERS.empty_table() if others is None else others)
                count = max(least, _groups(sources))
                for group in range(count):
                    which = f"hash(entity) % {count} = {group}"
                    tables = [read_table(connection, newest_by_step(source, instants, which)) for source in sources]
                    also = read_table(connection, _others_query(instants, which))
                    yield self._history(tables, also, (group + 1) / count)
        except newest.read_errors() as error:
            raise unreadable(sources, error) from error

    def _history(self, tables: list[pa.Table], others: pa.Table, done: float) -> History:
        chunks = [chunk for table in [*tables, others] for chunk in table["entity"].chunks]
        entities = pc.unique(pa.chunked_array(chunks, pa.large_string())).sort()
        also = pc.index_in(others["entity"].combine_chunks(), value_set=entities).cast(pa.int64()).to_numpy()
        views = [_ViewRows(also, others["step"].to_numpy(), {}, len(entities))]
        for table, columns in zip(tables, self._columns, strict=True):
            owners = pc.index_in(table["entity"].combine_chunks(), value_set=entities).cast(pa.int64()).to_numpy()
            rows = {row_instant(columns.view): table["instant"].combine_chunks()}
            for number, name in enumerate(columns.features):
                rows[name] = as_declared(table[f"c{number}"].combine_chunks(), name, self._types[name])
            views.append(_ViewRows(owners, table["step"].to_numpy(), rows, len(entities)))
        return History(self.key, entities, views, done)


def _groups(sources: Sequence[SourceFile]) -> int:
    """Tell how many groups of entities are read one after the other."""
    values = sum(source.rows * (2 + len(source.columns.features)) for source in sources)
    return 1 + values // _VALUES_PER_GROUP


def read_table(connection: Any, query: str) -> pa.Table:
    """Return a query's rows, with texts in a layout that Arrow can take from, whatever DuckDB's version gives."""
    result = connection.execute(query)
    read = getattr(result, "to_arrow_reader", None) or result.fetch_record_batch  # by DuckDB's version
    table = read(100_000).read_all()
    for place, name in enumerate(table.column_names):
        kind = table.schema.field(name).type
        if name == "entity" or pa.types.is_string_view(kind) or pa.types.is_string(kind):
            table = table.set_column(place, name, table[name].cast(pa.large_string()))
    return table


def newest_by_step(source: SourceFile, instants: Instants, which: str) -> str:
    """Write the query for each entity's newest row in each step: those after the instant before, up to the step's."""
    fields = [f"c{at} := {quoted(column)}" for at, column in enumerate(source.columns.features.values())]
    read = (
        f"SELECT {source.entity_sql} AS entity, {source.created_sql or 'NULL'} AS created, "
        f"{source.instant_sql} AS instant, file_row_number AS row, "
        f"struct_pack({', '.join(fields or ['c0 := true'])}) AS line FROM {source.sql}"
    )
    step = f"greatest(0, (instant - {instants.first}::BIGINT + {instants.every - 1}) // {instants.every})::BIGINT"
    stepped = (
        f"SELECT *, {step} AS step FROM ({read}) WHERE instant BETWEEN {newest.BEGINNING} AND {instants.last} "
        f"AND entity IS NOT NULL AND {which}"
    )
    lines = "".join(f", line.c{at} AS c{at}" for at in range(len(source.columns.features)))
    order = "PARTITION BY entity, step ORDER BY instant DESC, created DESC NULLS LAST, row DESC"
    chosen = f"SELECT entity, step, instant, line FROM ({stepped}) QUALIFY row_number() OVER ({order}) = 1"
    return f"SELECT entity, step, make_timestamptz(instant) AS instant{lines} FROM ({chosen})"


def _others_query(instants: Instants, which: str) -> str:
    step = f'greatest(0, ("at" - {instants.first}::BIGINT + {instants.every - 1}) // {instants.every})::BIGINT'
    return f'SELECT entity, {step} AS step FROM others WHERE "at" <= {instants.last} AND {which}'


__all__ = ["History", "Instants", "OfflineHistory", "newest_by_step", "read_table"]
