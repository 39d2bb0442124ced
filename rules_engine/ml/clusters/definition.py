"""The definitions in ``feature_repo/clusters.yaml``: the features that users are grouped by, and the method.

::

    clusters: user_clusters               # the feature view that holds the labels
    features:
      - {feature: rfm:recency_days, low: recent, high: long gone}
      - {feature: rfm:frequency, scale: log, low: seldom, high: frequent}
    order_by: rfm:frequency               # cluster 1 is the one with the highest mean
    k: {from: 3, to: 8}
    max_moved: 20%                        # how many users a refit may move to another cluster
    names: [{cluster: 1, label: regulars}]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rules_engine.folders import Project
from rules_engine.ml.clusters.algorithms.table import DEFAULT, algorithms
from rules_engine.ml.clusters.definition_checks import problems
from rules_engine.ml.definition_file import DefinitionFile
from rules_engine.rules.catalog import Catalog

FILE = "clusters.yaml"
DEFAULT_K = (3, 8)
#: The share of users that may move to another cluster at a refit.
DEFAULT_MAX_MOVED = 0.2

_EXAMPLE = (
    "write e.g. `clusters: user_clusters` and `features: [{feature: VIEW:NAME}, {feature: VIEW:NAME, scale: log}]`"
)


@dataclass(frozen=True, slots=True)
class ClusterFeature:
    """One feature that users are grouped by. ``low`` and ``high`` are the words for few and for much of it."""

    feature: str
    scale: str = "standard"
    low: str = ""
    high: str = ""

    def word(self, *, high: bool) -> str:
        """Return the word for an end of the feature's range.

        >>> ClusterFeature("rfm:frequency", high="frequent").word(high=True)
        'frequent'
        >>> ClusterFeature("rfm:recency_days").word(high=False)
        'low recency days'
        """
        word = self.high if high else self.low
        plain = self.feature.partition(":")[2].replace("_", " ")
        return word or f"{'high' if high else 'low'} {plain}"


@dataclass(frozen=True, slots=True)
class Method:
    """The method of finding groups, and of choosing their number.

    Attributes
    ----------
    algorithm
        a name in :func:`~rules_engine.ml.clusters.algorithms.table.algorithms`.
    settings
        the value of each of its settings; None: it is read off the data.
    sample
        the most entities that are fitted.
    k_from, k_to
        how many clusters there may be, unless the algorithm finds out by itself.
    choose_by
        what decides how many.
    seed
        equal seeds give equal clusters.
    """

    algorithm: str
    settings: Mapping[str, Any]
    sample: int
    k_from: int = DEFAULT_K[0]
    k_to: int = DEFAULT_K[1]
    choose_by: str = "silhouette"
    seed: int = 0

    @property
    def finds_k(self) -> bool:
        """Return whether the algorithm finds the number of clusters, and leaves entities out of all of them."""
        return algorithms()[self.algorithm].finds_k

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> Method:
        """Return what a definition says about the method, with defaults.

        >>> made = Method.from_plain({"algorithm": "dbscan", "eps": 0.5})
        >>> made.sample, made.settings
        (10000, {'eps': 0.5, 'min_users': 20})
        """
        name = content.get("algorithm", DEFAULT)
        if name not in algorithms():
            raise ValueError(f"it needs the algorithm `{name}`, which no installed package brings")
        algorithm = algorithms()[name]
        k = content.get("k", {"from": DEFAULT_K[0], "to": DEFAULT_K[1]})
        return cls(
            algorithm=name,
            settings={key: content.get(key, setting.default) for key, setting in algorithm.settings.items()},
            sample=content.get("sample", algorithm.sample),
            k_from=k["from"],
            k_to=k["to"],
            choose_by=content.get("choose_by", "silhouette"),
            seed=content.get("seed", 0),
        )

    def to_plain(self) -> dict[str, Any]:
        """Return the inverse: what applies to the algorithm, with every default written out."""
        settings = {key: value for key, value in self.settings.items() if value is not None}
        k = {"from": self.k_from, "to": self.k_to}
        written = settings if self.finds_k else {"choose_by": self.choose_by, **settings, "k": k}
        return {"algorithm": self.algorithm, **written, "sample": self.sample, "seed": self.seed}


@dataclass(frozen=True, slots=True)
class ClusterDefinition:
    """The definition of one clustering.

    Attributes
    ----------
    name
        the feature view that holds the labels.
    features
        what users are grouped by.
    order_by
        the feature by whose mean clusters are numbered, highest first.
    method
        how groups are found.
    missing
        what happens to users who lack a feature.
    components, variance
        how many principal components are kept, or what share of the variance; neither: all features as they are.
    max_moved
        the share of users that a refit may move to another cluster.
    names
        numbers of clusters, each with the name that somebody gave it.
    """

    name: str
    features: tuple[ClusterFeature, ...]
    order_by: str
    method: Method = field(default_factory=lambda: Method.from_plain({}))
    missing: str = "leave_out"
    components: int | None = None
    variance: float | None = None
    description: str = ""
    max_moved: float = DEFAULT_MAX_MOVED
    names: tuple[tuple[int, str], ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """Return the features' names, ``VIEW:NAME``."""
        return tuple(feature.feature for feature in self.features)

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> ClusterDefinition:
        """Return a definition that follows the schema, from plain data.

        >>> features = [{"feature": "a:b"}, {"feature": "a:c"}]
        >>> definition = ClusterDefinition.from_plain({"clusters": "c", "features": features})
        >>> definition.keys, definition.order_by, definition.method.k_to
        (('a:b', 'a:c'), 'a:b', 8)
        """
        features = tuple(ClusterFeature(**feature) for feature in content["features"])
        pca = content.get("pca", {})
        return cls(
            name=content["clusters"],
            features=features,
            order_by=content.get("order_by", features[0].feature),
            method=Method.from_plain(content),
            missing=content.get("missing", "leave_out"),
            components=pca.get("components"),
            variance=_share(pca["variance"]) if "variance" in pca else None,
            description=content.get("description", ""),
            max_moved=_share(content["max_moved"]) if "max_moved" in content else DEFAULT_MAX_MOVED,
            names=tuple((entry["cluster"], entry["label"]) for entry in content.get("names", ())),
        )

    def to_plain(self) -> dict[str, Any]:
        """Return the inverse of :meth:`from_plain`, with every default written out."""
        pca = {"components": self.components} if self.components else {}
        if self.variance is not None:
            pca = {"variance": f"{self.variance * 100:g}%"}  # type: ignore[dict-item]
        return {
            "clusters": self.name,
            "description": self.description,
            "features": [{"feature": f.feature, "scale": f.scale, "low": f.low, "high": f.high} for f in self.features],
            "missing": self.missing,
            **({"pca": pca} if pca else {}),
            **self.method.to_plain(),
            "order_by": self.order_by,
            "max_moved": f"{self.max_moved * 100:g}%",
            "names": [{"cluster": number, "label": label} for number, label in self.names],
        }


def _share(percent: str) -> float:
    return float(percent.rstrip("%")) / 100


def load_cluster_definitions(project: Project, catalog: Catalog) -> dict[str, ClusterDefinition]:
    """Return every definition of the project's ``clusters.yaml``, by name.

    Raises
    ------
    ProjectError
        if there is no such file.
    DefinitionError
        with every problem in it.
    """
    return _DEFINITIONS.load(project, lambda document: problems(document, catalog))


_DEFINITIONS = DefinitionFile(
    file=FILE,
    purpose="what users are grouped by",
    example=_EXAMPLE,
    code="duplicate-clusters",
    build=ClusterDefinition.from_plain,
)
