"""Say why an entity has its score: its features from the online store, and what each of them does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rules_engine.clock import from_micros, now_micros, to_micros
from rules_engine.errors import DataError
from rules_engine.folders import Project
from rules_engine.ml.propensity.model import PropensityModel
from rules_engine.read_plan import ReadPlan
from rules_engine.sdk import SegmentClient
from rules_engine.targets.scorer import FeatureEffect


@dataclass(frozen=True, slots=True)
class ScoreReasons:
    """A score with its reasons.

    Attributes
    ----------
    percentile : float
        the share of entities in the test with a lower score, from 0 to 1.
    reasons : list of FeatureEffect
        the strongest first.
    values : mapping
        by feature, its value as the online store has it; instants are datetimes.
    now : int
        the instant of the score, in microseconds.
    """

    score: float
    percentile: float
    reasons: list[FeatureEffect]
    values: Mapping[str, Any]
    now: int

    def is_time(self, feature: str) -> bool:
        """Return whether the feature's value is an instant."""
        return hasattr(self.values[feature], "tzinfo")


def score_reasons(project: Project, model: PropensityModel, entity: str, at: int | None) -> ScoreReasons:
    """Score an entity by its features in the online store, and say what each feature does.

    Parameters
    ----------
    at : int or None
        the instant, in microseconds; by default the applied project's, else the clock's.

    Raises
    ------
    DataError
        if the online store has none of the features.
    """
    scorer = model.scorer
    set_now = ReadPlan.load(project.read_plan).now
    now = at if at is not None else now_micros() if set_now is None else set_now
    with SegmentClient.from_repo(project.root) as client:
        shown = client.features(entity, scorer.features, at=from_micros(now))
    values = {name: to_micros(value) if hasattr(value, "tzinfo") else value for name, value in shown.items()}
    score = scorer.score(values, now)
    if score is None:
        raise DataError(f"{entity} has no score: the online store has none of the features", hint="is the key right?")
    return ScoreReasons(score, scorer.percentile(score), scorer.reasons(values, now), shown, now)
