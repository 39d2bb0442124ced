"""Fit a propensity model: search on earlier cuts, calibrate, and assess on later ones.

The model that is judged is the one that is stored: it is not fitted again with the test cuts, so that what is reported
is true of what gives scores.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rules_engine.clock import format_instant
from rules_engine.errors import DataError
from rules_engine.ml.propensity.assessment import assess
from rules_engine.ml.propensity.baseline import baselines
from rules_engine.ml.propensity.batch import Matrix, matrix, raw
from rules_engine.ml.propensity.definition import ModelDefinition, Parameters
from rules_engine.ml.propensity.families import learn
from rules_engine.ml.propensity.metrics import metrics
from rules_engine.ml.propensity.model import DataSummary, PropensityModel, Trial
from rules_engine.ml.propensity.training import TrainingRows, hashes
from rules_engine.rules.types import ValueType
from rules_engine.targets.scorer import Scorer, expit

Report = Callable[[str], None]

#: Fewer of either kind are too few to learn from, and to assess on.
_FEWEST = 20

_QUANTILES = 201
_LIBRARIES = ("feast-segments", "feast", "numpy", "scikit-learn", "scipy")


@dataclass(frozen=True, eq=False, slots=True)
class Material:
    """The rows that a model is fitted to and assessed on, and the cuts that are in neither."""

    train: TrainingRows
    test: TrainingRows
    skipped: tuple[int, ...]
    types: Mapping[str, ValueType]


def fit(
    definition: ModelDefinition, material: Material, as_of: int, report: Report = lambda _text: None
) -> PropensityModel:
    """Fit and assess a model. The same rows and definition give the same model.

    Parameters
    ----------
    as_of
        the instant of the fit, in microseconds; all horizons were over by then.
    report
        called with what is being done.

    Raises
    ------
    DataError
        if too few users did it, or too few did not.
    """
    train, test = material.train, material.test
    _check(train, "before the test")
    _check(test, "of the test")
    sample = _sample(train, definition.search.rows)
    trials, votes = _search(definition, material, sample, report)
    best = max(trials, key=lambda trial: trial.score)
    report(f"Fitting {best.algorithm} to {len(train):,} rows")
    bare = learn(
        best.algorithm,
        best.parameters,
        definition.features,
        material.types,
        train.values,
        train.did,
        definition.seed,
    )
    scorer = calibrated(bare, definition.calibration, votes[trials.index(best)], sample.did)
    report(f"Judging on {len(test):,} rows")
    judgement, scores = assess(scorer, test, baselines(definition, train, test), definition.subgroups, definition.seed)
    quantiles = tuple(map(float, np.quantile(scores, np.linspace(0, 1, _QUANTILES))))
    return PropensityModel(
        definition=definition,
        as_of=as_of,
        scorer=replace(scorer, quantiles=quantiles),
        trials=tuple(trials),
        judgement=judgement,
        train=_data(train, definition),
        test=_data(test, definition),
        skipped=material.skipped,
        libraries={"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}},
    )


def calibrated(scorer: Scorer, how: str, votes: Matrix, did: NDArray[np.bool_]) -> Scorer:
    """Return the scorer with a calibration, learned from votes on rows that were left out of each fit.

    ``sigmoid``: J. Platt, "Probabilistic outputs for support vector machines" (1999). ``isotonic``: B. Zadrozny and
    C. Elkan, "Transforming classifier scores into accurate multiclass probability estimates", KDD 2002.
    """
    if how == "sigmoid":
        from sklearn.linear_model import LogisticRegression

        fitted = LogisticRegression(C=1e12, max_iter=2000).fit(votes.reshape(-1, 1), did)
        return replace(scorer, calibration=how, knots=(float(fitted.coef_[0, 0]), float(fitted.intercept_[0])))
    if how == "isotonic":
        from sklearn.isotonic import IsotonicRegression

        line = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(votes, did)
        knots, levels = (tuple(map(float, points)) for points in (line.X_thresholds_, line.y_thresholds_))
        return replace(scorer, calibration=how, knots=knots, levels=levels)
    return scorer


def _search(
    definition: ModelDefinition, material: Material, sample: TrainingRows, report: Report
) -> tuple[list[Trial], list[Matrix]]:
    """Score every candidate in cross-validation; return trials, and votes on the rows that were left out."""
    candidates = _candidates(definition)
    _check_folds(sample, definition.search.folds)
    folds = list(_folds(sample, definition.search.folds, definition.seed))
    trials, votes = [], []
    for number, (algorithm, parameters) in enumerate(candidates, 1):
        report(f"Trying {algorithm}, {number} of {len(candidates)}")
        vote, fold_scores = np.zeros(len(sample)), []
        for inside, outside in folds:
            learned = sample.take(inside)
            scorer = learn(
                algorithm, parameters, definition.features, material.types, learned.values, learned.did, definition.seed
            )
            left = sample.take(outside)
            vote[outside] = raw(scorer, matrix(scorer.columns, left.values))
            fold_scores.append(_score(definition.search.score, algorithm, vote[outside], left.did))
        trials.append(Trial(algorithm, parameters, float(np.mean(fold_scores)), float(np.std(fold_scores))))
        votes.append(vote)
    return trials, votes


def _candidates(definition: ModelDefinition) -> list[tuple[str, Parameters]]:
    grid = definition.grid()
    if definition.search.kind == "grid" or len(grid) <= definition.search.tries:
        return grid
    drawn = np.random.default_rng(definition.seed).choice(len(grid), definition.search.tries, replace=False)
    return [grid[at] for at in sorted(drawn.tolist())]


def _folds(rows: TrainingRows, count: int, seed: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield folds with the same share of those who did it; a user's rows at all cuts are in one fold.

    Users are dealt out like cards, sorted by how often they did it and at how many cuts they are: what scikit-learn's
    ``StratifiedGroupKFold`` finds user by user, in one step for all of them.
    """
    owner, users = pd.factorize(rows.users)
    hits, sizes = np.bincount(owner, weights=rows.did), np.bincount(owner)
    random = np.random.default_rng(seed)
    order = np.lexsort((random.permutation(len(users)), sizes, hits))
    # Of each so many neighbours every fold gets one, not always the first or the last.
    dealt = random.random((-(-len(users) // count), count)).argsort(axis=1).ravel()
    fold = np.empty(len(users), dtype=np.int64)
    fold[order] = dealt[: len(users)]
    for number in range(count):
        outside = fold[owner] == number
        yield np.flatnonzero(~outside), np.flatnonzero(outside)


def _score(name: str, algorithm: str, votes: Matrix, did: NDArray[np.bool_]) -> float:
    """Score votes; higher is better."""
    score = votes if algorithm == "random_forest" else np.array([expit(vote) for vote in votes])
    measured = metrics(did, score)
    return -measured.brier if name == "brier" else float(getattr(measured, name) or 0.0)


def _sample(rows: TrainingRows, most: int) -> TrainingRows:
    """Take about ``most`` rows: all rows of the users with the lowest hashes."""
    if len(rows) <= most:
        return rows
    numbers = hashes(rows.users)
    return rows.take(np.flatnonzero(numbers <= np.partition(numbers, most - 1)[most - 1]))


def _check(rows: TrainingRows, where: str) -> None:
    did = int(rows.did.sum())
    if min(did, len(rows) - did) < _FEWEST:
        raise DataError(
            f"of {len(rows):,} rows at the cuts {where}, {did:,} did it and {len(rows) - did:,} did not; at least "
            f"{_FEWEST} of each are needed",
            hint="use more cuts, a longer horizon or a wider population; is the target what you mean?",
        )


def _check_folds(rows: TrainingRows, folds: int) -> None:
    """Refuse rows with too few users of either kind for the folds."""
    least = min(len(set(rows.users[rows.did == which].tolist())) for which in (True, False))
    if least < folds:
        raise DataError(
            f"{least:,} users did it, or did not, at the cuts before the test, and there are {folds} folds",
            hint="lower `search: {folds: ...}`, or use a wider population",
        )


def _data(rows: TrainingRows, definition: ModelDefinition) -> DataSummary:
    cuts = sorted({int(cut) for cut in rows.cuts})
    return DataSummary(
        cuts=tuple(cuts),
        until=cuts[-1] + definition.target.within,
        rows=len(rows),
        users=len(set(rows.users.tolist())),
        rate=float(rows.did.mean()),
        share=rows.share,
        digest=rows.digest(),
        labels=rows.labels_digest(),
    )


def describe(data: DataSummary) -> str:
    """Return the data in a few words, for messages.

    >>> describe(DataSummary((0,), 10, 5, 5, 0.2, 1.0, "sha256:0"))
    '5 rows at 1 cut, 1970-01-01T00:00:00Z'
    """
    span = format_instant(data.cuts[0])
    some = "" if data.share == 1 else f" of {data.share:.3g} of the users"
    if len(data.cuts) > 1:
        span = f"{span} to {format_instant(data.cuts[-1])}"
    return f"{data.rows:,} rows{some} at {len(data.cuts)} cut{'s' if len(data.cuts) > 1 else ''}, {span}"
