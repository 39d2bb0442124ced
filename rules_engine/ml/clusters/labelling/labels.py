"""Make rows of labels, and find segments that look for labels which do not exist."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from rules_engine.clock import format_instant
from rules_engine.errors import DataError, ProjectError
from rules_engine.ml.clusters.algorithms.table import algorithms
from rules_engine.ml.clusters.fitting import matrix
from rules_engine.ml.clusters.model import OUTLIER, ClusterModel
from rules_engine.ml.filled_view import LABELS
from rules_engine.rules.nodes import FeatureRef, Predicate
from rules_engine.rules.program import Program
from rules_engine.rules.walk import walk


def check_probabilities(model: ClusterModel, columns: Mapping[str, str]) -> None:
    """Refuse a view with probabilities for a model that knows none.

    Raises
    ------
    ProjectError
        if the algorithm gives no probabilities.
    """
    assert LABELS.pattern is not None
    probability_columns = [column for column in columns if LABELS.pattern.match(column)]
    algorithm = model.definition.method.algorithm
    if probability_columns and not algorithms()[algorithm].has_probabilities:
        raise ProjectError(
            f"the feature view `{model.definition.name}` holds `{probability_columns[0]}`, and {algorithm} knows no "
            "probabilities",
            hint="write `algorithm: gaussian_mixture` in clusters.yaml, or remove the probabilities from the view",
        )


def label(model: ClusterModel, frame: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Return each user's row of labels, and how many users have none because a feature is missing.

    Raises
    ------
    DataError
        if nobody is left.
    """
    labels = label_all(model, frame)
    if not len(labels):
        raise nobody(model)
    return labels, len(frame) - len(labels)


def nobody(model: ClusterModel) -> DataError:
    """Return the error for a model that can label no user."""
    return DataError(
        f"no user has all of the features that the model needs: {', '.join(model.features)}",
        hint=f"the model is of {format_instant(model.as_of)}; is there data for the instant you attach at?",
    )


def label_all(model: ClusterModel, frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row of labels for each user that the model can place, with everything that a view may hold."""
    values = matrix(frame.loc[:, list(model.features)])
    usable = model.usable(values)
    assigned = model.assign(values[usable])
    names = np.array([*model.labels, OUTLIER], dtype=object)
    numbers = np.array([*(cluster.number for cluster in model.clusters), 0], dtype=np.int64)
    columns: dict[str, Any] = {
        "label": names[assigned.position],  # position -1 is the last one: no cluster
        "cluster": numbers[assigned.position],
        "distance": assigned.distance,
        "model_version": np.full(len(assigned.position), model.version, dtype=object),
        "confidence": assigned.confidence,
        "outlier": assigned.outlier,
    }
    if assigned.probabilities is not None:
        columns |= {f"probability_{number}": assigned.probabilities[:, at] for at, number in enumerate(numbers[:-1])}
    return pd.DataFrame(columns, index=frame.index[usable])


def unknown_labels(program: Program, model: ClusterModel) -> dict[str, list[str]]:
    """Return, by segment, the labels that it looks for and no cluster has: it would find nobody by them."""
    feature = f"{model.definition.name}:label"
    existing = {*model.labels, *([OUTLIER] if model.has_outliers else [])}
    unknown: dict[str, list[str]] = {}
    for name, segment in program.segments.items():
        for node in walk(segment.when):
            if not isinstance(node, Predicate) or node.operator not in ("equals", "in") or node.ignore_case:
                continue
            if isinstance(node.operand, FeatureRef) and node.operand.key == feature:
                compared = node.argument if isinstance(node.argument, tuple) else (node.argument,)
                unknown.setdefault(name, []).extend(label for label in compared if label not in existing)
    return {name: labels for name, labels in sorted(unknown.items()) if labels}
