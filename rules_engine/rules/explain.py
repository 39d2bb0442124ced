"""Explains an answer: every condition with its value, its verdict, and the instant at which the verdict changes."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import assert_never

from rules_engine.clock import format_duration, from_micros
from rules_engine.rules.aggregates import Aggregate
from rules_engine.rules.arithmetic import SIGNS
from rules_engine.rules.changes import changes_at
from rules_engine.rules.comparison import side_value
from rules_engine.rules.evaluate import Evaluation
from rules_engine.rules.events import counted_events, in_window, matching
from rules_engine.rules.explanation import MAX_EVENTS, Explanation, Reason
from rules_engine.rules.format import format_argument, format_value
from rules_engine.rules.inputs import Event, Inputs, KeptEvents
from rules_engine.rules.nodes import (
    AllOf,
    AnyOf,
    BucketRef,
    Calculation,
    ClockRef,
    Condition,
    ContextRef,
    EventAggregate,
    FeatureRef,
    Not,
    Operand,
    Predicate,
    Segment,
    SegmentRef,
    Sequence,
    TwoSides,
)
from rules_engine.rules.one_event import read_value
from rules_engine.rules.operators import OPERATORS, Argument
from rules_engine.rules.program import Program
from rules_engine.rules.sequences import first_events
from rules_engine.rules.types import FLOAT, Kind, Value, conform
from rules_engine.rules.undecided import Undecided
from rules_engine.rules.walk import dependencies, parts


def explain(program: Program, segment: str, inputs: Inputs, now: int, entity: str = "") -> Explanation:
    """Explain a segment's answer on these inputs.

    Raises
    ------
    UnknownNameError
        if there is no such segment.

    >>> from rules_engine.rules.nodes import Segment
    >>> adult = Predicate(FeatureRef("user", "age"), "at_least", 18)
    >>> print(explain(Program({"adults": Segment("adults", adult)}), "adults", Inputs({"user:age": 16}), 0, "42"))
    42 is not in adults at 1970-01-01T00:00:00Z
    └─ false: user:age at_least 18 (is 16; short by 2)
    nearest miss: one condition would have to change
      - false: user:age at_least 18 (is 16; short by 2)
    """
    when = program.segment(segment).when
    explainer = _Explainer(program, inputs, now)
    reason = explainer.of_segment(segment)
    blocking = () if reason.verdict is True else tuple(explainer.blocking(when, True))
    change = _instant(changes_at(program, when, inputs, now))
    joined = _joined(program, segment, inputs)
    return Explanation(entity, segment, reason.verdict, from_micros(now), change, reason, blocking, joined)


def _joined(program: Program, segment: str, inputs: Inputs) -> tuple[tuple[str, datetime], ...]:
    """Return the ids that were joined to the entity, the newest first; none if the segment reads no events."""
    reads_events = any(dependencies(program.segment(name).when).events for name in program.closure([segment]))
    newest = sorted(inputs.joined.items(), key=lambda join: (-join[1], join[0])) if reads_events else ()
    return tuple((entity, from_micros(at)) for entity, at in newest)


class _Explainer:
    def __init__(self, program: Program, inputs: Inputs, now: int) -> None:
        self._program = program
        self._inputs = inputs
        self._now = now
        self._evaluation = Evaluation(program, inputs, now)

    # --- reasons ----------------------------------------------------------------------------------------------------

    def reason(self, condition: Condition) -> Reason:
        match condition:
            case AllOf():
                return self._group("all", condition, condition.conditions)
            case AnyOf():
                return self._group("any", condition, condition.conditions)
            case Not(AnyOf() as inner):
                return self._group("none", condition, inner.conditions)
            case Not():
                return self._group("not", condition, (condition.condition,))
            case SegmentRef():
                inside = self.of_segment(condition.name)
                return replace(self._group(f"in_segment {condition.name}", condition, ()), children=(inside,))
            case Sequence():
                return self._sequence(condition)
            case Predicate():
                return self._predicate(condition)
            case _:
                assert_never(condition)

    def of_segment(self, name: str) -> Reason:
        """Return the reason of a segment's answer; in a group also who takes precedence."""
        segment = self._program.segment(name)
        reason = self.reason(segment.when)
        if not segment.group:
            return reason
        own, others = reason.children
        before = zip(segment.after, others.children, strict=True)
        named = tuple(replace(other, text=f"{name}: {other.text}") for name, other in before)
        text = f"none of those before it in {segment.group}"
        return replace(
            reason, children=(own, replace(others, text=text, note=_precedence(segment, others), children=named))
        )

    def _group(self, word: str, condition: Condition, inside: tuple[Condition, ...]) -> Reason:
        return Reason(
            word,
            self._evaluation.condition(condition),
            changes_at=self._changes_at(condition),
            children=tuple(map(self.reason, inside)),
        )

    def _changes_at(self, condition: Condition) -> datetime | None:
        return _instant(changes_at(self._program, condition, self._inputs, self._now))

    def _comparison(self, predicate: Predicate, comparison: TwoSides) -> Reason:
        """Explain two sides: both values, and how far the left one is from what it is compared with."""
        left = self._evaluation.read(comparison.left, comparison.type)
        right = side_value(comparison.right, comparison.type, self._evaluation.read)
        verdict = self._evaluation.condition(predicate)
        absent = left is None or right is None
        is_known = not absent and not isinstance(left, Undecided) and not isinstance(right, Undecided)
        shown = f"{format_value(left, comparison.type)} against {format_value(right, comparison.type)}"
        aggregates = [part for part in parts(comparison) if isinstance(part, EventAggregate)]
        counted = sorted({event.id: event for each in aggregates for event in self._counted(each)}.values(), key=_order)
        literal = replace(predicate, argument=right, operand_type=comparison.type)
        return Reason(
            str(predicate),
            verdict,
            value=shown if is_known else None,
            threshold=f"{predicate.operator} {comparison.right}",
            missing=self._missing_side(comparison) if absent else None,
            distance=_distance(literal, left) if is_known and verdict is False else None,
            events=tuple(counted[-MAX_EVENTS:]),
            event_count=len(counted) if aggregates else None,
            note=next((note for each in aggregates if (note := self._note(each)) is not None), None),
            changes_at=self._changes_at(predicate),
        )

    def _calculation(self, predicate: Predicate, calculation: Calculation) -> Reason:
        """Explain what several values come to: the result, and each of them."""
        values = [self._evaluation.read(term, FLOAT) for term in calculation.terms]
        value = self._evaluation.value(predicate)
        verdict = self._evaluation.condition(predicate)
        is_known = value is not None and not isinstance(value, Undecided)
        sign = f" {SIGNS[calculation.operation]} "
        aggregates = [term for term in calculation.terms if isinstance(term, EventAggregate)]
        counted = sorted({event.id: event for each in aggregates for event in self._counted(each)}.values(), key=_order)
        return Reason(
            str(predicate),
            verdict,
            value=f"{value:.6g}, {sign.join(format_value(each, FLOAT) for each in values)}" if is_known else None,
            threshold=f"{predicate.operator} {format_argument(predicate.operator, predicate.argument, FLOAT)}",
            missing=self._missing_term(calculation, values) if value is None else None,
            distance=_distance(predicate, value) if is_known and verdict is False else None,
            events=tuple(counted[-MAX_EVENTS:]),
            event_count=len(counted) if aggregates else None,
            note=next((note for each in aggregates if (note := self._note(each)) is not None), None),
            changes_at=self._changes_at(predicate),
        )

    def _missing_term(self, calculation: Calculation, values: list[Value]) -> str:
        """Return which of the values is missing, and why; or that they come to no number."""
        for term, value in zip(calculation.terms, values, strict=True):
            if value is None:
                counted = self._counted(term) if isinstance(term, EventAggregate) else []
                return f"{self._missing(term, counted)}, {term}"
        return "no finite number"

    def _missing_side(self, comparison: TwoSides) -> str:
        """Return which of the values is missing, and why; none is if one is divided by zero."""
        types = (comparison.type, comparison.type, FLOAT)
        for part, value_type in zip(parts(comparison), types, strict=False):
            if self._evaluation.read(part, value_type) is None:
                counted = self._counted(part) if isinstance(part, EventAggregate) else []
                return f"{self._missing(part, counted)}, {part}"
        return f"division by zero, {comparison.right}" if comparison.right.divisor else "of another type"

    def _counted(self, aggregate: EventAggregate) -> list[Event]:
        """Return the events that an aggregate is over."""
        return list(counted_events(aggregate, matching(aggregate.match, self._inputs.events), self._now))

    def _predicate(self, predicate: Predicate) -> Reason:
        operand = predicate.operand
        if isinstance(operand, TwoSides):
            return self._comparison(predicate, operand)
        if isinstance(operand, Calculation):
            return self._calculation(predicate, operand)
        verdict = self._evaluation.condition(predicate)
        value = self._evaluation.value(predicate)
        at_least = self._at_least(operand) if isinstance(operand, EventAggregate) else None
        counted = self._counted(operand) if isinstance(operand, EventAggregate) else []
        observed = self._inputs.updated_at.get(operand.view) if isinstance(operand, FeatureRef) else None
        argument = format_argument(predicate.operator, predicate.argument, predicate.operand_type)
        return Reason(
            str(predicate),
            verdict,
            value=self._shown(predicate, value) if at_least is None else f"at least {at_least}",
            threshold=f"{predicate.operator} {argument}",
            missing=self._missing(operand, counted) if value is None else None,
            age=None if observed is None else timedelta(microseconds=self._now - observed),
            distance=None if verdict is True or at_least is not None else _distance(predicate, value),
            events=tuple(counted[-MAX_EVENTS:]),
            event_count=len(counted) if isinstance(operand, EventAggregate) else None,
            note=self._note(operand) if isinstance(operand, EventAggregate) else None,
            changes_at=self._changes_at(predicate),
        )

    def _at_least(self, aggregate: EventAggregate) -> int | None:
        """Return the lower bound of a count that is not known exactly; None if it is."""
        events = self._inputs.events
        return events.at_least(aggregate, self._now) if isinstance(events, KeptEvents) else None

    def _shown(self, predicate: Predicate, value: Value) -> str | None:
        if value is None or isinstance(value, Undecided):
            return None
        shown = format_value(value, predicate.operand_type)
        if predicate.operand_type is not None and predicate.operand_type.kind is Kind.TIME and isinstance(value, int):
            distance = self._now - value
            shown += f", {format_duration(distance)} ago" if distance >= 0 else f", in {format_duration(-distance)}"
        return shown

    def _missing(self, operand: Operand, counted: list[Event]) -> str:
        if isinstance(operand, EventAggregate):
            return _missing_property(operand, counted)
        if isinstance(operand, ClockRef):
            zone = self._evaluation.zone(operand)
            return f"there is no time zone `{zone}`" if zone is not None else f"no time zone in {operand.timezone}"
        if isinstance(operand, BucketRef):
            return "no entity is given"
        if isinstance(operand, ContextRef):
            if operand.name not in self._inputs.context:
                return "not passed"
            return "null" if _is_null(self._inputs.context[operand.name]) else "of another type"
        assert isinstance(operand, FeatureRef), operand
        return self._missing_feature(operand)

    def _missing_feature(self, feature: FeatureRef) -> str:
        expires_at = self._inputs.expires_at.get(feature.view)
        if expires_at is not None and self._now >= expires_at:
            return f"expired {format_duration(self._now - expires_at + 1)} ago"
        if not _is_null(self._inputs.features.get(feature.key)):
            return "of another type"
        is_present = feature.key in self._inputs.features or feature.view in self._inputs.updated_at
        return "null" if is_present else "absent"

    def _sequence(self, sequence: Sequence) -> Reason:
        past = in_window(self._inputs.events, self._now, None)
        names = {(step.match.event) for step in sequence.steps}
        starts = first_events(sequence, past)
        seen = [event for event in past if event.name in names and starts and event.at >= starts[0].at]
        return Reason(
            format_sequence(sequence),
            self._evaluation.condition(sequence),
            missing=None if starts else f"no event `{sequence.steps[0].match.event}` to start with",
            events=tuple(seen[-MAX_EVENTS:]),
            event_count=len(seen),
            note=self._note(sequence),
            changes_at=self._changes_at(sequence),
        )

    def _note(self, condition: EventAggregate | Sequence) -> str | None:
        events = self._inputs.events
        return events.note(condition, self._now) if isinstance(events, KeptEvents) else None

    # --- the nearest miss -------------------------------------------------------------------------------------------

    def blocking(self, condition: Condition, answer: bool) -> list[Reason]:
        """Return the fewest leaves that would have to change for the condition to give the wanted answer."""
        if self._evaluation.condition(condition) is answer:
            return []
        match condition:
            case Not():
                return self.blocking(condition.condition, not answer)
            case SegmentRef():
                return self.blocking(self._program.segment(condition.name).when, answer)
            case AllOf() | AnyOf():
                inside = [self.blocking(child, answer) for child in condition.conditions]
                if isinstance(condition, AllOf) is answer:  # every one has to give the wanted answer
                    return [reason for reasons in inside for reason in reasons]
                return min(inside, key=len)
            case _:
                return [self.reason(condition)]


def _precedence(segment: Segment, others: Reason) -> str | None:
    """Return who takes precedence over a segment of a group, or of whom that is not known."""
    answers = dict(zip(segment.after, (other.verdict for other in others.children), strict=True))
    taken = next((name for name, answer in answers.items() if answer is True), None)
    if taken is not None:
        return f"{taken} takes precedence"
    unknown = [name for name, answer in answers.items() if answer is None]
    return f"it is not known whether {' or '.join(unknown)} takes precedence" if unknown else None


def format_sequence(sequence: Sequence) -> str:
    """Return a sequence in one line.

    >>> from rules_engine.rules.nodes import EventMatch, SequenceStep
    >>> format_sequence(Sequence((SequenceStep(EventMatch("cart")), SequenceStep(EventMatch("buy"), True, 60_000_000))))
    'sequence: cart, then no buy within 1m'
    """
    parts = [str(sequence.steps[0].match)]
    for step in sequence.steps[1:]:
        wait = f" within {format_duration(step.within)}" if step.within is not None else ""
        link = "and" if step.together else "then"
        parts.append(f"{link} {'no ' if step.negated else ''}{step.match}{wait}")
    text = "sequence: " + ", ".join(parts)
    if sequence.within is not None:
        text += f"; all within {format_duration(sequence.within)}"
    return text + (f"; same {sequence.match_on}" if sequence.match_on else "")


def _missing_property(aggregate: EventAggregate, counted: list[Event]) -> str:
    """Return the reason why an aggregate of the counted events has no value."""
    if not counted:
        return "no such event"
    judged = {Aggregate.FIRST: counted[:1], Aggregate.LAST: counted[-1:]}.get(aggregate.function, counted)
    of = aggregate.of or ""
    is_present = any(not _is_null(read_value(of, event.properties, event.at)) for event in judged)
    return "of another type" if is_present else "absent from the event"


def _is_null(value: Value) -> bool:
    return conform(value, None) is None


def _distance(predicate: Predicate, value: Value) -> str | None:
    """Return how far a number or time is from fulfilling a comparison; None for other values and operators."""
    argument, kind = predicate.argument, predicate.operand_type.kind if predicate.operand_type else None
    if isinstance(value, bool) or not isinstance(value, int | float) or kind is Kind.TIME_OF_DAY:
        return None
    if OPERATORS[predicate.operator].argument is Argument.PAIR:
        argument = argument[0] if value < argument[0] else argument[1]
    elif predicate.operator not in ("greater_than", "at_least", "less_than", "at_most", "before", "after"):
        return None
    if argument == value:
        return "exactly the bound"
    try:
        gap = abs(argument - value)
        shown = format_duration(int(gap)) if kind is Kind.TIME else f"{gap:.6g}"
    except OverflowError:  # an integer beyond the range of a float
        return None
    return f"{'short' if value < argument else 'over'} by {shown}"


def _order(event: Event) -> tuple[int, str]:
    return event.order


def _instant(micros: int | None) -> datetime | None:
    return None if micros is None else from_micros(micros)
