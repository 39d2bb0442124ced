"""Baselines that a model has to beat: recency and frequency alone, in two ways.

``cells`` is the marketer's table: users in five classes of recency by five of frequency, each cell scored with the
share of its users who did it before (A. M. Hughes, "Strategic Database Marketing", 1994; J. R. Bult and T. Wansbeek,
"Optimal selection for direct mail", Marketing Science 14 (1995), 378-394). ``regression`` is a logistic regression on
the two numbers and their logarithms: the same knowledge, without classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rules_engine.ml.propensity.batch import Matrix
from rules_engine.ml.propensity.definition import ModelDefinition
from rules_engine.ml.propensity.training import TrainingRows

_CLASSES = 5


def baselines(definition: ModelDefinition, train: TrainingRows, test: TrainingRows) -> dict[str, Matrix]:
    """Return the test rows' scores by recency and frequency alone, learned from the training rows, by name."""
    names = (definition.recency, definition.frequency)
    middle = [float(np.nanmedian(train.values[name])) if _any(train, name) else 0.0 for name in names]
    learned, judged = (
        np.column_stack([np.nan_to_num(rows.values[name], nan=fill) for name, fill in zip(names, middle, strict=True)])
        for rows in (train, test)
    )
    return {"cells": _cells(learned, train.did, judged), "regression": _regression(learned, train.did, judged)}


def _any(rows: TrainingRows, name: str) -> bool:
    return bool(np.isfinite(rows.values[name]).any())


def _cells(learned: Matrix, did: NDArray[np.bool_], judged: Matrix) -> Matrix:
    steps = np.linspace(0, 1, _CLASSES + 1)[1:-1]
    edges = [np.unique(np.quantile(learned[:, column], steps)) for column in (0, 1)]
    old, new = (
        np.searchsorted(edges[0], rows[:, 0]) * (_CLASSES + 1) + np.searchsorted(edges[1], rows[:, 1])
        for rows in (learned, judged)
    )
    size = (_CLASSES + 1) ** 2
    counts = np.bincount(old, minlength=size)
    rates = np.bincount(old, weights=did, minlength=size) / np.maximum(counts, 1)
    estimates: Matrix = np.where(counts > 0, rates, did.mean())[new]
    return estimates


def _regression(learned: Matrix, did: NDArray[np.bool_], judged: Matrix) -> Matrix:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(_with_logs(learned), did)
    estimates: Matrix = fitted.predict_proba(_with_logs(judged))[:, 1]
    return estimates


def _with_logs(rows: Matrix) -> Matrix:
    return np.column_stack([rows, np.log1p(np.maximum(rows, 0))])
