"""Run the ``*.test.yaml`` files of a project: a segment's answers on a simulated clock, with the plain evaluator.

No store and no Feast are needed: a case brings its features, context and events, and says what is expected when.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rules_engine.clock import format_instant, from_micros, now_micros
from rules_engine.definitions.envelope import check_schema
from rules_engine.definitions.source import Entry, Items, Mapping, Node, Scalar, to_plain
from rules_engine.definitions.test_files import TEST_SCHEMA
from rules_engine.diagnostics import Diagnostic, Span, listing, nearest
from rules_engine.errors import DefinitionError
from rules_engine.rules.catalog import EVENT_VIEW, Catalog
from rules_engine.rules.changes import changes_at
from rules_engine.rules.evaluate import Evaluation
from rules_engine.rules.explain import explain
from rules_engine.rules.inputs import Event, Inputs, in_order
from rules_engine.rules.literals import Refusal, describe, duration, literal
from rules_engine.rules.load import TEST_SUFFIX, Definitions, read_file
from rules_engine.rules.nodes import ContextRef, Predicate
from rules_engine.rules.predicates import Truth
from rules_engine.rules.program import Program
from rules_engine.rules.types import Kind, Value, ValueType, conform
from rules_engine.rules.walk import walk

_VERDICTS: dict[Any, Truth] = {True: True, False: False, "unknown": None}
_WORDS: dict[Truth, str] = {True: "true", False: "false", None: "unknown"}


@dataclass(frozen=True, slots=True)
class Case:
    """One case, ready to run; instants are in microseconds.

    ``points`` are the start and the instants of ``then``, each with the expected answer.
    """

    segment: str
    name: str
    span: Span
    inputs: Inputs
    points: tuple[tuple[int, Truth], ...]
    enters: tuple[int, ...] | None = None
    exits: tuple[int, ...] | None = None

    @property
    def start(self) -> int:
        return self.points[0][0]

    @property
    def end(self) -> int:
        """The last instant that the case speaks of."""
        return max([at for at, _ in self.points] + list(self.enters or ()) + list(self.exits or ()))


@dataclass(frozen=True, slots=True)
class Failure:
    """What a case found to be different. ``explanation`` is the tree at the instant where it differs."""

    case: Case
    message: str
    explanation: str

    def __str__(self) -> str:
        body = "\n".join("    " + line for line in self.explanation.splitlines())
        return f"{self.case.span}: {self.case.segment}: {self.case.name}\n  {self.message}\n{body}"


@dataclass(frozen=True, slots=True)
class TestReport:
    """The outcome of all cases. ``untested`` are the segments that no file tests."""

    __test__ = False  # not a test class, whatever its name looks like to pytest

    cases: int
    failures: tuple[Failure, ...] = ()
    untested: tuple[str, ...] = ()
    files: int = 0
    tested: tuple[str, ...] = field(default=())


def run_tests(folder: Path, definitions: Definitions, catalog: Catalog, only: Sequence[str] = ()) -> TestReport:
    """Run every case of the test files below a folder, or those of the named segments.

    Raises
    ------
    DefinitionError
        with every problem of the test files themselves.
    UnknownNameError
        if ``only`` names a segment that does not exist.
    """
    for name in only:
        definitions.program.segment(name)
    files = sorted(path for suffix in (TEST_SUFFIX, ".test.yml") for path in folder.rglob(f"*{suffix}"))
    cases, problems = load_cases(files, folder.parent, definitions, catalog)
    if problems:
        raise DefinitionError(problems)
    tested = {case.segment for case in cases}
    chosen = [case for case in cases if not only or case.segment in only]
    failures = [failure for case in chosen for failure in run_case(case, definitions.program)]
    untested = tuple(name for name in definitions.program.names if name not in tested)
    return TestReport(len(chosen), tuple(failures), untested, len(files), tuple(sorted(tested)))


# --- running --------------------------------------------------------------------------------------------------------


def run_case(case: Case, program: Program) -> Iterator[Failure]:
    """The differences between what a case expects and what the segment answers."""
    for at, expected in case.points:
        answer = Evaluation(program, case.inputs, at).segment(case.segment)
        if answer is not expected:
            message = f"at {format_instant(at)}: expected {_WORDS[expected]}, got {_WORDS[answer]}"
            yield _failure(case, program, at, message)
    if case.enters is None and case.exits is None:
        return
    moves = list(_moves(case, program))
    for word, expected_moves, entering in (("enters", case.enters, True), ("exits", case.exits, False)):
        found = tuple(at for at, member in moves if member is entering)
        if expected_moves is not None and found != tuple(sorted(expected_moves)):
            message = f"{word}: expected {_instants(sorted(expected_moves))}, got {_instants(found)}"
            first = min(set(found) ^ set(expected_moves), default=case.start)
            yield _failure(case, program, first, message)


def _moves(case: Case, program: Program) -> Iterator[tuple[int, bool]]:
    """The instants after the start, up to the case's end, at which the entity enters (True) or leaves (False)."""
    when = program.segment(case.segment).when
    at = case.start
    member = Evaluation(program, case.inputs, case.start).condition(when) is True
    while (change := changes_at(program, when, case.inputs, at)) is not None and change <= case.end:
        at = change
        answer = Evaluation(program, case.inputs, at).condition(when) is True
        if answer is not member:
            yield at, answer
        member = answer


def _failure(case: Case, program: Program, at: int, message: str) -> Failure:
    return Failure(case, message, str(explain(program, case.segment, case.inputs, at, "the case")))


def _instants(instants: Sequence[int]) -> str:
    return ", ".join(map(format_instant, instants)) or "none"


# --- reading --------------------------------------------------------------------------------------------------------


def load_cases(
    files: Sequence[Path], root: Path, definitions: Definitions, catalog: Catalog
) -> tuple[list[Case], list[Diagnostic]]:
    """The cases of test files and the problems found in them."""
    documents: list[Node] = []
    problems: list[Diagnostic] = []
    for path in files:
        found, trouble = read_file(path, path.relative_to(root).as_posix())
        documents += found
        problems += trouble
    cases, trouble = read_cases(documents, definitions, catalog)
    return cases, problems + trouble


def read_cases(
    documents: Iterable[Node], definitions: Definitions, catalog: Catalog
) -> tuple[list[Case], list[Diagnostic]]:
    """The cases of test documents and the problems found in them."""
    reader = _CaseReader(definitions, catalog)
    cases = [case for document in documents for case in reader.document(document)]
    return cases, reader.problems


class _CaseReader:
    def __init__(self, definitions: Definitions, catalog: Catalog) -> None:
        self._definitions = definitions
        self._catalog = catalog
        self._times = _context_times(definitions.program)
        self.problems: list[Diagnostic] = []

    def document(self, document: Node) -> list[Case]:
        found = check_schema(document, TEST_SCHEMA)
        self.problems += found
        if found or not isinstance(document, Mapping):
            return []
        name = document.entry("test").value
        segments = self._definitions.program.segments
        if not isinstance(name, Scalar) or name.value not in segments:
            hint = nearest(str(to_plain(name)), segments) or f"there are {listing(segments)}"
            message = f"there is no segment `{to_plain(name)}`"
            self.problems.append(Diagnostic("unknown-segment", name.span, message, hint))
            return []
        cases = document.entry("cases").value
        assert isinstance(cases, Items)
        read = [self._collected(node, str(name.value)) for node in cases.items]
        return [case for case in read if case is not None]

    def _collected(self, node: Node, segment: str) -> Case | None:
        assert isinstance(node, Mapping)
        try:
            return self._case(node, segment)
        except Refusal as refusal:
            self.problems.append(refusal.diagnostic)
            return None

    def _case(self, node: Mapping, segment: str) -> Case:
        start = self._start(node)
        points = [(start, _VERDICTS[to_plain(node.entry("expect").value)])]
        later = _items(node, "then")
        points += [(_moment(item, start), _VERDICTS[to_plain(item.entry("expect").value)]) for item in later]
        enters, exits = _moments(node, "enters", start), _moments(node, "exits", start)
        if (enters == () or exits == ()) and not (later or enters or exits):
            raise Refusal(
                "missing-key",
                node,
                "that nothing happens is judged up to the last instant that the case names, and it names none",
                "add e.g. `then: [{after: 1d, expect: false}]`",
            )
        return Case(
            segment=segment,
            name=str(to_plain(node.entry("name").value)),
            span=node.entry("name").value.span,
            inputs=self._inputs(node, start),
            points=tuple(points),
            enters=enters,
            exits=exits,
        )

    def _start(self, node: Mapping) -> int:
        if "at" in node:
            return _instant(node.entry("at").value)
        now = self._definitions.settings.now
        return now if now is not None else now_micros()

    def _inputs(self, node: Mapping, start: int) -> Inputs:
        features = {entry.key: self._feature(entry) for entry in _entries(node, "features")}
        context = {entry.key: self._context(entry) for entry in _entries(node, "context")}
        events = [self._event(item, position, start) for position, item in enumerate(_items(node, "events"))]
        observed = {entry.key: self._observed(entry, start) for entry in _entries(node, "updated_at")}
        ttl = self._catalog.ttl
        expires = {view: at + ttl[view] + 1 for view, at in observed.items() if view in ttl}
        return Inputs(features, context, in_order(events), observed, expires)

    def _observed(self, entry: Entry, start: int) -> int:
        views = {feature.view for feature in self._catalog.features.values()}
        if entry.key not in views and self._catalog.closed:
            hint = nearest(entry.key, views) or f"the feature views are {listing(views)}"
            message = f"there is no feature view `{entry.key}`"
            raise Refusal("unknown-feature", Scalar(entry.key, entry.key_span), message, hint)
        assert isinstance(entry.value, Mapping)
        return _moment(entry.value, start)

    def _context(self, entry: Entry) -> Any:
        """A context value as a caller would pass it: a time, which YAML has no form of, as a datetime."""
        is_time = entry.key in self._times and to_plain(entry.value) is not None
        return from_micros(_instant(entry.value)) if is_time else to_plain(entry.value)

    def _feature(self, entry: Entry) -> Value:
        known = self._catalog.features.get(entry.key)
        if known is None and self._catalog.closed:
            hint = nearest(entry.key, self._catalog.features)
            if entry.key.startswith(f"{EVENT_VIEW}:"):
                hint = "it is computed from events: give those"
            raise Refusal(
                "unknown-feature", Scalar(entry.key, entry.key_span), f"there is no feature `{entry.key}`", hint
            )
        return _typed(entry.value, known.type if known else None)

    def _event(self, node: Mapping, position: int, start: int) -> Event:
        name = node.entry("event").value
        declared = self._catalog.events.get(str(to_plain(name)))
        if declared is None and self._catalog.closed:
            hint = (
                nearest(str(to_plain(name)), self._catalog.events) or f"the events are {listing(self._catalog.events)}"
            )
            raise Refusal("unknown-event", name, f"there is no event `{to_plain(name)}`", hint)
        properties = {}
        for entry in node:
            if entry.key in ("event", "at", "after", "ago", "event_id"):
                continue
            if declared is not None and self._catalog.closed and entry.key not in declared.properties:
                hint = nearest(entry.key, declared.properties) or f"it has {listing(declared.properties)}"
                message = f"the event `{declared.name}` has no property `{entry.key}`"
                raise Refusal("unknown-property", Scalar(entry.key, entry.key_span), message, hint)
            properties[entry.key] = _typed(entry.value, declared.properties.get(entry.key) if declared else None)
        event_id = to_plain(node.entry("event_id").value) if "event_id" in node else f"{position:012d}"
        return Event(str(to_plain(name)), _moment(node, start), event_id, properties)


def _context_times(program: Program) -> set[str]:
    """The names of the context values that every condition reads as a time."""
    kinds: dict[str, set[Kind | None]] = {}
    conditions = (condition for segment in program.segments.values() for condition in walk(segment.when))
    for condition in conditions:
        if not isinstance(condition, Predicate) or condition.operator == "exists":
            continue
        if isinstance(condition.operand, ContextRef):
            value_type = condition.operand_type
            kinds.setdefault(condition.operand.name, set()).add(value_type.kind if value_type else None)
    return {name for name, found in kinds.items() if found == {Kind.TIME}}


def _items(node: Mapping, key: str) -> list[Mapping]:
    value = node.get(key)
    return [item for item in value.items if isinstance(item, Mapping)] if isinstance(value, Items) else []


def _entries(node: Mapping, key: str) -> tuple[Entry, ...]:
    value = node.get(key)
    return value.entries if isinstance(value, Mapping) else ()


def _moments(node: Mapping, key: str, start: int) -> tuple[int, ...] | None:
    return tuple(_moment(item, start) for item in _items(node, key)) if key in node else None


def _moment(node: Mapping, start: int) -> int:
    """The instant that ``at``, ``after`` or ``ago`` names."""
    if "at" in node:
        return _instant(node.entry("at").value)
    return start - duration(node.entry("ago").value) if "ago" in node else start + duration(node.entry("after").value)


def _instant(node: Node) -> int:
    return int(literal(node, ValueType(Kind.TIME), False))


def _typed(node: Node, value_type: ValueType | None) -> Value:
    """A value of a feature or property as the store would give it; null is missing."""
    plain = to_plain(node)
    if plain is None or value_type is None:
        return conform(plain, None)
    if value_type.is_list:
        if not isinstance(node, Items):
            raise Refusal("literal-type", node, f"a {value_type} is expected here, not {describe(node)}")
        return conform(tuple(_typed(item, ValueType(value_type.kind)) for item in node.items), value_type)
    return literal(node, value_type, False)
