"""A project opened for its clusters: what `segments cluster fit` and `attach` do, without what they print."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from rules_engine.clock import now_micros
from rules_engine.diagnostics import listing
from rules_engine.errors import DataError
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.features.offline.learned_views import make_missing_files
from rules_engine.folders import Project
from rules_engine.ml.clusters.definition import FILE, ClusterDefinition, load_cluster_definitions
from rules_engine.ml.clusters.drift import cluster_drift
from rules_engine.ml.clusters.fitting import Fit, fit_closely
from rules_engine.ml.clusters.labelling.attach import Attached, attach
from rules_engine.ml.clusters.labelling.labels import unknown_labels
from rules_engine.ml.clusters.model import CLUSTERS, Cluster, ClusterModel
from rules_engine.ml.clusters.population import Sample, sample
from rules_engine.ml.clusters.refit import Published, previous_version, publish
from rules_engine.ml.clusters.reporting.report import report
from rules_engine.ml.drift import Drift, beyond
from rules_engine.ml.filled_view import LABELS
from rules_engine.ml.report.pictures import can_draw
from rules_engine.ml.versions.store import VersionStore, choose_name
from rules_engine.read_plan import ReadPlan
from rules_engine.rules.segments.codec import decode_program

#: How often clusters are looked for among other entities, to tell how stable they are.
_RESAMPLES = 20

#: Is told what goes on, how many entities are done, and how many there are; 0 if that is not known.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class ClusterFitRun:
    """The result of a fit: the version or its refusal, the material it was made of, and the version before."""

    published: Published
    fitted: Fit
    before: ClusterModel | None
    frame: pd.DataFrame

    def names_in_doubt(self) -> list[tuple[Cluster, str]]:
        """Return the clusters whose kept name is not what their entities would be called today, with that name.

        Names that the definition gives are left alone.
        """
        model = self.published.model
        defined = {number for number, _ in model.definition.names}
        proposed = {cluster.position: cluster.label for cluster in self.fitted.model.clusters}
        matched = model.matching.overlap if model.matching and self.published.is_new else {}
        return [
            (cluster, proposed[cluster.position])
            for cluster in model.clusters
            if cluster.number in matched and cluster.number not in defined
            and set(cluster.label.split(", ")) != set(proposed[cluster.position].split(", "))
        ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class ClusterProject:
    """A project opened for one of its clusterings.

    Attributes
    ----------
    now : int
        the instant that counts as now, in microseconds: the given one, the applied project's, or the clock's.
    """

    feast: FeastRepo
    definition: ClusterDefinition
    plan: ReadPlan
    store: VersionStore[ClusterModel]
    now: int

    @classmethod
    def open(cls, project: Project, name: str | None = None, at: int | None = None) -> ClusterProject:
        """Open a project for the named clusters, or for the only ones.

        Raises
        ------
        DefinitionError
            with every problem of clusters.yaml.
        ProjectError, UnknownNameError
            if there are no such clusters, no view holds their labels, or the Feast repository cannot be used.
        """
        feast = FeastRepo(project)
        make_missing_files(feast)
        definitions = load_cluster_definitions(project, feast.catalog())
        definition = definitions[choose_name(definitions, name, f"clusters in {FILE}")]
        LABELS.check(feast, definition.name)
        plan = ReadPlan.load(project.read_plan)
        return cls(feast, definition, plan, VersionStore(project, CLUSTERS, definition.name), _now(plan, at))

    def labelled_by(self) -> str | None:
        """Return the version that a new fit is compared with: the attached, else the promoted, else the newest one."""
        model = previous_version(self.store)
        return None if model is None else model.version

    def drift(self, limits: Mapping[str, float]) -> list[tuple[Drift, list[str]]]:
        """Return what has drifted beyond the limits since the version that entities are labelled with."""
        model = previous_version(self.store)
        return [] if model is None else beyond(drift_now(self.feast, model, self.now), limits)

    def fit(self, progress: Progress, *, max_moved: float | None = None, accept_drift: bool = False) -> ClusterFitRun:
        """Fit clusters as of now, and store them unless too many entities would move.

        Raises
        ------
        DataError
            if there are too few entities, or a feature cannot be used.
        ProjectError
            if the offline store cannot be read.
        """
        definition = self.definition
        progress("Reading features", 0, 0)
        drawn = self._sample(definition.keys, lambda done: progress("Reading features", round(done * 100), 100))
        fitted = fit_closely(
            definition, drawn.frame, self.now,
            population=drawn.population, window=drawn.window, resamples=_RESAMPLES, progress=progress,
        )  # fmt: skip
        progress("Matching with the version before", 0, 0)
        before = previous_version(self.store)
        published = publish(
            self.store, fitted.model, drawn.frame, self._features_of_before, now_micros(),
            max_moved=max_moved, accept_drift=accept_drift,
        )  # fmt: skip
        return ClusterFitRun(published, fitted, before, drawn.frame)

    def write_report(self, run: ClusterFitRun) -> Path | None:
        """Write the report of a fit that is new or was refused; None if there is nothing to draw with."""
        published = run.published
        if not can_draw() or (not published.is_new and published.refusal is None):
            return None
        path = self.store.report(published.model.version or "refused")
        report(published.model, run.fitted, run.before, run.frame).write(path)
        return path

    def attach(self, version: str | None, progress: Progress) -> tuple[ClusterModel, Attached]:
        """Label every entity as of now by a version; by default by the promoted one, else the newest.

        Raises
        ------
        UnknownNameError, DataError
            if there is no such version, or no entity has its features.
        """
        model = self.store.current(version)
        attached = attach(self.feast, model, self.now, progress)
        self.store.mark_attached(model.version, now_micros())
        return model, attached

    def unknown_labels(self, model: ClusterModel) -> dict[str, list[str]]:
        """Return, by applied segment, the labels that it looks for and the model lacks."""
        return unknown_labels(decode_program(self.plan.definitions["segments"]), model)

    def _sample(self, features: Sequence[str], progress: Callable[[float], None] = lambda _done: None) -> Sample:
        method = self.definition.method
        return sample(self.feast, features, self.now, method.sample, method.seed, progress)

    def _features_of_before(self, features: Sequence[str]) -> pd.DataFrame:
        """Read what the version before looks at, if it is still there."""
        gone = [feature for feature in features if feature not in self.feast.catalog().features]
        if gone:
            raise DataError(f"it looks at {listing(gone)}, which is no feature any more")
        return self._sample(features).frame


def stored_drift(project: Project, name: str, at: int | None) -> list[Drift]:
    """Return how far today's entities are from those of the version that they are labelled with.

    Raises
    ------
    DataError
        if nobody has the features.
    """
    model = previous_version(VersionStore(project, CLUSTERS, name))
    assert model is not None, "a name that was fitted has a version"
    return drift_now(FeastRepo(project), model, _now(ReadPlan.load(project.read_plan), at))


def drift_now(feast: FeastRepo, model: ClusterModel, now: int) -> list[Drift]:
    """Return how far the entities of an instant, in microseconds, are from those that a model was fitted to."""
    method = model.definition.method
    drawn = sample(feast, model.features, now, method.sample, method.seed)
    return cluster_drift(model, [drawn.frame])


def _now(plan: ReadPlan, at: int | None) -> int:
    if at is not None:
        return at
    return now_micros() if plan.now is None else plan.now
