"""Find clusters: preprocess, look for several numbers of clusters, keep the one that the definition's measure chooses.

scikit-learn does the mathematics. The result does not depend on the order of the users, on how many threads there are,
or on when it runs: users are sorted by their key, one thread adds up, and the seed is fixed.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

from rules_engine.errors import DataError
from rules_engine.ml.clusters.algorithms.base import Clustering
from rules_engine.ml.clusters.algorithms.table import algorithms, find
from rules_engine.ml.clusters.arrays import Matrix, Positions
from rules_engine.ml.clusters.choosing import SILHOUETTE_SAMPLE, choose, measured
from rules_engine.ml.clusters.definition import ClusterDefinition
from rules_engine.ml.clusters.model import Cluster, ClusterModel
from rules_engine.ml.clusters.naming import propose_names
from rules_engine.ml.clusters.preparation.preprocessing import column_means, fit_preprocessing, nowhere_present
from rules_engine.ml.clusters.reference import Reference
from rules_engine.ml.clusters.stability import stability

#: Is told what goes on, and how far it is.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Fit:
    """A model with what it was made of, for a report.

    Attributes
    ----------
    model
        the fitted model, not stored yet.
    points
        the fitted users, as the algorithm saw them, in the order of their keys.
    clusters
        each one's cluster as the algorithm has it: a position in ``model.clusters``, or -1.
    """

    model: ClusterModel
    points: Matrix
    clusters: Positions


def fit(definition: ClusterDefinition, frame: pd.DataFrame, as_of: int, **options: Any) -> ClusterModel:
    """Fit a clustering to users' features; see :func:`fit_closely`."""
    return fit_closely(definition, frame, as_of, **options).model


def fit_closely(
    definition: ClusterDefinition,
    frame: pd.DataFrame,
    as_of: int,
    *,
    population: int | None = None,
    window: tuple[int, int] | None = None,
    resamples: int = 0,
    progress: Progress = lambda _what, _done, _total: None,
) -> Fit:
    """Fit a clustering to users' features.

    Parameters
    ----------
    definition
        which features, what happens to them, how clusters are found, how many there may be.
    frame
        one row per user, indexed by the user's key, one column per feature. Infinite values count as missing.
    as_of
        the instant, in microseconds, that the values are of.
    population
        how many users there are, if the frame is a sample of them.
    window
        the instants of the oldest and the newest row that were read.
    resamples
        how often clusters are looked for among other users, drawn from these, for their stability.

    Raises
    ------
    DataError
        if there are too few users, or a feature is the same for all of them, or nothing is found.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # ships no types

    method = definition.method
    frame = frame.loc[:, list(definition.keys)].sort_index()
    sampled = frame.iloc[sample_rows(frame.index, method.sample, method.seed)]
    values = matrix(sampled)
    fitted = values[_usable(definition, values)]
    _check_present(definition, values)
    _check_enough(definition, fitted)
    # Threads would add up in varying order, and the last digits of the centroids would vary with it.
    with threadpool_limits(limits=1):
        progress("Preparing the features", 0, 1)
        preprocessing = fit_preprocessing(definition, fitted)
        standardized = preprocessing.standardize(fitted)
        points = preprocessing.project(standardized)
        sizes = range(method.k_from, method.k_to + 1)
        results = find(
            method.algorithm, points, sizes, method.settings, method.seed,
            lambda done, total: progress("Finding clusters", done, total),
        )  # fmt: skip
        drawn = np.random.default_rng(method.seed).choice(
            len(points), min(SILHOUETTE_SAMPLE, len(points)), replace=False
        )
        scores = tuple(measured(result, points, drawn) for result in results)
        chosen = choose(method.choose_by, scores)
        clustering = results[chosen]
        stable = stability(method, points, clustering, resamples, lambda at, of: progress("Trying other users", at, of))
    clusters = _clusters(definition, clustering, standardized, fitted, stable)
    model = ClusterModel(
        definition=definition,
        as_of=as_of,
        population=len(frame) if population is None else population,
        users=len(fitted),
        left_out=len(values) - len(fitted),
        data=_digest(sampled.index[_usable(definition, values)], fitted),
        preprocessing=preprocessing,
        assigner=clustering.assigner,
        clusters=clusters,
        scores=scores,
        chosen=chosen,
        metrics=_metrics(clustering, points),
        references=tuple(Reference.of(name, values[:, column]) for column, name in enumerate(definition.keys)),
        window=window,
        libraries=_libraries(),
        last_number=len(clusters),
    )
    places = np.full(len(clusters) + 1, -1, dtype=np.int64)
    places[[cluster.position for cluster in clusters]] = np.arange(len(clusters))
    return Fit(model, points, places[clustering.clusters])


def matrix(frame: pd.DataFrame) -> Matrix:
    """Return the frame as numbers; what is missing or infinite is NaN."""
    values: Matrix = frame.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isfinite(values), values, np.nan)


def sample_rows(users: pd.Index[Any], most: int, seed: int) -> Any:
    """Return the positions of at most so many users, in their order: always the same users, whoever else there is.

    A user is drawn by a hash of the key, so a tenth more users change a tenth of the sample.
    """
    if len(users) <= most:
        return np.arange(len(users))
    return np.sort(np.argsort(key_hashes(users, seed), kind="stable")[:most])


def key_hashes(users: pd.Index[Any], seed: int) -> Any:
    """Return a pseudo-random number for each user, derived from the key."""
    keys = pd.Series(users, dtype=object)
    return pd.util.hash_pandas_object(keys, index=False, hash_key=f"{seed % 10**16:016d}").to_numpy()


def _usable(definition: ClusterDefinition, values: Matrix) -> Any:
    present = np.isfinite(values)
    return present.all(axis=1) if definition.missing == "leave_out" else present.any(axis=1)


def _check_present(definition: ClusterDefinition, values: Matrix) -> None:
    """Name a feature that no entity has: with it, too few would be left."""
    for feature, column in zip(definition.features, values.T, strict=True):
        if len(column) and not np.isfinite(column).any():
            raise nowhere_present(feature.feature, len(column))


def _check_enough(definition: ClusterDefinition, fitted: Matrix) -> None:
    method = definition.method
    least = algorithms()[method.algorithm].fewest(method.settings, method.k_to)
    # The first users mostly are unlike enough; all are only looked at if these are not.
    if any(len(np.unique(fitted[:some], axis=0)) >= least for some in (10_000, len(fitted))):
        return
    needed = f"{least} users in one place" if method.finds_k else f"{method.k_to} clusters"
    lower = "lower `min_users`" if method.finds_k else "lower `k: {to: ...}`"
    raise DataError(
        f"{len(fitted):,} users with all of the features of `{definition.name}` are too few, or too alike, "
        f"for {needed}",
        hint=f"is the feature view built for this instant? or {lower} in clusters.yaml",
    )


def _clusters(
    definition: ClusterDefinition,
    clustering: Clustering,
    standardized: Matrix,
    values: Matrix,
    stable: list[float | None],
) -> tuple[Cluster, ...]:
    """Return the clusters with number, name and profile."""
    count = clustering.assigner.count
    members = [clustering.clusters == position for position in range(count)]
    centroids = np.array([standardized[own].mean(axis=0) for own in members])
    profiles = [column_means(definition.keys, values[own]) for own in members]
    order = sorted(range(count), key=lambda position: -profiles[position][definition.order_by])
    # Names are about how unlike all users a cluster is, in deviations, whatever the scale.
    deviations = (centroids - standardized.mean(axis=0)) / np.maximum(standardized.std(axis=0), 1e-12)
    labels = propose_names(definition.features, deviations[order])
    return tuple(
        Cluster(
            number=number,
            label=labels[number - 1],
            size=int(members[position].sum()),
            centroid=tuple(map(float, centroids[position])),
            profile=profiles[position],
            position=position,
            stability=stable[position],
        )
        for number, position in enumerate(order, 1)
    )


def _metrics(clustering: Clustering, points: Matrix) -> dict[str, float]:
    assigned = clustering.assigner.assign(points)
    metrics = {
        "agreement": float((assigned.position == clustering.clusters).mean()),
        "outliers": float((clustering.clusters < 0).mean()),
    }
    return {**metrics, **clustering.learned}


def _digest(users: pd.Index[Any], values: Matrix) -> str:
    digest = hashlib.sha256("\n".join(map(str, users)).encode())
    digest.update(np.ascontiguousarray(values).tobytes())
    return "sha256:" + digest.hexdigest()


def _libraries() -> dict[str, str]:
    names = ("feast-segments", "feast", "numpy", "scikit-learn", "scipy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
