"""The nearest of fitted entities."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rules_engine.ml.clusters.algorithms.base import Assigned
from rules_engine.ml.clusters.arrays import Matrix, Positions

#: How many entities are placed at a time.
_CHUNK = 4096


def nearest(points: Matrix, others: Matrix, count: int) -> tuple[Matrix, Positions]:
    """Find the nearest of some others for each point: return distances, nearest first, and positions.

    >>> distances, which = nearest(np.array([[0.0, 1.0]]), np.array([[0.0, 9.0], [0.0, 2.0], [3.0, 1.0]]), 2)
    >>> distances.tolist(), which.tolist()
    ([[1.0, 3.0]], [[1, 2]])
    """
    from sklearn.neighbors import NearestNeighbors

    if not len(points):
        return np.zeros((0, count)), np.zeros((0, count), dtype=np.int64)
    which = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(others).kneighbors(points, return_distance=False)
    # They were found by products of matrices, which round: what is near is told again by differences.
    distances = np.sqrt(((points[:, None, :] - others[which]) ** 2).sum(axis=2))
    order = np.argsort(distances, axis=1, kind="stable")
    return np.take_along_axis(distances, order, axis=1), np.take_along_axis(which, order, axis=1).astype(np.int64)


def in_chunks(points: Matrix, assign: Callable[[Matrix], Assigned]) -> Assigned:
    """Assign many points a bounded number at a time, as their neighbours are looked at together."""
    starts = range(0, max(len(points), 1), _CHUNK)
    return Assigned.together([assign(points[start : start + _CHUNK]) for start in starts])
