"""Read all entities' features as of an instant from the offline store, as record batches.

Point in time: of each feature view the newest row at or before the instant, and nothing of later rows. Whether that row
is past the view's ttl is for the reader of the batch to judge: its instant is in the batch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rules_engine.clock import from_micros
from rules_engine.errors import ProjectError, UnknownNameError, UnsupportedError, pass_interrupt
from rules_engine.features.column_values import as_declared, entity_keys, event_instants
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.features.feast_import import quiet
from rules_engine.features.offline import newest, parquet
from rules_engine.features.offline.parquet_rows import PLACE, NewestRows
from rules_engine.features.offline.parquet_stream import raw_rows
from rules_engine.features.offline.source_file import SourceFile
from rules_engine.features.offline.view_columns import ViewColumns, row_instant

#: How many users a batch holds.
BATCH_ROWS = 131_072

Places = npt.NDArray[np.int64]

#: Before any row.
_FIRST = datetime(1900, 1, 1, tzinfo=UTC)

#: What makes a view's rows others than those of its source.
_COMPUTED = ("aggregations", "feature_transformation", "source_views")


@dataclass(frozen=True, slots=True)
class Part:
    """A batch of users, and how far the reading is: from 0 to 1.

    ``places`` are the places of the users among those who were given as users too, -1 for who is none of them.
    """

    batch: pa.RecordBatch
    done: float
    places: Places | None = None


class OfflineUsers:
    """All users of a project with some of their features, as of any instant.

    A user is everyone who has a row in any feature view that is served online, however old.

    Parameters
    ----------
    repo
        the open Feast repository; the views are those of its files, applied or not.
    features
        what is read, ``"view:name"``.

    Attributes
    ----------
    key
        the name of the column of entity keys in a batch: the join key. The other columns are the features, and for
        each view of theirs :func:`row_instant`.
    ttl
        by view, in microseconds; a view without one is absent.

    Raises
    ------
    UnknownNameError
        if there is no such feature.
    UnsupportedError
        if a view's rows are computed by Feast out of its source's rows.
    """

    def __init__(self, repo: FeastRepo, features: Collection[str]) -> None:
        self._repo = repo
        self.key = repo.entity().join_key
        catalog = repo.catalog()
        for name in sorted(set(features) - catalog.features.keys()):
            raise UnknownNameError(f"there is no feature `{name}`")
        self.ttl = dict(catalog.ttl)
        self._types = {name: catalog.features[name].feast_type for name in features}
        views = {str(view.name): view for view in [*repo.contents.feature_views, *repo.contents.stream_feature_views]}
        served = sorted({feature.view for feature in catalog.features.values()})
        self._views = {name: views[name] for name in served}
        self._columns = [view_columns(views[name], self.key, sorted(features)) for name in served]

    @property
    def sources(self) -> list[tuple[Any, ViewColumns]]:
        """Return each view that is served online, as Feast has it, with the columns that are read of it."""
        return list(zip(self._views.values(), self._columns, strict=True))

    @property
    def types(self) -> dict[str, str]:
        """Return by feature the type that it declares, as Feast names it."""
        return dict(self._types)

    def batches(
        self,
        as_of: int,
        keys: Sequence[str] | None = None,
        others: pa.Array | None = None,
        *,
        to_count: bool = False,
    ) -> Iterator[Part]:
        """Read all entities, or only those with these keys, in any order.

        Parameters
        ----------
        others
            keys of users who count whether or not there is a row of theirs; each once. Parts then have ``places``.
        to_count
            parts may come without keys, and without instants that tell nothing, which saves an eighth of the time.

        Raises
        ------
        ProjectError
            if the offline store cannot be read.
        DataError
            if a column is not of the type that the feature declares.
        """
        keyless = to_count and bool(self._types) and not self.ttl.keys() & self._views.keys()
        for batch, done in self._read(as_of, keys, others, keyless=keyless):
            places = None if others is None else batch[PLACE].fill_null(-1).to_numpy()
            yield Part(self._declared(batch), done, places)

    def _read(
        self, as_of: int, keys: Sequence[str] | None, others: pa.Array | None, *, keyless: bool
    ) -> Iterator[tuple[pa.RecordBatch, float]]:
        opened = self._opened()
        local = [source for source in opened if source is not None]
        if not newest.has_duckdb() or len(local) < len(opened):
            yield from self._in_memory(opened, as_of, keys, others)
            return
        folder = self._repo.project.state_dir
        yield from parquet.newest_rows(local, self.key, as_of, keys, others, BATCH_ROWS, folder, keyless=keyless)

    def _paths(self) -> list[Path | None]:
        folder = self._repo.project.feature_repo
        return [parquet.local_path(folder, view.batch_source) for view in self._views.values()]

    def _opened(self) -> list[SourceFile | None]:
        """Open the views' files; None for a source that is no file on this machine.

        Raises
        ------
        ProjectError, DataError
            if a file is missing, or one that cannot be used.
        """
        opened = [
            None if path is None else SourceFile.open(path, columns)
            for path, columns in zip(self._paths(), self._columns, strict=True)
        ]
        for source in opened:
            if source is not None:
                source.require(dict(source.columns.features))
        return opened

    def _in_memory(
        self,
        opened: Sequence[SourceFile | None],
        as_of: int,
        keys: Sequence[str] | None,
        others: pa.Array | None,
    ) -> Iterator[tuple[pa.RecordBatch, float]]:
        """Read all entities into memory: without DuckDB, or from other stores, of which Feast gives whole tables."""
        tables = [
            self._pulled(view, columns, as_of) if source is None else self._newest(source, as_of)
            for view, columns, source in zip(self._views.values(), self._columns, opened, strict=True)
        ]
        also = _no_keys() if others is None else others.cast(pa.large_string())
        all_keys = pa.concat_arrays([chunk for table in tables for chunk in table[self.key].chunks] + [also])
        entities = pc.unique(all_keys).drop_null().sort()
        if keys is not None:
            entities = entities.filter(pc.is_in(entities, value_set=pa.array(keys, entities.type)))
        joined = {self.key: entities}
        for table in tables:
            rows = pc.index_in(entities, value_set=table[self.key].combine_chunks())
            joined |= {name: table[name].combine_chunks().take(rows) for name in table.column_names if name != self.key}
        if others is not None:
            joined[PLACE] = pc.index_in(entities, value_set=also).cast(pa.int64())
        for batch in pa.table(joined).to_batches(BATCH_ROWS):
            yield batch, 1.0

    def _newest(self, source: SourceFile, as_of: int) -> pa.Table:
        columns = source.columns
        try:
            chosen = NewestRows(newest.newest_rows(source, newest.Reach(as_of), self._repo.project.state_dir))
            names = list(dict.fromkeys([columns.key, columns.timestamp, *columns.features.values()]))
            schema = pa.schema([source.schema.field(name) for name in names])
            table = pa.Table.from_batches([*raw_rows(source, chosen, names, BATCH_ROWS)], schema)
        except newest.read_errors() as error:
            raise parquet.unreadable([source], error) from error
        return self._as_read(table, columns)

    def _pulled(self, view: Any, columns: ViewColumns, as_of: int) -> pa.Table:
        source, store = view.batch_source, self._repo.store.provider.offline_store
        try:
            with quiet():
                table = store.pull_latest_from_table_or_query(
                    config=self._repo.store.config,
                    data_source=source,
                    join_key_columns=[columns.key],
                    feature_name_columns=list(columns.features.values()),
                    timestamp_field=columns.timestamp,
                    created_timestamp_column=columns.created,
                    start_date=_FIRST,
                    end_date=from_micros(as_of),
                ).to_arrow()
        except Exception as error:  # every engine raises its own
            pass_interrupt(error)
            raise ProjectError(
                f"the source of feature view `{columns.view}` cannot be read: {error}",
                hint="is it there, and has it the columns that the view names?",
            ) from error
        return self._as_read(table, columns)

    def _as_read(self, table: pa.Table, columns: ViewColumns) -> pa.Table:
        """Name the columns as rules do, and leave out rows without a key."""
        table = table.combine_chunks()
        keys = entity_keys(_whole(table[columns.key]), columns.key)
        instants = event_instants(_whole(table[columns.timestamp]), columns.timestamp)
        named = {self.key: keys, row_instant(columns.view): instants.cast(pa.timestamp("us", "UTC"))}
        named |= {name: _whole(table[column]) for name, column in columns.features.items()}
        return pa.table(named).filter(keys.is_valid())

    def _declared(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the batch with every feature as its declared type, as the online store would hold it."""
        columns = {}
        for name in batch.schema.names:
            if name != PLACE:
                column = batch[name]
                columns[name] = column if name not in self._types else as_declared(column, name, self._types[name])
        return pa.record_batch(columns)


def local_sources(repo: FeastRepo) -> list[tuple[Path, ViewColumns]]:
    """Return the Parquet files on this machine behind the views that are served online, there or not, with all columns.

    Views whose rows Feast computes out of those of their source are left out.
    """
    names, key = repo.catalog().features, repo.entity().join_key
    sources = []
    for view in [*repo.contents.feature_views, *repo.contents.stream_feature_views]:
        features = sorted(name for name in names if name.partition(":")[0] == view.name)
        path = parquet.local_path(repo.project.feature_repo, view.batch_source) if features else None
        if path is not None and not any(getattr(view, name, None) for name in _COMPUTED):
            sources.append((path, view_columns(view, key, features)))
    return sorted(sources, key=lambda each: each[1].view)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _no_keys() -> pa.Array:
    return pa.array([], pa.large_string())


def view_columns(view: Any, key: str, features: Sequence[str]) -> ViewColumns:
    """Tell where a view's features lie in its source, whose columns may be named otherwise."""
    if any(getattr(view, name, None) for name in _COMPUTED):
        raise UnsupportedError(
            f"feature view `{view.name}` is computed by Feast, and batch commands read its source as it is",
            hint="write the computed rows to a source of their own",
        )
    source = view.batch_source
    stored = {new: old for old, new in (source.field_mapping or {}).items()}
    names = [name.partition(":") for name in features]
    created = source.created_timestamp_column
    return ViewColumns(
        view=str(view.name),
        key=stored.get(key, key),
        timestamp=stored.get(source.timestamp_field, source.timestamp_field),
        created=stored.get(created, created) or None,
        features={f"{view.name}:{name}": stored.get(name, name) for of, _, name in names if of == view.name},
    )


__all__ = ["BATCH_ROWS", "OfflineUsers", "Part", "row_instant"]
