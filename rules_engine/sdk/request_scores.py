"""Scores that are computed within a request: from the features of the same read, by the model that the plan carries.

To a segment they are the features that they would be in the store, only never old: no rule knows the difference.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from rules_engine.features.online.selection import EntityFeatures
from rules_engine.rules.types import Value
from rules_engine.targets.scorer import Scorer

#: The features of a score.
NAMES = ("score", "percentile", "model_version")


class RequestScores:
    """Computes the scores of a read plan's models.

    Parameters
    ----------
    content
        by model, its scorer as plain data.

    Raises
    ------
    KeyError, TypeError, ValueError
        if a scorer cannot be read.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        self._scorers = {model: Scorer.from_plain(plain) for model, plain in content.items()}
        self._model_of = {f"{model}:{name}": model for model in content for name in NAMES}

    def among(self, features: Iterable[str]) -> tuple[str, ...]:
        """Return the models whose scores are among some features."""
        return tuple(sorted({self._model_of[feature] for feature in features if feature in self._model_of}))

    def read_for(self, features: Iterable[str]) -> list[str]:
        """Return what is to be read for some features: for a score what it is made of, and all others as they are."""
        inputs: set[str] = set()
        for feature in features:
            model = self._model_of.get(feature)
            inputs.update([feature] if model is None else self._scorers[model].features)
        return sorted(inputs)

    def filled(self, models: Collection[str], stored: EntityFeatures, now: int) -> EntityFeatures:
        """Return what was read, with the scores of some models as of now in place of what is stored of them."""
        values: dict[str, Value] = dict(stored.values)
        updated_at, expires_at = dict(stored.updated_at), dict(stored.expires_at)
        expired = {view for view, at in expires_at.items() if now >= at}
        alive = {name: value for name, value in values.items() if name.partition(":")[0] not in expired}
        for model in models:
            scorer = self._scorers[model]
            score = scorer.score(alive, now)
            expires_at.pop(model, None)
            if score is None:
                updated_at.pop(model, None)
                for name in NAMES:
                    values.pop(f"{model}:{name}", None)
                continue
            updated_at[model] = now
            computed = zip(NAMES, (score, scorer.percentile(score), scorer.version), strict=True)
            values.update({f"{model}:{name}": value for name, value in computed})
        return replace(stored, values=values, updated_at=updated_at, expires_at=expires_at)
