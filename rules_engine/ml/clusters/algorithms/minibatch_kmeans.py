"""k-means by small batches (D. Sculley, "Web-scale k-means clustering", WWW 2010)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from rules_engine.ml.clusters.algorithms.base import STARTS, Algorithm, AlgorithmSetting, Clustering
from rules_engine.ml.clusters.algorithms.centers import Centers, around
from rules_engine.ml.clusters.arrays import Matrix

#: How many entities a batch has.
_BATCH = 4096


class MiniBatchKMeans(Algorithm):
    """k-means for very many users, a little less exact."""

    name = "minibatch_kmeans"
    assigner = Centers
    sample = 300_000
    settings: ClassVar[Mapping[str, AlgorithmSetting]] = {"starts": STARTS}
    resampled = 4000

    def find(
        self, points: Matrix, sizes: Sequence[int], settings: Mapping[str, Any], seed: int
    ) -> Iterator[Clustering]:
        from sklearn.cluster import MiniBatchKMeans as Estimator

        for k in sizes:
            means = Estimator(k, n_init=settings["starts"], random_state=seed, batch_size=_BATCH).fit(points)
            yield around(points, means.labels_.astype(np.int64), means.cluster_centers_)
