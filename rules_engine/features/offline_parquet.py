"""The newest rows of Parquet files on this machine, with DuckDB: streamed, and in bounded memory.

The same rows as Feast's offline stores for such files give, found by aggregation in place of a sort of every user's
history. Users are read in groups by a hash of their key, so that one group's rows fit into memory whatever the files'
size.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

#: About how many values of source rows one group of users has.
_VALUES_PER_GROUP = 10_000_000

_MEMORY_LIMIT = "1GB"

#: The column with the place of a user among the other users who were given.
PLACE = "@"


def row_instant(view: str) -> str:
    """The name of the column that holds the instant of a view's row.

    >>> row_instant("rfm")
    '@rfm'
    """
    return f"@{view}"


class ReadError(Exception):
    """DuckDB cannot read a file."""


@dataclass(frozen=True, slots=True)
class ViewColumns:
    """A view's columns as its source names them; ``features`` by ``"view:name"``."""

    view: str
    key: str
    timestamp: str
    created: str | None
    features: Mapping[str, str]


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
) -> Iterator[tuple[pa.RecordBatch, float]]:
    """Of each view every user's newest row at or before an instant, side by side, and how far the reading is.

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

    Raises
    ------
    ReadError
        if a file cannot be read.
    """
    import duckdb

    groups = 1 if keys is not None else _groups(sources)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="duckdb-", dir=folder) as spill, duckdb.connect() as connection:
            connection.execute(f"SET TimeZone = 'UTC'; SET memory_limit = '{_MEMORY_LIMIT}'")
            connection.execute(f"SET temp_directory = {_text(spill)}")
            connection.execute("SET enable_progress_bar = false; SET preserve_insertion_order = false")
            if keys is not None:
                connection.register("wanted", pa.table({"entity": pa.array(keys, pa.large_string())}))
            if others is not None:
                places = pa.array(np.arange(len(others)))
                connection.register("others", pa.table({"entity": others.cast(pa.large_string()), "place": places}))
            for group in range(groups):
                which = _only(keys, group, groups)
                result = connection.execute(_query(sources, key, as_of, which, others is not None))
                stream = getattr(result, "to_arrow_reader", None) or result.fetch_record_batch  # by DuckDB's version
                for batch in stream(rows):
                    yield batch, (group + 0.5) / groups
    except duckdb.Error as error:
        raise ReadError(str(error)) from error


def _groups(sources: Sequence[tuple[str, ViewColumns]]) -> int:
    values = 0
    for path, columns in sources:
        try:
            values += pq.read_metadata(path).num_rows * (2 + len(columns.features))
        except (OSError, pa.ArrowInvalid) as error:
            raise ReadError(f"{path}: {error}") from error
    return 1 + values // _VALUES_PER_GROUP


def _only(keys: Sequence[str] | None, group: int, groups: int) -> str:
    if keys is not None:
        return "entity IN (SELECT entity FROM wanted)"
    return f"hash(entity) % {groups} = {group}" if groups > 1 else "entity IS NOT NULL"


def _query(sources: Sequence[tuple[str, ViewColumns]], key: str, as_of: int, which: str, has_others: bool) -> str:
    newest = [
        f"v{number} AS ({_newest(path, columns, as_of, which)})" for number, (path, columns) in enumerate(sources)
    ]
    selected = [f"entity AS {_name(key)}"]
    for number, (_, columns) in enumerate(sources):
        selected.append(f"v{number}.instant AS {_name(row_instant(columns.view))}")
        selected += [f"v{number}.line.c{at} AS {_name(name)}" for at, name in enumerate(columns.features)]
    if has_others:
        newest.append(f"o AS (SELECT entity, place FROM others WHERE {which})")  # noqa: S608  # names are quoted
        selected.append(f"o.place AS {_name(PLACE)}")
    tables = [*(f"v{number}" for number in range(len(sources))), *(["o"] if has_others else [])]
    joined = " ".join([tables[0], *(f"FULL JOIN {table} USING (entity)" for table in tables[1:])])
    return f"WITH {', '.join(newest)} SELECT {', '.join(selected)} FROM {joined} ORDER BY entity"  # noqa: S608  # names are quoted


def _newest(path: str, columns: ViewColumns, as_of: int, which: str) -> str:
    fields = [f"c{at} := {_name(column)}" for at, column in enumerate(columns.features.values())]
    created = "NULL" if columns.created is None else f"CAST({_name(columns.created)} AS TIMESTAMPTZ)"
    read = [
        f"CAST({_name(columns.key)} AS VARCHAR) AS entity",
        f"CAST({_name(columns.timestamp)} AS TIMESTAMPTZ) AS instant",
        f"{created} AS created",
        f"struct_pack({', '.join(fields or ['c0 := true'])}) AS line",
    ]
    until = f"instant <= make_timestamptz({as_of}) AND entity IS NOT NULL AND {which}"
    rows = f"(SELECT {', '.join(read)} FROM read_parquet({_text(path)})) WHERE {until}"  # noqa: S608  # names are quoted
    if columns.created is None:
        newest, last = "SELECT entity, max(instant) AS instant, arg_max(line, instant) AS line", "GROUP BY entity"
    else:
        order = "PARTITION BY entity ORDER BY instant DESC, created DESC NULLS LAST"
        newest, last = "SELECT entity, instant, line", f"QUALIFY row_number() OVER ({order}) = 1"
    return f"{newest} FROM {rows} {last}"


def _name(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
