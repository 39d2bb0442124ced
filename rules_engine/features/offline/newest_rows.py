"""The newest row of each entity in a Parquet file, in little memory.

Feast's DuckDB store asks for it with one query over all columns, which sorts whole rows. Here DuckDB first finds where
the newest rows are, from keys and timestamps alone; then the file is read once, and the other rows are left out on the
way. Between the two there is one bit for each row of the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

#: DuckDB's name for the number of a row in its file.
_NUMBER = "file_row_number"

#: Rows of the file that are compared in one pass over it: each pass takes the entities of one share. DuckDB can put
#: much of what it sorts on disk, but not all; ten million rows at once take more than it is given.
_ROWS_OF_A_PASS = 1_500_000

#: Rows of a record batch, at most.
_BATCH = 1000

_GLOB = frozenset("*?[{")


@dataclass(frozen=True, slots=True)
class Newest:
    """What is asked for.

    Attributes
    ----------
    keys
        the columns that tell an entity.
    features
        the columns to be read with them.
    timestamp, created
        of rows of the same entity the one with the latest timestamp counts, and of those the one created last.
    start, end
        timestamps before or after do not count.
    """

    keys: Sequence[str]
    features: Sequence[str]
    timestamp: str
    created: str | None
    start: datetime
    end: datetime

    @property
    def columns(self) -> list[str]:
        """All columns that are read, in the order in which Feast's store gives them."""
        return [*self.keys, *self.features, self.timestamp, *([self.created] if self.created else [])]


def parquet_file(offline_store: Any, source: Any, asked: Newest) -> Path | None:
    """The file of a source, if Feast's DuckDB store would read it as one plain local Parquet file; else None."""
    from feast.data_format import ParquetFormat
    from feast.infra.offline_stores.file_source import FileSource

    if type(offline_store).__module__ != "feast.infra.offline_stores.duckdb" or type(source) is not FileSource:
        return None
    named = source.file_format is None and source.path.endswith(".parquet")
    if not (named or isinstance(source.file_format, ParquetFormat)) or _GLOB.intersection(source.path):
        return None
    path = Path(source.path)  # relative to the working directory, as Feast's store reads it
    if not path.is_file():
        return None
    schema = pq.read_schema(path)
    fits = set(asked.columns) <= set(schema.names) and _NUMBER not in schema.names
    return path if fits and all(_is_plain(schema.field(name).type) for name in asked.columns) else None


def _is_plain(kind: Any) -> bool:
    """Whether columns of the type come out of DuckDB as they went into the file."""
    types = pa.types
    if types.is_list(kind) or types.is_large_list(kind):
        return _is_plain(kind.value_type)
    text = types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind)
    number = types.is_integer(kind) or types.is_float32(kind) or types.is_float64(kind) or types.is_boolean(kind)
    return bool(text or number or types.is_timestamp(kind) or types.is_date32(kind))


@contextmanager
def newest_rows(path: Path, asked: Newest, memory_limit: str, folder: str) -> Iterator[Iterator[pa.RecordBatch]]:
    """The newest row of each entity, as record batches.

    Parameters
    ----------
    path
        the Parquet file.
    asked
        which rows and columns.
    memory_limit
        what DuckDB may use; what does not fit goes to ``folder``.
    folder
        of temporary files.
    """
    settings = {
        "memory_limit": memory_limit,
        "temp_directory": folder,
        "threads": 1,  # each takes memory of its own, and the store takes longer than one
        "preserve_insertion_order": "false",
        # It makes one large aggregate of "the newest row", which cannot move to disk, and fails beyond the limit.
        "disabled_optimizers": "top_n_window_elimination",
    }
    with _connected(settings) as connection:  # its memory is given back before the rows are read
        chosen = _chosen(connection, path, asked)
    with _connected(settings) as connection:
        yield _read(connection, path, asked, chosen)


@contextmanager
def _connected(settings: dict[str, Any]) -> Iterator[Any]:
    import duckdb

    with duckdb.connect(config=settings) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def _chosen(connection: Any, path: Path, asked: Newest) -> npt.NDArray[np.uint8]:
    """A bit for each row of the file: whether it is the newest of its entity."""
    order = ", ".join(f"{_quoted(name)} DESC" for name in (asked.timestamp, asked.created) if name)
    keys = _list(asked.keys)
    rows = pq.read_metadata(path).num_rows
    passes = rows // _ROWS_OF_A_PASS + 1
    bits = np.zeros(rows // 8 + 1, np.uint8)
    for number in range(passes):
        query = f"""
            SELECT {_NUMBER} FROM (
                SELECT {_NUMBER}, row_number() OVER (PARTITION BY {keys} ORDER BY {order}) AS place
                FROM read_parquet($path, {_NUMBER} = true)
                WHERE {_in_range(asked)} AND hash({keys}) % {passes} = {number}
            ) WHERE place = 1
        """  # noqa: S608 (names are quoted)
        for batch in _batches(connection, query, path, asked):
            numbers = batch.column(0).to_numpy()
            np.bitwise_or.at(bits, numbers >> 3, np.left_shift(1, numbers & 7).astype(np.uint8))
    return bits


def _read(connection: Any, path: Path, asked: Newest, chosen: npt.NDArray[np.uint8]) -> Iterator[pa.RecordBatch]:
    columns = _list([*asked.columns, _NUMBER])
    query = f"SELECT {columns} FROM read_parquet($path, {_NUMBER} = true) WHERE {_in_range(asked)}"  # noqa: S608
    for batch in _batches(connection, query, path, asked):
        numbers = batch.column(batch.num_columns - 1).to_numpy()
        kept = (chosen[numbers >> 3] >> (numbers & 7)) & 1
        rows = batch.select(asked.columns)
        yield rows if kept.all() else rows.filter(pa.array(kept.astype(np.bool_)))


def _batches(connection: Any, query: str, path: Path, asked: Newest) -> Iterator[pa.RecordBatch]:
    start, end = (at.astimezone(UTC).replace(tzinfo=None) for at in (asked.start, asked.end))
    found = connection.execute(query, {"path": str(path), "start": start, "end": end})
    yield from found.to_arrow_reader(_BATCH) if hasattr(found, "to_arrow_reader") else found.fetch_record_batch(_BATCH)


def _in_range(asked: Newest) -> str:
    """As Feast's store compares."""
    return f"CAST({_quoted(asked.timestamp)} AS TIMESTAMP) BETWEEN $start AND $end"


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(_quoted, names))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
