"""Many users' scores: the same numbers as :mod:`scorer` gives one by one, computed with numpy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rules_engine.clock import DAY
from rules_engine.features.offline.point_in_time import row_instant
from rules_engine.rules.types import Kind, ValueType
from rules_engine.targets.scorer import ModelColumn, Scorer, Tree, expit

Matrix = NDArray[np.float64]

#: By feature: numbers, truths and times (as days ago) as floats, NaN for missing; strings as objects, None for missing.
Values = Mapping[str, NDArray[Any]]


def values_of(batch: pa.RecordBatch, types: Mapping[str, ValueType], ttl: Mapping[str, int], now: int) -> Values:
    """Some features of a batch of users, as of an instant; past its view's ttl a value is missing."""
    by_feature: dict[str, NDArray[Any]] = {}
    expired: dict[str, NDArray[np.bool_]] = {}
    for name, value_type in types.items():
        view = name.partition(":")[0]
        if view in ttl and view not in expired:
            instants = batch.column(row_instant(view)).cast(pa.timestamp("us", "UTC")).cast(pa.int64())
            expired[view] = pc.fill_null(pc.less(instants, now - ttl[view]), True).to_numpy(zero_copy_only=False)
        values = _values(batch.column(name), value_type.kind, now)
        if view in expired:
            values[expired[view]] = None if value_type.kind is Kind.STRING else np.nan
        by_feature[name] = values
    return by_feature


def _values(column: pa.Array, kind: Kind, now: int) -> NDArray[Any]:
    if kind is Kind.STRING:
        strings: NDArray[Any] = np.array(column.to_pylist(), dtype=object)
        return strings
    missing = column.is_null().to_numpy(zero_copy_only=False)
    if kind is Kind.TIME:
        micros = pc.fill_null(column.cast(pa.timestamp("us", "UTC")).cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
        numbers = (now - micros) / np.float64(DAY)
    else:
        numbers = pc.fill_null(column.cast(pa.float64(), safe=False), 0.0).to_numpy(zero_copy_only=False).copy()
        numbers[~np.isfinite(numbers)] = np.nan
    numbers[missing] = np.nan
    result: Matrix = numbers
    return result


def missing(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which of a feature's values are missing."""
    if values.dtype == object:
        return np.array([value is None for value in values], dtype=np.bool_)
    is_missing: NDArray[np.bool_] = np.isnan(values)
    return is_missing


def anything(values: Values, features: tuple[str, ...]) -> NDArray[np.bool_]:
    """Return which users have at least one of the features, and so a score."""
    has_any: NDArray[np.bool_] = ~np.logical_and.reduce([missing(values[feature]) for feature in features])
    return has_any


def column_of(column: ModelColumn, values: Values) -> Matrix:
    """Return a model's column for all users, before it is standardized."""
    own = values[column.feature]
    if column.kind == "category":
        return np.array([1.0 if value == column.value else 0.0 for value in own])
    gone = missing(own)
    if column.log:
        gone = gone | (np.nan_to_num(own, nan=0.0) <= -1)
    if column.kind == "missing":
        return gone.astype(np.float64)
    filled = np.where(gone, column.fill, own)
    return _each(math.log1p, filled) if column.log else filled


def matrix(columns: tuple[ModelColumn, ...], values: Values) -> Matrix:
    """Return the columns of all users, finished."""
    finished = [(column_of(column, values) - column.mean) / column.deviation for column in columns]
    return np.column_stack(finished)


def raw(scorer: Scorer, rows: Matrix) -> Matrix:
    """Return each row's uncalibrated result."""
    total = np.full(len(rows), scorer.intercept)
    if scorer.algorithm == "logistic_regression":
        for at, weight in enumerate(scorer.weights):
            total += weight * rows[:, at]
        return total
    if scorer.algorithm == "random_forest":
        rows = rows.astype(np.float32).astype(np.float64)
    rows = np.asfortranarray(rows)
    for tree in scorer.trees:
        total += _leaves(tree, rows)
    return total / len(scorer.trees) if scorer.algorithm == "random_forest" else total


def probabilities(scorer: Scorer, values: Matrix) -> Matrix:
    """Return calibrated probabilities."""
    return _each(scorer.probability, values)


def scores(scorer: Scorer, values: Values) -> tuple[Matrix, Matrix, NDArray[np.bool_]]:
    """Return every user's score and percentile, and who has one."""
    scored = anything(values, scorer.features)
    score = probabilities(scorer, raw(scorer, matrix(scorer.columns, values)))
    return score, _each(scorer.percentile, score), scored


def _leaves(tree: Tree, rows: Matrix) -> Matrix:
    """Return each row's leaf value: all rows go down a level at a time."""
    here = np.arange(len(tree.left))
    left, right = np.array(tree.left), np.array(tree.right)
    is_leaf = left < 0
    left, right = np.where(is_leaf, here, left), np.where(is_leaf, here, right)
    column, threshold, value = np.array(tree.column), np.array(tree.threshold), np.array(tree.value)
    flat, size = rows.ravel(order="F"), len(rows)
    position, at = np.arange(size), np.zeros(size, dtype=np.int64)
    for _ in range(_depth(tree)):
        goes_left = flat[column[at] * size + position] <= threshold[at]
        at = np.where(goes_left, left[at], right[at])
    leaves: Matrix = value[at]
    return leaves


def _depth(tree: Tree) -> int:
    depth = [0] * len(tree.left)
    for node, left in enumerate(tree.left):
        if left >= 0:
            depth[left] = depth[tree.right[node]] = depth[node] + 1
    return max(depth)


def _each(function: Callable[[float], float], values: Matrix) -> Matrix:
    """Return a function of one number for many: numpy's own may differ from it in the last bit."""
    return np.fromiter(map(function, values.tolist()), np.float64, len(values))


__all__ = ["Matrix", "Values", "anything", "expit", "matrix", "missing", "probabilities", "raw", "scores", "values_of"]
