"""A fitted propensity model as data: plain numbers, what they were learned from, and how good they are; and no code.

It is stored as JSON under a version of its own, as clusters are. Loading one runs nothing, and its checksum tells a
damaged or edited file from a whole one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from rules_engine.ml.propensity.assessment import Assessment
from rules_engine.ml.propensity.definition import ModelDefinition, Parameters
from rules_engine.ml.versions.kinds import ModelKind, StoredModel
from rules_engine.targets.scorer import Scorer

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate, and its mean score over the folds with its deviation; higher is better."""

    algorithm: str
    parameters: Parameters
    score: float
    deviation: float


@dataclass(frozen=True, slots=True)
class DataSummary:
    """Rows that a model was fitted to or judged on.

    Attributes
    ----------
    cuts
        their instants, in microseconds.
    until
        when the last horizon was over.
    rate
        the share of rows of those who did it.
    share
        the share of the users that was taken.
    digest
        tells these rows, with their features, from all others.
    labels
        tells who is in them, at which cuts, and who did it, from all others; empty if that is not known.
    """

    cuts: tuple[int, ...]
    until: int
    rows: int
    users: int
    rate: float
    share: float
    digest: str
    labels: str = ""

    def is_judged_like(self, other: DataSummary) -> bool:
        """Return whether metrics on both compare: the same users at the same cuts did the same."""
        return self.labels == other.labels if self.labels and other.labels else self.digest == other.digest


@dataclass(frozen=True, slots=True)
class PropensityModel(StoredModel):
    """A fitted model.

    Attributes
    ----------
    definition
        what it was fitted by.
    as_of
        the instant of the fit, in microseconds.
    scorer
        what gives scores.
    trials
        the candidates, of which the best was taken.
    judgement
        how good it is on the test rows.
    train, test
        what it was fitted to, and judged on.
    skipped
        the cuts in neither: their horizons reach into the time of the test.
    """

    definition: ModelDefinition
    as_of: int
    scorer: Scorer
    trials: tuple[Trial, ...]
    judgement: Assessment
    train: DataSummary
    test: DataSummary
    skipped: tuple[int, ...] = ()

    @property
    def features(self) -> tuple[str, ...]:
        return self.definition.keys

    @property
    def best(self) -> Trial:
        """Return the candidate that was taken."""
        return max(self.trials, key=lambda trial: trial.score)

    def is_same_fit(self, other: PropensityModel) -> bool:
        """Return whether both are the same fit: equal definition, rows, scorer and libraries."""
        return self._fit() == other._fit()

    def _fit(self) -> tuple[Any, ...]:
        definition = replace(self.definition, description="").to_plain()
        rows = [replace(data, labels="") for data in (self.train, self.test)]  # which older versions lack
        return definition, rows, replace(self.scorer, version="", background=()), self.libraries

    def content(self) -> dict[str, Any]:
        """Return the model as plain data, without its version and checksum."""
        return {
            "format": FORMAT,
            "definition": self.definition.to_plain(),
            "as_of": self.as_of,
            "scorer": self.scorer.to_plain(),
            "trials": [asdict(trial) for trial in self.trials],
            "judgement": self.judgement.to_plain(),
            "train": asdict(self.train),
            "test": asdict(self.test),
            "skipped": list(self.skipped),
            "libraries": dict(self.libraries),
        }

    @property
    def name(self) -> str:
        return self.definition.name

    def numbered(self, version: str, created_at: int) -> PropensityModel:
        """Return the model, with its scorer, as a stored version of an instant, in microseconds."""
        scorer = replace(self.scorer, version=version)
        return replace(self, scorer=scorer, version=version, created_at=created_at)


def _model(content: Mapping[str, Any]) -> PropensityModel:
    return PropensityModel(
        definition=ModelDefinition.from_plain(content["definition"]),
        as_of=content["as_of"],
        scorer=Scorer.from_plain(content["scorer"]),
        trials=tuple(Trial(**trial) for trial in content["trials"]),
        judgement=Assessment.from_plain(content["judgement"]),
        train=_data(content["train"]),
        test=_data(content["test"]),
        skipped=tuple(content["skipped"]),
        libraries=content["libraries"],
        version=content["version"],
        created_at=content["created_at"],
    )


def _data(content: Mapping[str, Any]) -> DataSummary:
    return DataSummary(**{**content, "cuts": tuple(content["cuts"])})


#: How models are kept. A version gives scores once it was promoted.
MODELS = ModelKind(
    folder="models",
    noun="model",
    file="models.yaml",
    command="segments model",
    format=FORMAT,
    build=_model,
)
