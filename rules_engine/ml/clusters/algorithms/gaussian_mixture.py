"""A mixture of normal distributions, fitted by expectation and maximization (A. Dempster et al., 1977)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rules_engine.ml.clusters.algorithms.base import (
    STARTS,
    Algorithm,
    AlgorithmSetting,
    Assigned,
    Clustering,
    check_numbers,
)
from rules_engine.ml.clusters.arrays import EqualByContent, Matrix, encode, finite

#: A user farther from a mixture's component than all but one in a thousand would be, is an outlier.
_UNLIKELY = 0.001


#: By the words of clusters.yaml, scikit-learn's.
_SHAPES = {"full": "full", "tied": "tied", "diagonal": "diag", "spherical": "spherical"}

_COVARIANCE = AlgorithmSetting(
    {"enum": list(_SHAPES), "description": "The shape of a mixture's components. Default: full."}, "full"
)


@dataclass(frozen=True, slots=True, eq=False)
class Mixture(EqualByContent):
    """The most probable component of a Gaussian mixture.

    ``scales`` are the precision matrices' Cholesky factors, as scikit-learn's ``precisions_cholesky_``. The distance is
    Mahalanobis', so it too is in standard deviations.
    """

    weights: Matrix
    means: Matrix
    scales: Matrix
    limit: float
    kind: ClassVar[str] = "mixture"

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
        check_numbers(
            weights.shape == (len(means),) and scales.shape == (len(means), size, size) and bool((weights > 0).all())
        )
        check_numbers(bool((np.diagonal(scales, axis1=1, axis2=2) > 0).all()))
        return cls(weights, means, scales, float(content["limit"]))


class GaussianMixture(Algorithm):
    """Oval groups that overlap; says how probable each one is."""

    name = "gaussian_mixture"
    assigner = Mixture
    sample = 20_000
    settings: ClassVar[Mapping[str, AlgorithmSetting]] = {"starts": STARTS, "covariance": _COVARIANCE}
    has_likelihood = True
    has_probabilities = True

    def find(
        self, points: Matrix, sizes: Sequence[int], settings: Mapping[str, Any], seed: int
    ) -> Iterator[Clustering]:
        from scipy.stats import chi2  # type: ignore[import-untyped]  # ships no types
        from sklearn.mixture import GaussianMixture as Estimator

        dimensions, covariance = points.shape[1], settings["covariance"]
        limit = float(np.sqrt(chi2.ppf(1 - _UNLIKELY, dimensions)))
        for k in sizes:
            mixture = Estimator(
                k, covariance_type=_SHAPES[covariance], n_init=settings["starts"], random_state=seed, max_iter=300
            ).fit(points)
            scales = _full(mixture.precisions_cholesky_, covariance, k, dimensions)
            assigner = Mixture(mixture.weights_, mixture.means_, scales, limit)
            yield Clustering(mixture.predict(points).astype(np.int64), assigner, bic=float(mixture.bic(points)))


def _full(scales: Matrix, covariance: str, k: int, dimensions: int) -> Matrix:
    """Return the components' Cholesky factors as matrices, whatever shape they are restricted to."""
    if covariance == "full":
        return scales
    if covariance == "tied":
        return np.tile(scales, (k, 1, 1))
    diagonals = scales if covariance == "diagonal" else np.tile(scales[:, None], (1, dimensions))
    return np.array([np.diag(diagonal) for diagonal in diagonals])
