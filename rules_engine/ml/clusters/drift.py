"""Drift: how far today's users are from those that a model was fitted to.

Measures: the population stability index and the Kolmogorov-Smirnov statistic of each feature, and the clusters' shares.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from rules_engine.errors import DataError
from rules_engine.ml.clusters.fitting import matrix
from rules_engine.ml.clusters.model import OUTLIER, ClusterModel
from rules_engine.ml.clusters.reference import psi
from rules_engine.ml.drift import Drift


def cluster_drift(model: ClusterModel, pieces: Iterable[pd.DataFrame]) -> list[Drift]:
    """Measure how far users have drifted since a clustering was fitted.

    Parameters
    ----------
    model
        what they were like then.
    pieces
        everyone's features now, or those of a sample, in one or more frames.

    Raises
    ------
    DataError
        if there are no users.
    """
    values = [matrix(frame.loc[:, list(model.features)]) for frame in pieces]
    if not sum(map(len, values)):
        raise DataError(f"nobody has the features of {title(model)}", hint="name another instant with --at")
    population = np.concatenate(values)
    drifts = [
        Drift(title(model), "feature", reference.name, {"psi": reference.psi(column), "ks": reference.ks(column)},
              reference.mean, _mean(column))
        for reference, column in zip(model.references, population.T, strict=True)
    ]  # fmt: skip
    return [*drifts, *_shares(model, population)]


def _shares(model: ClusterModel, population: Any) -> list[Drift]:
    usable = population[model.usable(population)]
    position = model.assign(usable).position
    before = model.shares
    counts = {cluster.number: int((position == at).sum()) for at, cluster in enumerate(model.clusters)}
    if model.has_outliers:
        counts[0] = int((position < 0).sum())
    now = {number: count / max(len(usable), 1) for number, count in counts.items()}
    names = {cluster.number: cluster.label for cluster in model.clusters} | {0: OUTLIER}
    drifts = [
        Drift(
            title(model), "cluster", names[number], {"share": abs(now[number] - before[number])}, before[number], share
        )
        for number, share in now.items()
    ]
    both = [np.array([shares[number] for number in now]) for shares in (before, now)]
    return [*drifts, Drift(title(model), "clusters", "all clusters", {"psi": psi(*both)})]


def title(model: ClusterModel) -> str:
    """Return the model's name and version, for messages."""
    return f"{model.definition.name} {model.version}".rstrip()


def _mean(values: Any) -> float | None:
    present = values[np.isfinite(values)]
    return float(present.mean()) if len(present) else None
