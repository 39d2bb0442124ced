"""Measure the drift of a model's scores: their distribution, and how good they were once that is known.

The distribution is compared with that of the test: the population stability index over its tenths (N. Siddiqi, "Credit
Risk Scorecards", 2006: below 0.1 little, above 0.25 much), and the largest distance of the two distribution functions
(Kolmogorov-Smirnov). When a horizon is over, scores that were written before it are held against what users did.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rules_engine.clock import format_instant, to_micros
from rules_engine.errors import DataError
from rules_engine.ml.drift import DEFAULT_LIMITS, MEASURES, Drift, beyond
from rules_engine.ml.filled_view import SCORES
from rules_engine.ml.offline import latest_rows
from rules_engine.ml.propensity.batch import Matrix, scores
from rules_engine.ml.propensity.metrics import ScoreMetrics, metrics
from rules_engine.ml.propensity.model import PropensityModel
from rules_engine.ml.propensity.project import ModelProject
from rules_engine.ml.propensity.target import occurrences

#: A share of nothing has no logarithm: an empty tenth counts as this.
_SMALLEST = 1e-4

_PARTS = 10


@dataclass(frozen=True, slots=True)
class Performance:
    """The metrics of an earlier run of scores, with its version and its instant in microseconds."""

    version: str
    at: int
    metrics: ScoreMetrics


@dataclass(frozen=True, slots=True)
class ModelDrift:
    """The drift of a model's scores since its test.

    Attributes
    ----------
    psi, ks
        the population stability index and the Kolmogorov-Smirnov distance of the scores now to those in the test.
    users
        how many users have a score now.
    mean, mean_before
        of the scores now, and in the test.
    expected_auc
        the ROC AUC in the test.
    performance
        of the newest run whose horizon is over; None if there is none.
    """

    model: str
    version: str
    psi: float
    ks: float
    users: int
    mean: float
    mean_before: float
    expected_auc: float | None
    performance: Performance | None = None

    @property
    def loss(self) -> float | None:
        """Return the loss of ROC AUC since the test; None if it is not known."""
        current_auc = self.performance.metrics.roc_auc if self.performance else None
        return None if current_auc is None or self.expected_auc is None else self.expected_auc - current_auc

    def rows(self) -> list[Drift]:
        """Return the drift as rows: of the scores, and of how good they turned out to be, where that is known."""
        title = f"{self.model} {self.version}"
        measures = {"psi": self.psi, "ks": self.ks}
        rows = [Drift(title, "score", "scores", measures, self.mean_before, self.mean)]
        if self.loss is not None and self.performance is not None:
            name = f"ROC AUC of {format_instant(self.performance.at)}"
            now = self.performance.metrics.roc_auc
            rows.append(Drift(title, "performance", name, {"loss": self.loss}, self.expected_auc, now))
        return rows

    def reasons(self, limits: Mapping[str, float] = DEFAULT_LIMITS) -> list[str]:
        """Return in words what has drifted beyond the limits; empty if nothing has."""
        return [
            f"the {MEASURES[measure]} of {drift.name} is {drift.measures[measure]:.3f}, and {limits[measure]:g} is the "
            "limit"
            for drift, measures in beyond(self.rows(), limits)
            for measure in measures
        ]


def model_drift(
    project: ModelProject, model: PropensityModel, report: Callable[[str], None] = lambda _text: None
) -> ModelDrift:
    """Measure how far the scores of a stored model have moved, by the project's data as of now.

    Raises
    ------
    DataError
        if nobody has a score now.
    """
    report("Scoring everyone as of now")
    edges = np.array(model.scorer.quantiles)
    counts, total, users = np.zeros(len(edges) + 1), 0.0, 0
    for batch in project.population(model).batches(project.now):
        score, _, has_score = scores(model.scorer, batch.values)
        counts += np.bincount(np.searchsorted(edges, score[has_score], side="right"), minlength=len(counts))
        total, users = total + float(score[has_score].sum()), users + int(has_score.sum())
    if not users:
        raise DataError(f"nobody has a score by {model.definition.name} {model.version} now", hint="is there data?")
    report("Looking at what became of earlier scores")
    return ModelDrift(
        model=model.definition.name,
        version=model.version,
        psi=stability(edges, counts),
        ks=distance(edges, counts),
        users=users,
        mean=total / users,
        mean_before=model.judgement.overall.mean,
        expected_auc=model.judgement.overall.roc_auc,
        performance=performance(project),
    )


def stability(edges: Matrix, counts: NDArray[np.float64]) -> float:
    """Return the population stability index over the tenths of the reference.

    Parameters
    ----------
    edges
        quantiles of the reference, equally far apart, lowest first.
    counts
        how many values lie below the first of them, between each two, and from the last on.

    >>> edges = np.linspace(0, 1, 11)
    >>> round(stability(edges, np.array([0, *[10] * 10, 0])), 6)
    0.0
    """
    expected, actual = _tenths(edges, counts)
    expected, actual = np.maximum(expected, _SMALLEST), np.maximum(actual, _SMALLEST)
    return float(((actual - expected) * np.log(actual / expected)).sum())


def distance(edges: Matrix, counts: NDArray[np.float64]) -> float:
    """Return the largest distance of the two distribution functions at the edges.

    >>> distance(np.linspace(0, 1, 11), np.array([0, *[0] * 9, 10, 0]))
    0.9
    """
    below = np.cumsum(counts)[:-1] / counts.sum()  # the share of values below each edge
    before = np.searchsorted(edges, edges, side="left") / (len(edges) - 1)
    return float(np.abs(below - before).max())


def _tenths(edges: Matrix, counts: NDArray[np.float64]) -> tuple[Matrix, Matrix]:
    """Return the shares of the reference and of the values between tenths of the reference; equal tenths are one."""
    inner = np.unique(np.quantile(edges, np.linspace(0, 1, _PARTS + 1)[1:-1], method="nearest"))
    size = len(edges) - 1
    expected = np.diff([0.0, *(np.searchsorted(edges, inner, side="left") / size), 1.0])
    below = [float(counts[: np.searchsorted(edges, edge, side="left") + 1].sum()) for edge in inner]
    return expected, np.diff([0.0, *(np.array(below) / counts.sum()), 1.0])


def performance(project: ModelProject) -> Performance | None:
    """Measure the newest scores whose horizon is over; None if there are none."""
    definition, repo = project.definition, project.repo
    SCORES.check(repo, definition.name)
    horizon = definition.target.within
    rows = latest_rows(repo, definition.name, until=project.now - horizon)
    if rows.empty:
        return None
    newest = rows["event_timestamp"].max()
    rows = rows[rows["event_timestamp"] == newest]
    at = to_micros(pd.Timestamp(newest).to_pydatetime())
    did = occurrences(repo, definition.target, project.catalog, at, at + horizon)
    labels = did.did(np.array(rows.index, dtype=object), at, at + horizon)
    version = str(rows["model_version"].iloc[0])
    return Performance(version, at, metrics(labels, rows["score"].to_numpy(dtype=np.float64)))
