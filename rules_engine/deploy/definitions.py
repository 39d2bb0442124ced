"""A project's definitions: loaded and checked against its features, and put into effect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rules_engine.clock import now_micros
from rules_engine.deploy.running import check_running
from rules_engine.deploy.schema import write_schema
from rules_engine.deploy.stages import ApplyReport, ApplyStages
from rules_engine.errors import DefinitionError, ProjectError
from rules_engine.events.declarations.events_yaml import read_events
from rules_engine.features.feast.registry import RegistryChange
from rules_engine.folders import Project
from rules_engine.project.catalog import project_catalog
from rules_engine.project.versions import check_features, version
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.load import Definitions, load_folder
from rules_engine.sdk.rules import encode_definitions

if TYPE_CHECKING:
    from rules_engine.deploy.backfill import BackfillProgress
    from rules_engine.deploy.lists.changes import ListChange
    from rules_engine.deploy.stages import Stage
    from rules_engine.features.feast.repo import FeastRepo


@dataclass(frozen=True, slots=True)
class Loaded:
    """Checked definitions, and the catalog that they were checked against."""

    definitions: Definitions
    catalog: Catalog


def load_project(project: Project) -> Loaded:
    """Return the definitions of a project.

    Raises
    ------
    DefinitionError
        with every problem of every file.
    ProjectError, UnsupportedError
        if the Feast repository cannot be used.
    """
    catalog = project_catalog(project)
    return Loaded(load_folder(project.segments_dir, catalog), catalog)


def project_stages(
    project: Project, repo: FeastRepo, *, to: int | None = None, store_needed: bool = True
) -> ApplyStages:
    """Find what applying the files of a project would do, or with ``to`` going back to the segments of a version.

    Raises
    ------
    DefinitionError
        with every problem of every file.
    ProjectError, UnsupportedError
        if the Feast repository cannot be used, or no longer has a feature that the version reads; or if who is in
        which arm of a running experiment would change.
    UnknownNameError
        if there is no such version.
    StoreError
        if the definitions read events, and the online store is needed to know their states but does not answer.
    """
    from rules_engine.deploy.stage_finder import applied_plan, find_stages

    catalog = project_catalog(project, repo)
    if to is not None:
        content, now = _of_version(project, catalog, to)
        return find_stages(project, content, now, repo, store_needed=store_needed)
    definitions = load_folder(project.segments_dir, catalog)
    content, now = _content(project, catalog, definitions), definitions.settings.now
    applied = applied_plan(project)
    if applied is not None:
        check_running(applied.definitions, content, now_micros() if now is None else now)
    lists = _changed_lists(project, repo, definitions)
    return find_stages(project, content, now, repo, lists=lists, store_needed=store_needed)


def _changed_lists(project: Project, repo: FeastRepo, definitions: Definitions) -> tuple[ListChange, ...]:
    """Return the lists to import: all, if the view that holds them lacks one; else those that differ."""
    from rules_engine.deploy.lists.importing import compare, list_segments
    from rules_engine.features.feast.list_view import defined_lists

    lists = list_segments(definitions.program.segments)
    if not lists:
        return ()
    defined = defined_lists(repo) or ()
    now = definitions.settings.now
    changes = compare(project.root, repo, lists, now_micros() if now is None else now)
    return tuple(change for change in changes if change.joins or change.leaves or change.segment not in defined)


def _define_lists(project: Project, repo: FeastRepo) -> FeastRepo:
    """Bring the definition of the view of lists to the state of the files; return the repository as it then is."""
    from rules_engine.deploy.lists.importing import compare, list_segments, shape
    from rules_engine.features.feast.list_view import data_file, defined_lists, definition_file, write_definition
    from rules_engine.features.feast.repo import FeastRepo

    definitions = load_folder(project.segments_dir, project_catalog(project, repo))
    lists, defined = list_segments(definitions.program.segments), defined_lists(repo)
    if tuple(lists) == (defined or ()):
        return repo
    if lists:
        compare(project.root, repo, lists, 0)  # refuses what cannot be imported, before anything is written
        shape(repo, tuple(lists))
        write_definition(repo, tuple(lists))
    else:
        definition_file(project).unlink()
        data_file(project).unlink(missing_ok=True)
    return FeastRepo(project)


def apply_project(
    project: Project,
    progress: Callable[[BackfillProgress], None] | None = None,
    *,
    to: int | None = None,
    expect: str | None = None,
    done: Callable[[Stage], None] = lambda _: None,
) -> ApplyReport:
    """Check the definitions, then put the features and the definitions into effect. Renews the schema for editors.

    Nothing is changed if anything is refused. Event states that the definitions need are built from the event log
    before requests are answered by them; ``progress`` is called meanwhile, and ``done`` after each stage. With ``to``,
    the segments, events and triggers of that version are put into effect in place of those of the files.

    Raises
    ------
    DefinitionError
        with every problem of every file, the sources' columns among them.
    ProjectError, UnsupportedError
        if the Feast repository cannot be used, or no longer has a feature that the version reads; or if the plan is
        another one than ``expect``.
    UnknownNameError
        if there is no such version.
    StoreError
        if the definitions read events, and the online store does not answer.
    """
    from rules_engine.deploy.unchanged import note_unchanged, project_files, unchanged

    files = project_files(project)
    applied = unchanged(project) if to is None else None
    if applied is not None:
        _check_expected(applied.stages, expect)
        return ApplyReport(applied.plan, applied.plan, RegistryChange((), (), ()), applied.version, applied.stages)
    from rules_engine.deploy.apply import perform
    from rules_engine.deploy.source_checks import check_sources, odd_rows
    from rules_engine.features.feast.repo import FeastRepo

    repo = FeastRepo(project)
    if to is None:
        repo = _define_lists(project, repo)
    stages = project_stages(project, repo, to=to)
    problems = list(check_sources(project))
    if problems:
        raise DefinitionError(problems)
    _check_expected(stages, expect)
    if to is None:
        write_schema(project, project_catalog(project))
    notes = tuple(odd_rows(project)) if to is None else ()
    report = replace(perform(project, stages, repo, done=done, progress=progress), notes=notes)
    if to is None:
        note_unchanged(project, files, report.plan, report.version)
    return report


def _check_expected(stages: ApplyStages, expect: str | None) -> None:
    if expect is not None and stages.id != expect:
        raise ProjectError(
            f"this is plan {stages.id}, and plan {expect} was expected: the files or what is applied changed since",
            hint="look at `segments plan` again",
        )


def _content(project: Project, catalog: Catalog, definitions: Definitions) -> Mapping[str, Any]:
    """Return what to put into effect."""
    declared = read_events(project.events_yaml)
    return encode_definitions(definitions, declared) | _of_models(project, catalog)


def _of_models(project: Project, catalog: Catalog) -> dict[str, Any]:
    """Return the models that score within requests; what reads them is loaded only where models were fitted."""
    if not any((project.state_dir / name).is_dir() for name in ("models", "propensity")):
        return {}
    from rules_engine.ml.propensity.plan_data import request_models

    return request_models(project, catalog)


def _of_version(project: Project, catalog: Catalog, number: int) -> tuple[Mapping[str, Any], int | None]:
    stored = version(project, number)
    check_features(stored, catalog)
    return stored.plan.definitions, stored.plan.now
