"""A fitted clustering as data: plain numbers with everything needed to assign a user, and no code.

It is stored as JSON under a version of its own. A model file can therefore be read, compared and trusted to do nothing
when loaded; its checksum tells a damaged or edited file from a whole one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rules_engine.ml.clusters.algorithms.base import NONE, Assigned, Assigner
from rules_engine.ml.clusters.algorithms.table import assigner_from_plain
from rules_engine.ml.clusters.arrays import Matrix
from rules_engine.ml.clusters.choosing import KScore
from rules_engine.ml.clusters.definition import DEFAULT_MAX_MOVED, ClusterDefinition
from rules_engine.ml.clusters.matching import Matching
from rules_engine.ml.clusters.preparation.preprocessing import Preprocessing
from rules_engine.ml.clusters.reference import Reference
from rules_engine.ml.versions.kinds import ModelKind, StoredModel

FORMAT = 2

#: The label of users in no cluster, whose cluster is number 0.
OUTLIER = "outlier"


@dataclass(frozen=True, slots=True)
class Cluster:
    """One group.

    Attributes
    ----------
    number
        what the cluster keeps through all versions. In the first one, 1 has the highest mean of ``order_by``.
    label
        its name.
    size
        how many of the users that were fitted are in it.
    centroid
        the mean of its users, in scaled units, in the order of the features.
    profile
        by feature, the mean of its users in the feature's own unit.
    position
        where it stands among the assigner's clusters.
    stability
        how alike it is when other users are drawn, from 0 to 1; None if that was not tried.
    """

    number: int
    label: str
    size: int
    centroid: tuple[float, ...]
    profile: Mapping[str, float]
    position: int
    stability: float | None = None


@dataclass(frozen=True, slots=True)
class ClusterModel(StoredModel):
    """A fitted clustering.

    Attributes
    ----------
    definition
        what it was fitted by.
    as_of
        the instant, in microseconds, up to which data was read.
    population, users, left_out
        how many users there were, how many of them were fitted, and how many could not be because a feature of theirs
        is missing.
    data
        a digest of the values that were fitted.
    preprocessing, assigner
        what happens to a user's features, and which cluster the result belongs to.
    clusters
        by number.
    scores, chosen
        for each number of clusters that was tried, and the position of the one that was chosen.
    metrics
        what else is known: the share of fitted users in no cluster (``outliers``), and of those whom the assigner puts
        where the algorithm put them (``agreement``).
    references
        how each feature was distributed, for drift to be seen.
    window
        the instants of the oldest and the newest row that was read, in microseconds, if they are known.
    matching
        what became of the clusters of the version before; None for a first version.
    last_number
        the highest number that a cluster had up to this version.
    """

    definition: ClusterDefinition
    as_of: int
    population: int
    users: int
    left_out: int
    data: str
    preprocessing: Preprocessing
    assigner: Assigner
    clusters: tuple[Cluster, ...]
    scores: tuple[KScore, ...]
    chosen: int
    metrics: Mapping[str, float]
    references: tuple[Reference, ...] = ()
    window: tuple[int, int] | None = None
    matching: Matching | None = None
    last_number: int = 0

    @property
    def features(self) -> tuple[str, ...]:
        return self.definition.keys

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the clusters' names, by number."""
        return tuple(cluster.label for cluster in self.clusters)

    @property
    def has_outliers(self) -> bool:
        """Return whether users may be in no cluster."""
        return self.definition.method.finds_k

    @property
    def score(self) -> KScore:
        """Return the score of the number of clusters that was chosen."""
        return self.scores[self.chosen]

    @property
    def shares(self) -> dict[int, float]:
        """Return the share of the fitted users in each cluster, by its number; 0 is for those in none."""
        shares = {cluster.number: cluster.size / self.users for cluster in self.clusters}
        return shares | ({0: self.metrics.get("outliers", 0.0)} if self.has_outliers else {})

    def is_same_fit(self, other: ClusterModel) -> bool:
        """Return whether both are the same fit: equal definitions, data and results, whatever the names."""
        return self._fit() == other._fit()

    def _fit(self) -> tuple[Any, ...]:
        definition = replace(self.definition, max_moved=DEFAULT_MAX_MOVED)
        numbers = (self.as_of, self.population, self.left_out, self.data, self.scores, self.libraries)
        return (definition, self.preprocessing, self.assigner, *numbers)

    def usable(self, values: Matrix) -> Any:
        """Return for each row of features whether the user can be given a cluster."""
        return self.preprocessing.usable(values)

    def standardize(self, values: Matrix) -> Matrix:
        """Return users' values, one row each, in the units of the centroids.

        Raises
        ------
        DataError
            if a value whose logarithm is taken is -1 or less.
        """
        return self.preprocessing.standardize(values)

    def points(self, values: Matrix) -> Matrix:
        """Return users' values as the points that the assigner places."""
        return self.preprocessing.project(self.preprocessing.standardize(values))

    def assign(self, values: Matrix) -> Assigned:
        """Place each row of values. Positions are those in :attr:`clusters`.

        No fitting takes place: a user who came after the fit gets a cluster too.
        """
        assigned = self.assigner.assign(self.points(values))
        order = [cluster.position for cluster in self.clusters]
        places = np.full(len(order) + 1, NONE, dtype=np.int64)  # the last one is what position -1 finds
        places[order] = np.arange(len(order))
        probabilities = None if assigned.probabilities is None else assigned.probabilities[:, order]
        return replace(assigned, position=places[assigned.position], probabilities=probabilities)

    # --- JSON --------------------------------------------------------------------------------------------------------

    def content(self) -> dict[str, Any]:
        """Return the model as plain data, without its version and checksum."""
        return {
            "format": FORMAT,
            "definition": self.definition.to_plain(),
            "as_of": self.as_of,
            "population": self.population,
            "users": self.users,
            "left_out": self.left_out,
            "window": list(self.window) if self.window else None,
            "data": self.data,
            "preprocessing": self.preprocessing.to_plain(),
            "assigner": self.assigner.to_plain(),
            "clusters": [_fields(cluster) for cluster in self.clusters],
            "scores": [_fields(score) for score in self.scores],
            "chosen": self.chosen,
            "metrics": dict(self.metrics),
            "references": [reference.to_plain() for reference in self.references],
            "libraries": dict(self.libraries),
            "matching": self.matching.to_plain() if self.matching else None,
            "last_number": self.last_number,
        }

    @property
    def name(self) -> str:
        return self.definition.name

    def numbered(self, version: str, created_at: int) -> ClusterModel:
        """Return the model as a stored version of an instant, in microseconds."""
        return replace(self, version=version, created_at=created_at)


def _fields(record: Any) -> dict[str, Any]:
    """Return a record as plain data."""
    return {name: getattr(record, name) for name in record.__slots__}


_AS_THEY_ARE = (
    "as_of", "population", "users", "left_out", "data", "chosen", "metrics", "libraries", "version", "created_at",
    "last_number",
)  # fmt: skip


def _model(content: dict[str, Any]) -> ClusterModel:
    definition = ClusterDefinition.from_plain(content["definition"])
    preprocessing = Preprocessing.from_plain(content["preprocessing"])
    assigner = assigner_from_plain(content["assigner"])
    clusters = tuple(
        Cluster(**{**cluster, "centroid": tuple(map(float, cluster["centroid"]))}) for cluster in content["clusters"]
    )
    if not clusters or not np.isfinite([number for cluster in clusters for number in cluster.centroid]).all():
        raise ValueError("its numbers make no sense")
    features, projection = len(definition.features), preprocessing.projection
    sizes = {len(preprocessing.scalers), *(len(cluster.centroid) for cluster in clusters)}
    if sizes != {features} or assigner.dimensions != (len(projection.components) if projection else features):
        raise ValueError("its clusters and features do not fit together")
    if sorted(cluster.position for cluster in clusters) != list(range(assigner.count)):
        raise ValueError("its clusters and its assigner do not fit together")
    scores = tuple(KScore(**score) for score in content["scores"])
    _ = scores[content["chosen"]]
    return ClusterModel(
        definition=definition,
        preprocessing=preprocessing,
        assigner=assigner,
        clusters=clusters,
        scores=scores,
        references=tuple(map(Reference.from_plain, content["references"])),
        window=tuple(content["window"]) if content["window"] else None,
        matching=Matching.from_plain(content["matching"]) if content["matching"] else None,
        **{key: content[key] for key in _AS_THEY_ARE},
    )


#: How clusters are kept. Labels come from the newest version until one is promoted.
CLUSTERS = ModelKind(
    folder="clusters",
    noun="clusters",
    file="clusters.yaml",
    command="segments cluster",
    format=FORMAT,
    build=_model,
    newest_counts=True,
    indented=True,
)
