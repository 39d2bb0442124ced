"""Explain an answer: every condition with its value, its verdict, and when the verdict changes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, assert_never

from rules_engine.clock import format_duration, format_instant, from_micros, to_micros
from rules_engine.diagnostics import printable
from rules_engine.rules.aggregates import Aggregate
from rules_engine.rules.changes import changes_at
from rules_engine.rules.evaluate import Evaluation
from rules_engine.rules.events import in_window, matching
from rules_engine.rules.format import format_argument, format_value
from rules_engine.rules.inputs import Event, Inputs, KeptEvents
from rules_engine.rules.nodes import (
    AllOf,
    AnyOf,
    ClockRef,
    Condition,
    ContextRef,
    EventAggregate,
    FeatureRef,
    Not,
    Predicate,
    SegmentRef,
    Sequence,
)
from rules_engine.rules.operators import OPERATORS, Argument
from rules_engine.rules.predicates import Truth
from rules_engine.rules.program import Program
from rules_engine.rules.sequences import first_events
from rules_engine.rules.types import Kind, Value, conform
from rules_engine.rules.undecided import Undecided

#: How many of the events that counted are named; the latest ones.
MAX_EVENTS = 5

_MICROSECOND = timedelta(microseconds=1)

_WORDS: dict[Truth, str] = {True: "true", False: "false", None: "unknown"}


@dataclass(frozen=True, slots=True)
class Reason:
    """Explains one condition.

    Attributes
    ----------
    text
        the condition in one line; for a group its word: ``all``, ``any``, ``none``, ``not``.
    verdict
        True, False, or None for unknown.
    value
        what the condition read, as people write it; None for groups.
    threshold
        what the value is compared with, as it was written; None for groups and sequences.
    missing
        why the value is missing: ``absent`` (no such row), ``null``, ``expired ...``, ``not passed`` (context), ``no
        such event``, ``absent from the event``, ``of another type``.
    age
        how long ago the value's row was observed, None where that is not known.
    distance
        how far a number or time is from fulfilling the comparison, as people write it.
    events, event_count
        the latest events that counted, and how many did.
    note
        what has to be known of the events, where not all of them are kept.
    changes_at
        when this verdict changes by time alone, in UTC; None if never.
    children
        the conditions inside.
    """

    text: str
    verdict: Truth
    value: str | None = None
    threshold: str | None = None
    missing: str | None = None
    age: timedelta | None = None
    distance: str | None = None
    events: tuple[Event, ...] = ()
    event_count: int | None = None
    changes_at: datetime | None = None
    children: tuple[Reason, ...] = ()
    note: str | None = None

    def line(self) -> str:
        """Return the reason in one line, without its children."""
        notes = [self._reading()]
        if self.distance:
            notes.append(self.distance)
        if self.age is not None:
            notes.append(f"observed {format_duration(self.age // _MICROSECOND)} ago")
        if self.event_count:
            instants = ", ".join(format_instant(event.at) for event in self.events)
            notes.append(("events at " if self.event_count <= MAX_EVENTS else "latest events at ") + instants)
        if self.note:
            notes.append(self.note)
        if self.changes_at is not None and not self.children:
            notes.append(f"until {_text(self.changes_at)}")
        shown = "; ".join(note for note in notes if note)
        return printable(f"{_WORDS[self.verdict]}: {self.text}" + (f" ({shown})" if shown else ""))

    def _reading(self) -> str:
        if self.missing:
            return f"missing: {self.missing}"
        return f"is {self.value}" if self.value is not None else ""

    def to_dict(self) -> dict[str, Any]:
        """Return the reason as JSON data; instants as ISO 8601, durations in seconds."""
        return {
            "condition": self.text,
            "verdict": self.verdict,
            "value": self.value,
            "threshold": self.threshold,
            "missing": self.missing,
            "age_seconds": None if self.age is None else self.age.total_seconds(),
            "distance": self.distance,
            "events": [{"event": event.name, "at": format_instant(event.at), "id": event.id} for event in self.events],
            "event_count": self.event_count,
            "note": self.note,
            "changes_at": None if self.changes_at is None else _text(self.changes_at),
            "children": [child.to_dict() for child in self.children],
        }


@dataclass(frozen=True, slots=True)
class Explanation:
    """Explains why an entity is, or is not, in a segment at an instant. ``str()`` of it is a tree.

    ``blocking`` are the fewest conditions whose change would make the entity a member: the nearest miss; empty for a
    member.
    """

    entity: str
    segment: str
    verdict: Truth
    at: datetime
    changes_at: datetime | None
    reason: Reason
    blocking: tuple[Reason, ...] = ()

    def __str__(self) -> str:
        return "\n".join([self.headline(), *_tree(self.reason, "", ""), *self._nearest_miss()])

    def headline(self) -> str:
        """Return the answer in one line."""
        answer = {True: "is in", False: "is not in", None: "is not known to be in"}[self.verdict]
        until = f", until {_text(self.changes_at)}" if self.changes_at is not None else ""
        return printable(f"{self.entity} {answer} {self.segment} at {_text(self.at)}{until}")

    def _nearest_miss(self) -> list[str]:
        if not self.blocking:
            return []
        number = "one condition" if len(self.blocking) == 1 else f"{len(self.blocking)} conditions"
        return [f"nearest miss: {number} would have to change", *(f"  - {reason.line()}" for reason in self.blocking)]

    def to_dict(self) -> dict[str, Any]:
        """Return the explanation as JSON data."""
        return {
            "entity": self.entity,
            "segment": self.segment,
            "verdict": self.verdict,
            "at": _text(self.at),
            "changes_at": None if self.changes_at is None else _text(self.changes_at),
            "reason": self.reason.to_dict(),
            "nearest_miss": [reason.to_dict() for reason in self.blocking],
        }


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
    reason = explainer.reason(when)
    blocking = () if reason.verdict is True else tuple(explainer.blocking(when, True))
    change = _instant(changes_at(program, when, inputs, now))
    return Explanation(entity, segment, reason.verdict, from_micros(now), change, reason, blocking)


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
                return self._group(
                    f"in_segment {condition.name}", condition, (self._program.segment(condition.name).when,)
                )
            case Sequence():
                return self._sequence(condition)
            case Predicate():
                return self._predicate(condition)
            case _:
                assert_never(condition)

    def _group(self, word: str, condition: Condition, inside: tuple[Condition, ...]) -> Reason:
        return Reason(
            word,
            self._evaluation.condition(condition),
            changes_at=self._changes_at(condition),
            children=tuple(map(self.reason, inside)),
        )

    def _changes_at(self, condition: Condition) -> datetime | None:
        return _instant(changes_at(self._program, condition, self._inputs, self._now))

    def _predicate(self, predicate: Predicate) -> Reason:
        operand = predicate.operand
        verdict = self._evaluation.condition(predicate)
        value = self._evaluation.value(predicate)
        at_least = self._at_least(operand) if isinstance(operand, EventAggregate) else None
        counted: list[Event] = []
        if isinstance(operand, EventAggregate):
            counted = list(in_window(matching(operand.match, self._inputs.events), self._now, operand.within))
        observed = self._inputs.updated_at.get(operand.view) if isinstance(operand, FeatureRef) else None
        argument = format_argument(predicate.operator, predicate.argument, predicate.operand_type)
        return Reason(
            str(predicate),
            verdict,
            value=self._shown(predicate, value) if at_least is None else f"at least {at_least}",
            threshold=f"{predicate.operator} {argument}",
            missing=self._missing(predicate, counted) if value is None else None,
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

    def _missing(self, predicate: Predicate, counted: list[Event]) -> str:
        operand = predicate.operand
        if isinstance(operand, EventAggregate):
            return _missing_property(operand, counted)
        if isinstance(operand, ClockRef):
            zone = self._evaluation.zone(operand)
            return f"there is no time zone `{zone}`" if zone is not None else f"no time zone in {operand.timezone}"
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
        given = feature.key in self._inputs.features or feature.view in self._inputs.updated_at
        return "null" if given else "absent"

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

    def blocking(self, condition: Condition, wanted: bool) -> list[Reason]:
        """Return the fewest leaves that would have to change for the condition to give the wanted answer."""
        if self._evaluation.condition(condition) is wanted:
            return []
        match condition:
            case Not():
                return self.blocking(condition.condition, not wanted)
            case SegmentRef():
                return self.blocking(self._program.segment(condition.name).when, wanted)
            case AllOf() | AnyOf():
                inside = [self.blocking(child, wanted) for child in condition.conditions]
                if isinstance(condition, AllOf) is wanted:  # every one has to give the wanted answer
                    return [reason for reasons in inside for reason in reasons]
                return min(inside, key=len)
            case _:
                return [self.reason(condition)]


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
    given = any(not _is_null(event.properties.get(aggregate.of or "")) for event in judged)
    return "of another type" if given else "absent from the event"


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


def _tree(reason: Reason, first: str, rest: str) -> list[str]:
    lines = [f"{first}└─ {reason.line()}"] if not first else [f"{first}{reason.line()}"]
    indent = rest + "   " if not first else rest
    for position, child in enumerate(reason.children):
        last = position == len(reason.children) - 1
        lines += _tree(child, indent + ("└─ " if last else "├─ "), indent + ("   " if last else "│  "))
    return lines


def _instant(micros: int | None) -> datetime | None:
    return None if micros is None else from_micros(micros)


def _text(instant: datetime) -> str:
    return format_instant(to_micros(instant))
