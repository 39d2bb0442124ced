"""From users' features to points that can be compared: scaled, without gaps, and perhaps fewer dimensions.

scikit-learn fits every step. What it learned is plain numbers, and NumPy applies them: the same for everyone, whenever
they come.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rules_engine.errors import DataError
from rules_engine.ml.clusters.arrays import EqualByContent, Matrix, encode, finite
from rules_engine.ml.clusters.definition import ClusterDefinition, ClusterFeature
from rules_engine.ml.clusters.preparation.filling import Filling, filling_from_plain, fit_filling
from rules_engine.ml.transforms.columns import transforms

#: Values farther apart than this, in scaled units, have squares that cannot be added up.
_FARTHEST = 1e100


@dataclass(frozen=True, slots=True)
class Scaler:
    """Makes one feature comparable with the others: its transform, minus ``center``, by ``spread``.

    Center and spread are mean and deviation, median and interquartile range, or least value and range.

    Attributes
    ----------
    transform
        the name of a transform of the column; empty for none.
    learned
        what the transform has to know.
    """

    feature: str
    transform: str
    center: float
    spread: float
    learned: Mapping[str, float] = field(default_factory=dict)

    def scale(self, column: Matrix) -> Matrix:
        """Return the column in scaled units.

        Raises
        ------
        DataError
            if a value cannot be transformed.
        """
        result: Matrix = (transformed(self.feature, self.transform, column, self.learned) - self.center) / self.spread
        return result

    def unscale(self, column: Matrix) -> Matrix:
        """Return the inverse of :meth:`scale`."""
        plain: Matrix = column * self.spread + self.center
        return transforms()[self.transform].invert(plain, self.learned) if self.transform else plain

    def to_plain(self) -> dict[str, Any]:
        """Return the scaler as data for JSON."""
        log = self.transform == "log"
        brought = {} if log or not self.transform else {"transform": self.transform, "learned": dict(self.learned)}
        return {"feature": self.feature, "log": log, "center": self.center, "spread": self.spread, **brought}

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> Scaler:
        """Return the scaler of plain data.

        Raises
        ------
        ValueError, KeyError, TypeError
            if the data make no sense, or name a transform that is not installed.
        """
        transform = "log" if content["log"] else content.get("transform", "")
        if transform and transform not in transforms():
            raise ValueError(f"it needs the transform `{transform}`, which no installed package brings")
        return cls(content["feature"], transform, content["center"], content["spread"], content.get("learned", {}))


@dataclass(frozen=True, slots=True, eq=False)
class PrincipalComponents(EqualByContent):
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
    def from_plain(cls, content: Mapping[str, Any], features: int) -> PrincipalComponents:
        """Return the inverse of :meth:`to_plain`.

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
    projection: PrincipalComponents | None = None

    def usable(self, values: Matrix) -> Any:
        """Return for each row whether the user can be placed: nothing is missing, or gaps are filled."""
        present = np.isfinite(values)
        return present.all(axis=1) if self.filling is None else present.any(axis=1)

    def standardize(self, values: Matrix) -> Matrix:
        """Return users' values, one row each, in scaled units and without gaps.

        Raises
        ------
        DataError
            if a value cannot be transformed.
        """
        result = np.where(np.isfinite(values), values, np.nan)
        for column, scaler in enumerate(self.scalers):
            result[:, column] = scaler.scale(result[:, column])
        # Who comes later may be farther away than anyone who was fitted.
        result = np.clip(result, -_FARTHEST, _FARTHEST)
        return result if self.filling is None else self.filling.fill(result)

    def project(self, standardized: Matrix) -> Matrix:
        """Return standardized values as the points that clusters consist of."""
        return standardized if self.projection is None else self.projection.project(standardized)

    def to_plain(self) -> dict[str, Any]:
        return {
            "scalers": [scaler.to_plain() for scaler in self.scalers],
            "filling": self.filling.to_plain() if self.filling else None,
            "projection": self.projection.to_plain() if self.projection else None,
        }

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> Preprocessing:
        """Return the inverse of :meth:`to_plain`.

        Raises
        ------
        ValueError, KeyError, TypeError
            if the data make no sense.
        """
        scalers = tuple(map(Scaler.from_plain, content["scalers"]))
        finite([[scaler.center, scaler.spread] for scaler in scalers], 2)
        if not all(scaler.spread > 0 for scaler in scalers):
            raise ValueError("its numbers make no sense")
        filling, projection = content["filling"], content["projection"]
        return cls(
            scalers,
            filling_from_plain(filling, len(scalers)) if filling else None,
            PrincipalComponents.from_plain(projection, len(scalers)) if projection else None,
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


def _projection(definition: ClusterDefinition, complete: Matrix) -> PrincipalComponents | None:
    components = definition.components if definition.variance is None else definition.variance
    if components is None or components == 1.0:
        return None
    from sklearn.decomposition import PCA

    pca = PCA(components, svd_solver="full").fit(complete)
    return PrincipalComponents(pca.mean_, pca.components_, pca.explained_variance_ratio_)


def _scaler(feature: ClusterFeature, column: Matrix) -> Scaler:
    users = len(column)
    column = column[np.isfinite(column)]
    if not len(column):
        raise nowhere_present(feature.feature, users)
    if column.min() == column.max():
        raise DataError(
            f"`{feature.feature}` is {column[0]:g} for every user, so it tells none of them apart",
            hint="remove it from clusters.yaml",
        )
    transform = feature.scale if feature.scale in transforms() else ""
    learned = transforms()[transform].learn(column) if transform else {}
    scaled = transformed(feature.feature, transform, column, learned).reshape(-1, 1)
    with np.errstate(over="ignore", invalid="ignore"):
        center, spread = _CENTERS.get(feature.scale, _standard)(feature, scaled)
        far = np.abs((scaled - center) / spread).max()
    if not (np.isfinite(center) and 0 < spread < np.inf and far <= _FARTHEST):
        others = " or ".join(f"`scale: {name}`" for name in ("log", "min_max") if name != feature.scale)
        raise DataError(
            f"`{feature.feature}` reaches from {column.min():g} to {column.max():g}, too far to be compared by "
            f"`scale: {feature.scale}`",
            hint=f"is that value right? else write {others} for {feature.feature} in clusters.yaml",
        )
    return Scaler(feature.feature, transform, float(center), float(spread), learned)


def nowhere_present(feature: str, users: int) -> DataError:
    """Return the error for a feature that no entity has."""
    return DataError(
        f"`{feature}` is missing for all {users:,} users",
        hint="is its feature view built for this instant? else remove it from clusters.yaml",
    )


def _standard(_feature: ClusterFeature, scaled: Matrix) -> tuple[float, float]:
    from sklearn.preprocessing import StandardScaler

    # The mean of huge values is infinite, which scikit-learn would refuse without naming the feature.
    if not np.isfinite(np.square(scaled).sum()):
        return np.nan, np.nan
    scaler = StandardScaler().fit(scaled)
    return float(scaler.mean_[0]), float(scaler.scale_[0])


def _min_max(_feature: ClusterFeature, scaled: Matrix) -> tuple[float, float]:
    return float(scaled.min()), float(scaled.max() - scaled.min())


def _robust(feature: ClusterFeature, scaled: Matrix) -> tuple[float, float]:
    from sklearn.preprocessing import RobustScaler

    low, high = np.percentile(scaled, [25, 75])
    if low == high:
        raise DataError(
            f"half of all users have {low:g} as `{feature.feature}`, so the middle half has no width",
            hint=f"write `scale: standard` or `scale: log` for {feature.feature} in clusters.yaml",
        )
    scaler = RobustScaler().fit(scaled)
    return float(scaler.center_[0]), float(scaler.scale_[0])


#: By scale, what gives center and spread; of transformed columns, mean and deviation.
_CENTERS = {"standard": _standard, "min_max": _min_max, "robust": _robust}


def transformed(feature: str, transform: str, column: Matrix, learned: Mapping[str, float]) -> Matrix:
    """Return the column by a transform; without a name, as it is.

    Raises
    ------
    DataError
        if a value cannot be transformed.
    """
    if not transform:
        return column
    method = transforms()[transform]
    possible = method.defined(column) | np.isnan(column)
    if not possible.all():
        raise DataError(
            f"`{feature}` has the value {column[~possible].min():g}, for which `scale: {transform}` is not defined "
            f"({(method.__doc__ or '').splitlines()[0].rstrip('.')})",
            hint=f"write `scale: standard` for {feature} in clusters.yaml",
        )
    return method.apply(column, learned)


def column_means(features: Sequence[str], values: Matrix) -> dict[str, float]:
    """Return the mean of each feature's present values."""
    with np.errstate(invalid="ignore"):
        present = np.isfinite(values)
        sums = np.where(present, values, 0.0).sum(axis=0)
    means = sums / np.maximum(present.sum(axis=0), 1)
    return dict(zip(features, map(float, means), strict=True))
