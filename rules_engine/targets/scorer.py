"""A fitted model as plain numbers, and the score of one entity: computed in a request without any library.

Models that scikit-learn fitted are exported as weights, or as arrays that hold trees. ``ml/propensity/batch.py``
computes the scores of many entities with numpy, with the same operations in the same order: both give the same bits.
"""

from __future__ import annotations

import math
import struct
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rules_engine.clock import DAY

#: Log odds beyond which a probability is 0 or 1 as a float.
_STEEPEST = 700.0

_FLOAT32 = struct.Struct("f")


@dataclass(frozen=True, slots=True)
class ModelColumn:
    """One input number of a model, made from a feature.

    Attributes
    ----------
    feature
        ``VIEW:NAME``.
    kind
        ``number``; ``flag`` (0 or 1); ``age`` (days since a time); ``category`` (1 if the value is ``value``);
        ``missing`` (1 if there is none).
    log
        whether log(1 + x) is taken. If that does not exist, the value counts as missing.
    fill
        the replacement of a missing value, before the logarithm.
    mean, deviation
        the column is (x - mean) / deviation. Trees need neither: 0 and 1.
    typical
        the finished column of a typical entity, with which reasons compare.
    """

    feature: str
    kind: str
    log: bool = False
    value: str = ""
    fill: float = 0.0
    mean: float = 0.0
    deviation: float = 1.0
    typical: float = 0.0

    def of(self, value: Any, now: int) -> float:
        """Return the column for a feature's value; None is a missing one.

        >>> ModelColumn("v:n", "number", log=True, fill=1.0).of(0, now=0)
        0.0
        """
        number = number_of(self.kind, value, now)
        if self.kind == "category":
            x = 1.0 if value == self.value else 0.0
        elif self.kind == "missing":
            x = 1.0 if value is None or number is None or (self.log and number <= -1) else 0.0
        else:
            x = self.fill if number is None or (self.log and number <= -1) else number
            x = math.log1p(x) if self.log else x
        return (x - self.mean) / self.deviation


def number_of(kind: str, value: Any, now: int) -> float | None:
    """Return a feature's value as the number that a column starts from; None if it is missing."""
    if value is None:
        return None
    if kind == "age":
        return float((now - value) / DAY)
    if isinstance(value, str):
        return 0.0
    number = float(value)
    return number if math.isfinite(number) else None


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree as arrays, one entry per node, the root first. A leaf has -1 in ``left``.

    A row goes left if its column is at most the threshold.
    """

    column: Sequence[int]
    threshold: Sequence[float]
    left: Sequence[int]
    right: Sequence[int]
    value: Sequence[float]

    def of(self, row: Sequence[float]) -> float:
        """Return the value of the leaf that a row falls into.

        >>> Tree((0, 0, 0), (1.5, 0, 0), (1, -1, -1), (2, -1, -1), (0.0, 0.1, 0.9)).of([2.0])
        0.9
        """
        left, node = self.left, 0
        while left[node] >= 0:
            node = left[node] if row[self.column[node]] <= self.threshold[node] else self.right[node]
        return self.value[node]


@dataclass(frozen=True, slots=True)
class FeatureEffect:
    """The effect of one feature on a score: the mean difference to the score with other users' values."""

    feature: str
    value: Any
    typical: Any
    effect: float


@dataclass(frozen=True, slots=True)
class Scorer:
    """A model that scores.

    Attributes
    ----------
    version
        the version of the model.
    algorithm
        ``logistic_regression``, ``random_forest`` or ``gradient_boosting``.
    columns
        the inputs.
    intercept, weights
        of a linear model; the intercept is also the start of boosting.
    trees
        of a forest or of boosting.
    calibration
        ``none``; ``sigmoid``, with ``knots`` (slope, intercept); ``isotonic``, with ``knots`` and ``levels``.
    quantiles
        of the scores in the test, lowest first; percentiles are relative to them.
    typical
        the value of a typical entity, by feature, to be shown.
    background
        the columns of some entities that the model learned from, with which reasons compare.
    """

    version: str
    algorithm: str
    columns: tuple[ModelColumn, ...]
    intercept: float = 0.0
    weights: tuple[float, ...] = ()
    trees: tuple[Tree, ...] = ()
    calibration: str = "none"
    knots: tuple[float, ...] = ()
    levels: tuple[float, ...] = ()
    quantiles: tuple[float, ...] = ()
    typical: Mapping[str, Any] = field(default_factory=dict)
    background: tuple[tuple[float, ...], ...] = ()

    @property
    def features(self) -> tuple[str, ...]:
        """Return the features that the score is made of."""
        return tuple(dict.fromkeys(column.feature for column in self.columns))

    def row(self, values: Mapping[str, Any], now: int) -> list[float] | None:
        """Return the columns for an entity's values; None if all are missing, as there is no score then."""
        if all(values.get(feature) is None for feature in self.features):
            return None
        return [column.of(values.get(column.feature), now) for column in self.columns]

    def score(self, values: Mapping[str, Any], now: int) -> float | None:
        """Return the probability of the event that the model predicts; None if all of the features are missing.

        Parameters
        ----------
        values
            by feature; None, or absent, is missing. Times are microseconds.
        now
            the instant, in microseconds.

        >>> scorer = Scorer("v1", "logistic_regression", (ModelColumn("v:n", "number"),), weights=(2.0,))
        >>> scorer.score({"v:n": 0}, now=0), scorer.score({}, now=0)
        (0.5, None)
        """
        row = self.row(values, now)
        return None if row is None else self.probability(self.raw(row))

    def raw(self, row: Sequence[float]) -> float:
        """Return the uncalibrated result: log odds, or for a forest a share of votes."""
        if self.algorithm == "logistic_regression":
            total = self.intercept
            for weight, x in zip(self.weights, row, strict=True):
                total += weight * x
            return total
        if self.algorithm == "random_forest":
            row = [_FLOAT32.unpack(_FLOAT32.pack(x))[0] for x in row]
        total = self.intercept
        for tree in self.trees:
            total += tree.of(row)
        return total / len(self.trees) if self.algorithm == "random_forest" else total

    def probability(self, raw: float) -> float:
        """Return the calibrated probability."""
        if self.calibration == "isotonic":
            return interpolated(self.knots, self.levels, raw)
        if self.calibration == "sigmoid":
            return expit(self.knots[0] * raw + self.knots[1])
        return raw if self.algorithm == "random_forest" else expit(raw)

    def percentile(self, score: float) -> float:
        """Return the share of entities in the test whose score was lower, from 0 to 1.

        >>> Scorer("v1", "random_forest", (), quantiles=(0.0, 0.2, 1.0)).percentile(0.1)
        0.25
        """
        steps = len(self.quantiles) - 1
        at = bisect_right(self.quantiles, score)
        if at == 0:
            return 0.0
        if at > steps:
            return 1.0
        low, high = self.quantiles[at - 1], self.quantiles[at]
        return (at - 1 + (score - low) / (high - low)) / steps

    def reasons(self, values: Mapping[str, Any], now: int) -> list[FeatureEffect]:
        """Return the effect of each feature on an entity's score, the strongest first; empty if there is no score.

        The score is computed with the values that a feature has for other entities: the mean difference is the effect
        of the feature. M. Robnik-Šikonja and I. Kononenko, "Explaining classifications for individual instances", IEEE
        Transactions on Knowledge and Data Engineering 20 (2008), 589-600. It works the same way for every model; the
        effects of features that act together need not add up to the whole. A model that was stored without a background
        compares with typical values.
        """
        row = self.row(values, now)
        if row is None:
            return []
        score = self.probability(self.raw(row))
        effects = []
        others = self.background or (tuple(column.typical for column in self.columns),)
        for feature in self.features:
            own = [column.feature == feature for column in self.columns]
            scores = [
                self.probability(
                    self.raw([theirs if mine else x for mine, theirs, x in zip(own, other, row, strict=True)])
                )
                for other in others
            ]
            effect = score - math.fsum(scores) / len(scores)
            effects.append(FeatureEffect(feature, values.get(feature), self.typical.get(feature), effect))
        return sorted(effects, key=lambda reason: -abs(reason.effect))

    # --- plain data --------------------------------------------------------------------------------------------------

    def to_plain(self) -> dict[str, Any]:
        """Return the scorer as data for JSON."""
        return {
            "version": self.version,
            "algorithm": self.algorithm,
            "columns": [_fields(column) for column in self.columns],
            "intercept": self.intercept,
            "weights": list(self.weights),
            "trees": [{name: list(getattr(tree, name)) for name in _TREE} for tree in self.trees],
            "calibration": self.calibration,
            "knots": list(self.knots),
            "levels": list(self.levels),
            "quantiles": list(self.quantiles),
            "typical": dict(self.typical),
            "background": [list(row) for row in self.background],
        }

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> Scorer:
        """Return the inverse of :meth:`to_plain`.

        Raises
        ------
        ValueError, KeyError, TypeError
            if the data is no scorer, or has numbers that no fit gives.
        """
        scorer = cls(
            **{
                **content,
                "columns": tuple(ModelColumn(**column) for column in content["columns"]),
                "trees": tuple(Tree(**{name: tuple(tree[name]) for name in _TREE}) for tree in content["trees"]),
                **{name: tuple(map(float, content[name])) for name in ("weights", "knots", "levels", "quantiles")},
                "background": tuple(tuple(map(float, row)) for row in content.get("background", ())),
            }
        )
        scorer.check()
        return scorer

    def check(self) -> None:
        """Refuse numbers that no fit gives, so that a damaged file gives neither scores nor an endless loop.

        Raises
        ------
        ValueError
            with what is wrong.
        """
        numbers = [self.intercept, *self.weights, *self.knots, *self.levels, *self.quantiles]
        numbers += [x for column in self.columns for x in (column.fill, column.mean, column.deviation, column.typical)]
        if not all(map(math.isfinite, numbers)) or any(column.deviation <= 0 for column in self.columns):
            raise ValueError("its numbers make no sense")
        if any(len(row) != len(self.columns) or not all(map(math.isfinite, row)) for row in self.background):
            raise ValueError("its background and columns do not fit together")
        if self.algorithm == "logistic_regression" and len(self.weights) != len(self.columns):
            raise ValueError("its weights and columns do not fit together")
        if self.algorithm == "random_forest" and not self.trees:
            raise ValueError("it is a forest without trees")
        for tree in self.trees:
            _check_tree(tree, len(self.columns))


_TREE = ("column", "threshold", "left", "right", "value")


def _check_tree(tree: Tree, columns: int) -> None:
    """Refuse a tree whose walks might not end: a child must come after its parent."""
    size = len(tree.left)
    if not size or any(len(getattr(tree, name)) != size for name in _TREE):
        raise ValueError("a tree of it is cut off")
    for node, (left, right, column) in enumerate(zip(tree.left, tree.right, tree.column, strict=True)):
        if left >= 0 and not (node < left < size and node < right < size and 0 <= column < columns):
            raise ValueError("a tree of it leads nowhere")


def expit(x: float) -> float:
    """Return 1 / (1 + exp(-x)).

    >>> expit(0.0), expit(-1e6)
    (0.5, 0.0)
    """
    if x < -_STEEPEST:
        return 0.0
    return 1.0 / (1.0 + math.exp(-x)) if x < _STEEPEST else 1.0


def interpolated(knots: Sequence[float], levels: Sequence[float], x: float) -> float:
    """Return the value at x of the line through the knots, which is level beyond its ends.

    >>> interpolated((0.0, 2.0), (0.1, 0.3), 1.0)
    0.2
    """
    at = bisect_right(knots, x)
    if at == 0:
        return levels[0]
    if at == len(knots):
        return levels[-1]
    low, high = knots[at - 1], knots[at]
    return levels[at - 1] + (levels[at] - levels[at - 1]) * ((x - low) / (high - low))


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}
