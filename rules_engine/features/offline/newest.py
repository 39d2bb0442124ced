"""Find which rows of a Parquet file are their entities' newest, by one rule for every path.

Of the rows of one entity the newest is that with the latest timestamp; of those, that which was created last, if the
source has a column that says so; and of those, the last one in the file. Rows without a key or without a timestamp are
nobody's.

DuckDB finds them in bounded memory; where it is not installed, Arrow does, with the keys of the whole file in memory.
"""

# ruff: noqa: S608  # whatever stands in the SQL is a quoted name or text, or a number

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rules_engine.features.column_values import entity_keys, event_instants
from rules_engine.features.offline.source_file import BUFFER, SourceFile, text

if TYPE_CHECKING:
    import duckdb

Truths = npt.NDArray[np.bool_]

#: Rows of a file that are compared in one pass over it: each pass takes the entities of one share. DuckDB can put much
#: of what it groups on disk, but not all; ten million rows at once take more than a materialization is given.
_ROWS_OF_A_PASS = 1_500_000

#: So many row numbers are taken at once.
_ROW_NUMBERS = 1 << 18

#: Room for the number of a row below its instant, in one number that DuckDB compares fast.
_ROW_BITS = 40

#: The first instant that counts, 1900-01-01, as everywhere; Feast asks from there on too.
BEGINNING = -2_208_988_800_000_000


@dataclass(frozen=True, slots=True)
class Reach:
    """The instants of the rows that count, in microseconds, both included."""

    last: int
    first: int = BEGINNING


@dataclass(frozen=True, slots=True)
class Survey:
    """Count what is odd about the rows of a source.

    Attributes
    ----------
    no_key, no_instant
        how many rows are left out because they have no key, or a key but no timestamp (or one before 1900).
    ties
        how often an entity has several rows that neither the timestamp nor the created timestamp tells apart.
    """

    no_key: int = 0
    no_instant: int = 0
    ties: int = 0

    def lines(self, columns: Any) -> Iterator[str]:
        """Say it, a sentence for each.

        >>> from rules_engine.features.offline.view_columns import ViewColumns
        >>> columns = ViewColumns("orders", "user_id", "at", None, {})
        >>> for line in Survey(no_key=1, ties=2).lines(columns): print(line)
        1 row of orders has no `user_id`, left out
        2 ties in orders: rows of one `user_id` with the same `at`; the last one in the file counts
        """
        for count, name in ((self.no_key, columns.key), (self.no_instant, columns.timestamp)):
            if count:
                rows, have = ("row", "has") if count == 1 else ("rows", "have")
                yield f"{count:,} {rows} of {columns.view} {have} no `{name}`, left out"
        if self.ties:
            ties = "tie" if self.ties == 1 else "ties"
            also = "" if columns.created is None else f" and `{columns.created}`"
            yield (
                f"{self.ties:,} {ties} in {columns.view}: rows of one `{columns.key}` with the same "
                f"`{columns.timestamp}`{also}; the last one in the file counts"
            )


def has_duckdb() -> bool:
    """Tell whether DuckDB is installed."""
    return find_spec("duckdb") is not None


def read_errors() -> tuple[type[Exception], ...]:
    """Return what reading a file may raise."""
    if not has_duckdb():
        return OSError, pa.ArrowException
    import duckdb

    return OSError, pa.ArrowException, duckdb.Error


@contextmanager
def database(folder: Path, memory_limit: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a DuckDB that uses so much memory, and puts what does not fit into a folder of its own below ``folder``."""
    import duckdb

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="duckdb-", dir=folder) as spill, duckdb.connect() as connection:
        connection.execute(f"SET TimeZone = 'UTC'; SET memory_limit = {text(memory_limit)}")
        connection.execute(f"SET temp_directory = {text(spill)}; SET enable_progress_bar = false")
        connection.execute("SET preserve_insertion_order = false")
        yield connection


def _be_frugal(connection: Any) -> None:
    connection.execute("SET threads = 1")  # each takes memory of its own, and the store takes longer than one
    # It makes one large aggregate of "the newest row", which cannot move to disk, and fails beyond the limit.
    connection.execute("SET disabled_optimizers = 'top_n_window_elimination'")


def newest_rows(source: SourceFile, reach: Reach, folder: Path, memory_limit: str = "48MB") -> Truths:
    """Tell of each row of a file whether it is its entity's newest.

    Parameters
    ----------
    source
        the file.
    reach
        rows outside of it do not count.
    folder
        of temporary files.
    memory_limit
        what DuckDB may use.

    Raises
    ------
    Exception
        of :func:`read_errors`, if the file cannot be read.
    """
    is_newest = np.zeros(source.rows, np.bool_)
    if not has_duckdb():
        is_newest[_newest_of(_Rows.read(source, reach))] = True
        return is_newest
    with database(folder, memory_limit) as connection:
        _be_frugal(connection)
        for share in _shares(source):
            for batch in stream(connection.execute(f"SELECT row FROM ({newest_sql(source, reach, share)})")):
                is_newest[batch.column(0).to_numpy()] = True
    return is_newest


def survey(source: SourceFile, reach: Reach, folder: Path, memory_limit: str = "48MB") -> Survey:
    """Count what is odd about the rows of a file.

    Raises
    ------
    Exception
        of :func:`read_errors`, if the file cannot be read.
    """
    if not has_duckdb():
        return _Rows.read(source, reach).survey()
    no_key = no_instant = ties = 0
    with database(folder, memory_limit) as connection:
        _be_frugal(connection)
        rows = rows_sql(source)
        odd = (
            f"SELECT count(*) FILTER (entity IS NULL), count(*) FILTER (entity IS NOT NULL AND "
            f"(instant IS NULL OR instant < {reach.first})) FROM {rows}"
        )
        no_key, no_instant = connection.execute(odd).fetchone() or (0, 0)
        for share in _shares(source):
            tied = (
                f"SELECT hash(entity) FROM {rows} WHERE {_counts(reach)} AND {share} "
                "GROUP BY hash(entity), instant, created HAVING count(*) > 1"
            )
            (count,) = connection.execute(f"SELECT count(*) FROM ({tied})").fetchone() or (0,)
            ties += count
    return Survey(no_key, no_instant, ties)


def rows_until(source: SourceFile, last: int) -> int:
    """Count the rows of a file whose instant is at or before one, in microseconds.

    Raises
    ------
    Exception
        of :func:`read_errors`, if the file cannot be read.
    """
    name = source.columns.timestamp
    counts = (pc.sum(pc.less_equal(event_instants(values, name), last)).as_py() for values in source.values(name))
    return sum(count or 0 for count in counts)


# --- with DuckDB ------------------------------------------------------------------------------------------------------


def rows_sql(source: SourceFile) -> str:
    """Write the rows of a file as a table of ``entity``, ``instant``, ``created`` and ``row``, its number."""
    created = source.created_sql or "NULL::BIGINT"
    return (
        f"(SELECT {source.entity_sql} AS entity, {source.instant_sql} AS instant, {created} AS created, "
        f"file_row_number AS row FROM {source.sql})"
    )


def newest_sql(source: SourceFile, reach: Reach, which: str) -> str:
    """Write the query for the number of every entity's newest row: ``entity`` and ``row``."""
    rows = f"{rows_sql(source)} WHERE {_counts(reach)} AND {which}"
    if source.columns.created is None:
        place = f"instant::HUGEINT * {1 << _ROW_BITS} + row"
        row = f"(max({place}) & {(1 << _ROW_BITS) - 1})::BIGINT"
        return f"SELECT entity, {row} AS row FROM {rows} GROUP BY entity"
    order = "PARTITION BY entity ORDER BY instant DESC, created DESC NULLS LAST, row DESC"
    return f"SELECT entity, row FROM {rows} QUALIFY row_number() OVER ({order}) = 1"


def stream(result: Any, rows: int = _ROW_NUMBERS) -> Iterator[pa.RecordBatch]:
    """Read the result of a query as record batches."""
    reader = getattr(result, "to_arrow_reader", None) or result.fetch_record_batch  # by DuckDB's version
    yield from reader(rows)


def _counts(reach: Reach) -> str:
    return f"entity IS NOT NULL AND instant BETWEEN {reach.first} AND {reach.last}"


def _shares(source: SourceFile) -> Iterator[str]:
    passes = source.rows // _ROWS_OF_A_PASS + 1
    return (f"hash(entity) % {passes} = {number}" for number in range(passes))


# --- without it -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class _Rows:
    """The rows that count, with what orders them; ``entities`` are numbers, and ``rows`` those of the file."""

    entities: npt.NDArray[np.int64]
    instants: npt.NDArray[np.int64]
    created: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    no_key: int
    no_instant: int

    @classmethod
    def read(cls, source: SourceFile, reach: Reach) -> _Rows:
        columns = source.columns
        names = [name for name in (columns.key, columns.timestamp, columns.created) if name is not None]
        with pq.ParquetFile(source.path, buffer_size=BUFFER) as file:
            table = file.read(columns=list(dict.fromkeys(names))).combine_chunks()
        keys = entity_keys(_column(table, columns.key), columns.key)
        instants = event_instants(_column(table, columns.timestamp), columns.timestamp)
        created = np.full(len(keys), np.iinfo(np.int64).min)
        if columns.created is not None:
            created_at = event_instants(_column(table, columns.created), columns.created)
            created = created_at.fill_null(np.iinfo(np.int64).min).to_numpy()
        has_key = keys.is_valid().to_numpy(zero_copy_only=False)
        ats = instants.fill_null(np.iinfo(np.int64).min).to_numpy()
        dated = ats >= reach.first
        rows = np.flatnonzero(has_key & dated & (ats <= reach.last))
        numbers = pc.fill_null(keys.dictionary_encode().indices, 0).to_numpy().astype(np.int64)
        left_out = int((~has_key).sum()), int((has_key & ~dated).sum())
        return cls(numbers[rows], ats[rows], created[rows], rows, *left_out)

    def survey(self) -> Survey:
        order = np.lexsort((self.created, self.instants, self.entities))
        columns = [column[order] for column in (self.entities, self.instants, self.created)]
        like_next = np.all([column[1:] == column[:-1] for column in columns], axis=0)
        begins = like_next & ~np.concatenate([[False], like_next[:-1]]) if len(like_next) else like_next
        return Survey(self.no_key, self.no_instant, int(begins.sum()))


def _newest_of(table: _Rows) -> npt.NDArray[np.int64]:
    order = np.lexsort((table.rows, table.created, table.instants, table.entities))
    entities = table.entities[order]
    is_last = np.concatenate([entities[1:] != entities[:-1], np.ones(min(1, len(entities)), np.bool_)])
    rows: npt.NDArray[np.int64] = table.rows[order][is_last]
    return rows


def _column(table: pa.Table, name: str) -> pa.Array:
    column = table[name]
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
