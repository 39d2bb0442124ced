"""What a user's label consists of, and which feature view can hold it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from rules_engine.clock import format_instant
from rules_engine.errors import DataError, ProjectError
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.ml.clusters.algorithms.table import algorithms
from rules_engine.ml.clusters.fitting import matrix
from rules_engine.ml.clusters.model import OUTLIER, ClusterModel
from rules_engine.rules.nodes import FeatureRef, Predicate
from rules_engine.rules.program import Program
from rules_engine.rules.walk import walk

#: What a view of labels holds.
COLUMNS = {"label": "String", "cluster": "Int64", "distance": "Float64", "model_version": "String"}

#: What it may hold too, besides ``probability_N`` for the clusters of a mixture.
MORE = {"confidence": "Float64", "outlier": "Bool"}

_PROBABILITY = re.compile(r"probability_([1-9][0-9]{0,5})\Z")


def check_view(repo: FeastRepo, name: str) -> dict[str, str]:
    """The columns of the feature view that is to hold labels. One that cannot is refused before work is done.

    Raises
    ------
    ProjectError
        if there is no such view, or its features are not those of :data:`COLUMNS`, perhaps with :data:`MORE` and
        probabilities.
    """
    views = {view.name: view for view in repo.contents.feature_views}
    wanted = ", ".join(f"{column} ({kind})" for column, kind in COLUMNS.items())
    more = ", ".join(f"{column} ({kind})" for column, kind in MORE.items())
    hint = (
        f"define a FeatureView `{name}` in feature_repo/ with the features {wanted}, and run `segments apply`; it may "
        f"also have {more}, and for a mixture probability_1 (Float64) and so on"
    )
    if name not in views:
        raise ProjectError(f"there is no feature view `{name}` to hold the labels", hint=hint)
    found = {field.name: str(field.dtype) for field in views[name].features}
    allowed = COLUMNS | MORE | {column: "Float64" for column in found if _PROBABILITY.match(column)}
    if not COLUMNS.items() <= found.items() <= allowed.items():
        shown = ", ".join(f"{column} ({kind})" for column, kind in found.items()) or "none"
        raise ProjectError(f"the feature view `{name}` holds other features than labels: {shown}", hint=hint)
    if name not in {view.name for view in repo.store.registry.list_feature_views(repo.name)}:
        raise ProjectError(f"the feature view `{name}` is not applied yet", hint="run `segments apply`")
    return found


def check_probabilities(model: ClusterModel, columns: Mapping[str, str]) -> None:
    """Refuse a view with probabilities for a model that knows none.

    Raises
    ------
    ProjectError
        if the algorithm gives no probabilities.
    """
    wanted = [column for column in columns if _PROBABILITY.match(column)]
    algorithm = model.definition.method.algorithm
    if wanted and not algorithms()[algorithm].has_probabilities:
        raise ProjectError(
            f"the feature view `{model.definition.name}` holds `{wanted[0]}`, and {algorithm} knows no probabilities",
            hint="write `algorithm: gaussian_mixture` in clusters.yaml, or remove the probabilities from the view",
        )


def label(model: ClusterModel, frame: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Each user's row of labels, and how many users have none because a feature is missing.

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
    """What is said if no user can be labelled."""
    return DataError(
        f"no user has all of the features that the model needs: {', '.join(model.features)}",
        hint=f"the model is of {format_instant(model.as_of)}; is there data for the instant you attach at?",
    )


def label_all(model: ClusterModel, frame: pd.DataFrame) -> pd.DataFrame:
    """A row of labels for each user that the model can place, with everything that a view may hold."""
    values = matrix(frame.loc[:, list(model.features)])
    usable = model.usable(values)
    found = model.assign(values[usable])
    names = np.array([*model.labels, OUTLIER], dtype=object)
    numbers = np.array([*(cluster.number for cluster in model.clusters), 0], dtype=np.int64)
    columns: dict[str, Any] = {
        "label": names[found.position],  # position -1 is the last one: no cluster
        "cluster": numbers[found.position],
        "distance": found.distance,
        "model_version": np.full(len(found.position), model.version, dtype=object),
        "confidence": found.confidence,
        "outlier": found.outlier,
    }
    if found.probabilities is not None:
        columns |= {f"probability_{number}": found.probabilities[:, at] for at, number in enumerate(numbers[:-1])}
    return pd.DataFrame(columns, index=frame.index[usable])


def unknown_labels(program: Program, model: ClusterModel) -> dict[str, list[str]]:
    """By segment, the labels that it looks for and no cluster of the model has. It would find nobody by them."""
    feature = f"{model.definition.name}:label"
    known = {*model.labels, *([OUTLIER] if model.has_outliers else [])}
    found: dict[str, list[str]] = {}
    for name, segment in program.segments.items():
        for node in walk(segment.when):
            if not isinstance(node, Predicate) or node.operator not in ("equals", "in") or node.ignore_case:
                continue
            if isinstance(node.operand, FeatureRef) and node.operand.key == feature:
                wanted = node.argument if isinstance(node.argument, tuple) else (node.argument,)
                found.setdefault(name, []).extend(label for label in wanted if label not in known)
    return {name: labels for name, labels in sorted(found.items()) if labels}
