"""Clusters around centres: what k-means and agglomerative clustering leave behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rules_engine.ml.clusters.algorithms.base import Assigned, Clustering, check_numbers
from rules_engine.ml.clusters.arrays import EqualByContent, Matrix, Positions, decode, encode, finite

#: Beyond the upper quartile of a cluster's distances by so many interquartile ranges, a user is an outlier: what J. W.
#: Tukey calls "far out" (Exploratory Data Analysis, 1977).
FAR_OUT = 3.0


@dataclass(frozen=True, slots=True, eq=False)
class Centers(EqualByContent):
    """The nearest of some centres.

    ``limits`` says from which distance on a user is an outlier of each cluster. Confidence is how much nearer the
    centre is than the next one: 1 - nearest / second nearest, the simplified silhouette (E. R. Hruschka et al., 2004).
    """

    points: Matrix
    limits: Matrix
    kind: ClassVar[str] = "centers"

    @property
    def count(self) -> int:
        return len(self.points)

    @property
    def dimensions(self) -> int:
        return int(self.points.shape[1])

    def assign(self, points: Matrix) -> Assigned:
        distances = np.empty((len(points), self.count))
        for position, center in enumerate(self.points):
            distances[:, position] = np.sqrt(((points - center) ** 2).sum(axis=1))
        rows = np.arange(len(points))
        position = distances.argmin(axis=1).astype(np.int64)
        nearest = distances[rows, position]
        distances[rows, position] = np.inf
        second = distances.min(axis=1, initial=np.inf)
        with np.errstate(invalid="ignore", divide="ignore"):
            confidence = np.where(second > 0, 1.0 - nearest / second, 0.0)
        return Assigned(position, nearest, confidence, nearest > self.limits[position])

    def to_plain(self) -> dict[str, Any]:
        return {"kind": self.kind, "points": encode(self.points), "limits": encode(self.limits)}

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> Centers:
        centers = cls(finite(content["points"], 2), decode(content["limits"]))
        check_numbers(centers.limits.shape == (centers.count,))
        return centers


def around(points: Matrix, clusters: Positions, centers: Matrix) -> Clustering:
    """Return clusters around centres, with the distance from which on an entity is an outlier of each."""
    distances = np.sqrt(((points - centers[clusters]) ** 2).sum(axis=1))
    limits = np.zeros(len(centers))
    for at in range(len(centers)):
        own = distances[clusters == at]
        low, high = np.percentile(own, [25, 75]) if len(own) else (0.0, 0.0)
        # Where most users are at the same place, any other one would be far out.
        limits[at] = high + FAR_OUT * (high - low) if high > low else own.max(initial=0.0)
    return Clustering(clusters, Centers(centers, limits))
