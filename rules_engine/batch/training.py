"""Make training sets, point in time: for entities at instants, the features as they were then, windows of events too.

Features come from the files behind their views, or else through Feast's own point-in-time join. The named windowed
features of events.yaml come from the event log, by the definitions that rules and the SDK read. Nothing after a row's
instant is in the row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from rules_engine.batch.piece_events import PieceEvents
from rules_engine.diagnostics import nearest
from rules_engine.errors import DataError, ProjectError, UnknownNameError, pass_interrupt
from rules_engine.events.declarations.events_yaml import read_events
from rules_engine.events.log.offline import EventPiece, OfflineEvents
from rules_engine.features.column_values import as_declared, entity_keys
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.features.feast_import import quiet
from rules_engine.features.offline.joined import join_files
from rules_engine.folders import Project
from rules_engine.rules.aggregates import AGGREGATES, Aggregate
from rules_engine.rules.catalog import EVENT_VIEW
from rules_engine.rules.events import reduce_values
from rules_engine.rules.nodes import EventAggregate
from rules_engine.rules.types import Kind, Value, conform
from rules_engine.stream.event_sink import event_log

Integers = npt.NDArray[np.int64]

_ROW = "feast_segments_row"

#: What counting gives, and what keeps the kind of what is aggregated.
_COUNTS = tuple(function for function, row in AGGREGATES.items() if row.is_count)


def training_set(
    project: Project | str | Path | FeastRepo,
    rows: pd.DataFrame,
    features: Sequence[str],
    *,
    instants: str = "event_timestamp",
) -> pd.DataFrame:
    """Return rows with features as they were at each row's instant.

    Parameters
    ----------
    project
        an applied project, or the folder that it is in.
    rows
        with a column of entity keys (strings, or whole numbers, which have one spelling), named as Feast's join key,
        and one of instants with a time zone; all other columns, such as labels, stay as they are.
    features
        ``"view:name"`` of Feast's features, and ``"events:name"`` of those in events.yaml.
    instants
        the name of the column of instants.

    Returns
    -------
    pandas.DataFrame
        the rows in their order, with their index, and with a column ``"view:name"`` for each feature. A value that is
        missing, or past its view's ttl, is missing.

    Raises
    ------
    DataError
        if a column is lacking, or an instant or a key is missing or has another type.
    UnknownNameError
        if there is no such feature.
    ProjectError
        if the offline store or the event log cannot be read.
    """
    repo = project if isinstance(project, FeastRepo) else FeastRepo(_opened(project))
    keys, ats = _checked(rows, repo.entity().join_key, instants)
    windowed = read_events(repo.project.events_yaml).features
    known_names = {*repo.catalog().features, *(f"{EVENT_VIEW}:{name}" for name in windowed)}
    for name in features:
        if name not in known_names:
            raise UnknownNameError(f"there is no feature `{name}`", hint=nearest(name, known_names))
    of_events = {name: windowed[_short(name)] for name in features if _is_windowed(name, windowed)}
    of_feast = [name for name in dict.fromkeys(features) if name not in of_events]
    columns: dict[str, Any] = {}
    if of_feast:
        joined = join_files(repo, of_feast, keys, ats)
        columns |= {name: _series(values) for name, values in joined.items()}
        others = [name for name in of_feast if name not in joined]
        columns |= _through_feast(repo, keys, ats, others) if others else {}
    if of_events:
        columns |= _from_log(repo, keys, ats, of_events)
    joined_features = pd.DataFrame({name: columns[name] for name in dict.fromkeys(features)})
    return pd.concat([rows, joined_features.set_axis(rows.index)], axis=1)


def _opened(project: Project | str | Path) -> Project:
    return project if isinstance(project, Project) else Project.open(project)


def _short(name: str) -> str:
    return name.partition(":")[2]


def _is_windowed(name: str, windowed: Any) -> bool:
    return name.startswith(f"{EVENT_VIEW}:") and _short(name) in windowed


def _checked(rows: pd.DataFrame, key: str, instants: str) -> tuple[pa.Array, Integers]:
    """Return the keys, and the instants in microseconds."""
    for name in (key, instants):
        if name not in rows.columns:
            raise DataError(f"the rows have no column `{name}`", hint=f"they need `{key}` and `{instants}`")
    if not isinstance(rows[instants].dtype, pd.DatetimeTZDtype):
        raise DataError(
            f"`{instants}` holds {rows[instants].dtype}, and instants have a time zone",
            hint=f"e.g. pd.to_datetime(rows[{instants!r}], utc=True)",
        )
    if rows[key].isna().any() or rows[instants].isna().any():
        raise DataError(f"`{key}` or `{instants}` is missing in some row", hint="leave these rows out")
    try:
        keys = entity_keys(pa.array(rows[key], from_pandas=True), key)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(
            f"`{key}` holds values of several types: {error}", hint="entity keys are strings or whole numbers"
        ) from error
    ats = rows[instants].dt.tz_convert("UTC").dt.tz_localize(None).to_numpy().astype("datetime64[us]").astype(np.int64)
    return keys, ats


# --- Feast ----------------------------------------------------------------------------------------------------------


def _through_feast(repo: FeastRepo, keys: pa.Array, ats: Integers, features: Sequence[str]) -> dict[str, pd.Series]:
    """Return Feast's point-in-time join, in the order of the rows, with the types that the online store holds."""
    entities = pd.DataFrame(
        {
            repo.entity().join_key: keys.to_pandas(),
            "event_timestamp": pd.Series(ats.astype("datetime64[us]")).dt.tz_localize("UTC"),
            _ROW: np.arange(len(ats)),
        }
    )
    repo.check_registered()
    try:
        with quiet():
            job = repo.store.get_historical_features(entities, list(features), full_feature_names=True)
            table: pa.Table = job.to_arrow()
    except Exception as error:  # every engine raises its own
        pass_interrupt(error)
        hint = "are the views applied, and do their sources exist? `segments apply` registers new views"
        raise ProjectError(f"the offline store cannot be read: {error}", hint=hint) from error
    table = table.sort_by(_ROW)
    types = {name: feature.feast_type for name, feature in repo.catalog().features.items()}
    values = {}
    for name in features:
        column = table[name.replace(":", "__")].combine_chunks()
        values[name] = _series(as_declared(column, name, types[name]))
    return values


def _series(column: pa.Array) -> pd.Series:
    """Return a column for pandas, in which integers and booleans with missing values keep their type."""
    nullable = {pa.int64(): pd.Int64Dtype(), pa.int32(): pd.Int32Dtype(), pa.bool_(): pd.BooleanDtype()}
    series: pd.Series = column.to_pandas(types_mapper=(nullable if column.null_count else {}).get)
    return series


# --- events ---------------------------------------------------------------------------------------------------------


def _from_log(
    repo: FeastRepo, keys: pa.Array, ats: Integers, aggregates: dict[str, EventAggregate]
) -> dict[str, pd.Series]:
    log = OfflineEvents(event_log(repo.project), aggregates.values(), repo.project.state_dir)
    values: dict[str, list[Value]] = {
        name: [reduce_values(aggregate.function, ())] * len(ats) for name, aggregate in aggregates.items()
    }
    if len(ats):
        entities = pc.unique(keys)
        attribution = log.attribution(int(ats.min()), int(ats.max()))
        owned = pa.array(map(attribution.owner, keys.to_pylist(), ats.tolist()), keys.type) if log.joins else keys
        for piece in log.pieces(int(ats.max()), entities.to_pylist(), int(ats.min()), attribution):
            owners = pc.index_in(owned, value_set=piece.entities).fill_null(-1).to_numpy().astype(np.int64)
            rows = np.flatnonzero(owners >= 0)
            reader = _Windows(piece, log.names, owners[rows], ats[rows])
            for name, aggregate in aggregates.items():
                for row, value in zip(rows.tolist(), reader.values(aggregate), strict=True):
                    values[name][row] = value
    return {name: _column(column, aggregates[name]) for name, column in values.items()}


class _Windows:
    """The values of aggregates for rows: users of one piece of the log, each at an instant of its own."""

    def __init__(self, piece: EventPiece, names: Sequence[str], owners: Integers, ats: Integers) -> None:
        self._piece = piece
        self._owners = owners
        self._ats = ats
        self._events = PieceEvents(piece, names)

    def values(self, aggregate: EventAggregate) -> Iterator[Value]:
        """Yield by row the aggregate over the events in its window."""
        rows = np.flatnonzero(self._events.is_meant(aggregate.match))
        starts, ends = self._bounds(rows, aggregate)
        if aggregate.function is Aggregate.COUNT:
            yield from (ends - starts).tolist()
            return
        assert aggregate.of is not None, aggregate
        values = self._events.values(aggregate.of, aggregate.of_type, rows)
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            value = reduce_values(aggregate.function, values[start:end], aggregate.skip)
            yield conform(value, aggregate.type)

    def _bounds(self, rows: Integers, aggregate: EventAggregate) -> tuple[Integers, Integers]:
        """Find by row where its window begins and ends among these events, which are in order of entity and instant."""
        instants = np.unique(self._piece.ats[rows])
        width = len(instants) + 1
        events = self._piece.owners[rows] * width + np.searchsorted(instants, self._piece.ats[rows])
        after, until = self._windows(aggregate)
        ends = np.searchsorted(events, self._owners * width + np.searchsorted(instants, until, "right"))
        starts = np.searchsorted(events, self._owners * width + np.searchsorted(instants, after, "right"))
        return starts.astype(np.int64), np.maximum(starts, ends).astype(np.int64)

    def _windows(self, aggregate: EventAggregate) -> tuple[Integers, Integers]:
        """Return the bounds of the window by row; they are worked out once for each different instant."""
        instants, places = np.unique(self._ats, return_inverse=True)
        bounds = [aggregate.bounds(at) for at in instants.tolist()]
        after = np.array([_BEFORE_ALL if after is None else after for after, _ in bounds], dtype=np.int64)
        until = np.array([until for _, until in bounds], dtype=np.int64)
        return after[places], until[places]


#: Before every event.
_BEFORE_ALL = np.iinfo(np.int64).min

#: Of what type a column is in which every value is missing.
_OF_NOTHING = {
    Kind.FLOAT: pa.float64(),
    Kind.INTEGER: pa.float64(),
    Kind.STRING: pa.string(),
    Kind.BOOLEAN: pa.bool_(),
}


def _column(values: list[Value], aggregate: EventAggregate) -> pd.Series:
    """Return a column with numbers as numbers, times as times with a zone, and lists as lists."""
    value_type = aggregate.of_type if aggregate.function not in _COUNTS else None
    if value_type is not None and value_type.is_list:
        read = (
            (lambda item: pd.Timestamp(item, unit="us", tz="UTC"))
            if value_type.kind is Kind.TIME
            else (lambda item: item)
        )
        lists = [[read(item) for item in value] if isinstance(value, tuple) else None for value in values]
        return pd.Series(lists, dtype=object)
    if value_type is not None and value_type.kind is Kind.TIME:
        return _series(pa.array(values, pa.timestamp("us", "UTC")))
    try:
        nothing = value_type is not None and all(value is None for value in values)
        return _series(
            pa.array(values, _OF_NOTHING.get(value_type.kind) if nothing and value_type is not None else None)
        )
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):  # integers beyond 64 bits, or beside floats
        return pd.Series(values, dtype=object)
