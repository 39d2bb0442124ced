"""Apply a project: bring Feast's registry to the state of the files, then write the read plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rules_engine.clock import now_micros
from rules_engine.errors import ProjectError
from rules_engine.features.feast_repo import FeastRepo, RegistryChange
from rules_engine.features.read_plan import ReadPlan
from rules_engine.lifecycle.lock import project_lock
from rules_engine.lifecycle.versions import plan_content, record
from rules_engine.project import Project


@dataclass(frozen=True, slots=True)
class ApplyReport:
    """What an apply did.

    Attributes
    ----------
    plan
        the read plan that requests now answer from.
    previous
        the one before it; None if there was none that could be read.
    registry
        what changed in Feast's registry.
    version
        the number under which the plan is kept.
    """

    plan: ReadPlan
    previous: ReadPlan | None
    registry: RegistryChange
    version: int

    @property
    def changed(self) -> bool:
        """Whether anything differs from before."""
        previous = self.previous
        return bool(self.registry) or previous is None or plan_content(previous) != plan_content(self.plan)


def apply(
    project: Project,
    definitions: Mapping[str, Any],
    *,
    now: int | None = None,
    repo: FeastRepo | None = None,
    prepare: Callable[[ReadPlan], None] | None = None,
) -> ApplyReport:
    """Apply the Feast definitions and the checked segment definitions of a project.

    Everything that can be refused is refused before anything is changed. Then Feast's registry is changed, the new plan
    is kept as a version, and last the read plan is replaced in one step. Until then requests answer from the old plan;
    an apply that is killed is completed by running it again.

    Parameters
    ----------
    project
        the project.
    definitions
        the checked definitions as JSON data; not looked into.
    now
        what counts as now where none is given, in microseconds; None is the wall clock.
    repo
        the project's open repository, if the caller has one.
    prepare
        called with the new plan just before it takes effect.

    Raises
    ------
    ProjectError
        if the project or its Feast definitions cannot be used.
    UnsupportedError
        if the entity has no single string key.
    """
    repo = FeastRepo(project) if repo is None else repo
    repo.check()
    with project_lock(project):
        previous = _previous(project)
        change = repo.apply()
        plan = repo.read_plan(definitions, applied_at=now_micros(), now=now)
        if prepare is not None:
            prepare(plan)
        kept = record(project, plan)
        plan.save(project.read_plan)
    return ApplyReport(plan, previous, change, kept.number)


def _previous(project: Project) -> ReadPlan | None:
    """The plan that is replaced. One that is damaged or missing is no reason not to write a new one."""
    try:
        return ReadPlan.load(project.read_plan)
    except ProjectError:
        return None
