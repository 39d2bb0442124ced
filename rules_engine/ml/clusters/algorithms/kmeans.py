"""k-means: the centres from which entities are least far, all squares added up (S. Lloyd, 1982)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from rules_engine.ml.clusters.algorithms.base import STARTS, Algorithm, AlgorithmSetting, Clustering
from rules_engine.ml.clusters.algorithms.centers import Centers, around
from rules_engine.ml.clusters.arrays import Matrix


class KMeans(Algorithm):
    """Round groups of like width around centres."""

    name = "kmeans"
    assigner = Centers
    sample = 100_000
    settings: ClassVar[Mapping[str, AlgorithmSetting]] = {"starts": STARTS}
    resampled = 4000

    def find(
        self, points: Matrix, sizes: Sequence[int], settings: Mapping[str, Any], seed: int
    ) -> Iterator[Clustering]:
        from sklearn.cluster import KMeans as Estimator

        for k in sizes:
            means = Estimator(k, n_init=settings["starts"], random_state=seed).fit(points)
            yield around(points, means.labels_.astype(np.int64), means.cluster_centers_)
