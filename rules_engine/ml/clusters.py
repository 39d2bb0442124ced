"""Find clusters: standardize, run k-means for several numbers of clusters, keep the one that separates users best.

scikit-learn does the mathematics. The result does not depend on the order of the users, on how many threads there are,
or on when it runs: users are sorted by their key, one thread adds up, and the seed is fixed.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd

from rules_engine.errors import DataError
from rules_engine.ml.cluster_model import Cluster, ClusterModel, KScore, Matrix, Scaler, log1p
from rules_engine.ml.definition import ClusterDefinition, ClusterFeature

#: The silhouette compares every pair of users, so it is taken over a sample.
SILHOUETTE_SAMPLE = 4000

#: How often k-means starts anew for each number of clusters.
STARTS = 3

#: From this many standard deviations off the mean, a feature sets a cluster apart.
_NOTABLE = 0.25

_MIN_USERS_PER_CLUSTER = 2


def fit(definition: ClusterDefinition, frame: pd.DataFrame, as_of: int) -> ClusterModel:
    """Fit a clustering to users' features.

    Parameters
    ----------
    definition
        which features, how they are scaled, how many clusters there may be.
    frame
        one row per user, indexed by the user's key, one column per feature. Users with a missing or infinite value are
        left out and counted.
    as_of
        the instant, in microseconds, that the values are of.

    Raises
    ------
    DataError
        if there are too few users, or a feature is the same for all of them.
    """
    frame = frame.loc[:, list(definition.keys)].sort_index()
    values, complete = matrix(frame)
    fitted = values[complete]
    if len(np.unique(fitted, axis=0)) < definition.k_to * _MIN_USERS_PER_CLUSTER:
        raise DataError(
            f"{len(fitted):,} users with all of the features of `{definition.name}` are too few, or too alike, "
            f"for {definition.k_to} clusters",
            hint="is the feature view built for this instant? or lower `k: {to: ...}` in clusters.yaml",
        )
    scalers = tuple(_scaler(feature, fitted[:, column]) for column, feature in enumerate(definition.features))
    bare = ClusterModel(
        definition=definition,
        as_of=as_of,
        users=len(fitted),
        left_out=int(len(values) - len(fitted)),
        data=_digest(frame.index[complete], fitted),
        scalers=scalers,
        clusters=(),
        scores=(),
        libraries=_libraries(),
    )
    standardized = bare.standardize(fitted)
    trials = _trials(definition, standardized)
    _, centroids = max(trials, key=lambda trial: (trial[0].silhouette, -trial[0].k))
    clusters = _clusters(definition, centroids, standardized, fitted)
    scores = tuple(trial[0] for trial in trials)
    return replace(bare, clusters=clusters, scores=scores, last_number=len(clusters))


def matrix(frame: pd.DataFrame) -> tuple[Matrix, Any]:
    """The frame as numbers, and for each row whether all of them are there."""
    values = frame.to_numpy(dtype=np.float64, na_value=np.nan)
    return values, np.isfinite(values).all(axis=1)


def _scaler(feature: ClusterFeature, column: Matrix) -> Scaler:
    log = feature.scale == "log"
    scaled = log1p(feature.feature, column) if log else column
    deviation = float(scaled.std())
    if not deviation > 0:
        raise DataError(
            f"`{feature.feature}` is {column[0]:g} for every user, so it tells none of them apart",
            hint="remove it from clusters.yaml",
        )
    return Scaler(feature.feature, log, float(scaled.mean()), deviation)


def _trials(definition: ClusterDefinition, standardized: Matrix) -> list[tuple[KScore, Matrix]]:
    """For each number of clusters, how well it fits and the centroids."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # ships no types

    random = np.random.default_rng(definition.seed)
    size = min(SILHOUETTE_SAMPLE, len(standardized))
    sample = random.choice(len(standardized), size, replace=False)
    trials = []
    # Threads would add up in varying order, and the last digits of the centroids would vary with it.
    with threadpool_limits(limits=1):
        for k in range(definition.k_from, definition.k_to + 1):
            means = KMeans(k, n_init=STARTS, random_state=definition.seed).fit(standardized)
            silhouette = float(silhouette_score(standardized[sample], means.labels_[sample]))
            trials.append((KScore(k, silhouette, float(means.inertia_)), means.cluster_centers_))
    return trials


def _clusters(
    definition: ClusterDefinition, centroids: Matrix, standardized: Matrix, values: Matrix
) -> tuple[Cluster, ...]:
    """The clusters with number, name and profile."""
    distances = ((standardized[:, None, :] - centroids[None, :, :]) ** 2).sum(axis=2)
    membership = distances.argmin(axis=1)
    means = np.array([values[membership == position].mean(axis=0) for position in range(len(centroids))])
    ranked = definition.keys.index(definition.order_by)
    order = sorted(range(len(centroids)), key=lambda position: -means[position, ranked])
    labels = propose_names(definition.features, centroids[order])
    return tuple(
        Cluster(
            number=number,
            label=labels[number - 1],
            size=int((membership == position).sum()),
            centroid=tuple(map(float, centroids[position])),
            profile=dict(zip(definition.keys, map(float, means[position]), strict=True)),
        )
        for number, position in enumerate(order, 1)
    )


def propose_names(features: Sequence[ClusterFeature], centroids: Matrix) -> list[str]:
    """A name for each cluster, from the features in which its centre lies farthest from the mean of all users.

    Two features make a name; more are added only where two clusters would be called the same.

    >>> orders = ClusterFeature("v:orders", low="rare", high="frequent")
    >>> basket = ClusterFeature("v:basket", low="small", high="big")
    >>> propose_names([orders, basket], np.array([[2.0, 0.5], [-1.0, 1.5], [-1.0, 0.1]]))
    ['frequent, big', 'big, rare', 'rare']
    """
    described = [words(features, centroid) for centroid in centroids]
    lengths = [min(2, len(found)) for found in described]
    for _ in features:
        names = [", ".join(found[:length]) for found, length in zip(described, lengths, strict=True)]
        for position, name in enumerate(names):
            if names.count(name) > 1:
                lengths[position] = min(lengths[position] + 1, len(described[position]))
    names = [", ".join(found[:length]) for found, length in zip(described, lengths, strict=True)]
    return [name if names.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(names, 1)]


def words(features: Sequence[ClusterFeature], centroid: Matrix) -> list[str]:
    """Words for what sets a cluster apart, the most telling first."""
    by_weight = sorted(range(len(features)), key=lambda column: -abs(centroid[column]))
    notable = [column for column in by_weight if abs(centroid[column]) >= _NOTABLE]
    return [features[column].word(high=bool(centroid[column] > 0)) for column in notable] or ["middling"]


def _digest(users: pd.Index[Any], values: Matrix) -> str:
    digest = hashlib.sha256("\n".join(map(str, users)).encode())
    digest.update(np.ascontiguousarray(values).tobytes())
    return "sha256:" + digest.hexdigest()


def _libraries() -> dict[str, str]:
    names = ("feast-segments", "feast", "numpy", "scikit-learn")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
