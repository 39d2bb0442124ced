"""When to fit anew, and whether the new model may take over: what a scheduler calls `segments model fit` for."""

from __future__ import annotations

import numpy as np
import pandas as pd

from rules_engine.clock import format_duration
from rules_engine.errors import DataError
from rules_engine.ml.propensity.batch import matrix, probabilities, raw
from rules_engine.ml.propensity.drift import model_drift
from rules_engine.ml.propensity.metrics import Difference, differences
from rules_engine.ml.propensity.model import PropensityModel
from rules_engine.ml.propensity.project import ModelProject
from rules_engine.ml.propensity.training import Rows
from rules_engine.ml.propensity.versions import Versions


def due(project: ModelProject, versions: Versions, *, older: int | None, drifted: bool) -> tuple[bool, str]:
    """Whether to fit anew, and why, or why not.

    Parameters
    ----------
    older
        fit if the newest version is of an instant so long ago, in microseconds; None does not ask.
    drifted
        fit if the version that counts has drifted.
    """
    newest = versions.newest()
    if newest is None or (older is None and not drifted):
        return True, ""
    reasons = []
    if older is not None:
        age = project.now - newest.as_of
        if age >= older:
            return True, f"{newest.version} is {format_duration(age)} old"
        reasons.append(f"{newest.version} is only {format_duration(age)} old")
    if drifted:
        current = versions.current(versions.promoted() or newest.version)
        found = model_drift(project, current).reasons()
        if found:
            return True, f"{current.version} has drifted: {'; '.join(found)}"
        reasons.append(f"{current.version} has not drifted")
    return False, " and ".join(reasons)


def against(model: PropensityModel, previous: PropensityModel, rows: Rows) -> list[Difference]:
    """By how much a new model is better than an earlier one, on the new one's test rows.

    Raises
    ------
    DataError
        if the earlier one cannot be judged on them: it learned from their time, or needs a feature that they lack.
    """
    if previous.train.until > int(rows.cuts.min()):
        raise DataError(f"{previous.version} learned from the time of this test, so they cannot be compared on it")
    lacking = [feature for feature in previous.features if feature not in rows.values]
    if lacking:
        raise DataError(f"{previous.version} looks at {', '.join(lacking)}, which this model does not")
    ours, theirs = (
        probabilities(found.scorer, raw(found.scorer, matrix(found.scorer.columns, rows.values)))
        for found in (model, previous)
    )
    owner = pd.factorize(rows.users)[0].astype(np.int64)
    return differences(owner, rows.did, ours, theirs, model.definition.seed)


def refuse_worse(model: PropensityModel, previous: PropensityModel, found: list[Difference]) -> None:
    """Refuse to promote a model that ranks users worse than the one that counts, by more than luck.

    Raises
    ------
    DataError
        if the whole interval of the difference of average precision is below 0.
    """
    ranking = next(one for one in found if one.metric == "average_precision")
    if ranking.high < 0:
        raise DataError(
            f"{model.version} is stored and not promoted: its average precision is {-ranking.value:.4f} lower than "
            f"that of {previous.version} on the same rows",
            hint=f"`segments model promote {model.version}` promotes it all the same",
        )
