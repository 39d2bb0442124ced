"""Fill in missing features by scikit-learn's imputers, from plain numbers. Values are in scaled units.

scikit-learn fits an imputer, and what it learned is kept. Its ``KNNImputer`` is fitted to the kept donors again, which
gives the same one; ``SimpleImputer`` is one NumPy call; ``IterativeImputer`` cannot be made of plain numbers, so its
linear models are applied here.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rules_engine.ml.clusters.arrays import EqualByContent, Matrix, decode, encode, finite

#: How many users are averaged, by scikit-learn's default.
NEIGHBOURS = 5

#: How many users the nearest ones are looked for among.
DONORS = 1000

_ROUNDS = 10


@dataclass(frozen=True, slots=True, eq=False)
class Constants(EqualByContent):
    """Each feature's mean or median."""

    values: Matrix
    kind: ClassVar[str] = "constants"

    def fill(self, scaled: Matrix) -> Matrix:
        """Return the values, with the constants in place of missing ones."""
        result: Matrix = np.where(np.isnan(scaled), self.values, scaled)
        return result

    def to_plain(self) -> dict[str, Any]:
        return {"kind": self.kind, "values": encode(self.values)}

    @classmethod
    def from_plain(cls, content: Mapping[str, Any], features: int) -> Constants:
        return cls(_length(finite(content["values"], 1), features))


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours(EqualByContent):
    """The mean of the most similar users who have the feature.

    How far two users are apart is told by the features that both have (O. Troyanskaya et al., "Missing value estimation
    methods for DNA microarrays", Bioinformatics 17 (2001), 520-525).
    """

    donors: Matrix
    kind: ClassVar[str] = "neighbours"

    def fill(self, scaled: Matrix) -> Matrix:
        """Return the values, with those of similar users in place of missing ones."""
        if not np.isnan(scaled).any():
            return scaled
        from sklearn.impute import KNNImputer

        imputer = KNNImputer(n_neighbors=NEIGHBOURS, keep_empty_features=True).fit(self.donors)
        filled: Matrix = imputer.transform(scaled)
        return filled

    def to_plain(self) -> dict[str, Any]:
        return {"kind": self.kind, "donors": encode(self.donors)}

    @classmethod
    def from_plain(cls, content: Mapping[str, Any], features: int) -> Neighbours:
        donors = decode(content["donors"])
        if donors.ndim != 2 or donors.shape[1] != features or np.isinf(donors).any():
            raise ValueError("its numbers make no sense")
        return cls(donors)


@dataclass(frozen=True, slots=True, eq=False)
class Rounds(EqualByContent):
    """Fills each feature in turn by a linear model of the others, in several rounds.

    S. van Buuren and K. Groothuis-Oudshoorn, "mice", Journal of Statistical Software 45 (2011).

    Attributes
    ----------
    start
        what missing values are before the first round: the means.
    order
        which feature each step fills.
    coefficients, intercepts
        of each step's linear model; the coefficient of the feature itself is 0.
    """

    start: Matrix
    order: Matrix
    coefficients: Matrix
    intercepts: Matrix
    kind: ClassVar[str] = "rounds"

    def fill(self, scaled: Matrix) -> Matrix:
        """Return the values, with predicted ones in place of missing ones."""
        missing = np.isnan(scaled)
        result = np.where(missing, self.start, scaled)
        for column, coefficients, intercept in zip(
            self.order.astype(int), self.coefficients, self.intercepts, strict=True
        ):
            rows = missing[:, column]
            if rows.any():
                result[rows, column] = result[rows] @ coefficients + intercept
        return result

    def to_plain(self) -> dict[str, Any]:
        arrays = {name: encode(getattr(self, name)) for name in ("start", "order", "coefficients", "intercepts")}
        return {"kind": self.kind, **arrays}

    @classmethod
    def from_plain(cls, content: Mapping[str, Any], features: int) -> Rounds:
        coefficients, order = finite(content["coefficients"], 2), finite(content["order"], 1)
        _length(coefficients[0], features)
        if not set(order.astype(int).tolist()) <= set(range(features)) or len(order) != len(coefficients):
            raise ValueError("its numbers make no sense")
        start, intercepts = _length(finite(content["start"], 1), features), finite(content["intercepts"], 1)
        return cls(start, order, coefficients, _length(intercepts, len(order)))


Filling = Constants | Neighbours | Rounds
_KINDS: dict[str, Any] = {kind.kind: kind for kind in (Constants, Neighbours, Rounds)}


def filling_from_plain(content: Mapping[str, Any], features: int) -> Filling:
    """Return the inverse of ``to_plain``.

    Raises
    ------
    ValueError, KeyError, TypeError
        if the data make no sense.
    """
    filling: Filling = _KINDS[content["kind"]].from_plain(content, features)
    return filling


def fit_filling(missing: str, scaled: Matrix, seed: int) -> Filling:
    """Learn how missing values are filled: by ``mean``, ``median``, ``knn`` or ``iterative``."""
    if missing in ("mean", "median"):
        from sklearn.impute import SimpleImputer

        return Constants(SimpleImputer(strategy=missing).fit(scaled).statistics_)
    if missing == "knn":
        random = np.random.default_rng(seed)
        chosen = np.sort(random.permutation(len(scaled))[:DONORS])
        return Neighbours(scaled[chosen])
    return _rounds(scaled, seed)


def _rounds(scaled: Matrix, seed: int) -> Rounds:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401  # makes the next import possible
    from sklearn.impute import IterativeImputer

    imputer = IterativeImputer(max_iter=_ROUNDS, random_state=seed)
    with warnings.catch_warnings():
        # A value that still changes in the third digit after ten rounds is good enough to be near a cluster.
        warnings.simplefilter("ignore", ConvergenceWarning)
        imputer.fit(scaled)
    features = scaled.shape[1]
    coefficients = np.zeros((len(imputer.imputation_sequence_), features))
    for row, step in zip(coefficients, imputer.imputation_sequence_, strict=True):
        row[step.neighbor_feat_idx] = step.estimator.coef_
    order = np.array([step.feat_idx for step in imputer.imputation_sequence_], dtype=np.float64)
    intercepts = np.array([step.estimator.intercept_ for step in imputer.imputation_sequence_])
    return Rounds(imputer.initial_imputer_.statistics_, order, coefficients, intercepts)


def _length(values: Matrix, length: int) -> Matrix:
    if len(values) != length:
        raise ValueError("its numbers and features do not fit together")
    return values
