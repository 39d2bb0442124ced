"""The stability of clusters when other users are drawn.

C. Hennig, "Cluster-wise assessment of cluster stability", Computational Statistics & Data Analysis 52 (2007), 258-271.
Users are drawn with replacement, clusters are looked for among those, and each first cluster is compared with the one
that shares most of the drawn users with it (Jaccard). The mean over all draws is the cluster's stability: by Hennig,
from 0.85 on it is highly stable, below 0.6 it should not be trusted, below 0.5 it dissolves.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from rules_engine.errors import DataError
from rules_engine.ml.clusters.algorithms.base import Clustering
from rules_engine.ml.clusters.algorithms.table import algorithms, find
from rules_engine.ml.clusters.arrays import Matrix, Positions
from rules_engine.ml.clusters.definition import Method

#: Below this, a cluster should not be trusted.
DOUBTFUL = 0.6
STABLE = 0.85


def stability(
    method: Method, points: Matrix, clustering: Clustering, resamples: int, progress: Callable[[int, int], None]
) -> list[float | None]:
    """Return each cluster's stability, by position; None if nothing was drawn."""
    count = clustering.assigner.count
    if not resamples:
        return [None] * count
    random = np.random.default_rng(method.seed + 1)
    algorithm = algorithms()[method.algorithm]
    size = min(len(points), algorithm.resampled)
    fewer = replace(method, settings=algorithm.for_fewer(method.settings, size / len(points), clustering))
    totals, counted = np.zeros(count), np.zeros(count)
    for draw in range(resamples):
        rows = random.choice(len(points), size)
        overlap, present = _overlaps(fewer, points[rows], clustering.clusters[rows], count)
        totals += overlap
        counted += present
        progress(draw + 1, resamples)
    return [float(total / times) if times else None for total, times in zip(totals, counted, strict=True)]


def _overlaps(method: Method, points: Matrix, before: Positions, count: int) -> tuple[Matrix, Matrix]:
    """Return by cluster the share of users in both its forms, and whether any user of it was drawn."""
    present = np.bincount(before[before >= 0], minlength=count) > 0
    now = _find_again(method, points, count)
    clusters = int(now.max()) + 1
    both = np.zeros((count, max(clusters, 1)))
    inside = (before >= 0) & (now >= 0)
    np.add.at(both, (before[inside], now[inside]), 1)
    sizes = np.bincount(before[before >= 0], minlength=count)
    others = np.bincount(now[now >= 0], minlength=max(clusters, 1))
    either = sizes[:, None] + others[None, :] - both
    overlap = (both / np.maximum(either, 1)).max(axis=1)
    return np.where(present, overlap, 0.0), present.astype(np.float64)


def _find_again(method: Method, points: Matrix, count: int) -> Positions:
    """Return the drawn users' clusters. A user drawn twice is two users at the same place."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # Few users at few places: fewer clusters than asked for is an answer here.
        warnings.simplefilter("ignore", ConvergenceWarning)
        try:
            sizes = [min(count, len(np.unique(points, axis=0)))]
            return find(method.algorithm, points, sizes, method.settings, method.seed)[0].clusters
        except DataError:
            return np.full(len(points), -1, dtype=np.int64)
