"""The algorithms: what their columns are made of, how scikit-learn fits them, and what is exported.

Everything that is learned is learned from the rows that are given: in cross-validation, from the folds alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rules_engine.ml.propensity.batch import Matrix, Values, column_of, matrix, missing
from rules_engine.ml.propensity.definition import ModelFeature, Value
from rules_engine.rules.types import Kind, ValueType
from rules_engine.targets.scorer import ModelColumn, Scorer, Tree

#: Strings become a column for each of their most frequent values; of the others there is too little to learn from.
_MOST_VALUES = 20
_LEAST_SHARE = 0.01

_ITERATIONS = 2000


#: How many users reasons compare with: their effects then order features much as Shapley values do.
_BACKGROUND = 25


def learn(
    algorithm: str,
    parameters: Mapping[str, Value],
    features: tuple[ModelFeature, ...],
    types: Mapping[str, ValueType],
    values: Values,
    did: NDArray[np.bool_],
    seed: int,
) -> Scorer:
    """Fit an algorithm to some rows: a scorer without calibration."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # ships no types

    linear = algorithm == "logistic_regression"
    kinds = {feature: types[feature.feature].kind for feature in features}
    columns = tuple(column for each in features for column in _columns(each, kinds[each], values, linear=linear))
    estimator = _estimator(algorithm, parameters, seed)
    # Threads would add up in varying order, and the last digits would vary with it.
    with threadpool_limits(limits=1):
        rows = matrix(columns, values)
        estimator.fit(rows, did)
    drawn = np.random.default_rng(seed).choice(len(rows), min(_BACKGROUND, len(rows)), replace=False)
    background = tuple(tuple(map(float, row)) for row in rows[np.sort(drawn)])
    typical = {each.feature: _typical(kinds[each], values[each.feature]) for each in features}
    return Scorer("", algorithm, columns, **_EXPORTS[algorithm](estimator), typical=typical, background=background)


def _estimator(algorithm: str, parameters: Mapping[str, Value], seed: int) -> Any:
    if algorithm == "logistic_regression":
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(max_iter=_ITERATIONS, **parameters)
    if algorithm == "random_forest":
        from sklearn.ensemble import RandomForestClassifier

        return RandomForestClassifier(random_state=seed, **parameters)
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(random_state=seed, early_stopping=False, **parameters)


# --- columns --------------------------------------------------------------------------------------------------------


def _columns(feature: ModelFeature, kind: Kind, values: Values, *, linear: bool) -> list[ModelColumn]:
    own = values[feature.feature]
    gone = missing(own)
    if kind is Kind.STRING:
        columns = [ModelColumn(feature.feature, "category", value=value) for value in _frequent(own)]
    else:
        name = "flag" if kind is Kind.BOOLEAN else "age" if kind is Kind.TIME else "number"
        log = linear and feature.scale == "log"  # a tree's splits are the same for every increasing scale
        if log:
            gone = gone | (np.nan_to_num(own, nan=0.0) <= -1)
        fill = float(np.median(own[~gone])) if not gone.all() else 0.0
        columns = [ModelColumn(feature.feature, name, log=log, fill=fill)]
    if gone.any() and not gone.all():
        columns.append(ModelColumn(feature.feature, "missing", log=linear and feature.scale == "log"))
    return [_finished(column, column_of(column, values), linear=linear) for column in columns]


def _finished(column: ModelColumn, values: Matrix, *, linear: bool) -> ModelColumn:
    deviation = float(values.std()) if linear else 1.0
    mean = float(values.mean()) if linear else 0.0
    deviation = deviation if deviation > 0 else 1.0
    return replace(column, mean=mean, deviation=deviation, typical=(float(np.median(values)) - mean) / deviation)


def _frequent(values: NDArray[Any]) -> list[str]:
    names, counts = np.unique(values[~missing(values)].astype(str), return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_MOST_VALUES]
    return [str(names[at]) for at in order if counts[at] >= _LEAST_SHARE * len(values)]


def _typical(kind: Kind, values: NDArray[Any]) -> Any:
    """Return a typical value, for people: the median, or the most frequent value."""
    there = values[~missing(values)]
    if not len(there) or len(there) * 2 < len(values):
        return None
    if kind is Kind.STRING:
        frequent = _frequent(values)
        return frequent[0] if frequent else None
    median = float(np.median(there))
    return bool(median >= 0.5) if kind is Kind.BOOLEAN else median


# --- what is kept of a fit -------------------------------------------------------------------------------------------


def _export_linear(estimator: Any) -> dict[str, Any]:
    return {"intercept": float(estimator.intercept_[0]), "weights": tuple(map(float, estimator.coef_[0]))}


def _export_forest(estimator: Any) -> dict[str, Any]:
    trees = []
    for fitted in estimator.estimators_:
        tree = fitted.tree_
        share = tree.value[:, 0, 1] / tree.value[:, 0, :].sum(axis=1)
        is_leaf = tree.children_left < 0
        trees.append(
            _tree(
                is_leaf,
                tree.feature,
                tree.threshold,
                tree.children_left,
                tree.children_right,
                np.where(is_leaf, share, 0),
            )
        )
    return {"trees": tuple(trees)}


def _export_boosting(estimator: Any) -> dict[str, Any]:
    trees = []
    for (predictor,) in estimator._predictors:  # noqa: SLF001  # scikit-learn has no public view of these trees
        nodes = predictor.nodes
        is_leaf = nodes["is_leaf"].astype(bool)
        value = np.where(is_leaf, nodes["value"], 0.0)
        trees.append(_tree(is_leaf, nodes["feature_idx"], nodes["num_threshold"], nodes["left"], nodes["right"], value))
    return {"intercept": float(estimator._baseline_prediction.ravel()[0]), "trees": tuple(trees)}  # noqa: SLF001


def _tree(is_leaf: Any, column: Any, threshold: Any, left: Any, right: Any, value: Any) -> Tree:
    return Tree(
        column=tuple(np.where(is_leaf, 0, column).tolist()),
        threshold=tuple(np.where(is_leaf, 0.0, threshold).tolist()),
        left=tuple(np.where(is_leaf, -1, left.astype(np.int64)).tolist()),
        right=tuple(np.where(is_leaf, -1, right.astype(np.int64)).tolist()),
        value=tuple(value.tolist()),
    )


_EXPORTS = {
    "logistic_regression": _export_linear,
    "random_forest": _export_forest,
    "gradient_boosting": _export_boosting,
}
