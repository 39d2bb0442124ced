"""What ``feature_repo/clusters.yaml`` says: which features the users are grouped by, and how.

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
from dataclasses import dataclass
from typing import Any

from rules_engine.definitions.envelope import NAME_PATTERN, check_schema
from rules_engine.definitions.source import Items, Node, Scalar, to_plain
from rules_engine.definitions.source import Mapping as MappingNode
from rules_engine.diagnostics import Diagnostic, listing, nearest
from rules_engine.errors import DefinitionError, ProjectError, UnknownNameError
from rules_engine.project import Project
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.load import read_file

FILE = "clusters.yaml"
SCALES = ("standard", "log")
DEFAULT_K = (3, 8)
MAX_K = 50
#: The share of users that may move to another cluster at a refit.
DEFAULT_MAX_MOVED = 0.2

_EXAMPLE = (
    "write e.g. `clusters: user_clusters` and `features: [{feature: VIEW:NAME}, {feature: VIEW:NAME, scale: log}]`"
)
_WORD = {"type": "string", "minLength": 1, "maxLength": 40}
_COUNT = {"type": "integer", "minimum": 2, "maximum": MAX_K}

#: The JSON Schema of a document of kind ``clusters:``.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "Groups of users that are found in the data.",
    "required": ["clusters", "features"],
    "additionalProperties": False,
    "properties": {
        "clusters": {
            "type": "string",
            "pattern": NAME_PATTERN,
            "description": "The feature view that holds the labels.",
        },
        "description": {"type": "string", "description": "What the groups are for, for people."},
        "features": {
            "type": "array",
            "minItems": 2,
            "description": "The numbers that users are grouped by. All count alike.",
            "items": {
                "type": "object",
                "required": ["feature"],
                "additionalProperties": False,
                "properties": {
                    "feature": {"type": "string", "description": "VIEW:NAME of a number."},
                    "scale": {
                        "enum": list(SCALES),
                        "description": "standard: mean 0, deviation 1. log: the same of log(1 + x), for skewed counts.",
                    },
                    "low": {**_WORD, "description": "A word for users with little of it, for the clusters' names."},
                    "high": {**_WORD, "description": "A word for users with much of it, for the clusters' names."},
                },
            },
        },
        "order_by": {
            "type": "string",
            "description": "Clusters are numbered by the mean of this feature, highest first.",
        },
        "k": {
            "type": "object",
            "required": ["from", "to"],
            "additionalProperties": False,
            "properties": {"from": _COUNT, "to": _COUNT},
            "description": "How many clusters there may be; the silhouette decides.",
        },
        "seed": {
            "type": "integer",
            "minimum": 0,
            "maximum": 2**32 - 1,
            "description": "Equal seeds give equal clusters.",
        },
        "max_moved": {
            "type": "string",
            "pattern": r"^(100|[0-9]{1,2}(\.[0-9]{1,3})?)%$(?!\n)",
            "description": "A refit that moves more users than this to another cluster is refused, e.g. 20%.",
        },
        "names": {
            "type": "array",
            "description": "Names for clusters, instead of the proposed ones. A cluster keeps its number at a refit.",
            "items": {
                "type": "object",
                "required": ["cluster", "label"],
                "additionalProperties": False,
                "properties": {
                    "cluster": {"type": "integer", "minimum": 1, "description": "The cluster's number."},
                    "label": {"type": "string", "minLength": 1, "maxLength": 80, "description": "Its name."},
                },
            },
        },
    },
}


@dataclass(frozen=True, slots=True)
class ClusterFeature:
    """One feature that users are grouped by. ``low`` and ``high`` are the words for few and for much of it."""

    feature: str
    scale: str = "standard"
    low: str = ""
    high: str = ""

    def word(self, *, high: bool) -> str:
        """The word for an end of the feature's range.

        >>> ClusterFeature("rfm:frequency", high="frequent").word(high=True)
        'frequent'
        >>> ClusterFeature("rfm:recency_days").word(high=False)
        'low recency days'
        """
        given = self.high if high else self.low
        plain = self.feature.partition(":")[2].replace("_", " ")
        return given or f"{'high' if high else 'low'} {plain}"


@dataclass(frozen=True, slots=True)
class ClusterDefinition:
    """How users are grouped.

    Attributes
    ----------
    name
        the feature view that holds the labels.
    features
        what users are grouped by.
    order_by
        the feature by whose mean clusters are numbered, highest first.
    k_from, k_to
        how many clusters there may be.
    seed
        equal seeds give equal clusters.
    max_moved
        the share of users that a refit may move to another cluster.
    names
        numbers of clusters, each with the name that somebody gave it.
    """

    name: str
    features: tuple[ClusterFeature, ...]
    order_by: str
    k_from: int = DEFAULT_K[0]
    k_to: int = DEFAULT_K[1]
    seed: int = 0
    description: str = ""
    max_moved: float = DEFAULT_MAX_MOVED
    names: tuple[tuple[int, str], ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """The features' names, ``VIEW:NAME``."""
        return tuple(feature.feature for feature in self.features)

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> ClusterDefinition:
        """A definition that follows :data:`SCHEMA`, from plain data.

        >>> features = [{"feature": "a:b"}, {"feature": "a:c"}]
        >>> definition = ClusterDefinition.from_plain({"clusters": "c", "features": features})
        >>> definition.keys, definition.order_by, definition.k_to
        (('a:b', 'a:c'), 'a:b', 8)
        """
        features = tuple(ClusterFeature(**feature) for feature in content["features"])
        k = content.get("k", {"from": DEFAULT_K[0], "to": DEFAULT_K[1]})
        return cls(
            name=content["clusters"],
            features=features,
            order_by=content.get("order_by", features[0].feature),
            k_from=k["from"],
            k_to=k["to"],
            seed=content.get("seed", 0),
            description=content.get("description", ""),
            max_moved=float(content["max_moved"].rstrip("%")) / 100 if "max_moved" in content else DEFAULT_MAX_MOVED,
            names=tuple((given["cluster"], given["label"]) for given in content.get("names", ())),
        )

    def to_plain(self) -> dict[str, Any]:
        """The inverse of :meth:`from_plain`, with every default written out."""
        return {
            "clusters": self.name,
            "description": self.description,
            "features": [{"feature": f.feature, "scale": f.scale, "low": f.low, "high": f.high} for f in self.features],
            "order_by": self.order_by,
            "k": {"from": self.k_from, "to": self.k_to},
            "seed": self.seed,
            "max_moved": f"{self.max_moved * 100:g}%",
            "names": [{"cluster": number, "label": label} for number, label in self.names],
        }


def load_cluster_definitions(project: Project, catalog: Catalog) -> dict[str, ClusterDefinition]:
    """Every definition of the project's ``clusters.yaml``, by name.

    Raises
    ------
    ProjectError
        if there is no such file.
    DefinitionError
        with every problem in it.
    """
    path = project.feature_repo / FILE
    if not path.is_file():
        raise ProjectError(f"there is no {path}, so nothing says what users are grouped by", hint=_EXAMPLE)
    documents, problems = read_file(path, path.relative_to(project.root).as_posix())
    found: dict[str, ClusterDefinition] = {}
    for document in documents:
        trouble = _problems(document, catalog)
        problems += trouble
        if not trouble:
            definition = ClusterDefinition.from_plain(to_plain(document))
            if definition.name in found:
                message = f"`{definition.name}` is defined twice"
                problems.append(Diagnostic("duplicate-clusters", document.span, message, "rename one of them"))
            found[definition.name] = definition
    if problems:
        raise DefinitionError(problems)
    if not found:
        raise ProjectError(f"{path} is empty", hint=_EXAMPLE)
    return found


def choose(definitions: Mapping[str, ClusterDefinition], name: str | None) -> ClusterDefinition:
    """The named definition, or the only one.

    Raises
    ------
    UnknownNameError
        if there is none of that name, or no name was given and there are several.
    """
    if name is None and len(definitions) == 1:
        return next(iter(definitions.values()))
    if name is None:
        raise UnknownNameError(f"there are several definitions: {listing(definitions)}", hint="name one of them")
    if name not in definitions:
        hint = nearest(name, definitions) or f"there is {listing(definitions)}"
        raise UnknownNameError(f"there are no clusters `{name}` in {FILE}", hint=hint)
    return definitions[name]


def _problems(document: Node, catalog: Catalog) -> list[Diagnostic]:
    found = check_schema(document, SCHEMA)
    if found or not isinstance(document, MappingNode):
        return found
    features = document.entry("features").value
    assert isinstance(features, Items)
    seen: dict[str, Scalar] = {}
    for item in features.items:
        assert isinstance(item, MappingNode)
        node = item.entry("feature").value
        assert isinstance(node, Scalar)
        found += _feature_problems(node, seen, str(document.entry("clusters").value.value), catalog)  # type: ignore[union-attr]
        seen[str(node.value)] = node
    return (
        found
        + _order_problems(document.get("order_by"), seen)
        + _k_problems(document.get("k"))
        + _name_problems(document.get("names"))
    )


def _feature_problems(node: Scalar, seen: Mapping[str, Scalar], view: str, catalog: Catalog) -> list[Diagnostic]:
    key = str(node.value)
    feature = catalog.features.get(key)
    if feature is None:
        hint = nearest(key, catalog.features) or f"there are {listing(catalog.features)}"
        return [Diagnostic("unknown-feature", node.span, f"there is no feature `{key}`", hint)]
    if key in seen:
        return [Diagnostic("duplicate-feature", node.span, f"`{key}` is listed twice", "remove one of them")]
    if feature.view == view:
        return [Diagnostic("own-label", node.span, f"`{key}` is what these clusters write", "group by other features")]
    if feature.type is None or feature.type.is_list or not feature.type.kind.is_number:
        message = f"users are grouped by numbers, and `{key}` is {feature.type or feature.feast_type}"
        return [Diagnostic("feature-type", node.span, message, "use an Int or Float feature")]
    return []


def _order_problems(node: Node | None, features: Mapping[str, Scalar]) -> list[Diagnostic]:
    if not isinstance(node, Scalar) or node.value in features:
        return []
    hint = nearest(str(node.value), features) or f"one of {listing(features)}"
    return [Diagnostic("unknown-feature", node.span, f"`{node.value}` is not among the clusters' features", hint)]


def _k_problems(node: Node | None) -> list[Diagnostic]:
    if node is None:
        return []
    k = to_plain(node)
    if k["from"] <= k["to"]:
        return []
    message = f"from {k['from']} to {k['to']} is no range"
    return [Diagnostic("empty-range", node.span, message, f"write {{from: {k['to']}, to: {k['from']}}}")]


def _name_problems(node: Node | None) -> list[Diagnostic]:
    found: list[Diagnostic] = []
    seen: set[object] = set()
    for item in node.items if isinstance(node, Items) else ():
        assert isinstance(item, MappingNode)
        for key, what in (("cluster", "number"), ("label", "name")):
            value = item.entry(key).value
            assert isinstance(value, Scalar)
            if (key, value.value) in seen:
                message = f"two clusters cannot have the {what} `{value.value}`"
                found.append(Diagnostic("duplicate-name", value.span, message, "change one of them"))
            seen.add((key, value.value))
    return found
