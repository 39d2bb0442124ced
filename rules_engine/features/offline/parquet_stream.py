"""Read chosen rows of one Parquet file in the file's own order: without join or sort, the next ones read meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from rules_engine.features.column_values import entity_keys, event_instants
from rules_engine.features.offline.parquet_rows import PLACE, NewestRows
from rules_engine.features.offline.source_file import BUFFER, SourceFile
from rules_engine.features.offline.view_columns import ViewColumns, row_instant

#: Texts that take at most so many bytes each in the file repeat themselves there, and are read as codes.
_SMALL_TEXT = 4.0

_INSTANT = pa.timestamp("us", "UTC")
_T = TypeVar("_T")
Places = npt.NDArray[np.signedinteger[Any]]


def stream(
    source: SourceFile, newest: NewestRows, key: str | None, others: pa.Array | None, rows: int
) -> Iterator[tuple[pa.RecordBatch, float]]:
    """Read the newest rows, and how far the reading is; then a row of nulls for each of the others that has none.

    Parameters
    ----------
    key
        the name that the column of keys gets; None for the features alone, without keys, instants and others.
    rows
        at most so many in a batch.
    """
    path, columns = source.path, source.columns
    with pq.ParquetFile(path) as file:
        texts = _small_texts(file.metadata)
    with pq.ParquetFile(path, read_dictionary=texts) as file:
        for batch, places, done in _ahead(_chosen(file, columns, newest, key, rows)):
            yield _with_places(batch, places), done / max(1, len(newest.rows))
        if key is not None and others is not None and newest.without_row is not None:
            schema = _named(_nothing(file, columns, key), columns, key).schema
            for start in range(0, len(newest.without_row), rows):
                places = newest.without_row[start : start + rows]
                empty = {field.name: pa.nulls(len(places), field.type) for field in schema}
                yield _with_places(pa.record_batch(empty | {key: others.take(pa.array(places))}), places), 1.0


def raw_rows(source: SourceFile, newest: NewestRows, columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
    """Read columns of the newest rows as they are in the file, in little memory.

    Parameters
    ----------
    wanted
        the columns, as the file names them.
    rows
        at most so many in a batch.
    """
    with pq.ParquetFile(source.path, buffer_size=BUFFER) as file:
        for batch, _, _ in _of_groups(file, columns, newest, rows):
            yield batch


def _chosen(
    file: pq.ParquetFile, columns: ViewColumns, newest: NewestRows, key: str | None, rows: int
) -> Iterator[tuple[pa.RecordBatch, Places | None, int]]:
    """Give batches, the places of their entities among the others, and the number of rows that are done."""
    for batch, places, end in _of_groups(file, _physical(columns, key), newest, rows):
        yield _named(batch, columns, key), places, end


def _of_groups(
    file: pq.ParquetFile, columns: list[str], newest: NewestRows, rows: int
) -> Iterator[tuple[pa.RecordBatch, Places | None, int]]:
    end = 0
    for group in range(file.num_row_groups):
        start, end = end, end + file.metadata.row_group(group).num_rows
        if not newest.rows[start:end].any():
            continue
        for batch in file.iter_batches(rows, row_groups=[group], columns=columns):
            here = slice(start, start + batch.num_rows)
            start += batch.num_rows
            chosen, places = newest.rows[here], None if newest.places is None else newest.places[here]
            if chosen.all():
                yield batch, places, start
            else:
                yield batch.filter(pa.array(chosen)), None if places is None else places[chosen], start


def _physical(columns: ViewColumns, key: str | None) -> list[str]:
    besides = [] if key is None else [columns.key, columns.timestamp]
    return list(dict.fromkeys([*besides, *columns.features.values()]))


def _named(batch: pa.RecordBatch, columns: ViewColumns, key: str | None) -> pa.RecordBatch:
    """Return the columns by the names that rules know."""
    features = {name: batch[column] for name, column in columns.features.items()}
    if key is None:
        return pa.record_batch(features)
    entities = entity_keys(batch[columns.key], columns.key)
    instants = event_instants(batch[columns.timestamp], columns.timestamp).cast(_INSTANT)
    return pa.record_batch({key: entities, row_instant(columns.view): instants} | features)


def _nothing(file: pq.ParquetFile, columns: ViewColumns, key: str) -> pa.RecordBatch:
    names = _physical(columns, key)
    return pa.record_batch({name: pa.nulls(0, file.schema_arrow.field(name).type) for name in names})


def _with_places(batch: pa.RecordBatch, places: Places | None) -> pa.RecordBatch:
    return batch if places is None else batch.append_column(PLACE, pa.array(places, pa.int64()))


def _small_texts(metadata: pq.FileMetaData) -> list[str]:
    paths = []
    for column in range(metadata.num_columns):
        description = metadata.schema.column(column)
        if description.physical_type != "BYTE_ARRAY" or description.logical_type.type != "STRING":
            continue
        chunks = [metadata.row_group(group).column(column) for group in range(metadata.num_row_groups)]
        values = sum(chunk.num_values for chunk in chunks)
        if sum(chunk.total_uncompressed_size for chunk in chunks) <= _SMALL_TEXT * values:
            paths.append(description.path)
    return paths


def _ahead(items: Iterator[_T]) -> Iterator[_T]:
    """Yield the items, each made while the one before it is in use."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, items, None)
        while (item := waiting.result()) is not None:
            waiting = pool.submit(next, items, None)
            yield item
