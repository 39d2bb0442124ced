"""Users as of many instants from one reading of Parquet files on this machine, a group of users at a time.

Of each user and view the newest row before each instant is kept, so that a group is as large as its answers need and
no larger, however many rows lie between two instants.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rules_engine.features.offline import parquet as offline_parquet
from rules_engine.features.offline.parquet import ReadError
from rules_engine.features.offline.parquet_rows import ViewColumns
from rules_engine.features.offline.point_in_time import OfflineUsers, as_declared, row_instant

#: About how many values of source rows one group of users has.
_VALUES_PER_GROUP = 10_000_000

_MEMORY_LIMIT = "1GB"

_NOBODY = pa.table({"entity": pa.array([], pa.large_string()), "at": pa.array([], pa.int64())})

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
        """The last one."""
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
        """The users, those included who come only later."""
        return self._entities

    def at(self, step: int) -> pa.RecordBatch:
        """The users who are known at an instant, by its number. To be asked for in rising order."""
        places = [view.newest(step) for view in self._views]
        known = np.flatnonzero(np.any([rows >= 0 for rows in places], axis=0))
        columns = {self._key: self._entities.take(pa.array(known))}
        for view, rows in zip(self._views, places, strict=True):
            columns |= view.columns(rows[known])
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
        """By user the place of the newest row; -1 without one."""
        end = int(np.searchsorted(self._steps, step, side="right"))
        rows = self._order[self._seen : end]  # in the order of the steps, so that the newest is written last
        self._newest[self._owners[rows]] = rows
        self._seen = end
        return self._newest

    def columns(self, rows: Integers) -> dict[str, pa.Array]:
        places = pa.array(rows, mask=rows < 0)
        return {name: column.take(places) for name, column in self._columns.items()}


class OfflineHistory(OfflineUsers):
    """All users with some of their features, as of many instants: a user is everyone who has a row by then."""

    @property
    def is_available(self) -> bool:
        """Whether the views lie in files that can be read so."""
        return offline_parquet.is_available() and all(self._paths())

    def _paths(self) -> list[Path | None]:
        return [offline_parquet.local_path(self._repo.project.feature_repo, view) for view in self._views.values()]

    def groups(self, instants: Instants, others: pa.Table | None = None, least: int = 1) -> Iterator[History]:
        """Everyone, some users at a time.

        Parameters
        ----------
        others
            users who count without a row too: ``entity``, and since when, ``at``, in microseconds.
        least
            the users come in so many groups or more.

        Raises
        ------
        ProjectError
            if the offline store cannot be read.
        DataError
            if a column is not of the type that the feature declares.
        """
        import duckdb

        sources = list(zip(map(str, self._paths()), self._columns, strict=True))
        self._repo.project.state_dir.mkdir(parents=True, exist_ok=True)
        try:
            with (
                tempfile.TemporaryDirectory(prefix="duckdb-", dir=self._repo.project.state_dir) as spill,
                duckdb.connect() as connection,
            ):
                connection.execute(f"SET TimeZone = 'UTC'; SET memory_limit = '{_MEMORY_LIMIT}'")
                connection.execute(f"SET temp_directory = {_text(spill)}; SET enable_progress_bar = false")
                connection.register("others", _NOBODY if others is None else others)
                count = max(least, _groups(sources))
                for group in range(count):
                    which = f"hash(entity) % {count} = {group}"
                    tables = [_table(connection, _query(path, columns, instants, which)) for path, columns in sources]
                    also = _table(connection, _others_query(instants, which))
                    yield self._history(tables, also, (group + 1) / count)
        except (duckdb.Error, ReadError, OSError) as error:
            raise self._unreadable(error) from error

    def _history(self, tables: list[pa.Table], others: pa.Table, done: float) -> History:
        found = [chunk for table in [*tables, others] for chunk in table["entity"].chunks]
        entities = pc.unique(pa.chunked_array(found, pa.large_string())).sort()
        also = pc.index_in(others["entity"].combine_chunks(), value_set=entities).cast(pa.int64()).to_numpy()
        views = [_ViewRows(also, others["step"].to_numpy(), {}, len(entities))]
        for table, columns in zip(tables, self._columns, strict=True):
            owners = pc.index_in(table["entity"].combine_chunks(), value_set=entities).cast(pa.int64()).to_numpy()
            rows = {row_instant(columns.view): table["instant"].combine_chunks()}
            for number, name in enumerate(columns.features):
                rows[name] = as_declared(table[f"c{number}"].combine_chunks(), name, self._types[name])
            views.append(_ViewRows(owners, table["step"].to_numpy(), rows, len(entities)))
        return History(self.key, entities, views, done)


def _groups(sources: Sequence[tuple[str, ViewColumns]]) -> int:
    """How many groups of users are read one after the other."""
    try:
        rows = [(pq.read_metadata(path).num_rows, len(columns.features)) for path, columns in sources]
    except pa.ArrowInvalid as error:
        raise ReadError(str(error)) from error
    return int(1 + sum(count * (2 + width) for count, width in rows) // _VALUES_PER_GROUP)


def _table(connection: Any, query: str) -> pa.Table:
    """A query's rows, with texts in a layout that Arrow can take from, whatever DuckDB's version gives."""
    result = connection.execute(query)
    stream = getattr(result, "to_arrow_reader", None) or result.fetch_record_batch
    table = stream(100_000).read_all()
    for place, name in enumerate(table.column_names):
        kind = table.schema.field(name).type
        if name == "entity" or pa.types.is_string_view(kind) or pa.types.is_string(kind):
            table = table.set_column(place, name, table[name].cast(pa.large_string()))
    return table


def _query(path: str, columns: ViewColumns, instants: Instants, which: str) -> str:
    """Of each user the newest row in each step: those after the instant before, up to the step's instant."""
    fields = [f"c{at} := {_name(column)}" for at, column in enumerate(columns.features.values())]
    created = "NULL" if columns.created is None else f"CAST({_name(columns.created)} AS TIMESTAMPTZ)"
    since = f"epoch_us(instant) - {instants.first}::BIGINT"
    read = (
        f"SELECT CAST({_name(columns.key)} AS VARCHAR) AS entity, {created} AS created, "  # noqa: S608  # names are quoted
        f"CAST({_name(columns.timestamp)} AS TIMESTAMPTZ) AS instant, "
        f"struct_pack({', '.join(fields or ['c0 := true'])}) AS line FROM read_parquet({_text(path)})"
    )
    stepped = (
        f"SELECT *, greatest(0, ({since} + {instants.every - 1}) // {instants.every})::BIGINT AS step FROM ({read}) "  # noqa: S608
        f"WHERE instant <= make_timestamptz({instants.last}) AND entity IS NOT NULL AND {which}"
    )
    lines = "".join(f", line.c{at} AS c{at}" for at in range(len(columns.features)))
    if columns.created is None:
        chosen = "entity, step, max(instant) AS instant, arg_max(line, instant) AS line"
        newest = f"SELECT {chosen} FROM ({stepped}) GROUP BY entity, step"  # noqa: S608
    else:
        order = "PARTITION BY entity, step ORDER BY instant DESC, created DESC NULLS LAST"
        newest = f"SELECT entity, step, instant, line FROM ({stepped}) QUALIFY row_number() OVER ({order}) = 1"  # noqa: S608
    return f"SELECT entity, step, instant{lines} FROM ({newest})"  # noqa: S608


def _others_query(instants: Instants, which: str) -> str:
    since = f'greatest(0, ("at" - {instants.first}::BIGINT + {instants.every - 1}) // {instants.every})::BIGINT'
    return f'SELECT entity, {since} AS step FROM others WHERE "at" <= {instants.last} AND {which}'  # noqa: S608


def _name(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


__all__ = ["History", "Instants", "OfflineHistory"]
