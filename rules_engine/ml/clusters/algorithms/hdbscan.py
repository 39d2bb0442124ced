"""HDBSCAN: dense places of different density (R. Campello et al., 2015)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rules_engine.errors import DataError
from rules_engine.ml.clusters.algorithms.base import (
    MIN_USERS,
    NONE,
    Algorithm,
    AlgorithmSetting,
    Assigned,
    Clustering,
    check_numbers,
)
from rules_engine.ml.clusters.algorithms.neighbours import in_chunks, nearest
from rules_engine.ml.clusters.arrays import EqualByContent, Matrix, Positions, encode, finite

#: How many users are compared with all others at a time.
_CHUNK = 512


@dataclass(frozen=True, slots=True, eq=False)
class Reachable(EqualByContent):
    """The cluster of the nearest fitted user by mutual reachability, as HDBSCAN measures distance.

    Mutual reachability of two users is the largest of their distance and of what each of them is away from the
    ``neighbours``-th user around (R. Campello et al., "Hierarchical density estimates for data clustering", ACM TKDD
    10 (2015)). Whoever is nearest to a user in no cluster is in none, and so is who is farther from a cluster than any
    of its own users were when the farthest of them joined: ``reach``. Confidence is the density there as a part of the
    cluster's greatest.

    Attributes
    ----------
    points, clusters, cores
        the fitted users: where they are, their cluster or -1, and how far their ``neighbours``-th neighbour is.
    reach, densest
        by cluster: the largest and the smallest mutual reachability within it.
    """

    points: Matrix
    clusters: Positions
    cores: Matrix
    reach: Matrix
    densest: Matrix
    neighbours: int
    kind: ClassVar[str] = "reachable"

    @property
    def count(self) -> int:
        return len(self.reach)

    @property
    def dimensions(self) -> int:
        return int(self.points.shape[1])

    def assign(self, points: Matrix) -> Assigned:
        return in_chunks(points, self._assign)

    def _assign(self, points: Matrix) -> Assigned:
        # As hdbscan has it, twice as many users as make a place dense are near enough to be asked.
        distances, near = nearest(points, self.points, min(2 * self.neighbours, len(self.points)))
        own = distances[:, self.neighbours - 1, None]
        mutual = np.maximum(np.maximum(distances, self.cores[near]), own)
        # Of those that are equally reachable the first counts, which is the nearest.
        first = mutual.argmin(axis=1)[:, None]
        least = np.take_along_axis(mutual, first, axis=1)[:, 0]
        cluster = self.clusters[np.take_along_axis(near, first, axis=1)[:, 0]]
        outlier = (cluster == NONE) | (least > self.reach[cluster])
        position = np.where(outlier, NONE, cluster)
        with np.errstate(divide="ignore", invalid="ignore"):
            density = np.where(least > 0, self.densest[cluster] / least, 1.0)
        confidence = np.where(outlier, 0.0, np.clip(density, 0.0, 1.0))
        return Assigned(position, least, confidence, outlier)

    def to_plain(self) -> dict[str, Any]:
        arrays = {name: encode(getattr(self, name)) for name in ("points", "clusters", "cores", "reach", "densest")}
        return {"kind": self.kind, **arrays, "neighbours": self.neighbours}

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> Reachable:
        points, clusters = finite(content["points"], 2), finite(content["clusters"], 1).astype(np.int64)
        cores, reach, densest = (finite(content[name], 1) for name in ("cores", "reach", "densest"))
        neighbours = int(content["neighbours"])
        check_numbers(len(points) == len(clusters) == len(cores) and len(reach) == len(densest) > int(clusters.max()))
        check_numbers(1 <= neighbours <= len(points) and int(clusters.min()) >= NONE)
        return cls(points, clusters, cores, reach, densest, neighbours)


class Hdbscan(Algorithm):
    """Dense places of different density; who is alone is in none."""

    name = "hdbscan"
    assigner = Reachable
    sample = 10_000
    settings: ClassVar[Mapping[str, AlgorithmSetting]] = {"min_users": MIN_USERS}
    finds_k = True

    def find(
        self,
        points: Matrix,
        sizes: Sequence[int],  # noqa: ARG002  # it finds out by itself
        settings: Mapping[str, Any],
        seed: int,  # noqa: ARG002  # nothing is drawn
    ) -> Iterator[Clustering]:
        from sklearn.cluster import HDBSCAN

        least = settings["min_users"]
        fitted = HDBSCAN(min_cluster_size=least, copy=True).fit(points)
        clusters = np.where(fitted.labels_ < 0, NONE, fitted.labels_).astype(np.int64)
        if not (clusters >= 0).any():
            raise DataError(
                f"HDBSCAN finds no cluster of {least} users",
                hint="lower `min_users` in clusters.yaml, or choose an algorithm that places everybody, such as kmeans",
            )
        yield Clustering(clusters, _reachable(points, clusters, least))


def _reachable(points: Matrix, clusters: Positions, neighbours: int) -> Reachable:
    """Return what places others: the density at each user's place, and the reach of each cluster."""
    cores = np.concatenate(
        [nearest(points[at : at + _CHUNK], points, neighbours)[0][:, -1] for at in range(0, len(points), _CHUNK)]
    )
    count = int(clusters.max()) + 1
    reach, densest = np.empty(count), np.empty(count)
    for at in range(count):
        own = np.flatnonzero(clusters == at)
        joined = _joined(points[own], cores[own])
        reach[at], densest[at] = joined.max() * (1 + 1e-6), joined.min()
    return Reachable(points, clusters, cores, reach, densest, neighbours)


def _joined(points: Matrix, cores: Matrix) -> Matrix:
    """Return, for each user of a cluster, the least mutual reachability to another user of it."""
    result = np.empty(len(points))
    for start in range(0, len(points), _CHUNK):
        rows = slice(start, start + _CHUNK)
        squares = (points[rows] ** 2).sum(axis=1)[:, None] + (points**2).sum(axis=1) - 2.0 * (points[rows] @ points.T)
        mutual = np.maximum(np.sqrt(np.maximum(squares, 0.0)), np.maximum(cores, cores[rows, None]))
        own = np.arange(len(mutual))
        mutual[own, start + own] = np.inf
        result[rows] = mutual.min(axis=1)
    return result
