"""Check the files behind feature views before anything is applied: their columns, their types, and odd rows."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rules_engine.diagnostics import Diagnostic, Span
from rules_engine.errors import DataError, FeatureColumnError, ProjectError, SegmentsError
from rules_engine.folders import Project
from rules_engine.project.catalog import ViewSource, project_catalog, project_sources

if TYPE_CHECKING:
    from rules_engine.features.feast.repo import FeastRepo
    from rules_engine.features.offline.source_file import SourceFile


def check_sources(project: Project, repo: FeastRepo | None = None) -> Iterator[Diagnostic]:
    """Yield a diagnostic for each column of a source whose values do not have the type that its feature declares.

    Only the types of columns are compared; but a column in which all values are missing fits every feature. A file that
    does not exist yet is no problem until it is read.

    Parameters
    ----------
    repo
        the project's open Feast repository, if the caller has one.
    """
    types = {name: feature.feast_type for name, feature in project_catalog(project, repo).features.items()}
    for source in project_sources(project, repo):
        for error in _errors(source, types):
            feature = error.feature if isinstance(error, FeatureColumnError) else None
            span = _place(project, source.columns.view, feature) or Span(str(source.path), 1, 1)
            yield Diagnostic("source-column", span, str(error), error.hint)


def odd_rows(project: Project, repo: FeastRepo | None = None) -> list[str]:
    """Count the rows of each source that are left out, and those that tie on their instants: a sentence for each kind.

    Raises
    ------
    ProjectError, DataError
        if a source cannot be read.
    """
    from rules_engine.clock import LAST_INSTANT
    from rules_engine.features.offline.newest import Reach, read_errors, survey
    from rules_engine.features.offline.source_file import unreadable

    notes: list[str] = []
    for source in project_sources(project, repo):
        opened = _open(source)
        if opened is None:
            continue
        try:
            oddities = survey(opened, Reach(LAST_INSTANT), project.state_dir)
        except read_errors() as error:
            raise unreadable(source.columns.view, source.path, str(error)) from error
        notes += oddities.lines(source.columns)
    return notes


def _errors(source: ViewSource, types: dict[str, str]) -> Iterator[SegmentsError]:
    try:
        opened = _open(source)
        if opened is not None:
            yield from opened.check_features(types)
    except (ProjectError, DataError) as error:
        yield error


def _open(source: ViewSource) -> SourceFile | None:
    from rules_engine.features.offline.source_file import SourceFile

    return SourceFile.open(source.path, source.columns) if source.path.is_file() else None


# --- where a view is defined ------------------------------------------------------------------------------------------


def _place(project: Project, view: str, feature: str | None) -> Span | None:
    """Find the text of a view's or a feature's name in the Python files; None if it is put together at run time."""
    name = None if feature is None else feature.partition(":")[2]
    view_span: Span | None = None
    for path in sorted(project.feature_repo.rglob("*.py")):
        shown = path.relative_to(project.root).as_posix()
        try:
            content = path.read_text(encoding="utf-8")
            calls = [node for node in ast.walk(ast.parse(content)) if isinstance(node, ast.Call)]
        except (OSError, ValueError, SyntaxError):
            continue
        lines = content.splitlines()
        for call in calls:
            texts = [node for node in ast.walk(call) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
            of_view = next((node for node in texts if node.value == view), None)
            if of_view is None:
                continue
            of_feature = next((node for node in texts if node.value == name), None)
            if of_feature is not None:
                return _span(shown, of_feature, lines)
            view_span = view_span or _span(shown, of_view, lines)
    return view_span


def _span(path: str, node: ast.Constant, lines: list[str]) -> Span:
    line = lines[node.lineno - 1]
    column = len(line.encode()[: node.col_offset].decode()) + 1
    length = (node.end_col_offset or node.col_offset + 1) - node.col_offset
    return Span(path, node.lineno, column, length, line)
