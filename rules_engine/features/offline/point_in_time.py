"""Everyone's features as of an instant, from the offline store, as record batches.

Point in time: of each feature view the newest row at or before the instant, and nothing of later rows. Whether that row
is past the view's ttl is for the reader of the batch to judge: its instant is in the batch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rules_engine.clock import from_micros
from rules_engine.errors import DataError, ProjectError, UnknownNameError, UnsupportedError
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.features.feast_import import quiet
from rules_engine.features.offline import parquet as offline_parquet
from rules_engine.features.offline.parquet_rows import PLACE, ViewColumns, row_instant

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
        self._columns = [_columns(views[name], self.key, sorted(features)) for name in served]

    @property
    def sources(self) -> list[tuple[Any, ViewColumns]]:
        """Each view that is served online, as Feast has it, and where what is read of it lies."""
        return list(zip(self._views.values(), self._columns, strict=True))

    @property
    def types(self) -> dict[str, str]:
        """By feature the type that it declares, as Feast names it."""
        return dict(self._types)

    def batches(
        self,
        as_of: int,
        keys: Sequence[str] | None = None,
        others: pa.Array | None = None,
        *,
        to_count: bool = False,
    ) -> Iterator[Part]:
        """Everyone, or only the users with these keys, in any order.

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
        paths = [offline_parquet.local_path(self._repo.project.feature_repo, view) for view in self._views.values()]
        if not (offline_parquet.is_available() and all(paths)):
            yield from self._through_feast(as_of, keys, others)
            return
        sources = [(str(path), columns) for path, columns in zip(paths, self._columns, strict=True)]
        folder = self._repo.project.state_dir
        try:
            yield from offline_parquet.newest_rows(
                sources, self.key, as_of, keys, others, BATCH_ROWS, folder, keyless=keyless
            )
        except offline_parquet.ReadError as error:
            raise self._unreadable(error) from error

    def _through_feast(
        self, as_of: int, keys: Sequence[str] | None, others: pa.Array | None = None
    ) -> Iterator[tuple[pa.RecordBatch, float]]:
        """The same from any offline store. Feast gives whole tables, so all users are held at once."""
        tables = [
            self._pull(view, columns, as_of) for view, columns in zip(self._views.values(), self._columns, strict=True)
        ]
        also = _no_keys() if others is None else others.cast(pa.large_string())
        found = pa.concat_arrays([chunk for table in tables for chunk in table[self.key].chunks] + [also])
        everyone = pc.unique(found).drop_null().sort()
        if keys is not None:
            everyone = everyone.filter(pc.is_in(everyone, value_set=pa.array(keys, everyone.type)))
        joined = {self.key: everyone}
        for table in tables:
            rows = pc.index_in(everyone, value_set=table[self.key].combine_chunks())
            joined |= {name: table[name].combine_chunks().take(rows) for name in table.column_names if name != self.key}
        if others is not None:
            joined[PLACE] = pc.index_in(everyone, value_set=also).cast(pa.int64())
        for batch in pa.table(joined).to_batches(BATCH_ROWS):
            yield batch, 1.0

    def _pull(self, view: Any, columns: ViewColumns, as_of: int) -> pa.Table:
        source, store = view.batch_source, self._repo.store.provider.offline_store
        names = list(columns.features.values())
        try:
            with quiet():
                table = store.pull_latest_from_table_or_query(
                    config=self._repo.store.config,
                    data_source=source,
                    join_key_columns=[columns.key],
                    feature_name_columns=names,
                    timestamp_field=columns.timestamp,
                    created_timestamp_column=columns.created,
                    start_date=_FIRST,
                    end_date=from_micros(as_of),
                ).to_arrow()
        except Exception as error:  # every engine raises its own
            raise self._unreadable(error) from error
        found = {self.key: table[columns.key].cast(pa.large_string())}
        found[row_instant(columns.view)] = table[columns.timestamp].cast(pa.timestamp("us", "UTC"), safe=False)
        return pa.table(found | {name: table[column] for name, column in columns.features.items()})

    def _unreadable(self, error: Exception) -> ProjectError:
        return ProjectError(
            f"the offline store cannot be read: {error}",
            hint=f"do the sources in {self._repo.project.feature_repo} exist?",
        )

    def _declared(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch with every feature as its declared type, as the online store would hold it."""
        columns = {}
        for name in batch.schema.names:
            if name != PLACE:
                column = batch[name]
                columns[name] = column if name not in self._types else as_declared(column, name, self._types[name])
        return pa.record_batch(columns)


def as_declared(column: pa.Array, name: str, feast_type: str) -> pa.Array:
    """A column as the online store would hold it: of the declared type, times in whole seconds.

    Raises
    ------
    DataError
        if its values cannot be of that type.

    >>> as_declared(pa.array([1.0, None]), "v:x", "Int64").to_pylist()
    [1, None]
    """
    wanted = _ARROW_TYPES.get(feast_type)
    try:
        if feast_type == "UnixTimestamp":
            return _whole_seconds(column)
        if wanted is None or column.type == wanted or _is_coded_text(column.type, wanted):
            return column
        if pa.types.is_floating(column.type) and pa.types.is_integer(wanted):
            column = pc.if_else(pc.is_nan(column), None, column)
            return pc.trunc(column).cast(wanted)
        if _same_kind(column.type, wanted):
            return column.cast(wanted, safe=not pa.types.is_floating(wanted))
    except pa.ArrowInvalid as error:
        raise DataError(f"feature `{name}` is declared {feast_type}: {error}") from error
    if column.null_count == len(column):
        return pa.nulls(len(column), wanted)
    raise DataError(
        f"feature `{name}` is declared {feast_type}, and its source holds {column.type}",
        hint="declare the feature as its source holds it, or write the source as it is declared",
    )


_ARROW_TYPES = {
    "Bool": pa.bool_(),
    "Int32": pa.int32(),
    "Int64": pa.int64(),
    "Float32": pa.float32(),
    "Float64": pa.float64(),
    "String": pa.large_string(),
    "UnixTimestamp": pa.timestamp("us", "UTC"),
}


def _is_coded_text(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether texts come as codes of a dictionary, which is all that rules need."""
    return pa.types.is_dictionary(found) and pa.types.is_large_string(wanted) and _same_kind(found.value_type, wanted)


def _same_kind(found: pa.DataType, wanted: pa.DataType) -> bool:
    if pa.types.is_large_string(wanted):
        return any(check(found) for check in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))
    is_number = pa.types.is_integer(found) or pa.types.is_floating(found)
    return bool(is_number and (pa.types.is_integer(wanted) or pa.types.is_floating(wanted)))


def _whole_seconds(column: pa.Array) -> pa.Array:
    if pa.types.is_integer(column.type):  # as Feast reads them
        column = column.cast(pa.timestamp("s"))
    return pc.floor_temporal(column.cast(pa.timestamp("us", "UTC"), safe=False), unit="second")


def _no_keys() -> pa.Array:
    return pa.array([], pa.large_string())


def _columns(view: Any, key: str, features: Sequence[str]) -> ViewColumns:
    """Where a view's features lie in its source, whose columns may be named otherwise."""
    if any(getattr(view, name, None) for name in _COMPUTED):
        raise UnsupportedError(
            f"feature view `{view.name}` is computed by Feast, and batch commands read its source as it is",
            hint="write the computed rows to a source of their own",
        )
    source = view.batch_source
    stored = {new: old for old, new in (source.field_mapping or {}).items()}
    wanted = [name.partition(":") for name in features]
    created = source.created_timestamp_column
    return ViewColumns(
        view=str(view.name),
        key=stored.get(key, key),
        timestamp=stored.get(source.timestamp_field, source.timestamp_field),
        created=stored.get(created, created) or None,
        features={f"{view.name}:{name}": stored.get(name, name) for of, _, name in wanted if of == view.name},
    )


__all__ = ["BATCH_ROWS", "OfflineUsers", "Part", "as_declared", "row_instant"]
