"""The table of algorithms: ours, and those that other packages bring as entry points. An incomplete one is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from rules_engine.extensions import Extensions
from rules_engine.ml.clusters.algorithms.agglomerative import Agglomerative
from rules_engine.ml.clusters.algorithms.base import Algorithm, AlgorithmSetting, Assigner, Clustering
from rules_engine.ml.clusters.algorithms.dbscan import Dbscan
from rules_engine.ml.clusters.algorithms.gaussian_mixture import GaussianMixture
from rules_engine.ml.clusters.algorithms.hdbscan import Hdbscan
from rules_engine.ml.clusters.algorithms.kmeans import KMeans
from rules_engine.ml.clusters.algorithms.minibatch_kmeans import MiniBatchKMeans
from rules_engine.ml.clusters.arrays import Matrix

BUILT_IN: tuple[type[Algorithm], ...] = (
    KMeans,
    MiniBatchKMeans,
    Agglomerative,
    GaussianMixture,
    Dbscan,
    Hdbscan,
)

#: The algorithm where a definition names none.
DEFAULT = KMeans.name

#: What other packages bring: the name of an entry point is the algorithm's, the object a subclass of Algorithm.
BROUGHT = Extensions("feast_segments.cluster_algorithms", "cluster algorithm", "docs/adding_an_algorithm.md")

#: Keys of clusters.yaml that are no settings of an algorithm.
_OURS = frozenset(
    ("clusters", "description", "features", "missing", "pca", "algorithm", "k", "choose_by", "sample", "seed",
     "order_by", "max_moved", "names")
)  # fmt: skip


@cache
def algorithms() -> Mapping[str, Algorithm]:
    """Return every algorithm by name, ours first.

    Raises
    ------
    TypeError
        if one of ours is incomplete.
    ProjectError
        if a package brings one that cannot be imported, is incomplete, or has a name that is taken.

    >>> list(algorithms())[:3]
    ['kmeans', 'minibatch_kmeans', 'agglomerative']
    """
    by_name: dict[str, Algorithm] = {}
    for own in BUILT_IN:
        if problem := lacking(own, own.name, by_name):
            raise TypeError(f"{own.__name__} {problem}")
        by_name[own.name] = own()
    for entry, brought in BROUGHT.load(by_name):
        if problem := lacking(brought, entry.name, by_name):
            raise BROUGHT.unusable(entry, f"`{entry.value}` {problem}")
        by_name[entry.name] = brought()
    return by_name


def lacking(candidate: Any, name: str, others: Mapping[str, Algorithm]) -> str:
    """Return what a class lacks to be the algorithm of that name; empty if it is complete."""
    if not (isinstance(candidate, type) and issubclass(candidate, Algorithm)):
        return "is no subclass of Algorithm"
    for attribute, kind in (("__doc__", str), ("name", str), ("sample", int), ("settings", Mapping)):
        value = getattr(candidate, attribute, None)
        if not isinstance(value, kind) or value in ("", 0):
            return f"has no {'docstring' if attribute == '__doc__' else f'`{attribute}`'}"
    if candidate.name != name:
        return f"calls itself `{candidate.name}`"
    if candidate.__abstractmethods__:
        return f"has no {' and no '.join(f'`{method}`' for method in sorted(candidate.__abstractmethods__))}"
    return _lacking_assigner(candidate, others) or _wrong_setting(candidate, others)


def _lacking_assigner(candidate: type[Algorithm], others: Mapping[str, Algorithm]) -> str:
    assigner = getattr(candidate, "assigner", None)
    parts = ("kind", "count", "dimensions", "assign", "to_plain", "from_plain")
    absent = [part for part in parts if not hasattr(assigner, part)]
    if absent:
        return f"has no `assigner` with {', '.join(absent)}"
    if any(other.assigner.kind == candidate.assigner.kind for other in others.values() if other.assigner != assigner):
        return f"has an assigner of the kind `{candidate.assigner.kind}`, which another one is"
    return ""


def _wrong_setting(candidate: type[Algorithm], others: Mapping[str, Algorithm]) -> str:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    for key, setting in candidate.settings.items():
        same = [other.settings[key].schema for other in others.values() if key in other.settings]
        if key in _OURS or any(schema != setting.schema for schema in same):
            return f"has a setting `{key}`, which means something else already"
        if "description" not in setting.schema:
            return f"has a setting `{key}` without a description"
        try:
            Draft202012Validator.check_schema(dict(setting.schema))
        except SchemaError as error:
            return f"has a setting `{key}` whose schema is none: {error.message}"
        if setting.default is not None and not Draft202012Validator(dict(setting.schema)).is_valid(setting.default):
            return f"has a setting `{key}` whose default {setting.default!r} its own schema refuses"
    return ""


def settings() -> dict[str, AlgorithmSetting]:
    """Return every setting of any algorithm, by its key in clusters.yaml."""
    return {key: setting for algorithm in algorithms().values() for key, setting in algorithm.settings.items()}


def known_by(key: str) -> tuple[str, ...]:
    """Return the algorithms that a key of clusters.yaml is for.

    >>> known_by("min_users")[:2], known_by("choose_by")[:2]
    (('dbscan', 'hdbscan'), ('kmeans', 'minibatch_kmeans'))
    """
    if key in ("k", "choose_by"):
        return tuple(name for name, algorithm in algorithms().items() if not algorithm.finds_k)
    if key in _OURS:
        return tuple(algorithms())
    return tuple(name for name, algorithm in algorithms().items() if key in algorithm.settings)


def find(
    algorithm: str,
    points: Matrix,
    sizes: Sequence[int],
    settings: Mapping[str, Any],
    seed: int,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[Clustering]:
    """Find clusters by the algorithm of a name, for each of the numbers of clusters.

    Raises
    ------
    DataError
        if an algorithm finds no cluster.
    """
    clusterings, chosen = [], algorithms()[algorithm]
    for result in chosen.find(points, sizes, settings, seed):
        clusterings.append(result)
        progress(len(clusterings), 1 if chosen.finds_k else len(sizes))
    return clusterings


def assigner_from_plain(content: Mapping[str, Any]) -> Assigner:
    """Return the assigner that a file holds.

    Raises
    ------
    ValueError, KeyError, TypeError
        if the data make no sense.
    """
    kinds = {algorithm.assigner.kind: algorithm.assigner for algorithm in algorithms().values()}
    return kinds[content["kind"]].from_plain(content)
