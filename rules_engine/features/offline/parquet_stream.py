"""Chosen rows of one Parquet file, in the file's own order: without join or sort, the next ones read meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from rules_engine.features.offline.parquet_rows import PLACE, Newest, ViewColumns, row_instant

#: Texts that take at most so many bytes each in the file repeat themselves there, and are read as codes.
_SMALL_TEXT = 4.0

_INSTANT = pa.timestamp("us", "UTC")
_T = TypeVar("_T")
Places = npt.NDArray[np.signedinteger[Any]]


def stream(
    path: str, columns: ViewColumns, newest: Newest, key: str | None, others: pa.Array | None, rows: int
) -> Iterator[tuple[pa.RecordBatch, float]]:
    """The newest rows, and how far the reading is; then a row of nulls for each of the others who has none.

    Parameters
    ----------
    key
        the name that the column of keys gets; None for the features alone, without keys, instants and others.
    rows
        at most so many in a batch.
    """
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


def _chosen(
    file: pq.ParquetFile, columns: ViewColumns, newest: Newest, key: str | None, rows: int
) -> Iterator[tuple[pa.RecordBatch, Places | None, int]]:
    """Batches, the places of their users among the others, and the number of rows that are done."""
    wanted, end = _physical(columns, key), 0
    for group in range(file.num_row_groups):
        start, end = end, end + file.metadata.row_group(group).num_rows
        if not newest.rows[start:end].any():
            continue
        for batch in file.iter_batches(rows, row_groups=[group], columns=wanted):
            here = slice(start, start + batch.num_rows)
            start += batch.num_rows
            chosen, places = newest.rows[here], None if newest.places is None else newest.places[here]
            if not chosen.all():
                batch = batch.filter(pa.array(chosen))  # noqa: PLW2901  # the same, with fewer rows
                places = None if places is None else places[chosen]
            yield _named(batch, columns, key), places, start


def _physical(columns: ViewColumns, key: str | None) -> list[str]:
    besides = [] if key is None else [columns.key, columns.timestamp]
    return list(dict.fromkeys([*besides, *columns.features.values()]))


def _named(batch: pa.RecordBatch, columns: ViewColumns, key: str | None) -> pa.RecordBatch:
    """The columns by the names that rules know."""
    features = {name: batch[column] for name, column in columns.features.items()}
    if key is None:
        return pa.record_batch(features)
    entities, instants = batch[columns.key], batch[columns.timestamp]
    if not (pa.types.is_string(entities.type) or pa.types.is_large_string(entities.type)):
        entities = entities.cast(pa.string())
    if pa.types.is_date(instants.type):
        instants = instants.cast(pa.timestamp("us"))
    named = {key: entities, row_instant(columns.view): instants.cast(_INSTANT, safe=False)}
    return pa.record_batch(named | features)


def _nothing(file: pq.ParquetFile, columns: ViewColumns, key: str) -> pa.RecordBatch:
    wanted = _physical(columns, key)
    return pa.record_batch({name: pa.nulls(0, file.schema_arrow.field(name).type) for name in wanted})


def _with_places(batch: pa.RecordBatch, places: Places | None) -> pa.RecordBatch:
    return batch if places is None else batch.append_column(PLACE, pa.array(places, pa.int64()))


def _small_texts(metadata: pq.FileMetaData) -> list[str]:
    found = []
    for column in range(metadata.num_columns):
        description = metadata.schema.column(column)
        if description.physical_type != "BYTE_ARRAY" or description.logical_type.type != "STRING":
            continue
        chunks = [metadata.row_group(group).column(column) for group in range(metadata.num_row_groups)]
        values = sum(chunk.num_values for chunk in chunks)
        if sum(chunk.total_uncompressed_size for chunk in chunks) <= _SMALL_TEXT * values:
            found.append(description.path)
    return found


def _ahead(items: Iterator[_T]) -> Iterator[_T]:
    """The same, each made while the one before it is in use."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, items, None)
        while (item := waiting.result()) is not None:
            waiting = pool.submit(next, items, None)
            yield item
