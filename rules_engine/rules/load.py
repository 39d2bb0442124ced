"""Loads the files of a project as a checked program, and collects every problem of every file."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rules_engine.definitions.envelope import check_schema, document_kind
from rules_engine.definitions.source import Mapping, Node, Scalar, read_documents
from rules_engine.diagnostics import Diagnostic, Severity, Span
from rules_engine.errors import DefinitionError
from rules_engine.files import files_below
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.decisions.nodes import Decision
from rules_engine.rules.document import DocumentKind, Scope
from rules_engine.rules.experiments.nodes import Experiment
from rules_engine.rules.groups.kind import with_precedence
from rules_engine.rules.kinds import KINDS
from rules_engine.rules.metrics.nodes import Metric
from rules_engine.rules.nodes import Segment
from rules_engine.rules.program import Program
from rules_engine.rules.segments.checks import find_too_deep
from rules_engine.rules.settings.nodes import Settings
from rules_engine.rules.triggers.nodes import Trigger
from rules_engine.rules.walk import dependencies

TEST_SUFFIX = ".test.yaml"


@dataclass(frozen=True, slots=True)
class Definitions:
    """Everything that the files of ``segments/`` define: by kind of document, the nodes by name."""

    values: MappingType[str, MappingType[str, Any]] = field(default_factory=dict)

    @property
    def program(self) -> Program:
        """Return the segments."""
        return Program(self.values.get("segment", {}))

    @property
    def settings(self) -> Settings:
        """Return the settings of the ``project:`` document; the defaults without one."""
        return next(iter(self.values.get("project", {}).values()), Settings())

    def with_now(self, now: int | None) -> Definitions:
        """Return the same with another instant, in microseconds, that counts as now."""
        settings = replace(self.settings, now=now)
        return Definitions({**self.values, "project": {settings.name: settings}})

    @property
    def triggers(self) -> MappingType[str, Trigger]:
        """Return the triggers by name."""
        return self.values.get("trigger", {})

    @property
    def decisions(self) -> MappingType[str, Decision]:
        """Return the decisions by name."""
        return self.values.get("decision", {})

    @property
    def experiments(self) -> MappingType[str, Experiment]:
        """Return the experiments by name."""
        return self.values.get("experiment", {})

    @property
    def metrics(self) -> MappingType[str, Metric]:
        """Return the metrics by name."""
        return self.values.get("metric", {})


def definition_files(folder: Path) -> list[Path]:
    """Return the definition files below a folder, sorted; tests and hidden files are left out."""
    return sorted(
        path
        for path in files_below(folder)
        if path.suffix in (".yaml", ".yml")
        and not path.name.endswith((TEST_SUFFIX, ".test.yml"))
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def read_file(path: Path, shown_as: str) -> tuple[list[Node], list[Diagnostic]]:
    """Return the documents of one file and the problems found in reading it."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        message = f"the file is not UTF-8: {error.reason} at byte {error.start}"
        return [], [Diagnostic("yaml-syntax", Span(shown_as, 1, 1), message, "save it as UTF-8")]
    except OSError as error:
        return [], [Diagnostic("unreadable-file", Span(shown_as, 1, 1), f"the file cannot be read: {error.strerror}")]
    return read_documents(text, shown_as)


def read_folder(folder: Path) -> tuple[list[Node], list[Diagnostic]]:
    """Return the documents of all definition files below a folder, and the problems found in reading them."""
    documents: list[Node] = []
    problems: list[Diagnostic] = []
    for path in definition_files(folder):
        parsed, refused = read_file(path, path.relative_to(folder.parent).as_posix())
        documents += parsed
        problems += refused
    return documents, problems


def load_folder(folder: Path, catalog: Catalog) -> Definitions:
    """Return the definitions of all files below a folder.

    Raises
    ------
    DefinitionError
        with every problem of every file.
    """
    documents, problems = read_folder(folder)
    return load_documents(documents, catalog, problems)


def load_text(text: str, catalog: Catalog, file: str = "<text>") -> Definitions:
    r"""Return the definitions of one YAML text.

    Raises
    ------
    DefinitionError
        with every problem in it.

    >>> load_text("segment: everyone\nwhen: {feature: user:id, exists: true}", Catalog(closed=False)).program.names
    ('everyone',)
    """
    documents, problems = read_documents(text, file)
    return load_documents(documents, catalog, problems)


def load_documents(documents: Iterable[Node], catalog: Catalog, problems: Iterable[Diagnostic] = ()) -> Definitions:
    """Return the definitions of documents that were already read, with the problems met in reading them.

    Raises
    ------
    DefinitionError
        with every problem.
    """
    scope = Scope(catalog, problems=list(problems))
    definitions = _load(list(documents), scope)
    if any(problem.severity is Severity.ERROR for problem in scope.problems):
        raise DefinitionError(scope.problems)
    return definitions


def decode_definitions(content: MappingType[str, Any]) -> Definitions:
    """Return the definitions that a read plan carries.

    Raises
    ------
    ValueError
        if they cannot be read.
    """
    return Definitions({kind.name: kind.decode(content) for kind in KINDS.values()})


def conditions_of(definitions: Definitions) -> dict[str, Segment]:
    """Return every condition in the definitions as a segment: segments, and conditions in other documents."""
    conditions: dict[str, Segment] = {}
    for kind in KINDS.values():
        conditions |= kind.conditions(definitions.values.get(kind.name, {}))
    return conditions


def features_of(definitions: Definitions) -> frozenset[str]:
    """Return the features (``VIEW:NAME``) that the definitions read."""
    conditions = conditions_of(definitions).values()
    read = {feature for segment in conditions for feature in dependencies(segment.when).features}
    for kind in KINDS.values():
        read |= kind.features(definitions.values.get(kind.name, {}))
    return frozenset(read)


def _load(documents: list[Node], scope: Scope) -> Definitions:
    by_kind = _by_kind(documents, scope.problems)
    scope.names = {
        kind.name: (_single if kind.single else _names)(kind, by_kind[kind.name], scope.problems)
        for kind in KINDS.values()
    }
    values = {kind.name: _values(kind, by_kind[kind.name], scope) for kind in KINDS.values()}
    values["segment"] = with_precedence(values["segment"], values["group"].values())
    definitions = Definitions(values)
    for kind in KINDS.values():
        scope.problems += kind.check(values[kind.name])
    scope.problems += find_too_deep(conditions_of(definitions))
    return definitions


def _by_kind(documents: list[Node], problems: list[Diagnostic]) -> dict[str, list[Mapping]]:
    by_kind: dict[str, list[Mapping]] = {name: [] for name in KINDS}
    for document in documents:
        name = document_kind(document, KINDS)
        if isinstance(name, Diagnostic):
            problems.append(name)
        elif isinstance(document, Mapping):
            by_kind[name].append(document)
    return by_kind


def _names(kind: DocumentKind, documents: list[Mapping], problems: list[Diagnostic]) -> Collection[str]:
    """Return the names that documents of a kind define; refuse a second document of a name."""
    first: dict[str, Mapping] = {}
    for document in documents:
        name = document.entry(kind.name).value
        key = name.value if isinstance(name, Scalar) else None
        if not isinstance(key, str):
            continue
        if key in first:
            place = f"{first[key].span.file}:{first[key].span.line}"
            message = f"there is another {kind.name} `{key}` at {place}"
            problems.append(Diagnostic(f"duplicate-{kind.name}", name.span, message, "rename one of them"))
        first.setdefault(key, document)
    return first.keys()


def _single(kind: DocumentKind, documents: list[Mapping], problems: list[Diagnostic]) -> Collection[str]:
    """Refuse a second document of a kind that may occur once. Such a kind defines no names."""
    for extra in documents[1:]:
        place = f"{documents[0].span.file}:{documents[0].span.line}"
        message = f"there is another `{kind.name}:` at {place}"
        problems.append(Diagnostic(f"duplicate-{kind.name}", extra.span, message, "keep one of them"))
    return ()


def _values(kind: DocumentKind, documents: list[Mapping], scope: Scope) -> dict[str, Any]:
    """Return the nodes of a kind by name, without those with a refused part."""
    values: dict[str, Any] = {}
    for document in documents[:1] if kind.single else documents:
        refused = check_schema(document, kind.envelope)
        scope.problems += refused
        node = kind.parse(document, scope)
        if node is not None and not refused:
            values[node.name] = node
    return values
