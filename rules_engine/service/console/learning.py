"""Read fitted clusters and models, and measure their drift, as the commands do; runs in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rules_engine.errors import UnknownNameError
from rules_engine.folders import Project
from rules_engine.ml.drift import DEFAULT_LIMITS, Drift
from rules_engine.ml.versions.kinds import ModelKind


@dataclass(frozen=True, slots=True)
class FittedVersion:
    """Holds a version of clusters or of a model.

    Attributes
    ----------
    folder, name, version
        what it is: ``clusters`` or ``models``, its name, and e.g. ``v1``.
    facts
        what is known of it, by what it is called.
    groups
        of clusters, by label how many users each has.
    promoted, attached
        whether it counts, and whether users have its labels or scores.
    has_report
        whether there is a page about it.
    error
        why it cannot be read.
    """

    folder: str
    name: str
    version: str
    created_at: int | None = None
    as_of: int | None = None
    facts: tuple[tuple[str, str], ...] = ()
    groups: tuple[tuple[str, int], ...] = ()
    promoted: bool = False
    attached: bool = False
    has_report: bool = False
    error: str | None = None


def fitted(root: Path) -> tuple[FittedVersion, ...]:
    """Return all versions, of each name the newest first."""
    return tuple(_fitted(Project(root)))


def _fitted(project: Project) -> Iterator[FittedVersion]:
    from rules_engine.ml.clusters.model import CLUSTERS
    from rules_engine.ml.propensity.model import MODELS
    from rules_engine.ml.versions.store import VersionStore, fitted_names

    kinds: tuple[tuple[ModelKind[Any], Callable[[Any], Iterator[tuple[str, str]]]], ...] = (
        (CLUSTERS, _of_clusters),
        (MODELS, _of_model),
    )
    for kind, facts in kinds:
        for name in fitted_names(project, kind):
            store: VersionStore[Any] = VersionStore(project, kind, name)
            for entry in reversed(store.entries()):
                model, version = entry.model, entry.version
                yield FittedVersion(
                    kind.folder,
                    name,
                    version,
                    None if model is None else model.created_at,
                    None if model is None else model.as_of,
                    () if model is None else tuple(facts(model)),
                    () if model is None else _groups(model),
                    version == store.promoted(),
                    version == store.attached(),
                    store.report(version).is_file(),
                    None if entry.error is None else str(entry.error),
                )


def _of_clusters(model: Any) -> Iterator[tuple[str, str]]:
    silhouette = model.score.silhouette
    yield "algorithm", model.definition.method.algorithm
    yield "clusters", f"{len(model.clusters)}"
    yield "silhouette", "\N{EN DASH}" if silhouette is None else f"{silhouette:.3f}"
    yield "users", f"{model.users:,}"
    if model.matching:
        yield "moved", f"{model.matching.share_moved:.1%}"


def _of_model(model: Any) -> Iterator[tuple[str, str]]:
    overall = model.judgement.overall
    yield "target", str(model.definition.target)
    yield "algorithm", model.best.algorithm
    yield "rows", f"{model.train.rows:,}"
    for name, value in (("ROC AUC", overall.roc_auc), ("average precision", overall.average_precision)):
        yield name, "\N{EN DASH}" if value is None else f"{value:.3f}"


def _groups(model: Any) -> tuple[tuple[str, int], ...]:
    return tuple((cluster.label, cluster.size) for cluster in getattr(model, "clusters", ()))


def drifted(root: Path) -> tuple[tuple[Drift, bool], ...]:
    """Return how far users have drifted since the fits, and whether it reaches a limit, as `segments drift` does."""
    from rules_engine.ml.project_drift import project_drift

    try:
        drifts = list(project_drift(Project.open(root), [], None))
    except UnknownNameError:  # nothing was fitted yet
        return ()
    return tuple((drift, bool(drift.beyond(DEFAULT_LIMITS))) for drift in drifts)
