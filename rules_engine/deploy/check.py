"""Check every file of definitions and of their tests, then the rules and the sources: `segments validate`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rules_engine.definitions.source import Node
from rules_engine.deploy.lint.characters import lint_characters
from rules_engine.deploy.lint.warnings import lint
from rules_engine.deploy.lists.reading import missing_files
from rules_engine.deploy.source_checks import check_sources
from rules_engine.diagnostics import Diagnostic
from rules_engine.errors import DefinitionError
from rules_engine.files import files_below
from rules_engine.folders import Project
from rules_engine.ml.clusters.definition import FILE as CLUSTERS_FILE
from rules_engine.ml.clusters.definition import load_cluster_definitions
from rules_engine.ml.propensity.check import load_model_definitions
from rules_engine.ml.propensity.definition import FILE
from rules_engine.project.catalog import project_catalog
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.kinds import KINDS
from rules_engine.rules.load import (
    TEST_SUFFIX,
    Definitions,
    definition_files,
    load_documents,
    read_file,
    read_folder,
)
from rules_engine.simulation.case_files import load_cases


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The numbers of files, of files of tests, and of documents by their kind, and every problem.

    If a file was refused, no documents are counted.
    """

    files: int
    test_files: int
    documents: Mapping[str, int]
    problems: tuple[Diagnostic, ...] = ()


def check_project(project: Project) -> CheckReport:
    """Check the definitions of a project and their tests.

    Raises
    ------
    ProjectError, UnsupportedError
        if the Feast repository cannot be used.
    """
    folder = project.segments_dir
    tests = [path for path in files_below(folder) if path.name.endswith((TEST_SUFFIX, ".test.yml"))]
    files = len(definition_files(folder))
    documents, unreadable = read_folder(folder)
    characters = [*_of_characters(documents), *_of_characters(_others(project, tests))]
    try:
        catalog = project_catalog(project)
        definitions = load_documents(documents, catalog, unreadable)
    except DefinitionError as error:
        return CheckReport(files, len(tests), _numbers(Definitions()), _in_order([*error.diagnostics, *characters]))
    _, of_tests = load_cases(tests, project.root, definitions, catalog)
    warnings = lint(definitions)
    ordered = _in_order(
        [
            *of_tests,
            *warnings,
            *characters,
            *_of_models(project, catalog, definitions.program.names),
            *_of_clusters(project, catalog),
            *missing_files(project.root, definitions.program.segments.values()),
            *check_sources(project),
        ]
    )
    return CheckReport(files, len(tests), _numbers(definitions), ordered)


def _numbers(definitions: Definitions) -> dict[str, int]:
    return {kind.name: len(definitions.values.get(kind.name, {})) for kind in KINDS.values() if not kind.single}


def _others(project: Project, tests: Iterable[Path]) -> Iterator[Node]:
    """Yield the documents of the tests and of the file of events."""
    for path in [*tests, project.events_yaml]:
        if path.is_file():
            yield from read_file(path, path.relative_to(project.root).as_posix())[0]


def _of_characters(documents: Iterable[Node]) -> Iterator[Diagnostic]:
    """Yield the warnings about characters that the eye misses."""
    for document in documents:
        yield from lint_characters(document)


def _of_models(project: Project, catalog: Catalog, segments: Collection[str]) -> Iterable[Diagnostic]:
    """Find what is wrong with the definitions of models, if there are any."""
    if not (project.feature_repo / FILE).is_file():
        return ()
    try:
        load_model_definitions(project, catalog, segments)
    except DefinitionError as error:
        return error.diagnostics
    return ()


def _of_clusters(project: Project, catalog: Catalog) -> Iterable[Diagnostic]:
    """Find what is wrong with the definitions of clusters, if there are any."""
    if not (project.feature_repo / CLUSTERS_FILE).is_file():
        return ()
    try:
        load_cluster_definitions(project, catalog)
    except DefinitionError as error:
        return error.diagnostics
    return ()


def _in_order(problems: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    return tuple(sorted(problems, key=lambda problem: (problem.span.file, problem.span.line, problem.span.column)))
