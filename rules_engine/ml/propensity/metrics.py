"""Metrics of scores: ranking, calibration, lift and gain, and intervals of differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: Scores are put into so many bins of equal size for the bootstrap, which is then a matter of counting.
_BINS = 2000
_RESAMPLES = 200
#: The interval covers 95% of the resamples.
_TAILS = (2.5, 97.5)


@dataclass(frozen=True, slots=True)
class ScoreMetrics:
    """Metrics of scores, given what happened.

    Attributes
    ----------
    rows
        users at cuts.
    rate
        the share of them who did it: the base rate.
    mean
        the mean score; equal to the rate if calibrated as a whole.
    roc_auc
        how often one who did it has a higher score than one who did not. 0.5 is chance.
    average_precision
        the mean precision over all thresholds. The rate is chance.
    brier
        the mean squared error of the score as a probability; lower is better.
    """

    rows: int
    rate: float
    mean: float
    roc_auc: float | None
    average_precision: float | None
    brier: float


@dataclass(frozen=True, slots=True)
class LiftRow:
    """A tenth of the rows by score, the highest first, and everyone up to it.

    ``lift`` is the rate among everyone up to here by the rate of all; ``gain`` is the share of those who did it who are
    among them.
    """

    part: int
    rows: int
    did: int
    rate: float
    lowest: float
    lift: float
    gain: float


@dataclass(frozen=True, slots=True)
class CalibrationRow:
    """Rows of like scores: what was said, and what happened."""

    rows: int
    mean: float
    rate: float


@dataclass(frozen=True, slots=True)
class Difference:
    """A metric of the model minus that of another, with the 95% interval of a bootstrap that draws users."""

    metric: str
    value: float
    low: float
    high: float


def metrics(did: Flags, score: Numbers) -> ScoreMetrics:
    """Return the metrics of some scores; without a ranking if everyone did it, or nobody.

    >>> found = metrics(np.array([False, True, True]), np.array([0.1, 0.8, 0.6]))
    >>> found.roc_auc, round(found.brier, 3)
    (1.0, 0.07)
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    mixed = 0 < did.sum() < len(did)
    return ScoreMetrics(
        rows=len(did),
        rate=float(did.mean()) if len(did) else 0.0,
        mean=float(score.mean()) if len(did) else 0.0,
        roc_auc=float(roc_auc_score(did, score)) if mixed else None,
        average_precision=float(average_precision_score(did, score)) if mixed else None,
        brier=float(np.mean((score - did) ** 2)) if len(did) else 0.0,
    )


def lift_table(did: Flags, score: Numbers, parts: int = 10) -> tuple[LiftRow, ...]:
    """Return the rows by score, in parts of equal size.

    >>> did = np.array([True, True, False, False])
    >>> [(row.lift, row.gain) for row in lift_table(did, np.array([0.9, 0.8, 0.2, 0.1]), parts=2)]
    [(2.0, 1.0), (1.0, 1.0)]
    """
    order = np.argsort(-score, kind="stable")
    table, so_far, seen = [], 0, 0
    total, rate = int(did.sum()), float(did.mean())
    for part, rows in enumerate(np.array_split(order, parts), 1):
        hits = int(did[rows].sum())
        so_far, seen = so_far + hits, seen + len(rows)
        if not len(rows):
            continue
        table.append(
            LiftRow(
                part,
                len(rows),
                hits,
                hits / len(rows),
                float(score[rows[-1]]),
                so_far / seen / rate if rate else 0.0,
                so_far / total if total else 0.0,
            )
        )
    return tuple(table)


def calibration_table(did: Flags, score: Numbers, parts: int = 10) -> tuple[CalibrationRow, ...]:
    """Compare mean score and rate, in parts of equal size from the lowest scores on."""
    order = np.argsort(score, kind="stable")
    return tuple(
        CalibrationRow(len(rows), float(score[rows].mean()), float(did[rows].mean()))
        for rows in np.array_split(order, parts)
        if len(rows)
    )


def differences(users: NDArray[np.int64], did: Flags, score: Numbers, other: Numbers, seed: int) -> list[Difference]:
    """Measure by how much scores are better than others on the same rows.

    A user's rows at several cuts are much alike, so users are drawn with all of their rows.

    Parameters
    ----------
    users
        for each row, the user's number, from 0 on.
    """
    random = np.random.default_rng(seed)
    binned = [_bins(score), _bins(other)]
    count = int(users.max()) + 1
    drawn = []
    for _ in range(_RESAMPLES):
        weight = np.bincount(random.integers(0, count, count), minlength=count)[users].astype(np.float64)
        drawn.append(_compared(did, score, other, binned, weight))
    actual = _compared(did, score, other, binned, np.ones(len(did)))
    low, high = np.percentile(np.array(drawn), _TAILS, axis=0)
    names = ("roc_auc", "average_precision", "brier")
    return [Difference(name, *map(float, row)) for name, *row in zip(names, actual, low, high, strict=True)]


def _compared(
    did: Flags, score: Numbers, other: Numbers, binned: Sequence[NDArray[np.int64]], weight: Numbers
) -> list[float]:
    ours, theirs = (_ranking(did, bins, weight) for bins in binned)
    errors = ((score - did) ** 2 - (other - did) ** 2) * weight
    return [ours[0] - theirs[0], ours[1] - theirs[1], float(errors.sum() / weight.sum())]


def _bins(score: Numbers) -> NDArray[np.int64]:
    edges = np.unique(np.quantile(score, np.linspace(0, 1, _BINS + 1)[1:-1]))
    return np.searchsorted(edges, score, side="left")


def _ranking(did: Flags, bins: NDArray[np.int64], weight: Numbers) -> tuple[float, float]:
    """Return area under the curve and average precision, from counts per bin."""
    size = int(bins.max()) + 1
    hits = np.bincount(bins, weights=weight * did, minlength=size)[::-1]
    misses = np.bincount(bins, weights=weight * ~did, minlength=size)[::-1]
    above = np.cumsum(hits) - hits
    area = float((misses * (above + hits / 2)).sum() / max(hits.sum() * misses.sum(), 1.0))
    reached = np.cumsum(hits) / np.maximum(np.cumsum(hits + misses), 1e-300)
    return area, float((hits * reached).sum() / max(hits.sum(), 1.0))
