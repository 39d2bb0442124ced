"""Scores of customers as scikit-learn transformers: fitted to everyone, then the same for each.

>>> customers = [[10, 8, 300.0], [90, 1, 20.0], [40, 3, 80.0]]  # recency in days, frequency, money
>>> RFMScore(classes=3, low_is_good=(0,)).fit_transform(customers).tolist()
[[3.0, 3.0, 3.0], [1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

Matrix = NDArray[np.float64]


class RFMScore(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]  # untyped
    """Each column in classes of equal size, 1 to ``classes``; the highest is the best.

    The classes of recency, frequency and money of A. M. Hughes, "Strategic Database Marketing" (1994): quintiles, five
    the best. Equal values are in the same class, so classes may be of different size, or empty.

    Parameters
    ----------
    classes
        how many there are.
    low_is_good
        positions of the columns of which less is better: recency.

    Attributes
    ----------
    edges_
        for each column, the values at which a class ends.
    """

    def __init__(self, classes: int = 5, low_is_good: tuple[int, ...] = ()) -> None:
        self.classes = classes
        self.low_is_good = low_is_good

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002, N803  # scikit-learn's names
        """Find the classes."""
        values = validate_data(self, X, dtype=np.float64)
        if self.classes < 2:
            raise ValueError(f"classes is {self.classes}, and there are at least 2")
        if any(not -values.shape[1] <= at < values.shape[1] for at in self.low_is_good):
            raise ValueError(f"low_is_good is {self.low_is_good}, and there are {values.shape[1]} columns")
        steps = np.linspace(0, 1, self.classes + 1)[1:-1]
        self.edges_ = np.quantile(values, steps, axis=0).T
        return self

    def transform(self, X: Any) -> Matrix:  # noqa: N803  # scikit-learn's name
        """Return the class of each value."""
        check_is_fitted(self)
        values = validate_data(self, X, dtype=np.float64, reset=False)
        columns = [np.searchsorted(edges, values[:, at]) + 1.0 for at, edges in enumerate(self.edges_)]
        for at in self.low_is_good:
            columns[at] = self.classes + 1 - columns[at]
        return np.column_stack(columns)


class EngagementScore(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # untyped
    """Scores activity from 0 to 100, relative to everyone fitted; earlier activity counts less.

    Columns are counts of what was done in one period each, the newest first. A period counts half as much as the one
    ``half_life`` periods later: simple exponential smoothing (R. G. Brown, "Statistical Forecasting for Inventory
    Control", 1959). The score is the share of those fitted who are less active, and half of those equally so.

    Parameters
    ----------
    half_life
        in periods.

    Attributes
    ----------
    weights_
        of the periods, which add up to 1.
    reference_
        the smoothed activity of everyone fitted, sorted.
    """

    def __init__(self, half_life: float = 2.0) -> None:
        self.half_life = half_life

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002, N803  # scikit-learn's names
        """Learn how active people are."""
        values = validate_data(self, X, dtype=np.float64)
        if not self.half_life > 0:
            raise ValueError(f"half_life is {self.half_life}, and has to be above 0")
        weights = 0.5 ** (np.arange(values.shape[1]) / self.half_life)
        self.weights_ = weights / weights.sum()
        self.reference_ = np.sort(self._smoothed(values))
        return self

    def transform(self, X: Any) -> Matrix:  # noqa: N803  # scikit-learn's name
        """Return one column, the score."""
        check_is_fitted(self)
        values = self._smoothed(validate_data(self, X, dtype=np.float64, reset=False))
        sides = (np.searchsorted(self.reference_, values, side=side) for side in ("left", "right"))
        below, upto = sides
        score: Matrix = 50.0 * (below + upto) / len(self.reference_)
        return score.reshape(-1, 1)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:  # noqa: ARG002
        """Return the name of the column."""
        return np.array(["engagement"], dtype=object)

    def _smoothed(self, values: Matrix) -> Matrix:
        # Column by column: a sum that does not depend on how many rows there are.
        total = np.zeros(len(values))
        for at, weight in enumerate(self.weights_):
            total += weight * values[:, at]
        return total
