"""Join features to entities at instants, point in time: each gets the newest row at or before its own instant."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rules_engine.features.column_values import as_declared, entity_keys, event_instants
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.features.offline import newest
from rules_engine.features.offline.point_in_time import local_sources
from rules_engine.features.offline.source_file import BUFFER, SourceFile, unreadable
from rules_engine.features.offline.view_columns import ViewColumns

Integers = npt.NDArray[np.int64]

#: Rows of a file that are looked at together.
_ROWS = 65_536

_NO_INSTANT = np.iinfo(np.int64).min


def join_files(repo: FeastRepo, features: Sequence[str], keys: pa.Array, ats: Integers) -> dict[str, pa.Array]:
    """Return features as they were for entities at instants, of those views whose rows lie in files on this machine.

    Parameters
    ----------
    features
        ``"view:name"``; those of other views are left out of the result.
    keys, ats
        the entities, and for each the instant in microseconds.

    Returns
    -------
    dict
        by feature its values in the order of ``keys``, of the declared type. A value is missing where the entity had
        no row yet, or where its row was past the view's ttl.

    Raises
    ------
    ProjectError, DataError
        if a file cannot be read, or a column cannot give the values of its feature.
    """
    catalog = repo.catalog()
    values_by_feature: dict[str, pa.Array] = {}
    for path, columns in local_sources(repo):
        columns_by_feature = {name: columns.features[name] for name in features if name in columns.features}
        if not columns_by_feature:
            continue
        read = ViewColumns(columns.view, columns.key, columns.timestamp, columns.created, columns_by_feature)
        source = SourceFile.open(path, read)
        source.require(columns_by_feature)
        try:
            rows = _rows_of(source, keys)
        except newest.read_errors() as error:
            raise unreadable(columns.view, path, str(error)) from error
        places = _places(rows, read, keys, ats, catalog.ttl.get(columns.view))
        chosen = pa.array(places, mask=places < 0)
        for name, column in columns_by_feature.items():
            values = as_declared(_whole(rows[column]), name, catalog.features[name].feast_type)
            values_by_feature[name] = values.take(chosen)
    return values_by_feature


def _rows_of(source: SourceFile, keys: pa.Array) -> pa.Table:
    """Read the rows of some entities, in the file's order."""
    columns = source.columns
    names = [columns.key, columns.timestamp, columns.created, *columns.features.values()]
    read_names = list(dict.fromkeys(name for name in names if name is not None))
    entities = pc.unique(keys)
    with pq.ParquetFile(source.path, buffer_size=BUFFER) as file:
        batches = [
            batch.filter(pc.is_in(entity_keys(batch[columns.key], columns.key), value_set=entities))
            for batch in file.iter_batches(_ROWS, columns=read_names)
        ]
    return pa.Table.from_batches(batches, pa.schema([source.schema.field(name) for name in read_names]))


def _places(rows: pa.Table, columns: ViewColumns, keys: pa.Array, ats: Integers, ttl: int | None) -> Integers:
    """Find for each entity and instant the place of the row that counts; -1 without one."""
    entities = pc.unique(keys)
    owners = pc.index_in(entity_keys(_whole(rows[columns.key]), columns.key), value_set=entities)
    owners = owners.to_numpy().astype(np.int64)
    instants = _micros(rows, columns.timestamp)
    created = np.zeros(len(owners), np.int64) if columns.created is None else _micros(rows, columns.created)
    order = np.lexsort((np.arange(len(owners)), created, instants, owners))
    order = order[instants[order] >= newest.BEGINNING]
    ticks = np.unique(instants[order])
    width = len(ticks) + 1
    sorted_rows = owners[order] * width + np.searchsorted(ticks, instants[order])
    requested = pc.index_in(keys, value_set=entities).to_numpy().astype(np.int64)
    ends = np.searchsorted(sorted_rows, requested * width + np.searchsorted(ticks, ats, "right")) - 1
    places = np.where(ends >= 0, order[np.maximum(ends, 0)] if len(order) else -1, -1)
    is_own = places >= 0
    is_own[is_own] = owners[places[is_own]] == requested[is_own]
    if ttl is not None:
        is_own[is_own] = ats[is_own] - instants[places[is_own]] <= ttl
    result: Integers = np.where(is_own, places, -1)
    return result


def _micros(rows: pa.Table, name: str) -> Integers:
    instants: Integers = event_instants(_whole(rows[name]), name).fill_null(_NO_INSTANT).to_numpy()
    return instants


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
