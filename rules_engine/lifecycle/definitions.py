"""A project's definitions: loaded and checked against its features, and put into effect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rules_engine.events.declarations import read_events
from rules_engine.lifecycle.catalog import project_catalog
from rules_engine.lifecycle.schema import write_schema
from rules_engine.lifecycle.versions import check_features, version
from rules_engine.project import Project
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.load import Definitions, load_folder
from rules_engine.sdk.rules import encode_definitions

if TYPE_CHECKING:
    from rules_engine.features.read_plan import ReadPlan
    from rules_engine.lifecycle.apply import ApplyReport
    from rules_engine.lifecycle.backfill import Backfill, BackfillProgress


@dataclass(frozen=True, slots=True)
class Loaded:
    """Checked definitions, and the catalog that they were checked against."""

    definitions: Definitions
    catalog: Catalog


@dataclass(frozen=True, slots=True)
class Applied:
    """What applying a project did: to Feast's registry and read plan, and by name to the segments."""

    report: ApplyReport
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]


def load_project(project: Project) -> Loaded:
    """The definitions of a project.

    Raises
    ------
    DefinitionError
        with every problem of every file.
    ProjectError, UnsupportedError
        if the Feast repository cannot be used.
    """
    catalog = project_catalog(project)
    return Loaded(load_folder(project.segments_dir, catalog), catalog)


def apply_project(
    project: Project, progress: Callable[[BackfillProgress], None] | None = None, *, to: int | None = None
) -> Applied:
    """Check the definitions, then put the features and the definitions into effect. Renews the schema for editors.

    Nothing is changed if anything is refused. Event states that the definitions need are built from the event log
    before requests are answered by them; ``progress`` is called meanwhile. With ``to``, the segments and events of that
    version are put into effect in place of those of the files.

    Raises
    ------
    DefinitionError
        with every problem of every file.
    ProjectError, UnsupportedError
        if the Feast repository cannot be used, or no longer has a feature that the version reads.
    UnknownNameError
        if there is no such version.
    """
    from rules_engine.features.feast_repo import FeastRepo
    from rules_engine.lifecycle.apply import apply
    from rules_engine.lifecycle.backfill import Backfill

    repo = FeastRepo(project)
    catalog = project_catalog(project, repo)
    content, now = _of_files(project, catalog) if to is None else _of_version(project, catalog, to)
    backfills: list[Backfill] = []

    def prepare(plan: ReadPlan) -> None:
        backfills.append(Backfill(project, plan, progress))
        backfills[0].prepare()

    try:
        report = apply(project, content, now=now, repo=repo, prepare=prepare)
        backfills[0].finish()
    finally:
        for backfill in backfills:
            backfill.close()
    before: dict[str, Any] = dict(report.previous.definitions.get("segments", {})) if report.previous else {}
    after: dict[str, Any] = dict(report.plan.definitions["segments"])
    return Applied(
        report,
        added=tuple(sorted(after.keys() - before.keys())),
        changed=tuple(sorted(name for name in after.keys() & before.keys() if after[name] != before[name])),
        removed=tuple(sorted(before.keys() - after.keys())),
    )


def _of_files(project: Project, catalog: Catalog) -> tuple[Mapping[str, Any], int | None]:
    """What to put into effect, and what counts as now."""
    declared = read_events(project.events_yaml)
    definitions = load_folder(project.segments_dir, catalog)
    write_schema(project, catalog)
    settings = definitions.settings
    return encode_definitions(definitions.program, declared, definitions.triggers, settings), settings.now


def _of_version(project: Project, catalog: Catalog, number: int) -> tuple[Mapping[str, Any], int | None]:
    found = version(project, number)
    check_features(found, catalog)
    return found.plan.definitions, found.plan.now
