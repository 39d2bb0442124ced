"""Who belongs where: how a user is given a cluster without anything being fitted.

Each algorithm leaves plain numbers behind, which are enough to place whoever comes later, with NumPy alone:

============================== ============================================================================
k-means, agglomerative         the nearest centre
Gaussian mixture               the most probable component
DBSCAN                         the cluster of the nearest core point within eps; farther away is in none
HDBSCAN                        the cluster of the nearest fitted user by mutual reachability, within reach
============================== ============================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rules_engine.ml.clusters.arrays import Data, Matrix, Positions, decode, encode, finite

#: Users whose neighbours among the fitted ones are looked at together.
_CHUNK = 4096

#: No cluster.
NONE = -1


@dataclass(frozen=True, slots=True)
class Assigned:
    """Where users belong.

    Attributes
    ----------
    position
        the cluster, by its position; -1 for none.
    distance
        from the cluster's centre, or from its nearest dense place.
    confidence
        from 0 to 1, how clear it is.
    outlier
        who is unlike the cluster's other users, or in none.
    probabilities
        one column for each cluster, where the algorithm knows them.
    """

    position: Positions
    distance: Matrix
    confidence: Matrix
    outlier: NDArray[np.bool_]
    probabilities: Matrix | None = None

    @classmethod
    def together(cls, parts: list[Assigned]) -> Assigned:
        """One after the other."""
        found = [part.probabilities for part in parts if part.probabilities is not None]
        return cls(
            position=np.concatenate([part.position for part in parts]),
            distance=np.concatenate([part.distance for part in parts]),
            confidence=np.concatenate([part.confidence for part in parts]),
            outlier=np.concatenate([part.outlier for part in parts]),
            probabilities=np.concatenate(found) if found else None,
        )


class Assigner(Protocol):
    """Places users among clusters; equal if its numbers are."""

    kind: str

    @property
    def count(self) -> int: ...
    @property
    def dimensions(self) -> int: ...
    def assign(self, points: Matrix) -> Assigned: ...
    def to_plain(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True, eq=False)
class Centers(Data):
    """The nearest of some centres.

    ``limits`` says from which distance on a user is an outlier of each cluster. Confidence is how much nearer the
    centre is than the next one: 1 - nearest / second nearest, the simplified silhouette (E. R. Hruschka et al., 2004).
    """

    points: Matrix
    limits: Matrix
    kind = "centers"

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
        found = cls(finite(content["points"], 2), decode(content["limits"]))
        _check(found.limits.shape == (found.count,))
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Mixture(Data):
    """The most probable component of a Gaussian mixture.

    ``scales`` are the precision matrices' Cholesky factors, as scikit-learn's ``precisions_cholesky_``. The distance is
    Mahalanobis', so it too is in standard deviations.
    """

    weights: Matrix
    means: Matrix
    scales: Matrix
    limit: float
    kind = "mixture"

    @property
    def count(self) -> int:
        return len(self.means)

    @property
    def dimensions(self) -> int:
        return int(self.means.shape[1])

    def assign(self, points: Matrix) -> Assigned:
        squares = np.empty((len(points), self.count))
        for position, (mean, scale) in enumerate(zip(self.means, self.scales, strict=True)):
            squares[:, position] = ((points @ scale - mean @ scale) ** 2).sum(axis=1)
        determinants = np.log(np.diagonal(self.scales, axis1=1, axis2=2)).sum(axis=1)
        # The factor that all components share, (2 pi) ** (-d / 2), cancels out.
        logs = determinants + np.log(self.weights) - 0.5 * squares
        logs -= logs.max(axis=1, keepdims=True)
        probabilities = np.exp(logs)
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        position = logs.argmax(axis=1).astype(np.int64)
        rows = np.arange(len(points))
        distance = np.sqrt(squares[rows, position])
        return Assigned(position, distance, probabilities[rows, position], distance > self.limit, probabilities)

    def to_plain(self) -> dict[str, Any]:
        arrays = {name: encode(getattr(self, name)) for name in ("weights", "means", "scales")}
        return {"kind": self.kind, **arrays, "limit": self.limit}

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> Mixture:
        weights, means, scales = (
            finite(content[name], size) for name, size in (("weights", 1), ("means", 2), ("scales", 3))
        )
        size = means.shape[1]
        _check(
            weights.shape == (len(means),) and scales.shape == (len(means), size, size) and bool((weights > 0).all())
        )
        _check(bool((np.diagonal(scales, axis1=1, axis2=2) > 0).all()))
        return cls(weights, means, scales, float(content["limit"]))


@dataclass(frozen=True, slots=True, eq=False)
class CorePoints(Data):
    """The cluster of the nearest core point of DBSCAN, if that is within ``eps``.

    Fitted core points get their own cluster; a user at the border of two gets the nearer one, where DBSCAN takes the
    one it came to first. Confidence is 1 on a core point and 0 at ``eps``.
    """

    points: Matrix
    clusters: Positions
    eps: float
    kind = "core_points"

    @property
    def count(self) -> int:
        return int(self.clusters.max()) + 1

    @property
    def dimensions(self) -> int:
        return int(self.points.shape[1])

    def assign(self, points: Matrix) -> Assigned:
        return _in_chunks(points, self._assign)

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
        _check(len(points) == len(clusters) > 0 and bool((clusters >= 0).all()))
        return cls(points, clusters, float(content["eps"]))


@dataclass(frozen=True, slots=True, eq=False)
class Reachable(Data):
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
    kind = "reachable"

    @property
    def count(self) -> int:
        return len(self.reach)

    @property
    def dimensions(self) -> int:
        return int(self.points.shape[1])

    def assign(self, points: Matrix) -> Assigned:
        return _in_chunks(points, self._assign)

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
        _check(len(points) == len(clusters) == len(cores) and len(reach) == len(densest) > int(clusters.max()))
        _check(1 <= neighbours <= len(points) and int(clusters.min()) >= NONE)
        return cls(points, clusters, cores, reach, densest, neighbours)


_KINDS: dict[str, Any] = {kind.kind: kind for kind in (Centers, Mixture, CorePoints, Reachable)}


def assigner_from_plain(content: Mapping[str, Any]) -> Assigner:
    """The inverse of ``to_plain``.

    Raises
    ------
    ValueError, KeyError, TypeError
        if the data make no sense.
    """
    found: Assigner = _KINDS[content["kind"]].from_plain(content)
    return found


def nearest(points: Matrix, others: Matrix, count: int) -> tuple[Matrix, Positions]:
    """Of each point the nearest of some others: how far away, nearest first, and which.

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


def _in_chunks(points: Matrix, assign: Callable[[Matrix], Assigned]) -> Assigned:
    starts = range(0, max(len(points), 1), _CHUNK)
    return Assigned.together([assign(points[start : start + _CHUNK]) for start in starts])


def _check(holds: bool) -> None:
    if not holds:
        raise ValueError("its numbers do not fit together")
