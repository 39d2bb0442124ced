"""The newest rows of Parquet files on this machine: streamed, and in bounded memory.

The same rows as Feast's offline stores for such files give. First DuckDB finds the number of every user's newest row,
for which it reads two columns only. Then the columns that are wanted are read once: of one view straight from the file
in its own order; of several views, or for some users only, by a join in DuckDB.
"""

# ruff: noqa: S608  # whatever stands in the SQL is a quoted name or text, or a number

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from rules_engine.features.offline.parquet_rows import PLACE, Newest, ViewColumns, row_instant

if TYPE_CHECKING:
    import duckdb

#: What DuckDB may use; beyond it goes to disk.
_MEMORY_LIMIT = "512MB"

#: Up to so many users, a join gives them in the order of their keys.
_SORTED_UP_TO = 250_000

#: So many row numbers are taken at once.
_ROW_NUMBERS = 1 << 18


class ReadError(Exception):
    """DuckDB cannot read a file."""


def is_available() -> bool:
    """Whether DuckDB is installed."""
    return find_spec("duckdb") is not None


def local_path(feature_repo: Path, view: Any) -> Path | None:
    """The file behind a view, if that is one Parquet file on this machine; it may be missing."""
    from feast import FileSource

    source = view.batch_source
    if not isinstance(source, FileSource) or "://" in source.path or not source.path.endswith(".parquet"):
        return None
    path = Path(source.path)
    path = path if path.is_absolute() else feature_repo / path
    return path if path.is_file() else None


def newest_rows(
    sources: Sequence[tuple[str, ViewColumns]],
    key: str,
    as_of: int,
    keys: Sequence[str] | None,
    others: pa.Array | None,
    rows: int,
    folder: Path,
    *,
    keyless: bool = False,
) -> Iterator[tuple[pa.RecordBatch, float]]:
    """Of each view every user's newest row at or before an instant, side by side, and how far the reading is.

    Of rows of one user and instant the one that was created last counts, or any if nothing tells that.

    Parameters
    ----------
    sources
        files, and what is in them.
    key
        the name that the column of keys gets.
    as_of
        in microseconds.
    keys
        the only users to read; None for all.
    others
        users who count without a row too; the column ``PLACE`` then says where among them a user is.
    rows
        at most so many in a batch.
    folder
        where DuckDB may put what does not fit into memory.
    keyless
        allows to leave out keys and instants.

    Raises
    ------
    ReadError
        if a file cannot be read.
    """
    import duckdb

    from rules_engine.features.offline.parquet_stream import stream

    try:
        with _database(folder) as connection:
            if others is not None:
                places = pa.array(np.arange(len(others)))
                connection.register("others", pa.table({"entity": others.cast(pa.large_string()), "place": places}))
            if keys is None and len(sources) == 1:
                newest = _newest(connection, *sources[0], as_of, others)
            else:
                yield from _joined(connection, sources, key, as_of, keys, others is not None, rows)
                return
        # Outside of the database: its memory is free again.
        yield from stream(*sources[0], newest, None if keyless and others is None else key, others, rows)
    except (duckdb.Error, OSError, pa.ArrowException) as error:
        raise ReadError(str(error)) from error


@contextmanager
def _database(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    import duckdb

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="duckdb-", dir=folder) as spill, duckdb.connect() as connection:
        connection.execute(f"SET TimeZone = 'UTC'; SET memory_limit = '{_MEMORY_LIMIT}'")
        connection.execute(f"SET temp_directory = {_text(spill)}")
        connection.execute("SET enable_progress_bar = false; SET preserve_insertion_order = false")
        yield connection


def _newest(
    connection: duckdb.DuckDBPyConnection, path: str, columns: ViewColumns, as_of: int, others: pa.Array | None
) -> Newest:
    """Which rows of a file are its users' newest, and the place of each row's user among the others."""
    (number,) = connection.execute(f"SELECT num_rows FROM parquet_file_metadata({_text(path)})").fetchone() or (0,)
    newest = _newest_sql(path, columns, as_of, "entity IS NOT NULL")
    is_newest = np.zeros(number, dtype=np.bool_)
    if others is None:
        for batch in _stream(connection.execute(f"SELECT row FROM ({newest})"), _ROW_NUMBERS):
            is_newest[batch.column(0).to_numpy()] = True
        return Newest(is_newest)
    place_of = np.full(number, -1, dtype=np.int32)
    is_found = np.zeros(len(others), dtype=np.bool_)
    query = f"SELECT row, place FROM ({newest}) LEFT JOIN others USING (entity)"
    for batch in _stream(connection.execute(query), _ROW_NUMBERS):
        found, places = batch.column(0).to_numpy(), batch.column(1).fill_null(-1).to_numpy()
        is_newest[found] = True
        place_of[found] = places
        is_found[places[places >= 0]] = True
    return Newest(is_newest, place_of, np.flatnonzero(~is_found))


def _joined(
    connection: duckdb.DuckDBPyConnection,
    sources: Sequence[tuple[str, ViewColumns]],
    key: str,
    as_of: int,
    keys: Sequence[str] | None,
    has_others: bool,
    rows: int,
) -> Iterator[tuple[pa.RecordBatch, float]]:
    which = "entity IS NOT NULL"
    if keys is not None:
        connection.register("wanted", pa.table({"entity": pa.array(keys, pa.large_string())}))
        which = "entity IN (SELECT entity FROM wanted)"
    most = 0
    for number, (path, columns) in enumerate(sources):
        newest = _newest_sql(path, columns, as_of, which)
        connection.execute(f"CREATE TEMP TABLE newest{number} AS SELECT row FROM ({newest})")
        (count,) = connection.execute(f"SELECT count(*) FROM newest{number}").fetchone() or (0,)
        most = max(most, count)
    order = "ORDER BY entity" if most <= _SORTED_UP_TO else ""
    given = 0
    for batch in _stream(connection.execute(f"{_join_sql(sources, key, which, has_others)} {order}"), rows):
        given += batch.num_rows
        yield batch, min(1.0, given / max(1, most))


def _stream(result: Any, rows: int) -> Iterator[pa.RecordBatch]:
    reader = getattr(result, "to_arrow_reader", None) or result.fetch_record_batch  # by DuckDB's version
    yield from reader(rows)


def _newest_sql(path: str, columns: ViewColumns, as_of: int, which: str) -> str:
    """The number of every user's newest row: ``entity`` and ``row``."""
    created = "NULL" if columns.created is None else f"CAST({_name(columns.created)} AS TIMESTAMPTZ)"
    read = (
        f"SELECT CAST({_name(columns.key)} AS VARCHAR) AS entity, CAST({_name(columns.timestamp)} AS TIMESTAMPTZ) AS "
        f"instant, {created} AS created, file_row_number AS row FROM {_file(path)}"
    )
    rows = f"({read}) WHERE instant <= make_timestamptz({as_of}) AND {which}"
    if columns.created is None:
        return f"SELECT entity, arg_max(row, instant) AS row FROM {rows} GROUP BY entity"
    order = "PARTITION BY entity ORDER BY instant DESC, created DESC NULLS LAST"
    return f"SELECT entity, row FROM {rows} QUALIFY row_number() OVER ({order}) = 1"


def _join_sql(sources: Sequence[tuple[str, ViewColumns]], key: str, which: str, has_others: bool) -> str:
    views = [f"v{number} AS ({_rows_sql(path, columns, number)})" for number, (path, columns) in enumerate(sources)]
    selected = [f"entity AS {_name(key)}"]
    for number, (_, columns) in enumerate(sources):
        selected.append(f"v{number}.instant AS {_name(row_instant(columns.view))}")
        selected += [f"v{number}.c{at} AS {_name(name)}" for at, name in enumerate(columns.features)]
    if has_others:
        views.append(f"o AS (SELECT entity, place FROM others WHERE {which})")
        selected.append(f"o.place AS {_name(PLACE)}")
    tables = [*(f"v{number}" for number in range(len(sources))), *(["o"] if has_others else [])]
    joined = " ".join([tables[0], *(f"FULL JOIN {table} USING (entity)" for table in tables[1:])])
    return f"WITH {', '.join(views)} SELECT {', '.join(selected)} FROM {joined}"


def _rows_sql(path: str, columns: ViewColumns, number: int) -> str:
    """The newest rows of a file."""
    read = [
        f"CAST({_name(columns.key)} AS VARCHAR) AS entity",
        f"CAST({_name(columns.timestamp)} AS TIMESTAMPTZ) AS instant",
        *(f"{_name(column)} AS c{at}" for at, column in enumerate(columns.features.values())),
    ]
    which = f"file_row_number IN (SELECT row FROM newest{number})"
    return f"SELECT {', '.join(read)} FROM {_file(path)} WHERE {which}"


def _file(path: str) -> str:
    return f"read_parquet({_text(path)}, file_row_number = true, hive_partitioning = false)"


def _name(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
