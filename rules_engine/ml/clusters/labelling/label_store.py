"""The rows of a view of labels, in its offline source and in the online store."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rules_engine.clock import from_micros
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.features.feast.writes import DirectWrites, watched_writes
from rules_engine.features.feast_import import quiet
from rules_engine.ml.offline import latest_rows, local_file, write_rows
from rules_engine.redis import client as redis_client
from rules_engine.redis.server import is_direct

_BATCH = 10_000
_TYPES = {"String": pa.string(), "Int64": pa.int64(), "Float64": pa.float64(), "Bool": pa.bool_()}


def arrow_type(feast_type: str) -> pa.DataType:
    """Return the Arrow type of a label's column."""
    return _TYPES[feast_type]


class LabelSource:
    """The offline source of a view of labels.

    A Parquet file on this machine is read and replaced in pieces; every other source is read as a whole, and appended
    to by Feast.

    Attributes
    ----------
    name
        the view's.
    columns
        the view's features, with their types.
    path
        the file, if it is one on this machine.
    """

    def __init__(self, repo: FeastRepo, name: str, columns: Mapping[str, str]) -> None:
        self._repo = repo
        self.name = name
        self.columns = dict(columns)
        self.path = local_file(repo, name)
        self._timestamp = repo.registered_view(name).batch_source.timestamp_field
        self._rows: pd.DataFrame | None = None
        if self.path is not None:
            self._add_missing_columns(self.path)

    def latest(self) -> Any:
        """Return the instant of the newest row of all; None if there are no rows."""
        if self.path is None:
            rows = self.rows()
            return rows["event_timestamp"].max() if len(rows) else None
        latest = None
        for batch in pq.ParquetFile(self.path).iter_batches(columns=[self._timestamp]):
            newest = pc.max(batch.column(0)).as_py()
            latest = newest if latest is None or (newest is not None and newest > latest) else latest
        if latest is None:
            return None
        instant = pd.Timestamp(latest)
        return instant if instant.tzinfo else instant.tz_localize("UTC")

    def rows(self) -> pd.DataFrame:
        """Return everyone's newest row."""
        if self._rows is None:
            self._rows = latest_rows(self._repo, self.name)
        return self._rows

    def add(self, newest: Path, as_of: int) -> None:
        """Add the marked rows of a file. A row of the same user and instant is replaced where the source allows it.

        A Parquet file is replaced in one step, so that an interruption leaves the old one.
        """
        if self.path is None:
            parts = [batch.to_pandas() for batch in _fresh(newest)]
            write_rows(self._repo, self.name, pd.concat(parts).drop(columns="fresh"))
            return
        key = self._repo.entity().join_key
        replaced = pa.concat_arrays([batch.column(key) for batch in _fresh(newest)])
        partial = self.path.with_suffix(".partial")
        schema = pq.read_schema(self.path)
        with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
            for batch in pq.ParquetFile(self.path).iter_batches():
                writer.write_batch(_others(batch, key, self._timestamp, replaced, as_of))
            for batch in _fresh(newest):
                writer.write_batch(_as_schema(batch, schema, {self._timestamp: "event_timestamp"}))
        partial.replace(self.path)

    def _add_missing_columns(self, path: Path) -> None:
        """Add the columns of features that the view got after its file was written, empty."""
        schema = pq.read_schema(path)
        absent = [pa.field(name, _TYPES[kind]) for name, kind in self.columns.items() if name not in schema.names]
        if not absent:
            return
        wider = pa.schema([*schema, *absent])
        partial = path.with_suffix(".partial")
        with pq.ParquetWriter(partial, wider, compression="zstd") as writer:
            for batch in pq.ParquetFile(path).iter_batches():
                writer.write_batch(_as_schema(batch, wider, {}))
        partial.replace(path)


def write_online(repo: FeastRepo, name: str, newest: Path, progress: Callable[[int, int], None]) -> None:
    """Write the rows of a file. The store leaves out a row older than the one it has."""
    file = pq.ParquetFile(newest)
    total, done = file.metadata.num_rows, 0
    timestamp = repo.registered_view(name).batch_source.timestamp_field
    columns = [column for column in file.schema_arrow.names if column != "fresh"]

    def on_rows(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    direct = DirectWrites(repo) if is_direct(repo.connection()) else None
    errors = contextlib.nullcontext() if direct is None else redis_client.store_errors(direct.address)
    try:
        if repo.writes_in_bulk:
            view = repo.registered_view(name)
            batches = (_renamed(batch, timestamp) for batch in file.iter_batches(_BATCH, columns=columns))
            with quiet(), errors:
                repo.store.provider.online_store.write_arrow(repo.store.config, view, batches, on_rows)
            return
        with quiet(), errors, watched_writes(repo, direct, on_rows):
            for batch in file.iter_batches(_BATCH, columns=columns):
                repo.store.write_to_online_store(name, _renamed(batch, timestamp).to_pandas())
    finally:
        if direct is not None:
            direct.close()


def _fresh(newest: Path) -> Iterator[pa.RecordBatch]:
    for batch in pq.ParquetFile(newest).iter_batches():
        yield batch.filter(batch.column("fresh"))


def _others(batch: pa.RecordBatch, key: str, timestamp: str, replaced: pa.Array, as_of: int) -> pa.RecordBatch:
    """Return the rows that are not replaced: of another instant, or another user's."""
    instants = batch.column(timestamp)
    same_instant = pc.equal(instants.cast(pa.timestamp("us", tz="UTC"), safe=False), from_micros(as_of))
    if not pc.any(same_instant).as_py():
        return batch
    keys = batch.column(key).cast(pa.string())
    return batch.filter(pc.invert(pc.and_(same_instant, pc.is_in(keys, value_set=replaced))))


def _as_schema(batch: pa.RecordBatch, schema: pa.Schema, named: Mapping[str, str]) -> pa.RecordBatch:
    """Return the batch with the columns of a schema, absent ones as nulls. ``named``: by column, its name here."""
    columns = []
    for column in schema:
        name = named.get(column.name, column.name)
        there = name in batch.schema.names
        columns.append(batch.column(name).cast(column.type) if there else pa.nulls(batch.num_rows, column.type))
    return pa.record_batch(columns, schema=schema)


def _renamed(batch: pa.RecordBatch, timestamp: str) -> pa.RecordBatch:
    names = [timestamp if name == "event_timestamp" else name for name in batch.schema.names]
    return batch.rename_columns(names)
