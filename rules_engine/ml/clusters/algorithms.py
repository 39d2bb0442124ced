"""Finding clusters: scikit-learn and SciPy do the mathematics, and leave an assigner for whoever comes later."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rules_engine.errors import DataError
from rules_engine.ml.clusters.arrays import Matrix, Positions
from rules_engine.ml.clusters.assignment import NONE, Assigner, Centers, CorePoints, Mixture, Reachable, nearest
from rules_engine.ml.clusters.definition import Method

#: Beyond the upper quartile of a cluster's distances by so many interquartile ranges, a user is an outlier: what J. W.
#: Tukey calls "far out" (Exploratory Data Analysis, 1977).
FAR_OUT = 3.0

#: A user farther from a mixture's component than all but one in a thousand would be, is an outlier.
_UNLIKELY = 0.001

#: How many users a mini-batch has.
_BATCH = 4096

#: How many users are compared with all others at a time.
_CHUNK = 512


@dataclass(frozen=True, slots=True)
class Found:
    """Clusters of one number: each fitted user's, by position or -1, and how others are placed."""

    clusters: Positions
    assigner: Assigner
    bic: float | None = None
    eps: float | None = None


def find(
    method: Method,
    points: Matrix,
    sizes: Sequence[int],
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[Found]:
    """Find clusters, for each of the numbers of clusters.

    DBSCAN and HDBSCAN find out how many there are; they give one result, whatever the numbers.

    Raises
    ------
    DataError
        if an algorithm finds no cluster.
    """
    found = []
    for result in _FINDERS[method.algorithm](method, points, sizes):
        found.append(result)
        progress(len(found), 1 if method.finds_k else len(sizes))
    return found


def merges(method: Method, points: Matrix) -> Matrix:
    """The tree of an agglomerative clustering, as SciPy's ``linkage`` gives it."""
    from scipy.cluster.hierarchy import linkage  # type: ignore[import-untyped]  # ships no types

    tree: Matrix = linkage(points, method=method.linkage)
    return tree


def _kmeans(method: Method, points: Matrix, sizes: Sequence[int]) -> Iterator[Found]:
    from sklearn.cluster import KMeans, MiniBatchKMeans

    for k in sizes:
        if method.algorithm == "kmeans":
            means = KMeans(k, n_init=method.starts, random_state=method.seed).fit(points)
        else:
            means = MiniBatchKMeans(k, n_init=method.starts, random_state=method.seed, batch_size=_BATCH).fit(points)
        yield _around(points, means.labels_.astype(np.int64), means.cluster_centers_)


def _agglomerative(method: Method, points: Matrix, sizes: Sequence[int]) -> Iterator[Found]:
    from scipy.cluster.hierarchy import cut_tree

    cuts = cut_tree(merges(method, points), n_clusters=list(sizes))
    for column, k in enumerate(sizes):
        clusters = cuts[:, column].astype(np.int64)
        yield _around(points, clusters, np.array([points[clusters == at].mean(axis=0) for at in range(k)]))


def _around(points: Matrix, clusters: Positions, centers: Matrix) -> Found:
    """Clusters around centres, and from which distance on each has outliers."""
    distances = np.sqrt(((points - centers[clusters]) ** 2).sum(axis=1))
    limits = np.zeros(len(centers))
    for at in range(len(centers)):
        own = distances[clusters == at]
        low, high = np.percentile(own, [25, 75]) if len(own) else (0.0, 0.0)
        # Where most users are at the same place, any other one would be far out.
        limits[at] = high + FAR_OUT * (high - low) if high > low else own.max(initial=0.0)
    return Found(clusters, Centers(centers, limits))


_SHAPES = {"full": "full", "tied": "tied", "diagonal": "diag", "spherical": "spherical"}


def _mixture(method: Method, points: Matrix, sizes: Sequence[int]) -> Iterator[Found]:
    from scipy.stats import chi2  # type: ignore[import-untyped]  # ships no types
    from sklearn.mixture import GaussianMixture

    dimensions = points.shape[1]
    limit = float(np.sqrt(chi2.ppf(1 - _UNLIKELY, dimensions)))
    for k in sizes:
        mixture = GaussianMixture(
            k, covariance_type=_SHAPES[method.covariance], n_init=method.starts, random_state=method.seed, max_iter=300
        ).fit(points)
        scales = _full(mixture.precisions_cholesky_, method.covariance, k, dimensions)
        assigner = Mixture(mixture.weights_, mixture.means_, scales, limit)
        yield Found(mixture.predict(points).astype(np.int64), assigner, bic=float(mixture.bic(points)))


def _full(scales: Matrix, covariance: str, k: int, dimensions: int) -> Matrix:
    """The components' Cholesky factors as matrices, whatever shape they are restricted to."""
    if covariance == "full":
        return scales
    if covariance == "tied":
        return np.tile(scales, (k, 1, 1))
    diagonals = scales if covariance == "diagonal" else np.tile(scales[:, None], (1, dimensions))
    return np.array([np.diag(diagonal) for diagonal in diagonals])


def _dbscan(method: Method, points: Matrix, _sizes: Sequence[int]) -> Iterator[Found]:
    from sklearn.cluster import DBSCAN

    eps = method.eps if method.eps is not None else knee_of_neighbours(points, method.min_users)
    found = DBSCAN(eps=eps, min_samples=method.min_users).fit(points)
    core = found.core_sample_indices_
    if not len(core):
        raise DataError(
            f"DBSCAN finds no place with {method.min_users} users within {eps:.3g} of each other",
            hint="raise `eps`, or lower `min_users`, in clusters.yaml",
        )
    clusters = found.labels_.astype(np.int64)
    yield Found(clusters, CorePoints(points[core], clusters[core], float(eps)), eps=float(eps))


def knee_of_neighbours(points: Matrix, neighbours: int) -> float:
    """The distance within which most users have so many neighbours, and beyond which it takes much more.

    The users' distances to their n-th neighbour, in order, bend upwards where the dense places end (M. Ester et al., "A
    density-based algorithm for discovering clusters", KDD 1996, section 4.2).
    """
    from sklearn.neighbors import NearestNeighbors

    near = NearestNeighbors(n_neighbors=min(neighbours, len(points))).fit(points)
    distances = np.sort(near.kneighbors(points)[0][:, -1])
    return float(distances[knee(np.arange(len(distances), dtype=np.float64), -distances)])


def knee(x: Matrix, y: Matrix) -> int:
    """Where a curve bends most: the point farthest above, or below, the line between its ends.

    V. Satopää et al., "Finding a 'kneedle' in a haystack", ICDCS workshops 2011, without the smoothing.

    >>> knee(np.arange(2.0, 8.0), np.array([100.0, 40.0, 12.0, 9.0, 7.0, 6.0]))
    2
    """
    width, height = (x[-1] - x[0]) or 1.0, (y[0] - y[-1]) or 1.0
    return int(np.argmax(np.abs((y[0] - y) / height - (x - x[0]) / width)))


def _hdbscan(method: Method, points: Matrix, _sizes: Sequence[int]) -> Iterator[Found]:
    from sklearn.cluster import HDBSCAN

    found = HDBSCAN(min_cluster_size=method.min_users, copy=True).fit(points)
    clusters = np.where(found.labels_ < 0, NONE, found.labels_).astype(np.int64)
    if not (clusters >= 0).any():
        raise DataError(
            f"HDBSCAN finds no cluster of {method.min_users} users",
            hint="lower `min_users` in clusters.yaml, or choose an algorithm that places everybody, such as kmeans",
        )
    yield Found(clusters, _reachable(points, clusters, method.min_users))


def _reachable(points: Matrix, clusters: Positions, neighbours: int) -> Reachable:
    """What it takes to place others: how dense each user's place is, and how far each cluster reaches."""
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
    """Of each of a cluster's users the least mutual reachability to another one."""
    result = np.empty(len(points))
    for start in range(0, len(points), _CHUNK):
        rows = slice(start, start + _CHUNK)
        squares = (points[rows] ** 2).sum(axis=1)[:, None] + (points**2).sum(axis=1) - 2.0 * (points[rows] @ points.T)
        mutual = np.maximum(np.sqrt(np.maximum(squares, 0.0)), np.maximum(cores, cores[rows, None]))
        own = np.arange(len(mutual))
        mutual[own, start + own] = np.inf
        result[rows] = mutual.min(axis=1)
    return result


_FINDERS: dict[str, Callable[[Method, Matrix, Sequence[int]], Iterator[Found]]] = {
    "kmeans": _kmeans,
    "minibatch_kmeans": _kmeans,
    "agglomerative": _agglomerative,
    "gaussian_mixture": _mixture,
    "dbscan": _dbscan,
    "hdbscan": _hdbscan,
}
