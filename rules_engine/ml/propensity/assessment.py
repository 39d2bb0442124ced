"""Assess a model on cuts that it did not learn from: against the baseline, cut by cut, group by group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rules_engine.clock import format_instant
from rules_engine.ml.propensity.batch import Matrix, matrix, missing, probabilities, raw
from rules_engine.ml.propensity.metrics import (
    CalibrationRow,
    Difference,
    LiftRow,
    ScoreMetrics,
    calibration_table,
    differences,
    lift_table,
    metrics,
)
from rules_engine.ml.propensity.training import TrainingRows, hashes
from rules_engine.targets.scorer import Scorer

#: Each feature is shuffled so often, over so many rows.
_REPEATS = 3
_SHUFFLED_ROWS = 20_000

#: A group of fewer rows says too little to be reported.
_SMALLEST_GROUP = 50
_MOST_GROUPS = 10

#: Who would be addressed: the highest tenth of the scores.
_ADDRESSED = 0.1


@dataclass(frozen=True, slots=True)
class Importance:
    """A feature's importance: the loss of ROC AUC when its values are shuffled among the test rows.

    L. Breiman, "Random forests", Machine Learning 45 (2001), 5-32, as in scikit-learn's ``permutation_importance``.
    """

    feature: str
    loss: float
    deviation: float


@dataclass(frozen=True, slots=True)
class Subgroup:
    """The metrics of the rows with like values of a feature.

    Attributes
    ----------
    addressed
        the share of the group that is in the highest tenth of all scores.
    found
        the share of those in the group who did it that is in the highest tenth: equal in all groups if the score finds
        buyers of each equally well ("equal opportunity": M. Hardt et al., NeurIPS 2016).
    """

    feature: str
    group: str
    metrics: ScoreMetrics
    addressed: float
    found: float | None


@dataclass(frozen=True, slots=True)
class Assessment:
    """Metrics of a model on the test rows.

    Attributes
    ----------
    overall
        on all of them together.
    by_cut
        by instant of a cut.
    baselines, better
        by name, the metrics of a baseline, and by how much the model is better.
    """

    overall: ScoreMetrics
    by_cut: Mapping[str, ScoreMetrics]
    baselines: Mapping[str, ScoreMetrics]
    better: Mapping[str, tuple[Difference, ...]]
    lift: tuple[LiftRow, ...]
    baseline_lift: tuple[LiftRow, ...]
    calibration: tuple[CalibrationRow, ...]
    importance: tuple[Importance, ...]
    subgroups: tuple[Subgroup, ...]

    def to_plain(self) -> dict[str, Any]:
        """Return the judgement as data for JSON."""
        return asdict(self)

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> Assessment:
        """Return the inverse of :meth:`to_plain`."""
        return cls(
            overall=ScoreMetrics(**content["overall"]),
            by_cut={cut: ScoreMetrics(**plain) for cut, plain in content["by_cut"].items()},
            baselines={name: ScoreMetrics(**plain) for name, plain in content["baselines"].items()},
            better={name: tuple(Difference(**plain) for plain in rows) for name, rows in content["better"].items()},
            lift=tuple(LiftRow(**row) for row in content["lift"]),
            baseline_lift=tuple(LiftRow(**row) for row in content["baseline_lift"]),
            calibration=tuple(CalibrationRow(**row) for row in content["calibration"]),
            importance=tuple(Importance(**plain) for plain in content["importance"]),
            subgroups=tuple(
                Subgroup(**{**plain, "metrics": ScoreMetrics(**plain["metrics"])}) for plain in content["subgroups"]
            ),
        )


def assess(
    scorer: Scorer, rows: TrainingRows, others: Mapping[str, Matrix], subgroups: tuple[str, ...], seed: int
) -> tuple[Assessment, Matrix]:
    """Return the judgement on some rows, and their scores.

    Parameters
    ----------
    others
        by name, a baseline's scores for the same rows.
    """
    columns = matrix(scorer.columns, rows.values)
    score = probabilities(scorer, raw(scorer, columns))
    owner = pd.factorize(rows.users)[0].astype(np.int64)
    cuts = {format_instant(int(cut)): rows.cuts == cut for cut in np.unique(rows.cuts)}
    strongest = max(others, key=lambda name: metrics(rows.did, others[name]).average_precision or 0.0)
    assessment = Assessment(
        overall=metrics(rows.did, score),
        by_cut={cut: metrics(rows.did[which], score[which]) for cut, which in cuts.items()},
        baselines={name: metrics(rows.did, other) for name, other in others.items()},
        better={name: tuple(differences(owner, rows.did, score, other, seed)) for name, other in others.items()},
        lift=lift_table(rows.did, score),
        baseline_lift=lift_table(rows.did, others[strongest]),
        calibration=calibration_table(rows.did, score),
        importance=importances(scorer, columns, rows, seed),
        subgroups=tuple(group for feature in subgroups for group in _groups(feature, rows, score)),
    )
    return assessment, score


def importances(scorer: Scorer, columns: Matrix, rows: TrainingRows, seed: int) -> tuple[Importance, ...]:
    """Return the features' importances, the highest first."""
    random = np.random.default_rng(seed)
    which = np.argsort(hashes(rows.users), kind="stable")[:_SHUFFLED_ROWS]
    sample, did = columns[which], rows.did[which]
    if not 0 < did.sum() < len(did):
        return ()
    whole = metrics(did, raw(scorer, sample)).roc_auc or 0.0
    result = []
    for feature in scorer.features:
        own = [at for at, column in enumerate(scorer.columns) if column.feature == feature]
        losses = []
        for _ in range(_REPEATS):
            shuffled = sample.copy()
            shuffled[:, own] = sample[random.permutation(len(sample))][:, own]
            losses.append(whole - (metrics(did, raw(scorer, shuffled)).roc_auc or 0.0))
        result.append(Importance(feature, float(np.mean(losses)), float(np.std(losses))))
    return tuple(sorted(result, key=lambda importance: -importance.loss))


def _groups(feature: str, rows: TrainingRows, score: Matrix) -> list[Subgroup]:
    threshold = np.quantile(score, 1 - _ADDRESSED)
    addressed = score >= threshold
    groups = []
    for name, which in _parts(rows.values[feature]).items():
        if which.sum() < _SMALLEST_GROUP:
            continue
        did = rows.did[which]
        share = float(addressed[which][did].mean()) if did.any() else None
        groups.append(Subgroup(feature, name, metrics(did, score[which]), float(addressed[which].mean()), share))
    return groups


def _parts(values: NDArray[Any]) -> dict[str, NDArray[np.bool_]]:
    """Return the rows of each group: by value, or by quarters of many numbers."""
    gone = missing(values)
    groups: dict[str, NDArray[np.bool_]] = {}
    if values.dtype == object:
        names, counts = np.unique(values[~gone].astype(str), return_counts=True)
        for at in np.argsort(-counts, kind="stable")[:_MOST_GROUPS]:
            groups[str(names[at])] = ~gone & (values == names[at])
    elif len(distinct := np.unique(values[~gone])) <= _MOST_GROUPS:
        groups = {f"{value:g}": values == value for value in distinct}
    else:
        edges = np.unique(np.quantile(values[~gone], [0, 0.25, 0.5, 0.75, 1]))
        for at, (low, high) in enumerate(pairwise(edges)):
            last = at == len(edges) - 2
            groups[f"{low:.4g} to {'' if last else 'below '}{high:.4g}"] = (values >= low) & (
                (values <= high) if last else (values < high)
            )
    if gone.any():
        groups["missing"] = gone
    return groups
