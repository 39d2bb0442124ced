"""Agglomerative clustering: the two nearest groups are merged, until so many are left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from rules_engine.ml.clusters.algorithms.base import Algorithm, AlgorithmSetting, Clustering
from rules_engine.ml.clusters.algorithms.centers import Centers, around
from rules_engine.ml.clusters.arrays import Matrix

_LINKAGE = AlgorithmSetting(
    {
        "enum": ["ward", "average", "complete"],
        "description": "What agglomerative clustering merges by. Default: ward.",
    },
    "ward",
)


class Agglomerative(Algorithm):
    """A tree of merges, cut where so many groups are left."""

    name = "agglomerative"
    assigner = Centers
    sample = 5_000
    settings: ClassVar[Mapping[str, AlgorithmSetting]] = {"linkage": _LINKAGE}

    def find(
        self,
        points: Matrix,
        sizes: Sequence[int],
        settings: Mapping[str, Any],
        seed: int,  # noqa: ARG002  # nothing is drawn
    ) -> Iterator[Clustering]:
        from scipy.cluster.hierarchy import cut_tree  # type: ignore[import-untyped]  # ships no types

        cuts = cut_tree(merges(points, settings["linkage"]), n_clusters=list(sizes))
        for column, k in enumerate(sizes):
            clusters = cuts[:, column].astype(np.int64)
            yield around(points, clusters, np.array([points[clusters == at].mean(axis=0) for at in range(k)]))


def merges(points: Matrix, method: str) -> Matrix:
    """Return the tree of merges, as SciPy's ``linkage`` gives it."""
    from scipy.cluster.hierarchy import linkage

    tree: Matrix = linkage(points, method=method)
    return tree
