"""Read and check the cases of ``*.test.yaml`` files, of all kinds of documents, with every problem in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rules_engine.clock import from_micros, now_micros
from rules_engine.definitions.case_schema import schema_of_tests
from rules_engine.definitions.envelope import check_schema
from rules_engine.definitions.source import Entry, Items, Mapping, Node, Scalar, to_plain
from rules_engine.diagnostics import Diagnostic, Span, listing, nearest
from rules_engine.rules.catalog import EVENT_VIEW, Catalog
from rules_engine.rules.decisions.nodes import with_decisions
from rules_engine.rules.document import DocumentKind
from rules_engine.rules.inputs import Event, Inputs, in_order
from rules_engine.rules.kinds import KINDS, for_every_kind
from rules_engine.rules.load import Definitions, read_file
from rules_engine.rules.nodes import ContextRef, Predicate
from rules_engine.rules.parsing.literals import Refusal, describe, literal
from rules_engine.rules.predicates import Truth
from rules_engine.rules.program import Program
from rules_engine.rules.segments.lists import with_lists
from rules_engine.rules.types import Kind, Value, ValueType, conform, stored
from rules_engine.rules.walk import walk
from rules_engine.sdk.rules import encode_definitions
from rules_engine.simulation.case_parts import entries, instant, items, moment, moments
from rules_engine.simulation.decision_tests import DecisionCase, read_decision_case
from rules_engine.triggers.record import SuppressionReason
from rules_engine.triggers.rules import TriggerRules

_VERDICTS: dict[Any, Truth] = {True: True, False: False, "unknown": None}


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
    def title(self) -> str:
        """Return the name of what the case tests."""
        return self.segment

    @property
    def kind(self) -> str:
        """Return the kind of document that the case tests."""
        return "segment"

    @property
    def start(self) -> int:
        return self.points[0][0]

    @property
    def end(self) -> int:
        """Return the last instant that the case names."""
        return max([at for at, _ in self.points] + list(self.enters or ()) + list(self.exits or ()))


@dataclass(frozen=True, slots=True)
class ExpectedStep:
    """Describes what is expected of a trigger at an instant: suppressed and why, or some of its payload."""

    at: int
    reason: SuppressionReason | None = None
    payload: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class TriggerCase:
    """One case of a trigger, ready to run; instants are in microseconds.

    All steps up to ``end`` are expected: one that a case does not list must not happen. Without ``entity``, the case is
    about one that is not held out.
    """

    trigger: str
    name: str
    span: Span
    inputs: Inputs
    entity: str | None
    start: int
    end: int
    fires: tuple[ExpectedStep, ...]
    cancelled: tuple[ExpectedStep, ...]
    suppressed: tuple[ExpectedStep, ...]
    rules: TriggerRules = field(repr=False, compare=False)

    @property
    def title(self) -> str:
        """Return the name of what the case tests."""
        return self.trigger

    @property
    def kind(self) -> str:
        """Return the kind of document that the case tests."""
        return "trigger"


AnyCase = Case | TriggerCase | DecisionCase


# --- reading --------------------------------------------------------------------------------------------------------


def load_cases(
    files: Sequence[Path], root: Path, definitions: Definitions, catalog: Catalog
) -> tuple[list[AnyCase], list[Diagnostic]]:
    """Return the cases of test files and the problems in them."""
    documents: list[Node] = []
    problems: list[Diagnostic] = []
    for path in files:
        content, trouble = read_file(path, path.relative_to(root).as_posix())
        documents += content
        problems += trouble
    cases, trouble = read_cases(documents, definitions, catalog)
    return cases, problems + trouble


def read_cases(
    documents: Iterable[Node], definitions: Definitions, catalog: Catalog
) -> tuple[list[AnyCase], list[Diagnostic]]:
    """Return the cases of test documents and the problems in them."""
    reader = _CaseReader(definitions, catalog)
    cases = [case for document in documents for case in reader.document(document)]
    return cases, reader.problems


class _CaseReader:
    def __init__(self, definitions: Definitions, catalog: Catalog) -> None:
        self._definitions = definitions
        self._catalog = with_lists(catalog, definitions.program.segments.values())
        self._times = _context_times(with_decisions(definitions.program, definitions.decisions.values()))
        self.problems: list[Diagnostic] = []

    @cached_property
    def _rules(self) -> TriggerRules:
        """Return the rules of triggers, made when the first case of a trigger is read."""
        definitions = self._definitions
        types = {key: feature.type for key, feature in self._catalog.features.items()}
        encoded = encode_definitions(definitions)
        return TriggerRules(encoded, types)

    def document(self, document: Node) -> list[AnyCase]:
        kind = _tested_kind(document)
        refused = check_schema(document, schema_of_tests(kind.name, kind.case or {}))
        self.problems += refused
        if refused or not isinstance(document, Mapping):
            return []
        test = document.entry("test").value
        name = test.entry(kind.name).value if isinstance(test, Mapping) else test
        if not self._is_known(name, kind.name):
            return []
        cases = document.entry("cases").value
        assert isinstance(cases, Items)
        read = [self._collected(node, str(to_plain(name)), kind.name) for node in cases.items]
        return [case for case in read if case is not None]

    def _is_known(self, name: Node, kind: str) -> bool:
        tested, defined = to_plain(name), self._definitions.values
        names = defined.get(kind, {})
        if tested in names:
            return True
        hint = nearest(str(tested), names) or (f"there are {listing(names)}" if names else f"no {kind} is defined")
        other = next((each.name for each in _tested_kinds() if tested in defined.get(each.name, {})), None)
        if other is not None:
            test = tested if other == "segment" else f"{{{other}: {tested}}}"
            hint = f"it is a {other}: write `test: {test}`"
        self.problems.append(Diagnostic(f"unknown-{kind}", name.span, f"there is no {kind} `{tested}`", hint))
        return False

    def _collected(self, node: Node, name: str, kind: str) -> AnyCase | None:
        assert isinstance(node, Mapping)
        try:
            return _CASES[kind](self, node, name)
        except Refusal as refusal:
            self.problems.append(refusal.diagnostic)
            return None

    def trigger_case(self, node: Mapping, trigger: str) -> TriggerCase:
        start = self._start(node)
        inputs = self._inputs(node, start)
        expected = {key: _outcomes(node, key, start) for key in ("fires", "cancelled", "suppressed")}
        named = [outcome.at for outcomes in expected.values() for outcome in outcomes]
        named += [moment(node.entry("until").value, start)] if "until" in node else []  # type: ignore[arg-type]
        end = max([start, *named, *(event.at for event in inputs.events)])
        if end == start:
            raise _no_end(node, "add e.g. `until: {after: 1d}`")
        title = node.entry("name").value
        return TriggerCase(
            trigger, str(to_plain(title)), title.span, inputs, inputs.entity, start, end, **expected, rules=self._rules
        )

    def decision_case(self, node: Mapping, decision: str) -> DecisionCase:
        start = self._start(node)
        return read_decision_case(node, decision, start, self._inputs(node, start), self._definitions)

    def segment_case(self, node: Mapping, segment: str) -> Case:
        start = self._start(node)
        points = [(start, _VERDICTS[to_plain(node.entry("expect").value)])]
        later = items(node, "then")
        points += [(moment(item, start), _VERDICTS[to_plain(item.entry("expect").value)]) for item in later]
        enters, exits = moments(node, "enters", start), moments(node, "exits", start)
        if (enters == () or exits == ()) and not (later or enters or exits):
            raise _no_end(node, "add e.g. `then: [{after: 1d, expect: false}]`")
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
            return instant(node.entry("at").value)
        now = self._definitions.settings.now
        return now if now is not None else now_micros()

    def _inputs(self, node: Mapping, start: int) -> Inputs:
        features = {entry.key: self._feature(entry) for entry in entries(node, "features")}
        context = {entry.key: self._context(entry) for entry in entries(node, "context")}
        events = [self._event(item, position, start) for position, item in enumerate(items(node, "events"))]
        observed = {entry.key: self._observed(entry, start) for entry in entries(node, "updated_at")}
        ttl = self._catalog.ttl
        expires = {view: at + ttl[view] + 1 for view, at in observed.items() if view in ttl}
        return Inputs(features, context, in_order(events), observed, expires, _entity(node))

    def _observed(self, entry: Entry, start: int) -> int:
        views = {feature.view for feature in self._catalog.features.values()}
        if entry.key not in views and self._catalog.closed:
            hint = nearest(entry.key, views) or f"the feature views are {listing(views)}"
            message = f"there is no feature view `{entry.key}`"
            raise Refusal("unknown-feature", Scalar(entry.key, entry.key_span), message, hint)
        assert isinstance(entry.value, Mapping)
        return moment(entry.value, start)

    def _context(self, entry: Entry) -> Any:
        """Return a context value as a caller would pass it: a time, which YAML has no form of, as a datetime."""
        is_time = entry.key in self._times and to_plain(entry.value) is not None
        return from_micros(instant(entry.value)) if is_time else to_plain(entry.value)

    def _feature(self, entry: Entry) -> Value:
        feature = self._catalog.features.get(entry.key)
        if feature is None and self._catalog.closed:
            hint = nearest(entry.key, self._catalog.features)
            if entry.key.startswith(f"{EVENT_VIEW}:"):
                hint = "it is computed from events: write those under `events`"
            raise Refusal(
                "unknown-feature", Scalar(entry.key, entry.key_span), f"there is no feature `{entry.key}`", hint
            )
        value_type = feature.type if feature else None
        return stored(_typed(entry.value, value_type), value_type)

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
        return Event(str(to_plain(name)), moment(node, start), event_id, properties)


#: By kind of document, what reads one case of its tests.
_CASES: MappingType[str, Callable[[_CaseReader, Mapping, str], AnyCase]] = for_every_kind(
    "cases of tests",
    {
        "segment": _CaseReader.segment_case,
        "decision": _CaseReader.decision_case,
        "trigger": _CaseReader.trigger_case,
    },
    among=lambda kind: kind.case is not None,
)


def _tested_kinds() -> list[DocumentKind]:
    return [kind for kind in KINDS.values() if kind.case is not None]


def _tested_kind(document: Node) -> DocumentKind:
    """Return the kind of document that is tested: ``test: NAME`` tests a segment, ``test: {KIND: NAME}`` another."""
    test = document.get("test") if isinstance(document, Mapping) else None
    if not isinstance(test, Mapping):
        return KINDS["segment"]
    others = [kind for kind in _tested_kinds() if kind.name != "segment"]
    return next((kind for kind in others if kind.name in test), others[0])


def _context_times(program: Program) -> set[str]:
    """Return the names of the context values that every condition reads as a time."""
    kinds: dict[str, set[Kind | None]] = {}
    conditions = (condition for segment in program.segments.values() for condition in walk(segment.when))
    for condition in conditions:
        if not isinstance(condition, Predicate) or condition.operator == "exists":
            continue
        if isinstance(condition.operand, ContextRef):
            value_type = condition.operand_type
            kinds.setdefault(condition.operand.name, set()).add(value_type.kind if value_type else None)
    return {name for name, seen in kinds.items() if seen == {Kind.TIME}}


def _no_end(node: Mapping, hint: str) -> Refusal:
    message = (
        "a case that expects nothing to happen has to name the instant up to which that is, and this one names none"
    )
    return Refusal("missing-key", node, message, hint)


def _entity(node: Mapping) -> str | None:
    return str(to_plain(node.entry("entity").value)) if "entity" in node else None


def _outcomes(node: Mapping, key: str, start: int) -> tuple[ExpectedStep, ...]:
    """Return what is expected of a trigger, in order."""
    steps = []
    for item in items(node, key):
        reason = SuppressionReason(to_plain(item.entry("reason").value)) if "reason" in item else None
        payload = tuple((entry.key, to_plain(entry.value)) for entry in entries(item, "payload"))
        steps.append(ExpectedStep(moment(item, start), reason, payload))
    return tuple(sorted(steps, key=lambda step: step.at))


def _typed(node: Node, value_type: ValueType | None) -> Value:
    """Return a value of a feature or property as the store would give it; null is missing."""
    plain = to_plain(node)
    if plain is None or value_type is None:
        return conform(plain, None)
    if value_type.is_list:
        if not isinstance(node, Items):
            raise Refusal("literal-type", node, f"a {value_type} is expected here, not {describe(node)}")
        return conform(tuple(_typed(item, ValueType(value_type.kind)) for item in node.items), value_type)
    return literal(node, value_type, False)
