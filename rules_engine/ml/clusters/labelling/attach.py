"""Give every user a cluster label: rows of a Feast feature view, in the offline and in the online store.

Labels are a history like any feature: a row says what the label was from an instant on, so that training sets get the
label of their time. Only labels that changed are added. The online store gets everyone's newest row, which mends it as
well, should it have lost some.

Users come in pieces and go through a file, so that memory does not grow with their number.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from rules_engine.clock import format_instant, from_micros, to_micros
from rules_engine.errors import DataError, UnsupportedError
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.features.offline.point_in_time import row_instant
from rules_engine.ml.clusters.labelling.label_store import LabelSource, arrow_type, write_online
from rules_engine.ml.clusters.labelling.labels import check_probabilities, label_all, nobody
from rules_engine.ml.clusters.model import ClusterModel
from rules_engine.ml.clusters.population import pieces
from rules_engine.ml.filled_view import LABELS
from rules_engine.ml.offline import features_as_of
from rules_engine.project.lock import project_lock
from rules_engine.stream.reevaluation import look_again

#: How far after their instant corrected labels may lie, see `_instants`.
_CORRECTIONS = pd.Timedelta(seconds=1)
_MICROSECOND = pd.Timedelta(microseconds=1)

#: Is told what goes on, how many users are done, and how many there are; 0 if that is not known yet.
Progress = Callable[[str, int, int], None]


@dataclass(slots=True)
class Attached:
    """The result of attaching labels.

    Attributes
    ----------
    users
        how many users the model gave a label.
    left_out
        how many it could not, because a feature of theirs is missing.
    added
        how many labels were new or different, and went into the offline store.
    moved
        how many users had another label before.
    outliers
        how many users are unlike their cluster's, or in none.
    sizes
        by label, how many users have it, in the order of the clusters.
    """

    users: int = 0
    left_out: int = 0
    added: int = 0
    moved: int = 0
    outliers: int = 0
    sizes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Users:
    """Some users: the features that the model needs, who of them is there at all, and their labels so far."""

    features: pd.DataFrame
    present: Any
    before: pd.DataFrame


def attach(
    repo: FeastRepo, model: ClusterModel, as_of: int, progress: Progress = lambda _what, _done, _total: None
) -> Attached:
    """Label every user as of an instant with a stored model.

    Raises
    ------
    DataError
        if no user has all of the features that the model needs, or there are labels of a later instant.
    ProjectError
        if the view cannot hold labels, or the offline store cannot be read.
    StoreError
        if the online store cannot be written.
    """
    name = model.definition.name
    columns = LABELS.check(repo, name)
    check_probabilities(model, columns)
    source = LabelSource(repo, name, columns)
    with (
        project_lock(repo.project),
        tempfile.TemporaryDirectory(prefix="labels-", dir=repo.project.state_dir) as folder,
    ):
        newest = Path(folder) / "newest.parquet"
        _refuse_earlier(source.latest(), as_of)
        done = _label_everyone(repo, model, source, as_of, newest, progress)
        if not done.users:
            raise nobody(model)
        if done.added:
            progress("Adding labels to the history", 0, done.added)
            source.add(newest, as_of)
        write_online(repo, name, newest, lambda written, total: progress("Writing labels", written, total))
    look_again(repo.project, "cluster", [name])
    return done


def _label_everyone(
    repo: FeastRepo, model: ClusterModel, source: LabelSource, as_of: int, newest: Path, progress: Progress
) -> Attached:
    """Write everyone's newest row of labels to a file, with a mark at those that are new."""
    key = repo.entity().join_key
    fields = {column: arrow_type(kind) for column, kind in source.columns.items()}
    schema = pa.schema(
        {key: pa.string(), **fields, "event_timestamp": pa.timestamp("us", tz="UTC"), "fresh": pa.bool_()}
    )
    done = Attached(sizes=dict.fromkeys(model.labels, 0))
    with pq.ParquetWriter(newest, schema, compression="lz4") as writer:
        for users in _users(repo, model, source, as_of):
            rows = _newest(model, source, users, as_of, done)
            writer.write_table(pa.Table.from_pandas(rows.rename_axis(key).reset_index(), schema, preserve_index=False))
            progress("Labelling users", done.users, 0)
    return done


def _users(repo: FeastRepo, model: ClusterModel, source: LabelSource, as_of: int) -> Iterator[_Users]:
    """Yield all users, in pieces if the label's source is a file on this machine."""
    columns = {f"{source.name}:{column}": column for column in source.columns}
    if source.path is not None:
        try:
            for piece in pieces(repo, model.features, list(columns), as_of):
                before = piece.frame[list(columns)].rename(columns=columns)
                before = before.assign(event_timestamp=piece.instants[row_instant(source.name)])
                features = piece.frame.loc[:, list(model.features)]
                yield _Users(features, piece.present, before.dropna(subset="event_timestamp"))
        except UnsupportedError:
            pass  # a view that Feast computes can only be read as a whole
        else:
            return
    features, before = features_as_of(repo, model.features, as_of), source.rows()
    keys = features.index.union(before.index)
    yield _Users(features.reindex(keys), keys.isin(features.index), before)


def _newest(model: ClusterModel, source: LabelSource, users: _Users, as_of: int, done: Attached) -> pd.DataFrame:
    """Return these users' newest rows, with a mark at the new ones, and count them."""
    labels = label_all(model, users.features.loc[users.present])
    before = users.before
    for column in source.columns.keys() - labels.columns:
        labels[column] = np.nan  # the probability of a cluster that this version does not have
    old = before.reindex(labels.index)
    fresh = labels.loc[_changed(labels, old, source.columns), list(source.columns)]
    fresh = fresh.assign(event_timestamp=_instants(source, fresh.index, before, as_of), fresh=True)
    done.users += len(labels)
    done.left_out += int(users.present.sum()) - len(labels)
    done.added += len(fresh)
    done.moved += int((old["label"].notna() & (old["label"] != labels["label"])).sum())
    done.outliers += int(labels["outlier"].sum())
    for label, count in labels["label"].value_counts().items():
        done.sizes[str(label)] = done.sizes.get(str(label), 0) + int(count)
    unchanged = before.drop(index=fresh.index, errors="ignore").assign(fresh=False)
    return pd.concat([unchanged, fresh]) if len(unchanged) else fresh


def _changed(labels: pd.DataFrame, old: pd.DataFrame, columns: dict[str, str]) -> Any:
    """Return a mask of the users whose label, or anything that goes with it, has changed."""
    same = np.ones(len(labels), dtype=bool)
    for column, kind in columns.items():
        if kind == "Float64":  # the last digit may depend on whom a user is computed together with
            before = old[column].to_numpy(dtype=np.float64, na_value=np.nan)
            same &= np.isclose(labels[column].to_numpy(np.float64), before, rtol=1e-9, atol=1e-12, equal_nan=True)
        else:
            same &= (labels[column] == old[column]).to_numpy(dtype=bool)
    return ~same


def _refuse_earlier(latest: Any, as_of: int) -> None:
    """Refuse an instant before the newest labels: the online store holds those, and would not show older ones."""
    if latest is not None and latest > pd.Timestamp(from_micros(as_of)) + _CORRECTIONS:
        shown = format_instant(to_micros(latest.to_pydatetime()))
        raise DataError(
            f"there are labels of {shown} already, which is later than {format_instant(as_of)}",
            hint=f"attach as of that instant or later: `segments cluster attach --at {shown}`",
        )


def _instants(source: LabelSource, users: pd.Index[Any], before: pd.DataFrame, as_of: int) -> pd.Series[Any]:
    """Return the instants from which the labels hold: ``as_of``.

    Where a source can only be added to, a label that corrects another one of the same instant comes a microsecond
    later, so that it is the newer one.
    """
    floor = pd.Timestamp(from_micros(as_of)).as_unit("us")
    instants = pd.Series(floor, index=users, dtype="datetime64[us, UTC]")
    if source.path is not None or not len(before):
        return instants
    next_free = before["event_timestamp"].astype("datetime64[us, UTC]").reindex(users) + _MICROSECOND
    return next_free.where(next_free > floor, floor).fillna(floor)
