"""Read the newest rows of Parquet files on this machine: streamed, and in bounded memory.

First the newest rows are found (``newest.py``), for which keys and timestamps alone are read. Then the columns that are
wanted are read once: of one view straight from the file in its own order; of several views, or for some entities only,
by a join in DuckDB.
"""

# ruff: noqa: S608  # whatever stands in the SQL is a quoted name or text, or a number

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from rules_engine.errors import ProjectError
from rules_engine.features.offline import newest
from rules_engine.features.offline.newest import Reach
from rules_engine.features.offline.parquet_rows import PLACE, NewestRows
from rules_engine.features.offline.source_file import SourceFile, quoted
from rules_engine.features.offline.view_columns import row_instant

if TYPE_CHECKING:
    import duckdb

#: What DuckDB may use; beyond it goes to disk.
_MEMORY_LIMIT = "512MB"

#: Up to so many entities, a join gives them in the order of their keys.
_SORTED_UP_TO = 250_000


def local_path(feature_repo: Path, source: Any) -> Path | None:
    """Return the file behind a source, if that is one Parquet file on this machine, there or not; else None."""
    from feast import FileSource
    from feast.data_format import ParquetFormat

    if type(source) is not FileSource or "://" in source.path or _GLOB.intersection(source.path):
        return None
    path = Path(source.path)
    path = path if path.is_absolute() else feature_repo / path
    is_named = source.file_format is None and path.suffix == ".parquet"
    return path if (is_named or isinstance(source.file_format, ParquetFormat)) and not path.is_dir() else None


_GLOB = frozenset("*?[{")


def newest_rows(
    sources: Sequence[SourceFile],
    key: str,
    as_of: int,
    keys: Sequence[str] | None,
    others: pa.Array | None,
    rows: int,
    folder: Path,
    *,
    keyless: bool = False,
) -> Iterator[tuple[pa.RecordBatch, float]]:
    """Read of each view every entity's newest row at or before an instant, side by side, and how far the reading is.

    Parameters
    ----------
    sources
        the files.
    key
        the name that the column of keys gets.
    as_of
        in microseconds.
    keys
        the only entities to read; None for all.
    others
        entities that count without a row too; the column ``PLACE`` then says where among them an entity is.
    rows
        at most so many in a batch.
    folder
        where DuckDB may put what does not fit into memory.
    keyless
        allows to leave out keys and instants.

    Raises
    ------
    ProjectError
        if a file cannot be read.
    """
    from rules_engine.features.offline.parquet_stream import stream

    try:
        with newest.database(folder, _MEMORY_LIMIT) as connection:
            if others is not None:
                places = pa.array(np.arange(len(others)))
                connection.register("others", pa.table({"entity": others.cast(pa.large_string()), "place": places}))
            if keys is None and len(sources) == 1:
                chosen = _newest(connection, sources[0], as_of, others)
            else:
                yield from _joined(connection, sources, key, as_of, keys, others is not None, rows)
                return
        # Outside of the database: its memory is free again.
        yield from stream(sources[0], chosen, None if keyless and others is None else key, others, rows)
    except newest.read_errors() as error:
        raise unreadable(sources, error) from error


def unreadable(sources: Sequence[SourceFile], error: Exception) -> ProjectError:
    """Make the error for files of which one cannot be read; of what DuckDB says the first line is told."""
    paths = ", ".join(str(source.path) for source in sources)
    reason = str(error).strip().splitlines()[0]
    return ProjectError(
        f"the offline store cannot be read: {reason}", hint=f"are these whole Parquet files, and is there room? {paths}"
    )


def _newest(
    connection: duckdb.DuckDBPyConnection, source: SourceFile, as_of: int, others: pa.Array | None
) -> NewestRows:
    """Find which rows of a file are its entities' newest, and the place of each row's entity among the others."""
    query_of_newest = newest.newest_sql(source, Reach(as_of), "true")
    is_newest = np.zeros(source.rows, dtype=np.bool_)
    if others is None:
        for batch in newest.stream(connection.execute(f"SELECT row FROM ({query_of_newest})")):
            is_newest[batch.column(0).to_numpy()] = True
        return NewestRows(is_newest)
    place_of = np.full(source.rows, -1, dtype=np.int32)
    is_found = np.zeros(len(others), dtype=np.bool_)
    query = f"SELECT row, place FROM ({query_of_newest}) LEFT JOIN others USING (entity)"
    for batch in newest.stream(connection.execute(query)):
        numbers, places = batch.column(0).to_numpy(), batch.column(1).fill_null(-1).to_numpy()
        is_newest[numbers] = True
        place_of[numbers] = places
        is_found[places[places >= 0]] = True
    return NewestRows(is_newest, place_of, np.flatnonzero(~is_found))


def _joined(
    connection: duckdb.DuckDBPyConnection,
    sources: Sequence[SourceFile],
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
    for number, source in enumerate(sources):
        query_of_newest = newest.newest_sql(source, Reach(as_of), which)
        connection.execute(f"CREATE TEMP TABLE newest{number} AS SELECT row FROM ({query_of_newest})")
        (count,) = connection.execute(f"SELECT count(*) FROM newest{number}").fetchone() or (0,)
        most = max(most, count)
    order = "ORDER BY entity" if most <= _SORTED_UP_TO else ""
    yielded = 0
    for batch in newest.stream(connection.execute(f"{_join_sql(sources, key, which, has_others)} {order}"), rows):
        yielded += batch.num_rows
        yield batch, min(1.0, yielded / max(1, most))


def _join_sql(sources: Sequence[SourceFile], key: str, which: str, has_others: bool) -> str:
    views = [f"v{number} AS ({_rows_sql(source, number)})" for number, source in enumerate(sources)]
    selected = [f"entity AS {quoted(key)}"]
    for number, source in enumerate(sources):
        instant = f"make_timestamptz(v{number}.instant)"
        selected.append(f"{instant} AS {quoted(row_instant(source.columns.view))}")
        selected += [f"v{number}.c{at} AS {quoted(name)}" for at, name in enumerate(source.columns.features)]
    if has_others:
        views.append(f"o AS (SELECT entity, place FROM others WHERE {which})")
        selected.append(f"o.place AS {quoted(PLACE)}")
    tables = [*(f"v{number}" for number in range(len(sources))), *(["o"] if has_others else [])]
    joined = " ".join([tables[0], *(f"FULL JOIN {table} USING (entity)" for table in tables[1:])])
    return f"WITH {', '.join(views)} SELECT {', '.join(selected)} FROM {joined}"


def _rows_sql(source: SourceFile, number: int) -> str:
    """Write the query for the newest rows of a file."""
    read = [
        f"{source.entity_sql} AS entity",
        f"{source.instant_sql} AS instant",
        *(f"{quoted(column)} AS c{at}" for at, column in enumerate(source.columns.features.values())),
    ]
    which = f"file_row_number IN (SELECT row FROM newest{number})"
    return f"SELECT {', '.join(read)} FROM {source.sql} WHERE {which}"
