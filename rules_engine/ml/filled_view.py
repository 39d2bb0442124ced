"""The feature views that hold labels or scores: which features they need, and what is wrong with one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from rules_engine.errors import ProjectError
from rules_engine.features.feast.repo import FeastRepo


@dataclass(frozen=True, slots=True)
class FilledView:
    """The shape of a view that is filled here; types are Feast's names.

    Attributes
    ----------
    noun
        what it holds, for messages.
    needed, optional
        by feature, its type.
    pattern
        the names of further features that are Float64.
    more
        how those are described in a hint.
    """

    noun: str
    needed: Mapping[str, str]
    optional: Mapping[str, str] = field(default_factory=dict)
    pattern: re.Pattern[str] | None = None
    more: str = ""

    def problem(self, name: str, features: Mapping[str, str]) -> str:
        """Return what is wrong with a view of these features; empty if it can be filled. No features: no view."""
        if not features:
            return f"there is no feature view `{name}` to hold the {self.noun}"
        further = {feature: "Float64" for feature in features if self.pattern and self.pattern.match(feature)}
        if self.needed.items() <= features.items() <= {**self.needed, **self.optional, **further}.items():
            return ""
        return f"the feature view `{name}` holds other features than {self.noun}: {_listed(features)}"

    def hint(self, name: str) -> str:
        """Return how to define such a view."""
        more = f"; it may also have {_listed(self.optional)}{self.more}" if self.optional else ""
        return (
            f"define a FeatureView `{name}` in feature_repo/ with the features {_listed(self.needed)}, and run "
            f"`segments apply`{more}"
        )

    def check(self, repo: FeastRepo, name: str) -> dict[str, str]:
        """Return the features of the view, by name their types. One that cannot be filled is refused.

        Raises
        ------
        ProjectError
            if there is no such view, or it has other features, or it is not applied.
        """
        views = {view.name: view for view in repo.contents.feature_views}
        features = {column.name: str(column.dtype) for column in views[name].features} if name in views else {}
        if problem := self.problem(name, features):
            raise ProjectError(problem, hint=self.hint(name))
        if name not in {view.name for view in repo.store.registry.list_feature_views(repo.name)}:
            raise ProjectError(f"the feature view `{name}` is not applied yet", hint="run `segments apply`")
        return features


def _listed(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{column} ({kind})" for column, kind in columns.items())


#: ``probability_N`` is for the clusters of a mixture.
LABELS = FilledView(
    "labels",
    {"label": "String", "cluster": "Int64", "distance": "Float64", "model_version": "String"},
    {"confidence": "Float64", "outlier": "Bool"},
    re.compile(r"probability_([1-9][0-9]{0,5})\Z"),
    ", and for a mixture probability_1 (Float64) and so on",
)

SCORES = FilledView("scores", {"score": "Float64", "percentile": "Float64", "model_version": "String"})
