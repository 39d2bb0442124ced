"""Apply a project: walk the stages that `segments plan` shows, the replacement of the read plan being one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rules_engine.clock import now_micros
from rules_engine.deploy.backfill import Backfill, BackfillProgress
from rules_engine.deploy.holding import check_store, declare_views
from rules_engine.deploy.lists.importing import compare, list_segments
from rules_engine.deploy.materialize import materialize_view
from rules_engine.deploy.stage_finder import applied_plan, find_stages, owe_sweep, settle_sweep
from rules_engine.deploy.stages import (
    ApplyReport,
    ApplyStages,
    BuildStates,
    CatchUp,
    ImportLists,
    KeepVersion,
    Reevaluate,
    Register,
    Stage,
    Switch,
)
from rules_engine.errors import ProjectError
from rules_engine.features.feast.registry import RegistryChange
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.folders import Project
from rules_engine.project.lock import project_lock
from rules_engine.project.versions import plan_hash, record
from rules_engine.read_plan import ReadPlan
from rules_engine.rules.segments.codec import decode_program
from rules_engine.rules.segments.lists import VIEW
from rules_engine.sdk.rules import Rules
from rules_engine.stream.event_sink import EventSink
from rules_engine.stream.reevaluation import look_again
from rules_engine.stream.sweep import NEW_SEGMENTS, request


def apply(
    project: Project, definitions: Mapping[str, Any], *, now: int | None = None, repo: FeastRepo | None = None
) -> ApplyReport:
    """Apply the Feast definitions and the checked segment definitions of a project.

    Everything that can be refused is refused before anything is changed. The read plan is replaced in one step, after
    everything that it needs is there. Until then requests answer from the old plan; an apply that is killed is
    completed by running it again.

    Parameters
    ----------
    project
        the project.
    definitions
        the checked definitions as JSON data.
    now
        what counts as now where none is given, in microseconds; None is the wall clock.
    repo
        the project's open repository, if the caller has one.

    Raises
    ------
    ProjectError
        if the project or its Feast definitions cannot be used.
    UnsupportedError
        if the entity has no single string key.
    StoreError
        if the definitions read events, and the online store does not answer.
    """
    repo = FeastRepo(project) if repo is None else repo
    return perform(project, find_stages(project, definitions, now, repo), repo)


def perform(
    project: Project,
    stages: ApplyStages,
    repo: FeastRepo,
    *,
    done: Callable[[Stage], None] = lambda _: None,
    progress: Callable[[BackfillProgress], None] | None = None,
) -> ApplyReport:
    """Do what stages say, and nothing else.

    Parameters
    ----------
    done
        called after each stage.
    progress
        called while event states are built.

    Raises
    ------
    ProjectError
        if something else was applied since the stages were found, or the online store evicts keys when its memory is
        full; nothing is changed then.
    """
    check_store(project, repo)
    with project_lock(project):
        previous = applied_plan(project)
        run = _StageWalk(project, stages, repo, progress, previous)
        if plan_hash(previous) != stages.before:
            raise ProjectError(
                "something else was applied meanwhile, so this plan is out of date",
                hint="look at `segments plan` again",
            )
        try:
            for stage in stages.stages:
                run.perform(stage)
                done(stage)
        finally:
            run.close()
    return ApplyReport(run.plan, previous, run.registry, run.version, stages)


class _StageWalk:
    """One walk over stages; each method does one of them."""

    def __init__(
        self,
        project: Project,
        stages: ApplyStages,
        repo: FeastRepo,
        progress: Callable[[BackfillProgress], None] | None,
        previous: ReadPlan | None,
    ) -> None:
        self._project = project
        self._previous = previous
        self._stages = stages
        self._repo = repo
        self._progress = progress
        self._backfill: Backfill | None = None
        self.plan: ReadPlan
        self.registry = RegistryChange((), (), ())
        self.version = 0

    def perform(self, stage: Stage) -> None:
        actions: dict[type, Callable[[], None]] = {
            Register: self._register,
            ImportLists: self._import_lists,
            BuildStates: self._build_states,
            KeepVersion: self._keep,
            Switch: self._switch,
            CatchUp: self._catch_up,
            Reevaluate: self._sweep,
        }
        actions[type(stage)]()

    def close(self) -> None:
        if self._backfill is not None:
            self._backfill.close()

    def _register(self) -> None:
        self.registry = self._repo.apply()
        stages = self._stages
        self.plan = self._repo.read_plan(stages.definitions, applied_at=now_micros(), now=stages.now)

    def _import_lists(self) -> None:
        now = self._stages.now
        instant = now_micros() if now is None else now
        lists = list_segments(decode_program(self._stages.definitions["segments"]).segments)
        compare(self._project.root, self._repo, lists, instant, write=True)
        materialize_view(self._repo, VIEW, instant)

    def _build_states(self) -> None:
        self._backfill = Backfill(self._project, self.plan, self._progress)
        self._backfill.prepare()

    def _keep(self) -> None:
        record(self._project, self.plan)

    def _switch(self) -> None:
        for stage in self._stages.stages:
            if isinstance(stage, Reevaluate):
                owe_sweep(self._project, stage.segments)
        self.version = record(self._project, self.plan).number
        declare_views(self._project, self.plan, self._previous, self._repo)
        self.plan.save(self._project.read_plan)
        if any(isinstance(stage, ImportLists) for stage in self._stages.stages):
            look_again(self._project, "lists", [VIEW])

    def _catch_up(self) -> None:
        assert self._backfill is not None, "states are built before"
        self._backfill.finish()

    def _sweep(self) -> None:
        sink = EventSink(self._project, Rules(self.plan))
        try:
            sink.on_store(lambda: request(sink.client, self.plan.project, NEW_SEGMENTS))
        finally:
            sink.close()
        settle_sweep(self._project)
