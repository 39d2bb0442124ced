"""Event conditions in YAML: which events, which window, which property; and sequences of steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rules_engine.clock import format_duration
from rules_engine.definitions.source import Entry, Items, Mapping, Node, Scalar
from rules_engine.diagnostics import Diagnostic, listing, nearest
from rules_engine.rules.aggregates import AGGREGATES, Aggregate
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.forms import AGGREGATE_OPTIONAL, AGGREGATE_REQUIRED, ANCHORS, STEP_OPTIONS
from rules_engine.rules.nodes import (
    ComputedValue,
    EventAggregate,
    EventMatch,
    EventValue,
    Predicate,
    Sequence,
    SequenceStep,
)
from rules_engine.rules.operators import COUNT_OPERATORS, OPERATORS
from rules_engine.rules.parsing.arguments import convert_argument
from rules_engine.rules.parsing.arithmetic import operation_in
from rules_engine.rules.parsing.literals import (
    Refusal,
    describe,
    duration,
    literal,
    window,
)
from rules_engine.rules.parsing.operand_checks import (
    at_key,
    single_operator,
    string_value,
)
from rules_engine.rules.parsing.sides import Left, Values, is_side, two_sided
from rules_engine.rules.parsing.where import WhereParser, unknown_property
from rules_engine.rules.parsing.windows import event_window
from rules_engine.rules.sequences import legs_of
from rules_engine.rules.types import FLOAT, INTEGER, ValueType
from rules_engine.rules.windows import Window


class EventParser:
    """Parses what event conditions share, for :class:`rules_engine.rules.parsing.conditions.ConditionParser`."""

    def __init__(self, catalog: Catalog, problems: list[Diagnostic]) -> None:
        self._catalog = catalog
        self._problems = problems
        #: What may stand right of the operator of `count`.
        self.values: Values = {}

    # --- did, did_not -----------------------------------------------------------------------------------------------

    def did(self, node: Mapping, negated: bool) -> Predicate | None:
        """Return ``did`` and ``did_not`` as a comparison of a count."""
        match = self.match(node, "did_not" if negated else "did")
        within, window = self.window(node.entry("within").value, match)
        compared = None if negated or "count" not in node else self._count_operator(node.entry("count").value)
        side = compared is not None and is_side(OPERATORS[compared.key], compared.value)
        operator, number = ("equals", 0) if negated else ("at_least", 1)
        if compared is not None and not side:
            operator, number = self._number(compared)
        if match is None:
            return None
        aggregate = EventAggregate(Aggregate.COUNT, match, within, window=window)
        if compared is not None and side:
            return self._two_sided_count(aggregate, node, compared)
        return Predicate(aggregate, operator, number, INTEGER, span=node.span)

    def _two_sided_count(self, aggregate: EventAggregate, node: Mapping, entry: Entry) -> Predicate | None:
        return two_sided(Left(aggregate, INTEGER, node), entry, self.values, lambda source, _: source)

    def _count_operator(self, value: Node) -> Entry:
        if not isinstance(value, Mapping):
            hint = "write e.g. `count: {at_least: 2}`"
            raise Refusal("wrong-shape", value, f"`count` takes an operator, not {describe(value)}", hint)
        entry = single_operator(value, (), "`count`")
        if entry.key not in COUNT_OPERATORS:
            raise at_key(
                "operator-type", entry, f"`{entry.key}` does not apply to a count", f"use {listing(COUNT_OPERATORS)}"
            )
        return entry

    def number_of(self, value: Node) -> tuple[str, Any]:
        """Return the operator after ``count``, and the number or numbers that it compares with.

        Raises
        ------
        Refusal
            if it compares with something else.
        """
        return self._number(self._count_operator(value))

    def _number(self, entry: Entry) -> tuple[str, Any]:
        for number in entry.value.items if isinstance(entry.value, Items) else (entry.value,):
            if not isinstance(number, Scalar) or type(number.value) is not int or number.value < 0:
                raise Refusal("invalid-count", number, f"a count is a whole number from 0, not {describe(number)}")
        return entry.key, convert_argument(OPERATORS[entry.key], entry.value, INTEGER, False)

    # --- aggregates -------------------------------------------------------------------------------------------------

    def aggregate(self, node: Mapping, function_name: str) -> EventAggregate | None:
        """Return an aggregate of a property, without its comparison."""
        function = Aggregate(function_name)
        inner = node.entry(function_name).value
        if not isinstance(inner, Mapping):
            message = f"`{function_name}` takes `{{event: NAME, of: PROPERTY}}`, not {describe(inner)}"
            raise Refusal("wrong-shape", inner, message)
        for entry in inner:
            if entry.key not in (*AGGREGATE_REQUIRED, *AGGREGATE_OPTIONAL):
                hint = (
                    nearest(entry.key, (*AGGREGATE_REQUIRED, *AGGREGATE_OPTIONAL))
                    or "there are `event`, `of` and `where`"
                )
                raise at_key("unknown-key", entry, f"`{entry.key}` has no place in `{function_name}`", hint)
        for key in AGGREGATE_REQUIRED:
            if key not in inner:
                example = f"`{function_name}: {{event: purchase, of: amount}}`"
                raise Refusal("missing-key", inner, f"`{function_name}` needs `{key}`", f"for example {example}")
        return self.of_property(inner, function, node.get("within"))

    def of_property(self, inner: Mapping, function: Aggregate, within: Node | None) -> EventAggregate | None:
        """Return an aggregate of what ``of`` says of the events that ``event`` and ``where`` mean.

        Without ``within`` it looks back as far as the events are kept. None comes after a problem that was reported.

        Raises
        ------
        Refusal
            if one of them cannot be so.
        """
        match = self.match(inner, "event")
        of, of_type = self._of(match, inner.entry("of").value)
        reach, window = self._aggregate_window(within, match)
        if match is None:
            return None
        aggregate = EventAggregate(function, match, reach, of, of_type, window)
        self._check_of(aggregate, inner.entry("of").value)
        return self.with_type(aggregate, of_type)

    def _of(self, match: EventMatch | None, node: Node) -> tuple[EventValue, ValueType | None]:
        """Return what is read of each event, and its type if that is known."""
        if not isinstance(node, Mapping):
            return string_value(node, "the name of a property"), self._property_type(match, node)
        operation, terms = operation_in(node)
        parsed: list[str | float] = []
        for term in terms:
            if isinstance(term, Scalar) and isinstance(term.value, int | float) and not isinstance(term.value, bool):
                parsed.append(float(literal(term, FLOAT, False)))
                continue
            name, declared = string_value(term, "a property or a number"), self._property_type(match, term)
            if declared is not None and (declared.is_list or not declared.kind.is_number):
                raise Refusal("operator-type", term, f"`{name}` is of type {declared}, and no number")
            parsed.append(name)
        return ComputedValue(operation, tuple(parsed)), FLOAT

    def count_of(self, node: Mapping) -> EventAggregate | None:
        """Return the aggregate of ``count: {event: NAME}``, as payloads write it."""
        inner = node.entry("count").value
        if not isinstance(inner, Mapping) or "event" not in inner:
            raise Refusal("wrong-shape", inner, f"`count` takes `{{event: NAME}}`, not {describe(inner)}")
        for entry in inner:
            if entry.key not in ("event", *AGGREGATE_OPTIONAL):
                hint = nearest(entry.key, ("event", *AGGREGATE_OPTIONAL)) or "there are `event` and `where`"
                raise at_key("unknown-key", entry, f"`{entry.key}` has no place in `count`", hint)
        match = self.match(inner, "event")
        within, window = self._aggregate_window(node.get("within"), match)
        return None if match is None else EventAggregate(Aggregate.COUNT, match, within, window=window)

    def _aggregate_window(self, node: Node | None, match: EventMatch | None) -> tuple[int | None, Window | None]:
        """Return the window of an aggregate. Without ``within``, where that is allowed, it is the event's retention."""
        if node is not None:
            return self.window(node, match)
        declared = self._catalog.events.get(match.event) if match else None
        return None if declared is None else declared.retention, None

    def with_type(self, aggregate: EventAggregate, of_type: ValueType | None) -> EventAggregate:
        """Return the aggregate over a property of this type; of an unknown type, only numbers are reduced."""
        return replace(aggregate, of_type=AGGREGATES[aggregate.function].type_of_property(of_type))

    def _check_of(self, aggregate: EventAggregate, node: Node) -> None:
        of_type, function = aggregate.of_type, aggregate.function
        if of_type is not None and not AGGREGATES[function].takes(of_type):
            message = f"there is no `{function.value}` of `{aggregate.of}`, which is of type {of_type}"
            raise Refusal("operator-type", node, message)

    def property_type(self, event: str, node: Node) -> ValueType | None:
        """Return the type of the property of an event that a node names; None if none is declared.

        Raises
        ------
        Refusal
            if the event has no such property.
        """
        return self._property_type(EventMatch(event), node)

    def _property_type(self, match: EventMatch | None, node: Node) -> ValueType | None:
        name = string_value(node, "the name of a property")
        declared = self._catalog.events.get(match.event) if match else None
        if declared is None:
            return None
        if name not in declared.properties and self._catalog.closed:
            raise unknown_property(declared, node, name)
        return declared.properties.get(name)

    # --- which events -----------------------------------------------------------------------------------------------

    def match(self, node: Mapping, key: str) -> EventMatch | None:
        """Return the event named under ``key`` with its ``where``; None if ``where`` is refused."""
        return self._match(node.entry(key).value, node)

    def _match(self, value: Node, node: Mapping) -> EventMatch | None:
        event = string_value(value, "the name of an event")
        if self._catalog.closed and event not in self._catalog.events:
            hint = nearest(event, self._catalog.events) or f"the events are {listing(self._catalog.events)}"
            if not self._catalog.events:
                hint = "declare it in feature_repo/events.yaml"
            raise Refusal("unknown-event", value, f"there is no event `{event}`", hint)
        if "where" not in node:
            return EventMatch(event)
        where = WhereParser(self._catalog, self._problems, event).conditions(node.entry("where").value)
        return EventMatch(event, where) if where is not None else None

    def window(self, node: Node, match: EventMatch | None) -> tuple[int | None, Window | None]:
        """Return how old an event in the window can be at most, and the window if it is no rolling duration.

        Raises
        ------
        Refusal
            if it is no window, or longer than the events are kept.
        """
        within, window = event_window(node)
        if match is not None:
            self.check_retention(node, within, match.event)
        return within, window

    def check_retention(self, node: Node, within: int | None, event: str) -> None:
        """Check that events of a name are kept for as long as a condition looks back; None is for ever.

        Raises
        ------
        Refusal
            if they are not.
        """
        declared = self._catalog.events.get(event)
        if declared is None or declared.retention is None:
            return
        if within is None or within > declared.retention:
            retention = format_duration(declared.retention)
            message = f"events `{event}` are kept for {retention}, which is shorter than this looks back"
            hint = f"look back at most {retention}, or raise `retention` in feature_repo/events.yaml"
            raise Refusal("window-beyond-retention", node, message, hint)

    # --- sequences --------------------------------------------------------------------------------------------------

    def sequence(self, node: Mapping) -> Sequence | None:
        """Return a sequence of steps."""
        value = node.entry("sequence").value
        if not isinstance(value, Items):
            raise Refusal("wrong-shape", value, f"`sequence` takes a list of steps, not {describe(value)}")
        if not value.items:
            raise Refusal("empty-list", value, "`sequence` is empty", "list its steps")
        if len(value.items) < 2:
            raise Refusal("sequence-too-short", value, "a sequence has at least two steps", "for one event write `did`")
        by_item = [self._collected_steps(item, position) for position, item in enumerate(value.items)]
        within = window(node.entry("within").value) if "within" in node else None
        anchor = self._anchor(node)
        if not all(by_item):
            return None
        parsed = [step for steps in by_item for step in steps]
        self._check_waits(value, by_item)
        match_on = self._match_on(node, parsed)
        self._check_sequence_window(node, parsed, within)
        latest_only = parsed[-1].negated if anchor is None else anchor == "latest"
        return Sequence(tuple(parsed), within, match_on, latest_only, node.span)

    def _collected_steps(self, node: Node, position: int) -> list[SequenceStep]:
        """Return the steps of one item of the list, several for `did_not: [A, B]`; none if it is refused."""
        try:
            return self._steps(node, position)
        except Refusal as refusal:
            self._problems.append(refusal.diagnostic)
            return []

    def _steps(self, node: Node, position: int) -> list[SequenceStep]:
        heads = [entry for entry in node if entry.key in ("did", "did_not")] if isinstance(node, Mapping) else []
        if not isinstance(node, Mapping) or not heads:
            raise Refusal(
                "wrong-shape", node, "a step is `{did: EVENT}` or `{did_not: EVENT}`, with `within` and `where`"
            )
        if len(heads) > 1:
            raise at_key(
                "several-forms", heads[1], "`did` and `did_not` cannot stand in one step", "make two steps of them"
            )
        head = heads[0].key
        for entry in node:
            if entry.key not in (head, *STEP_OPTIONS):
                hint = nearest(entry.key, STEP_OPTIONS) or f"beside `{head}` there can be `within` and `where`"
                raise at_key("unknown-key", entry, f"`{entry.key}` has no place in a step", hint)
        if position == 0 and head == "did_not":
            raise Refusal("sequence-first-step", node, "the first step is an event that happened: `did`")
        if position == 0 and "within" in node:
            message = "the first step has nothing before it to be within"
            raise at_key("sequence-first-within", node.entry("within"), message, "write `within` beside `sequence`")
        matches = [self._match(name, node) for name in self._names_of_step(node, head)]
        within = duration(node.entry("within").value) if "within" in node else None
        steps = []
        for number, match in enumerate(matches):
            if match is None:
                return []
            if within is not None:
                self.check_retention(node.entry("within").value, within, match.event)
            steps.append(SequenceStep(match, head == "did_not", within, number > 0, node.span))
        return steps

    def _names_of_step(self, node: Mapping, head: str) -> list[Node]:
        """Return the names of events under a step's key: `did_not` may have several."""
        value = node.entry(head).value
        if not isinstance(value, Items):
            return [value]
        if head == "did":
            hint = "only `did_not` takes a list: none of these events comes"
            raise Refusal("wrong-shape", value, "the `did` of a step is the name of one event", hint)
        if not value.items:
            raise Refusal("empty-list", value, "`did_not` names no event", "name an event")
        return list(value.items)

    def _anchor(self, node: Mapping) -> str | None:
        if "anchor" not in node:
            return None
        value = node.entry("anchor").value
        anchor = string_value(value, "`any` or `latest`")
        if anchor not in ANCHORS:
            hint = nearest(anchor, ANCHORS) or "write `any` or `latest`"
            raise Refusal("invalid-choice", value, f"there is no anchor `{anchor}`", hint)
        return anchor

    def _check_waits(self, value: Items, by_item: list[list[SequenceStep]]) -> None:
        """Check that each of the last steps that are ``did_not`` says how long to wait."""
        for item, (step, *_) in reversed(list(zip(value.items, by_item, strict=True))):
            if not step.negated:
                return
            if step.within is None:
                message = (
                    "a last `did_not` needs `within`: how long nothing must happen before the sequence is complete"
                )
                raise Refusal("sequence-last-within", item, message, "add e.g. `within: 30m`")

    def _check_sequence_window(self, node: Mapping, steps: list[SequenceStep], within: int | None) -> None:
        at = node.entry("within").value if "within" in node else node.entry("sequence").value
        for step in steps:
            self.check_retention(at, within, step.match.event)
        pause = sum(leg.pause for leg in legs_of(steps))
        if within is not None and pause >= within:
            message = "this can never be true: its waits are not over before the sequence's own window closes"
            hint = f"make the sequence's `within` longer than {format_duration(pause)}"
            raise Refusal("never-true", node, message, hint)

    def _match_on(self, node: Mapping, steps: list[SequenceStep]) -> str | None:
        if "match_on" not in node:
            return None
        value = node.entry("match_on").value
        for step in steps:
            value_type = self._property_type(step.match, value)
            if value_type is not None and value_type.is_list:
                raise Refusal("operator-type", value, f"`match_on` compares single values, and this is a {value_type}")
        return string_value(value, "the name of a property")
