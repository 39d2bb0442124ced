"""From users' features to points that can be compared: scaled, without gaps, and perhaps fewer dimensions.

scikit-learn fits every step. What it learned is plain numbers, and NumPy applies them: the same for everyone, whenever
they come.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rules_engine.errors import DataError
from rules_engine.ml.clusters.arrays import EqualByContent, Matrix, encode, finite
from rules_engine.ml.clusters.definition import ClusterDefinition, ClusterFeature
from rules_engine.ml.clusters.filling import Filling, filling_from_plain, fit_filling


@dataclass(frozen=True, slots=True)
class Scaler:
    """How one feature becomes comparable with the others: log(1 + x) if ``log``, minus ``center``, by ``spread``.

    Center and spread are mean and deviation, median and interquartile range, or least value and range.
    """

    feature: str
    log: bool
    center: float
    spread: float

    def scale(self, column: Matrix) -> Matrix:
        """The column in scaled units.

        Raises
        ------
        DataError
            if a value whose logarithm is taken is -1 or less.
        """
        result: Matrix = ((log1p(self.feature, column) if self.log else column) - self.center) / self.spread
        return result

    def unscale(self, column: Matrix) -> Matrix:
        """The inverse of :meth:`scale`."""
        plain = column * self.spread + self.center
        result: Matrix = np.expm1(plain) if self.log else plain
        return result


@dataclass(frozen=True, slots=True, eq=False)
class Projection(EqualByContent):
    """Principal components: ``components`` in rows, and the share of the variance that each one holds."""

    mean: Matrix
    components: Matrix
    shares: Matrix

    def project(self, standardized: Matrix) -> Matrix:
        result: Matrix = (standardized - self.mean) @ self.components.T
        return result

    def to_plain(self) -> dict[str, Any]:
        return {name: encode(getattr(self, name)) for name in self.__slots__}

    @classmethod
    def from_plain(cls, content: Mapping[str, Any], features: int) -> Projection:
        """The inverse of :meth:`to_plain`.

        Raises
        ------
        ValueError, KeyError, TypeError
            if the data make no sense.
        """
        mean, components = finite(content["mean"], 1), finite(content["components"], 2)
        shares = finite(content["shares"], 1)
        if len(mean) != features or components.shape != (len(shares), features):
            raise ValueError("its components and features do not fit together")
        return cls(mean, components, shares)


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Everything that happens to features before users are grouped by them.

    Attributes
    ----------
    scalers
        one for each feature.
    filling
        how missing values are filled; None: users who lack one are left out.
    projection
        the principal components, if users are grouped by those.
    """

    scalers: tuple[Scaler, ...]
    filling: Filling | None = None
    projection: Projection | None = None

    def usable(self, values: Matrix) -> Any:
        """For each row of features, whether the user can be placed: nothing is missing, or something is there."""
        present = np.isfinite(values)
        return present.all(axis=1) if self.filling is None else present.any(axis=1)

    def standardize(self, values: Matrix) -> Matrix:
        """Users' values, one row each, in scaled units and without gaps.

        Raises
        ------
        DataError
            if a value whose logarithm is taken is -1 or less.
        """
        result = np.where(np.isfinite(values), values, np.nan)
        for column, scaler in enumerate(self.scalers):
            result[:, column] = scaler.scale(result[:, column])
        return result if self.filling is None else self.filling.fill(result)

    def project(self, standardized: Matrix) -> Matrix:
        """Standardized values as the points that clusters consist of."""
        return standardized if self.projection is None else self.projection.project(standardized)

    def to_plain(self) -> dict[str, Any]:
        return {
            "scalers": [{name: getattr(scaler, name) for name in Scaler.__slots__} for scaler in self.scalers],
            "filling": self.filling.to_plain() if self.filling else None,
            "projection": self.projection.to_plain() if self.projection else None,
        }

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> Preprocessing:
        """The inverse of :meth:`to_plain`.

        Raises
        ------
        ValueError, KeyError, TypeError
            if the data make no sense.
        """
        scalers = tuple(Scaler(**scaler) for scaler in content["scalers"])
        finite([[scaler.center, scaler.spread] for scaler in scalers], 2)
        if not all(scaler.spread > 0 for scaler in scalers):
            raise ValueError("its numbers make no sense")
        filling, projection = content["filling"], content["projection"]
        return cls(
            scalers,
            filling_from_plain(filling, len(scalers)) if filling else None,
            Projection.from_plain(projection, len(scalers)) if projection else None,
        )


def fit_preprocessing(definition: ClusterDefinition, values: Matrix) -> Preprocessing:
    """Learn what the definition asks for.

    Parameters
    ----------
    values
        one row per user, one column per feature; missing ones are NaN.

    Raises
    ------
    DataError
        if a feature is the same for all users, or is nowhere present.
    """
    scalers = tuple(_scaler(feature, values[:, column]) for column, feature in enumerate(definition.features))
    scaled = Preprocessing(scalers).standardize(values)
    seed = definition.method.seed
    filling = None if definition.missing == "leave_out" else fit_filling(definition.missing, scaled, seed)
    complete = scaled if filling is None else filling.fill(scaled)
    return Preprocessing(scalers, filling, _projection(definition, complete))


def _projection(definition: ClusterDefinition, complete: Matrix) -> Projection | None:
    wanted = definition.components if definition.variance is None else definition.variance
    if wanted is None or wanted == 1.0:
        return None
    from sklearn.decomposition import PCA

    found = PCA(wanted, svd_solver="full").fit(complete)
    return Projection(found.mean_, found.components_, found.explained_variance_ratio_)


def _scaler(feature: ClusterFeature, column: Matrix) -> Scaler:
    from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

    column = column[np.isfinite(column)]
    if not len(column):
        raise DataError(f"`{feature.feature}` is missing for every user", hint="remove it from clusters.yaml")
    if column.min() == column.max():
        raise DataError(
            f"`{feature.feature}` is {column[0]:g} for every user, so it tells none of them apart",
            hint="remove it from clusters.yaml",
        )
    scaled = (log1p(feature.feature, column) if feature.scale == "log" else column).reshape(-1, 1)
    if feature.scale == "min_max":
        center, spread = float(MinMaxScaler().fit(scaled).data_min_[0]), float(scaled.max() - scaled.min())
    elif feature.scale == "robust":
        robust = RobustScaler().fit(scaled)
        low, high = np.percentile(scaled, [25, 75])
        if low == high:
            raise DataError(
                f"half of all users have {low:g} as `{feature.feature}`, so the middle half has no width",
                hint=f"write `scale: standard` or `scale: log` for {feature.feature} in clusters.yaml",
            )
        center, spread = float(robust.center_[0]), float(robust.scale_[0])
    else:
        standard = StandardScaler().fit(scaled)
        center, spread = float(standard.mean_[0]), float(standard.scale_[0])
    return Scaler(feature.feature, feature.scale == "log", center, spread)


def log1p(feature: str, column: Matrix) -> Matrix:
    """log(1 + x), refused where it does not exist.

    Raises
    ------
    DataError
        if a value is -1 or less.
    """
    if (column <= -1).any():
        raise DataError(
            f"`{feature}` has the value {np.nanmin(column):g}, whose logarithm log(1 + x) does not exist",
            hint=f"write `scale: standard` for {feature} in clusters.yaml",
        )
    result: Matrix = np.log1p(column)
    return result


def column_means(features: Sequence[str], values: Matrix) -> dict[str, float]:
    """By feature, the mean of what is there."""
    with np.errstate(invalid="ignore"):
        present = np.isfinite(values)
        sums = np.where(present, values, 0.0).sum(axis=0)
    means = sums / np.maximum(present.sum(axis=0), 1)
    return dict(zip(features, map(float, means), strict=True))
