"""Choose the number of clusters: several measures are taken of each, and one of them decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rules_engine.ml.clusters.algorithms.base import Clustering
from rules_engine.ml.clusters.algorithms.knee import knee
from rules_engine.ml.clusters.arrays import Matrix, Positions

#: The silhouette compares every pair of users, so it is taken over a sample.
SILHOUETTE_SAMPLE = 4000


@dataclass(frozen=True, slots=True)
class KScore:
    """Measures of one number of clusters.

    Attributes
    ----------
    k
        the number of clusters.
    silhouette
        how much nearer users are to their own cluster than to the next, from -1 to 1; higher is better (P. Rousseeuw,
        1987). None where there is one cluster only.
    inertia
        the sum of the squared distances to the clusters' means; it always falls, and the elbow is where it falls
        no longer much.
    davies_bouldin
        how wide clusters are for how far they are apart; lower is better (D. Davies and D. Bouldin, 1979).
    bic
        of a mixture, how unlikely the data are, with a penalty for parameters; lower is better (G. Schwarz, 1978).
    """

    k: int
    silhouette: float | None
    inertia: float
    davies_bouldin: float | None = None
    bic: float | None = None


def measured(clustering: Clustering, points: Matrix, sample: Positions) -> KScore:
    """Measure one clustering. Users in no cluster do not count."""
    from sklearn.metrics import davies_bouldin_score, silhouette_score

    inside = clustering.clusters >= 0
    points, clusters = points[inside], clustering.clusters[inside]
    k = clustering.assigner.count
    means = np.array([points[clusters == at].mean(axis=0) for at in range(k)])
    inertia = float(((points - means[clusters]) ** 2).sum())
    drawn = sample[sample < len(points)] if inside.all() else np.arange(len(points))[: len(sample)]
    if len(np.unique(clusters[drawn])) < 2 or len(np.unique(clusters)) < 2:
        return KScore(k, None, inertia, None, clustering.bic)
    silhouette = float(silhouette_score(points[drawn], clusters[drawn]))
    return KScore(k, silhouette, inertia, float(davies_bouldin_score(points, clusters)), clustering.bic)


def choose(choose_by: str, scores: Sequence[KScore]) -> int:
    """Return the position of the best score; of equals, that with the smallest number of clusters.

    >>> scores = [KScore(2, 0.5, 90.0, 0.7), KScore(3, 0.6, 30.0, 0.9), KScore(4, 0.4, 28.0, 0.8)]
    >>> [choose(by, scores) for by in ("silhouette", "davies_bouldin", "elbow")]
    [1, 0, 1]
    """
    if len(scores) == 1:
        return 0
    if choose_by == "elbow":
        return knee(np.array([float(score.k) for score in scores]), np.array([score.inertia for score in scores]))
    if choose_by == "silhouette":
        return max(range(len(scores)), key=lambda at: (_or(scores[at].silhouette, -2.0), -scores[at].k))
    return min(range(len(scores)), key=lambda at: (_or(getattr(scores[at], choose_by), np.inf), scores[at].k))


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
