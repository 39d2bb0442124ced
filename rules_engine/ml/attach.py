"""Give every user a cluster label: rows of a Feast feature view, in the offline and in the online store.

Labels are a history like any feature: a row says what the label was from an instant on, so that training sets get the
label of their time. Only labels that changed are added. The online store gets everyone's newest row, which mends it as
well, should it have lost some.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa

from rules_engine.clock import format_instant, from_micros, to_micros
from rules_engine.errors import DataError, ProjectError
from rules_engine.features import redis_client
from rules_engine.features.feast_import import quiet
from rules_engine.features.feast_repo import FeastRepo
from rules_engine.features.redis_writes import DirectWrites, watched_writes
from rules_engine.lifecycle.lock import project_lock
from rules_engine.ml.cluster_model import ClusterModel
from rules_engine.ml.clusters import matrix
from rules_engine.ml.offline import features_as_of, latest_rows, local_parquet, write_rows
from rules_engine.rules.nodes import FeatureRef, Predicate
from rules_engine.rules.program import Program
from rules_engine.rules.walk import walk

#: What a view of labels holds.
COLUMNS = {"label": "String", "cluster": "Int64", "distance": "Float64", "model_version": "String"}

_BATCH = 5000
_MICROSECOND = pd.Timedelta(microseconds=1)
#: How far after their instant corrected labels may lie, see `_instants`.
_CORRECTIONS = pd.Timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Attached:
    """What attaching did.

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
    sizes
        by label, how many users have it, in the order of the clusters.
    """

    users: int
    left_out: int
    added: int
    moved: int
    sizes: dict[str, int]


def check_view(repo: FeastRepo, name: str) -> None:
    """Refuse a feature view that cannot hold labels, before work is done.

    Raises
    ------
    ProjectError
        if there is no such view, or its features are not those of :data:`COLUMNS`.
    """
    views = {view.name: view for view in repo.contents.feature_views}
    wanted = ", ".join(f"{column} ({kind})" for column, kind in COLUMNS.items())
    hint = f"define a FeatureView `{name}` in feature_repo/ with the features {wanted}, and run `segments apply`"
    if name not in views:
        raise ProjectError(f"there is no feature view `{name}` to hold the labels", hint=hint)
    found = {field.name: str(field.dtype) for field in views[name].features}
    if found != COLUMNS:
        shown = ", ".join(f"{column} ({kind})" for column, kind in found.items()) or "none"
        raise ProjectError(f"the feature view `{name}` holds other features than labels: {shown}", hint=hint)
    if name not in {view.name for view in repo.store.registry.list_feature_views(repo.name)}:
        raise ProjectError(f"the feature view `{name}` is not applied yet", hint="run `segments apply`")


def attach(
    repo: FeastRepo, model: ClusterModel, as_of: int, progress: Callable[[int, int], None] | None = None
) -> Attached:
    """Label every user as of an instant with a stored model.

    Parameters
    ----------
    progress
        is called with how many labels are in the online store, and how many there are.

    Raises
    ------
    DataError
        if no user has all of the features that the model needs, or there are labels of a later instant.
    ProjectError
        if the view cannot hold labels, or the offline store cannot be read.
    StoreError
        if the online store cannot be written.
    """
    name, key = model.definition.name, repo.entity().join_key
    check_view(repo, name)
    labels, left_out = label(model, features_as_of(repo, model.features, as_of))
    with project_lock(repo.project):
        before = latest_rows(repo, name)
        _refuse_earlier(before, as_of)
        fresh = labels.loc[_changed(labels, before)]
        fresh = fresh.assign(event_timestamp=_instants(repo, name, fresh.index, before, as_of))
        if len(fresh):
            write_rows(repo, name, fresh.rename_axis(key).reset_index())
        newest = pd.concat([before.drop(index=fresh.index, errors="ignore"), fresh]) if len(before) else fresh
        _write_online(repo, name, newest.rename_axis(key).reset_index(), progress or (lambda _done, _total: None))
    old_label = before["label"].reindex(labels.index)
    return Attached(
        users=len(labels),
        left_out=left_out,
        added=len(fresh),
        moved=int((old_label.notna() & (old_label != labels["label"])).sum()),
        sizes={cluster.label: int((labels["cluster"] == cluster.number).sum()) for cluster in model.clusters},
    )


def label(model: ClusterModel, frame: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Each user's row of labels, and how many users have none because a feature is missing.

    Raises
    ------
    DataError
        if nobody is left.
    """
    values, complete = matrix(frame.loc[:, list(model.features)])
    if not complete.any():
        raise DataError(
            f"no user has all of the features that the model needs: {', '.join(model.features)}",
            hint=f"the model is of {format_instant(model.as_of)}; is there data for the instant you attach at?",
        )
    position, distance = model.assign(values[complete])
    labels = pd.DataFrame(
        {
            "label": [model.clusters[at].label for at in position],
            "cluster": [model.clusters[at].number for at in position],
            "distance": distance,
            "model_version": model.version,
        },
        index=frame.index[complete],
    )
    return labels, int((~complete).sum())


def unknown_labels(program: Program, model: ClusterModel) -> dict[str, list[str]]:
    """By segment, the labels that it looks for and no cluster of the model has. It would find nobody by them."""
    feature = f"{model.definition.name}:label"
    found: dict[str, list[str]] = {}
    for name, segment in program.segments.items():
        for node in walk(segment.when):
            if not isinstance(node, Predicate) or node.operator not in ("equals", "in") or node.ignore_case:
                continue
            if isinstance(node.operand, FeatureRef) and node.operand.key == feature:
                wanted = node.argument if isinstance(node.argument, tuple) else (node.argument,)
                found.setdefault(name, []).extend(label for label in wanted if label not in model.labels)
    return {name: labels for name, labels in sorted(found.items()) if labels}


def _changed(labels: pd.DataFrame, before: pd.DataFrame) -> pd.Series:
    """Whose label, distance or model version is not what it was."""
    old = before.reindex(labels.index)
    same = pd.Series(data=True, index=labels.index)
    for column in COLUMNS:
        same &= labels[column] == old[column]
    return ~same


def _refuse_earlier(before: pd.DataFrame, as_of: int) -> None:
    """The newest row is what the online store holds, so an older label would not be seen, or undo a newer one."""
    latest = before["event_timestamp"].max() if len(before) else None
    if latest is not None and latest > pd.Timestamp(from_micros(as_of)) + _CORRECTIONS:
        shown = format_instant(to_micros(latest.to_pydatetime()))
        raise DataError(
            f"there are labels of {shown} already, which is later than {format_instant(as_of)}",
            hint=f"attach as of that instant or later: `segments cluster attach --at {shown}`",
        )


def _instants(repo: FeastRepo, name: str, users: pd.Index[Any], before: pd.DataFrame, as_of: int) -> pd.Series[Any]:
    """From when on the labels hold: from ``as_of``.

    Where a source can only be added to, a label that corrects another one of the same instant comes a microsecond
    later, so that it is the newer one.
    """
    floor = pd.Timestamp(from_micros(as_of)).as_unit("us")
    instants = pd.Series(floor, index=users, dtype="datetime64[us, UTC]")
    if local_parquet(repo, name) is not None or not len(before):
        return instants
    next_free = before["event_timestamp"].astype("datetime64[us, UTC]").reindex(users) + _MICROSECOND
    return next_free.where(next_free > floor, floor).fillna(floor)


def _write_online(repo: FeastRepo, name: str, rows: pd.DataFrame, progress: Callable[[int, int], None]) -> None:
    """Write rows in batches. The store leaves out a row older than the one it has."""
    done = 0

    def on_rows(count: int) -> None:
        nonlocal done
        done += count
        progress(done, len(rows))

    direct = DirectWrites(repo) if repo.connection().kind in ("embedded", "redis") else None
    errors = contextlib.nullcontext() if direct is None else redis_client.store_errors(direct.address)
    try:
        if repo.writes_in_bulk:
            table = pa.Table.from_pandas(rows, preserve_index=False)
            view = repo.store.get_feature_view(name)
            with quiet(), errors:
                repo.store.provider.online_store.write_arrow(repo.store.config, view, table.to_batches(_BATCH), on_rows)
            return
        with quiet(), errors, watched_writes(repo, direct, on_rows):
            for start in range(0, len(rows), _BATCH):
                repo.store.write_to_online_store(name, rows.iloc[start : start + _BATCH])
    finally:
        if direct is not None:
            direct.close()
