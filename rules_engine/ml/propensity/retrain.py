"""Fit a model anew: when it is due, how it compares with the promoted version, and whether it may take over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rules_engine.clock import format_duration, now_micros
from rules_engine.diagnostics import listing
from rules_engine.errors import DataError
from rules_engine.ml.propensity.batch import matrix, probabilities, raw
from rules_engine.ml.propensity.drift import model_drift
from rules_engine.ml.propensity.fit import fit
from rules_engine.ml.propensity.metrics import Difference, differences
from rules_engine.ml.propensity.model import PropensityModel
from rules_engine.ml.propensity.plan_data import publish
from rules_engine.ml.propensity.project import ModelProject
from rules_engine.ml.propensity.training import TrainingRows
from rules_engine.ml.versions.store import VersionStore

Store = VersionStore[PropensityModel]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The differences of metrics between a new version and the promoted one, on the new one's test rows."""

    promoted: str
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class ModelFitRun:
    """The result of a fit.

    Attributes
    ----------
    model : PropensityModel
        the stored version.
    is_new : bool
        whether it was stored now, or is the same fit as the newest version.
    compared : Comparison or None
        with the promoted version, if there is another one and both can be judged on the same rows.
    not_compared : str
        the reason if they cannot.
    refusal : DataError or None
        the reason why the version was not promoted, where that was to be done.
    """

    model: PropensityModel
    is_new: bool
    compared: Comparison | None
    not_compared: str
    refusal: DataError | None


def due(project: ModelProject, store: Store, *, older: int | None, drifted: bool) -> tuple[bool, str]:
    """Return whether to fit anew, and why, or why not.

    Parameters
    ----------
    older : int or None
        fit if the newest version is of an instant so long ago, in microseconds; None does not ask.
    drifted : bool
        fit if the version that counts has drifted.
    """
    newest = store.newest()
    if newest is None or (older is None and not drifted):
        return True, ""
    reasons = []
    if older is not None:
        age = project.now - newest.as_of
        if age >= older:
            return True, f"{newest.version} is {format_duration(age)} old"
        reasons.append(f"{newest.version} is only {format_duration(age)} old")
    if drifted:
        current = store.current(store.promoted() or newest.version)
        reasons_to_fit = model_drift(project, current).reasons()
        if reasons_to_fit:
            return True, f"{current.version} has drifted: {'; '.join(reasons_to_fit)}"
        reasons.append(f"{current.version} has not drifted")
    return False, " and ".join(reasons)


def fit_version(
    project: ModelProject, store: Store, *, promote: bool, report: Callable[[str], None] = lambda _text: None
) -> ModelFitRun:
    """Fit a model as of now, store it, and promote it if it may take over.

    The first version is promoted; a later one where ``promote`` asks for it. Neither is if it ranks entities worse, by
    more than luck, than recency and frequency alone, or than the promoted version, or cannot be compared with that one.

    Raises
    ------
    DataError
        if there is too little to learn from.
    """
    material = project.material(report)
    model, is_new = store.add(fit(project.definition, material, project.now, report), now_micros())
    before = store.promoted()
    compared, not_compared = _compare(store, before, model, material.test)
    refusal = None
    if promote or before is None:
        refusal = reason_against_promotion(model, before, compared, not_compared)
        if refusal is None:
            store.promote(model.version, now_micros())
    publish(project.repo.project)
    return ModelFitRun(model, is_new, compared, not_compared, refusal)


def _compare(
    store: Store, promoted: str | None, model: PropensityModel, rows: TrainingRows
) -> tuple[Comparison | None, str]:
    if promoted in (None, model.version):
        return None, ""
    assert promoted is not None
    try:
        return Comparison(promoted, tuple(against(model, store.load(promoted), rows))), ""
    except DataError as error:
        return None, str(error)


def reason_against_promotion(
    model: PropensityModel, promoted: str | None, compared: Comparison | None, not_compared: str
) -> DataError | None:
    """Return the reason why a version may not be promoted, if there is one."""
    if not_compared:
        why = f"it cannot be compared with {promoted}: {not_compared}"
    else:
        others = {} if compared is None else {f"{promoted} on the same rows": compared.differences}
        others |= {f"the recency-frequency {name}": rows for name, rows in model.judgement.better.items()}
        losses = [(other, loss) for other, differences in others.items() if (loss := _loss(differences))]
        if not losses:
            return None
        other, loss = losses[0]
        why = f"its average precision is {loss:.4f} lower than that of {other}"
    hint = f"`segments model promote {model.version} --of {model.name}` promotes it all the same"
    return DataError(f"{model.version} is stored and not promoted: {why}", hint=hint)


def _loss(differences: tuple[Difference, ...]) -> float:
    """Return how much lower the average precision is; 0 unless the whole interval is below 0."""
    ranking = next(difference for difference in differences if difference.metric == "average_precision")
    return -ranking.value if ranking.high < 0 else 0.0


def against(model: PropensityModel, previous: PropensityModel, rows: TrainingRows) -> list[Difference]:
    """Return by how much a new model is better than an earlier one, on the new one's test rows.

    Raises
    ------
    DataError
        if the earlier one cannot be judged on them: it learned from their time, or needs a feature that they lack.
    """
    if previous.train.until > int(rows.cuts.min()):
        raise DataError(f"{previous.version} learned from the time of this test")
    lacking = [feature for feature in previous.features if feature not in rows.values]
    if lacking:
        raise DataError(f"{previous.version} looks at {listing(lacking)}, which {model.version} does not")
    ours, theirs = (
        probabilities(each.scorer, raw(each.scorer, matrix(each.scorer.columns, rows.values)))
        for each in (model, previous)
    )
    owner = pd.factorize(rows.users)[0].astype(np.int64)
    return differences(owner, rows.did, ours, theirs, model.definition.seed)
