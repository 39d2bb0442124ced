"""DBSCAN: dense places, and who is near to one (M. Ester et al., KDD 1996)."""

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
from rules_engine.ml.clusters.algorithms.knee import knee
from rules_engine.ml.clusters.algorithms.neighbours import in_chunks, nearest
from rules_engine.ml.clusters.arrays import EqualByContent, Matrix, Positions, encode, finite

_EPS = AlgorithmSetting(
    {
        "type": "number",
        "exclusiveMinimum": 0,
        "description": "How near two users are neighbours, in scaled units. "
        "Default: the knee of the neighbours' distances.",
    },
    None,
)


@dataclass(frozen=True, slots=True, eq=False)
class CorePoints(EqualByContent):
    """The cluster of the nearest core point of DBSCAN, if that is within ``eps``.

    Fitted core points get their own cluster; a user at the border of two gets the nearer one, where DBSCAN takes the
    one it came to first. Confidence is 1 on a core point and 0 at ``eps``.
    """

    points: Matrix
    clusters: Positions
    eps: float
    kind: ClassVar[str] = "core_points"

    @property
    def count(self) -> int:
        return int(self.clusters.max()) + 1

    @property
    def dimensions(self) -> int:
        return int(self.points.shape[1])

    def assign(self, points: Matrix) -> Assigned:
        return in_chunks(points, self._assign)

    def _assign(self, points: Matrix) -> Assigned:
        distances, neighbours = nearest(points, self.points, 1)
        distance, core = distances[:, 0], neighbours[:, 0]
        outlier = distance > self.eps
        position = np.where(outlier, NONE, self.clusters[core])
        confidence = np.where(outlier, 0.0, 1.0 - distance / self.eps)
        return Assigned(position, distance, confidence, outlier)

    def to_plain(self) -> dict[str, Any]:
        return {
            "kind": self.kind, "points": encode(self.points), "clusters": encode(self.clusters), "eps": self.eps
        }  # fmt: skip

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> CorePoints:
        points, clusters = finite(content["points"], 2), finite(content["clusters"], 1).astype(np.int64)
        check_numbers(len(points) == len(clusters) > 0 and bool((clusters >= 0).all()))
        return cls(points, clusters, float(content["eps"]))


class Dbscan(Algorithm):
    """Dense places of any shape; who is far from all of them is in none."""

    name = "dbscan"
    assigner = CorePoints
    sample = 10_000
    settings: ClassVar[Mapping[str, AlgorithmSetting]] = {"eps": _EPS, "min_users": MIN_USERS}
    finds_k = True

    def find(
        self,
        points: Matrix,
        sizes: Sequence[int],  # noqa: ARG002  # it finds out by itself
        settings: Mapping[str, Any],
        seed: int,  # noqa: ARG002  # nothing is drawn
    ) -> Iterator[Clustering]:
        from sklearn.cluster import DBSCAN

        least = settings["min_users"]
        eps = settings["eps"] if settings["eps"] is not None else knee_of_neighbours(points, least)
        fitted = DBSCAN(eps=eps, min_samples=least).fit(points)
        core = fitted.core_sample_indices_
        if not len(core):
            raise DataError(
                f"DBSCAN finds no place with {least} users within {eps:.3g} of each other",
                hint="raise `eps`, or lower `min_users`, in clusters.yaml",
            )
        clusters = fitted.labels_.astype(np.int64)
        yield Clustering(clusters, CorePoints(points[core], clusters[core], float(eps)), learned={"eps": float(eps)})


def knee_of_neighbours(points: Matrix, neighbours: int) -> float:
    """Return the distance within which most users have that many neighbours.

    The users' distances to their n-th neighbour, in order, bend upwards where the dense places end (M. Ester et al., "A
    density-based algorithm for discovering clusters", KDD 1996, section 4.2).
    """
    from sklearn.neighbors import NearestNeighbors

    near = NearestNeighbors(n_neighbors=min(neighbours, len(points))).fit(points)
    distances = np.sort(near.kneighbors(points)[0][:, -1])
    return float(distances[knee(np.arange(len(distances), dtype=np.float64), -distances)])
