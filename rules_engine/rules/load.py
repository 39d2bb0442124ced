"""The files of a project to a checked program: every problem of every file is found in one go."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field, replace
from pathlib import Path

from rules_engine.definitions.envelope import ENVELOPES, check_schema, document_kind
from rules_engine.definitions.source import Mapping, Node, Scalar, read_documents, to_plain
from rules_engine.diagnostics import Diagnostic, Severity, Span
from rules_engine.errors import DefinitionError
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.nodes import Condition, FeatureRef, Segment, SegmentRef
from rules_engine.rules.parsing.conditions import ConditionParser
from rules_engine.rules.program import Program
from rules_engine.rules.triggers.nodes import Trigger, hidden_segments
from rules_engine.rules.triggers.parse import Known, TriggerParser
from rules_engine.rules.triggers.settings_parse import SettingsParser
from rules_engine.rules.walk import children, segment_references, walk
from rules_engine.sinks.settings import SinkSettings

TEST_SUFFIX = ".test.yaml"

#: How deep conditions may be nested, through references to other segments too: what follows them uses Python's stack.
MAX_LEVELS = 200


@dataclass(frozen=True, slots=True)
class Settings:
    """What the ``project:`` document says. ``now`` is in microseconds; None is the wall clock.

    ``consent`` has by name the feature that is true where somebody consented; ``sinks`` where actions may go.
    """

    name: str = ""
    now: int | None = None
    consent: MappingType[str, FeatureRef] = field(default_factory=dict)
    sinks: MappingType[str, SinkSettings] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Definitions:
    """Everything that the files of ``segments/`` define."""

    program: Program
    settings: Settings = Settings()
    triggers: MappingType[str, Trigger] = field(default_factory=dict)


def definition_files(folder: Path) -> list[Path]:
    """The definition files below a folder, sorted; tests and hidden files are left out."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in (".yaml", ".yml")
        and not path.name.endswith((TEST_SUFFIX, ".test.yml"))
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def read_file(path: Path, shown_as: str) -> tuple[list[Node], list[Diagnostic]]:
    """The documents of one file and the problems found in reading it."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        message = f"the file is not UTF-8: {error.reason} at byte {error.start}"
        return [], [Diagnostic("yaml-syntax", Span(shown_as, 1, 1), message, "save it as UTF-8")]
    except OSError as error:
        return [], [Diagnostic("unreadable-file", Span(shown_as, 1, 1), f"the file cannot be read: {error.strerror}")]
    return read_documents(text, shown_as)


def load_folder(folder: Path, catalog: Catalog) -> Definitions:
    """The definitions of all files below a folder.

    Raises
    ------
    DefinitionError
        with every problem of every file.
    """
    sources = [(path.relative_to(folder.parent).as_posix(), path) for path in definition_files(folder)]
    documents: list[Node] = []
    problems: list[Diagnostic] = []
    for shown_as, path in sources:
        found, trouble = read_file(path, shown_as)
        documents += found
        problems += trouble
    return load_documents(documents, catalog, problems)


def load_text(text: str, catalog: Catalog, file: str = "<text>") -> Definitions:
    r"""The definitions of one YAML text.

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
    """The definitions of documents that were already read, with the problems met in reading them.

    Raises
    ------
    DefinitionError
        with every problem.
    """
    loader = _Loader(catalog, list(problems))
    definitions = loader.load(list(documents))
    if any(problem.severity is Severity.ERROR for problem in loader.problems):
        raise DefinitionError(loader.problems)
    return definitions


class _Loader:
    def __init__(self, catalog: Catalog, problems: list[Diagnostic]) -> None:
        self._catalog = catalog
        self.problems = problems

    def load(self, documents: list[Node]) -> Definitions:
        by_kind: dict[str, list[Mapping]] = {kind: [] for kind in ENVELOPES}
        for document in documents:
            kind = document_kind(document)
            if isinstance(kind, Diagnostic):
                self.problems.append(kind)
            elif isinstance(document, Mapping):
                by_kind[kind].append(document)
        named = self._named(by_kind["segment"], "segment")
        settings, known = self._settings(by_kind["project"], named)
        program = self._program(by_kind["segment"], named)
        triggers = self._triggers(by_kind["trigger"], known)
        self._refuse_depth(Program({**program.segments, **hidden_segments(triggers.values())}))
        return Definitions(program, settings, triggers)

    def _settings(self, documents: list[Mapping], segments: Collection[str]) -> tuple[Settings, Known]:
        for extra in documents[1:]:
            first = documents[0].span
            message = f"there is another `project:` at {first.file}:{first.line}"
            self.problems.append(Diagnostic("duplicate-project", extra.span, message, "keep one of them"))
        settings, known = Settings(), Known(segments)
        for document in documents[:1]:
            found = check_schema(document, ENVELOPES["project"])
            self.problems += found
            if "project" not in document:
                continue
            parser = SettingsParser(ConditionParser(self._catalog, segments))
            parsed = parser.settings(document)
            self.problems += parser.problems
            known = Known(segments, parsed.kinds, parsed.consent)
            consent = {name: feature for name, feature in parsed.consent.items() if feature is not None}
            sinks = {name: sink for name, sink in parsed.sinks.items() if sink is not None}
            settings = Settings(parsed.name, parsed.now, consent, sinks)
        return settings, known

    def _named(self, documents: list[Mapping], kind: str) -> dict[str, Mapping]:
        """The documents of a kind by their names; a second one of a name is a problem."""
        code = "duplicate-segment" if kind == "segment" else "duplicate-trigger"
        named: dict[str, Mapping] = {}
        for document in documents:
            name = document.entry(kind).value
            if isinstance(name, Scalar) and isinstance(name.value, str):
                if name.value in named:
                    first = named[name.value].span
                    message = f"there is another {kind} `{name.value}` at {first.file}:{first.line}"
                    self.problems.append(Diagnostic(code, name.span, message, "rename one of them"))
                named.setdefault(name.value, document)
        return named

    def _triggers(self, documents: list[Mapping], known: Known) -> dict[str, Trigger]:
        self._named(documents, "trigger")
        triggers: dict[str, Trigger] = {}
        for document in documents:
            found = check_schema(document, ENVELOPES["trigger"])
            parser = TriggerParser(self._catalog, known)
            trigger = parser.trigger(document)
            self.problems += [*found, *parser.problems]
            if trigger is not None and not found:
                triggers[trigger.name] = trigger
        return triggers

    def _program(self, documents: list[Mapping], named: dict[str, Mapping]) -> Program:
        segments = [self._segment(document, named) for document in documents]
        program = Program({segment.name: segment for segment in segments if segment is not None})
        self._refuse_cycles(program)
        return program

    def _segment(self, document: Mapping, names: dict[str, Mapping]) -> Segment | None:
        found = check_schema(document, ENVELOPES["segment"])
        self.problems += found
        when = document.get("when")
        if when is None:
            return None
        parser = ConditionParser(self._catalog, names)
        condition = parser.condition(when)
        self.problems += parser.problems
        if found or condition is None:
            return None
        plain = {entry.key: to_plain(entry.value) for entry in document if entry.key != "when"}
        return Segment(
            name=plain["segment"],
            when=condition,
            description=plain.get("description", ""),
            owner=plain.get("owner", ""),
            tags=tuple(plain.get("tags", ())),
            span=replace(document.span),
        )

    def _refuse_cycles(self, program: Program) -> None:
        """One problem per cycle, at the reference in its first segment, in the order of the files."""
        reported: set[str] = set()
        ordered = sorted(program.segments.values(), key=lambda s: (s.span.file, s.span.line))
        for segment in ordered:
            cycle = _cycle_through(program, segment.name)
            if cycle and not reported & set(cycle):
                reported |= set(cycle)
                path = " -> ".join(f"`{name}`" for name in [*cycle, cycle[0]])
                span = next(
                    node.span
                    for node in walk(segment.when)
                    if getattr(node, "name", None) == (cycle[1] if len(cycle) > 1 else cycle[0])
                )
                message = f"the segments refer to each other in a circle: {path}"
                self.problems.append(Diagnostic("segment-cycle", span, message, "remove one of the references"))

    def _refuse_depth(self, program: Program) -> None:
        """One problem for each segment that goes too deep by itself, and not only by one that it refers to."""
        levels: dict[str, int] = {}
        inside = {name: dict(_references(segment.when)) for name, segment in program.segments.items()}
        waiting = list(program.segments)
        while waiting:  # segments whose references are known; in a circle, or with a name that is refused, none are
            ready = [name for name in waiting if all(reference in levels for reference in inside[name])]
            if not ready:
                return
            for name in ready:
                depths = [level + levels[reference] for reference, level in inside[name].items()]
                levels[name] = max([_depth(program.segments[name].when), *depths])
                if levels[name] > MAX_LEVELS >= max((levels[reference] for reference in inside[name]), default=0):
                    message = f"with the segments that it refers to, `{name}` is more than {MAX_LEVELS} levels deep"
                    span = program.segments[name].span
                    self.problems.append(Diagnostic("too-deep", span, message, "refer to fewer segments in a row"))
            known = set(ready)
            waiting = [name for name in waiting if name not in known]


def _references(condition: Condition, level: int = 1) -> Iterator[tuple[str, int]]:
    """The segments that a condition refers to, with the level at which they stand; the deepest of one name is last."""
    found = [(condition.name, level)] if isinstance(condition, SegmentRef) else []
    for child in children(condition):
        found += _references(child, level + 1)
    yield from sorted(found, key=lambda reference: reference[1])


def _depth(condition: Condition) -> int:
    return 1 + max(map(_depth, children(condition)), default=0)


def _cycle_through(program: Program, start: str) -> list[str] | None:
    """A shortest path of references from a segment back to itself."""
    paths, seen = [[start]], set[str]()
    while paths:
        path = paths.pop(0)
        if path[-1] not in program.segments:
            continue
        for name in sorted(segment_references(program.segments[path[-1]].when)):
            if name == start:
                return path
            if name not in seen:
                seen.add(name)
                paths.append([*path, name])
    return None
