"""Refit without losing what labels mean: a cluster keeps its number and its name as long as it keeps its users.

The same users, with the same values, are labelled by the new model and by the one before. What differs is then the
models' doing, not the users'. Clusters that share users are matched one to one, so that the shares (Jaccard: users in
both, by users in either) add up to the most; where that leaves a choice, the nearer centres win. A cluster with too few
users to tell is matched by its centre alone, if no other centre is as near.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rules_engine.errors import DataError
from rules_engine.ml.clusters.arrays import Matrix
from rules_engine.ml.clusters.fitting import matrix
from rules_engine.ml.clusters.matching import ClusterChange, Matching
from rules_engine.ml.clusters.model import OUTLIER, Cluster, ClusterModel
from rules_engine.ml.clusters.naming import propose_names
from rules_engine.ml.versions.store import VersionStore

#: A cluster is the same if at least this part of the users who are in its old or in its new form are in both. With less
#: it counts as dissolved: C. Hennig, "Cluster-wise assessment of cluster stability", CSDA 52 (2007), 258-271.
SAME = 0.5

#: A cluster is a part of another one if at least this part of its users comes from there.
_PART = 0.5

#: Smaller shares are not named.
_NAMED = 0.05

#: Small beside any difference between two shares of users that matters, so that distance decides between equals only.
_TIE = 1e-9

#: With fewer users than this in common with all others, a cluster is matched by its centre.
_FEW = 10

#: A centre is a new cluster's if it lies within this part of the way to that cluster's nearest neighbour.
_CLOSE = 0.5

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Published:
    """A fitted model with its labels: stored and perhaps new, or refused, and then it has no version."""

    model: ClusterModel
    is_new: bool
    refusal: DataError | None = None


def publish(
    store: VersionStore[ClusterModel],
    model: ClusterModel,
    frame: pd.DataFrame,
    read: Callable[[Sequence[str]], pd.DataFrame],
    created_at: int,
    *,
    max_moved: float | None = None,
    accept_drift: bool = False,
) -> Published:
    """Give a fitted model the labels of the version before, and store it unless too many users would move.

    Parameters
    ----------
    frame
        the users' features that the model was fitted to.
    read
        gives features that the version before needs and ``frame`` lacks.
    max_moved
        the share of users that may move; by default the definition's.
    accept_drift
        store it however many move.
    """
    same = store.same_fit(model)
    if same is not None:
        return Published(same, is_new=False)
    previous = previous_version(store)
    if previous is None:
        return Published(store.add(first_labels(model), created_at)[0], is_new=True)
    newest = store.newest() or previous
    last_number = max(newest.last_number, previous.last_number)
    trouble = ""
    try:
        before = frame if set(previous.features) <= set(frame.columns) else read(previous.features)
        model = keep_labels(model, previous, frame, before, last_number)
    except DataError as error:
        trouble = str(error)
        model = keep_labels(model, previous, frame.iloc[:0], None, last_number)
    limit = model.definition.max_moved if max_moved is None else max_moved
    assert model.matching is not None
    if model.matching.share_moved > limit and not accept_drift:
        return Published(model, is_new=False, refusal=_refusal(model.matching, limit, trouble))
    return Published(store.add(model, created_at)[0], is_new=True)


def previous_version(store: VersionStore[ClusterModel]) -> ClusterModel | None:
    """Return the version that a new fit takes its labels from: the attached, else the promoted, else the newest one.

    Raises
    ------
    DataError
        if its file cannot be used.
    """
    return store.current(store.attached()) if store.versions() else None


def _refusal(matching: Matching, limit: float, trouble: str) -> DataError:
    if not matching.users:
        why = f": {trouble}" if trouble else ", as it can label none of these users"
        return DataError(
            f"the clusters cannot be compared with {matching.previous}{why}; nothing was stored",
            hint="`--accept-drift` stores them, with new numbers and names",
        )
    return DataError(
        f"{matching.moved:,} of {matching.users:,} users ({matching.share_moved:.1%}) would move to another cluster "
        f"than {matching.previous} puts them into, and {limit * 100:g}% may: nothing was stored",
        hint="`--accept-drift` stores the model all the same; `--max-moved` is the limit",
    )


def first_labels(model: ClusterModel) -> ClusterModel:
    """Return a first version with names: those that the definition gives, else the proposed ones."""
    if not model.definition.names:
        return model
    return _with_labels(model, [cluster.number for cluster in model.clusters], {}, len(model.clusters))


def keep_labels(
    model: ClusterModel,
    previous: ClusterModel,
    frame: pd.DataFrame,
    before: pd.DataFrame | None,
    last_number: int,
) -> ClusterModel:
    """Return the model with the numbers and names of the version before, where a cluster is the same.

    Parameters
    ----------
    frame, before
        the users' features that the model, and the version before, look at. Users who lack one are not compared.
    last_number
        the highest number that any cluster ever had. Numbers of clusters that died are not given again.

    Raises
    ------
    DataError
        if the version before cannot take the values.
    """
    new, old, points = _memberships(model, previous, frame, before)
    shape = (len(previous.clusters), len(model.clusters))
    # The last row and the last column are for users in no cluster.
    counts = np.bincount(old * (shape[1] + 1) + new, minlength=(shape[0] + 1) * (shape[1] + 1))
    counts = counts.reshape(shape[0] + 1, shape[1] + 1)
    shares = jaccard(counts)[:-1, :-1]
    distances = _distances(model, previous, points, old)
    heirs = match(shares, distances)
    by_center = match_centers(counts, distances, _gaps(model), heirs)
    heirs = dict(sorted((heirs | by_center).items()))
    numbers, following = [], last_number
    for position in range(shape[1]):
        following += position not in heirs
        numbers.append(previous.clusters[heirs[position]].number if position in heirs else following)
    inherited = {previous.clusters[origin].number: previous.clusters[origin].label for origin in heirs.values()}
    named = _with_labels(model, numbers, inherited, following, reserved=previous.labels)
    by_number = {cluster.number: cluster for cluster in named.clusters}
    clusters = [by_number[number] for number in numbers]
    stayed = sum(int(counts[origin, position]) for position, origin in heirs.items()) + int(counts[-1, -1])
    overlap = {numbers[position]: float(shares[origin, position]) for position, origin in heirs.items()}
    matching = Matching(
        previous=previous.version,
        users=len(old),
        moved=len(old) - stayed,
        rand_index=_rand_index(old, new),
        overlap=dict(sorted(overlap.items())),
        changes=tuple(_changes(previous.clusters, clusters, counts, heirs)),
        by_center=tuple(sorted(numbers[position] for position in by_center)),
    )
    return replace(named, matching=matching)


def jaccard(counts: Counts) -> Matrix:
    """Return for each old (row) and new (column) cluster the users in both, as a part of those in either.

    >>> jaccard(np.array([[30, 10], [0, 60]])).round(2).tolist()
    [[0.75, 0.1], [0.0, 0.86]]
    """
    either = counts.sum(axis=1, keepdims=True) + counts.sum(axis=0, keepdims=True) - counts
    result: Matrix = counts / np.maximum(either, 1)
    return result


def match(shares: Matrix, distances: Matrix) -> dict[int, int]:
    """Match clusters: return, by position of a new one, the position of the old one. Both appear at most once.

    >>> match(np.array([[0.5, 0.5], [0.0, 0.1]]), np.array([[3.0, 1.0], [1.0, 9.0]]))  # split in halves
    {1: 0}
    """
    from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]  # ships no types

    # What is too little to be the same must not push aside what is enough.
    eligible = np.where(shares >= SAME, shares, 0.0)
    finite = np.where(np.isfinite(distances), distances, 0.0)
    farthest = max(float(finite.max(initial=0.0)), 1.0)
    rows, columns = linear_sum_assignment(_TIE * finite / farthest - eligible)
    pairs = zip(columns.tolist(), rows.tolist(), strict=True)
    return {column: row for column, row in sorted(pairs) if eligible[row, column] > 0}


def match_centers(counts: Counts, distances: Matrix, gaps: Matrix, heirs: Mapping[int, int]) -> dict[int, int]:
    """Match clusters with too few users to compare by their centres: positions of old by those of new ones.

    Parameters
    ----------
    counts
        the users in each old (row) and new (column) cluster; the last ones are for users in none.
    distances
        from each old centre to each new one; infinite where it is not known.
    gaps
        from each new centre to its nearest neighbour among the new ones.
    heirs
        what is matched already.

    >>> counts, distances = np.zeros((2, 3), dtype=int), np.array([[0.4, 3.0]])
    >>> match_centers(counts, distances, np.array([2.0, 2.0]), {})
    {0: 0}
    >>> match_centers(counts, distances, np.array([0.7, 2.0]), {})
    {}
    """
    from scipy.optimize import linear_sum_assignment

    # An old cluster that few of the compared users belonged to, or a new one that few belong to.
    few = (counts[:-1, :].sum(axis=1) < _FEW)[:, None] | (counts[:, :-1].sum(axis=0) < _FEW)[None, :]
    free = np.ones_like(few)
    free[list(heirs.values()), :] = False
    free[:, list(heirs)] = False
    near = few & free & (distances <= _CLOSE * gaps[None, :])
    cost = np.where(near, distances - (distances[near].max(initial=0.0) + 1.0), 0.0)
    rows, columns = linear_sum_assignment(cost)
    return {int(column): int(row) for column, row in sorted(zip(columns, rows, strict=True)) if near[row, column]}


def _memberships(
    model: ClusterModel, previous: ClusterModel, frame: pd.DataFrame, before: pd.DataFrame | None
) -> tuple[Counts, Counts, Matrix]:
    """Return each user's new and old cluster, by position, and the place among the new centroids.

    Users in no cluster are at the position after the last cluster.
    """
    nobody = np.zeros(0, dtype=np.int64)
    if before is None or not len(frame):
        return nobody, nobody, np.zeros((0, len(model.features)))
    values = matrix(frame.loc[:, list(model.features)])
    old_values = matrix(before.loc[:, list(previous.features)].reindex(frame.index))
    both = model.usable(values) & previous.usable(old_values)
    new = model.assign(values[both]).position
    old = previous.assign(old_values[both]).position
    new, old = np.where(new < 0, len(model.clusters), new), np.where(old < 0, len(previous.clusters), old)
    return new, old, model.standardize(values[both])


def _distances(model: ClusterModel, previous: ClusterModel, points: Matrix, old: Counts) -> Matrix:
    """Return distances from each old centre to each new one, in the new model's units; infinite if not known.

    The old centre is where its users are now; of a cluster with few of them, where it was when it was fitted.
    """
    centroids = np.array([cluster.centroid for cluster in model.clusters])
    result = np.full((len(previous.clusters), len(centroids)), np.inf)
    same = set(model.features) == set(previous.features)
    for origin, cluster in enumerate(previous.clusters):
        members = points[old == origin]
        if len(members) >= _FEW or (len(members) and not same):
            center = members.mean(axis=0)
        elif same:
            center = _moved_over(cluster.centroid, previous, model)
        else:
            continue
        result[origin] = np.sqrt(((centroids - center) ** 2).sum(axis=1))
    return result


def _moved_over(centroid: Sequence[float], previous: ClusterModel, model: ClusterModel) -> Matrix:
    """Return an old centre in the new model's units."""
    plain = {
        scaler.feature: scaler.unscale(np.array([value]))
        for scaler, value in zip(previous.preprocessing.scalers, centroid, strict=True)
    }
    return np.concatenate([scaler.scale(plain[scaler.feature]) for scaler in model.preprocessing.scalers])


def _gaps(model: ClusterModel) -> Matrix:
    """Return the distance from each centre to its nearest neighbour."""
    centroids = np.array([cluster.centroid for cluster in model.clusters])
    apart = np.sqrt(((centroids[:, None, :] - centroids[None, :, :]) ** 2).sum(axis=2))
    np.fill_diagonal(apart, np.inf)
    nearest: Matrix = apart.min(axis=1)
    return nearest


def _rand_index(old: Counts, new: Counts) -> float:
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(old, new)) if len(old) else 0.0


def _with_labels(
    model: ClusterModel,
    numbers: list[int],
    inherited: Mapping[int, str],
    last_number: int,
    reserved: Sequence[str] = (),
) -> ClusterModel:
    """Return the model with these numbers. Names that the definition gives win, then kept ones, then proposed ones.

    ``reserved`` names, those of the version before, go to no cluster that is born.
    """
    defined = {number: label for number, label in model.definition.names if number in numbers}
    labels = dict(defined)
    for number, label in inherited.items():
        if number not in labels:
            labels[number] = label if label not in labels.values() else f"{label} ({number})"
    born = [(number, cluster) for number, cluster in zip(numbers, model.clusters, strict=True) if number not in labels]
    if born:
        centroids = np.array([cluster.centroid for _, cluster in born])
        taken = {*labels.values(), *reserved, OUTLIER}
        proposed = propose_names(model.definition.features, _deviations(model, centroids), taken)
        labels |= {number: name for (number, _), name in zip(born, proposed, strict=True)}
    clusters = [
        replace(cluster, number=number, label=labels[number])
        for number, cluster in zip(numbers, model.clusters, strict=True)
    ]
    ordered = tuple(sorted(clusters, key=lambda cluster: cluster.number))
    return replace(model, clusters=ordered, last_number=last_number)


def _deviations(model: ClusterModel, centroids: Matrix) -> Matrix:
    """Return centres as deviations from the mean of all users, which the clusters' centres and sizes give."""
    centers = np.array([cluster.centroid for cluster in model.clusters])
    sizes = np.array([float(cluster.size) for cluster in model.clusters])
    mean = np.average(centers, axis=0, weights=sizes)
    return centroids - mean


def _changes(
    old: Sequence[Cluster], new: Sequence[Cluster], counts: Counts, heirs: Mapping[int, int]
) -> list[ClusterChange]:
    """Return what became of clusters that are not kept as they were: split, died, merged, born, renamed."""
    changes = []
    going = (counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))[:-1, :-1]
    coming = (counts / np.maximum(counts.sum(axis=0, keepdims=True), 1))[:-1, :-1]
    for row, cluster in enumerate(old):
        parts = [column for column in range(len(new)) if coming[row, column] >= _PART and counts[row, column]]
        if len(parts) > 1:
            changes.append(ClusterChange("split", cluster.number, cluster.label, _shares(going[row], new, parts)))
        if row not in heirs.values():
            changes.append(ClusterChange("died", cluster.number, cluster.label, _shares(going[row], new)))
    for column, cluster in enumerate(new):
        parts = [row for row in range(len(old)) if going[row, column] >= _PART]
        if len(parts) > 1:
            changes.append(
                ClusterChange("merged", cluster.number, cluster.label, _shares(coming[:, column], old, parts))
            )
        if column not in heirs:
            changes.append(ClusterChange("born", cluster.number, cluster.label, _shares(coming[:, column], old)))
        elif cluster.label != old[heirs[column]].label:
            changes.append(ClusterChange("renamed", cluster.number, cluster.label, {old[heirs[column]].label: 1.0}))
    return changes


def _shares(shares: Any, clusters: Sequence[Cluster], only: Sequence[int] | None = None) -> dict[str, float]:
    """Return the shares by label, largest first; without ``only`` those that are worth naming."""
    chosen = [at for at in range(len(clusters)) if shares[at] >= _NAMED] if only is None else only
    return {clusters[at].label: float(shares[at]) for at in sorted(chosen, key=lambda at: -shares[at])}
