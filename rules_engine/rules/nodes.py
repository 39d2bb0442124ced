"""The syntax tree of a rule: six kinds of condition over eight kinds of operand, frozen and safe to share.

Everything that looks like more in YAML is one of these: ``none`` is not any, ``did`` compares a count,
``not_in_segment`` is not a segment reference.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction
from typing import Any

from rules_engine.clock import format_duration
from rules_engine.diagnostics import NO_SPAN, Span
from rules_engine.rules.aggregates import AGGREGATES, Aggregate
from rules_engine.rules.arithmetic import SIGNS, Operation
from rules_engine.rules.format import format_argument
from rules_engine.rules.types import Value, ValueType
from rules_engine.rules.windows import Bounds, Window

# --- operands: what a predicate reads -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FeatureRef:
    """The value now of a feature in the online store."""

    view: str
    name: str

    @property
    def key(self) -> str:
        return f"{self.view}:{self.name}"

    def __str__(self) -> str:
        return self.key


@dataclass(frozen=True, slots=True)
class ContextRef:
    """A value that the caller passes with the request, or ``default`` where none is passed."""

    name: str
    default: Value = None

    def __str__(self) -> str:
        return f"context {self.name}"


class ClockField(Enum):
    """Names what a clock condition reads of the time of evaluation."""

    TIME_OF_DAY = "time_of_day"
    DAY_OF_WEEK = "day_of_week"


@dataclass(frozen=True, slots=True)
class ClockRef:
    """The local time of evaluation, in an IANA zone or in the zone that a feature names."""

    field: ClockField
    timezone: str | FeatureRef = "UTC"

    def __str__(self) -> str:
        return f"{self.field.value} in {self.timezone}"


@dataclass(frozen=True, slots=True)
class BucketRef:
    """The entity's bucket by a seed: a whole number from 0 up to 10,000 (:mod:`rules_engine.rules.buckets`)."""

    seed: str

    def __str__(self) -> str:
        return f"bucket by {self.seed}"


@dataclass(frozen=True, slots=True)
class EventMatch:
    """Says which events are meant: a name, and conditions on the event itself that must all be true.

    Such a condition is a predicate on an operand of the event at hand, or a group of such conditions.
    """

    event: str
    where: tuple[Condition, ...] = ()

    def __str__(self) -> str:
        conditions = ", ".join(map(format_where, self.where))
        return f"{self.event} where {conditions}" if conditions else self.event


@dataclass(frozen=True, slots=True)
class PropertyRef:
    """A property of the event at hand; only inside ``where``. A value of another type than ``type`` is missing."""

    name: str
    type: ValueType | None = None

    def __str__(self) -> str:
        return self.name


class TimePart(Enum):
    """Names what is read of the local time of an event."""

    TIME_OF_DAY = "time_of_day"
    DAY_OF_WEEK = "day_of_week"
    DAY = "day"


@dataclass(frozen=True, slots=True)
class EventTime:
    """The local time of the event at hand in an IANA zone; a ``DAY`` is told from others by its local midnight."""

    part: TimePart
    timezone: str = "UTC"

    def __str__(self) -> str:
        return f"{self.part.value} in {self.timezone}"


@dataclass(frozen=True, slots=True)
class ComputedValue:
    """Arithmetic on numbers of the event at hand: properties by name, and constants."""

    operation: Operation
    terms: tuple[str | float, ...]

    def __str__(self) -> str:
        return f"({f' {SIGNS[self.operation]} '.join(map(str, self.terms))})"


#: What is read of one event: a property by its name, or something that follows from the event.
EventValue = str | EventTime | ComputedValue


@dataclass(frozen=True, slots=True)
class EventAggregate:
    """An aggregate over the matching events in the window (now - within, now]; ``within`` None has no start.

    ``of_type`` is the type of the property ``of``: a value of another type is missing. With ``window`` the events in
    it count, and ``within`` is how old they are at most. Of ``first`` as many events as ``skip`` are passed over.
    """

    function: Aggregate
    match: EventMatch
    within: int | None
    of: EventValue | None = None
    of_type: ValueType | None = None
    window: Window | None = None
    skip: int = 0

    @property
    def type(self) -> ValueType | None:
        """Return the type of the aggregate's value; None where that of the property is not known."""
        return AGGREGATES[self.function].type_of_value(self.of_type)

    def bounds(self, now: int) -> Bounds:
        """Return the window at an instant: the instants later than the first (None: any), up to the second."""
        if self.window is not None:
            return self.window.bounds(now)
        return None if self.within is None else now - self.within, now

    def turns(self, at: int) -> Iterator[int]:
        """Yield the instants at which an event of this instant enters the window, and leaves it."""
        stay = (at, None if self.within is None else at + self.within) if self.window is None else self.window.stay(at)
        if stay is not None:
            yield from (instant for instant in stay if instant is not None)

    def __str__(self) -> str:
        window = "ever" if self.within is None else f"in {format_duration(self.within)}"
        window = window if self.window is None else str(self.window)
        of = f"{self.of} of " if self.of else ""
        function = f"number {self.skip + 1}," if self.skip else self.function.value
        return f"{function} {of}{self.match} {window}"


#: An operand that is read from one place.
Source = FeatureRef | ContextRef | EventAggregate | PropertyRef


@dataclass(frozen=True, slots=True)
class Side:
    """The right side of a comparison: a value, times a whole number, over another one and over another value."""

    value: Source
    times: int = 1
    over: int = 1
    divisor: Source | None = None

    @property
    def is_plain(self) -> bool:
        """Say whether it is the value itself."""
        return self.times == self.over and self.divisor is None

    def __str__(self) -> str:
        text = str(self.value) if isinstance(self.value, FeatureRef | PropertyRef) else f"({self.value})"
        if self.is_plain:
            return text
        factor = "" if self.times == self.over else f"{_shown_factor(self.times, self.over)} × "
        return f"{factor}{text}" + (f" / ({self.divisor})" if self.divisor is not None else "")


def _shown_factor(times: int, over: int) -> str:
    quotient = times / over
    return f"{quotient:g}" if Fraction(f"{quotient:g}") == Fraction(times, over) else f"{times}/{over}"


@dataclass(frozen=True, slots=True)
class TwoSides:
    """Tells how a value compares with another: -1 below it, 0 equal to it, 1 above it; missing if one of them is.

    Both are read as ``type``; None takes any, and values of different kinds do not compare.
    """

    left: Source
    right: Side
    type: ValueType | None = None

    def __str__(self) -> str:
        return f"{self.left} against {self.right}"


@dataclass(frozen=True, slots=True)
class Calculation:
    """A result of several values, such as purchases minus refunds; missing if one of them is."""

    operation: Operation
    terms: tuple[Source, ...]

    def __str__(self) -> str:
        return f" {SIGNS[self.operation]} ".join(f"({term})" for term in self.terms)


#: An operand that is made of others.
Composite = TwoSides | Calculation


Operand = FeatureRef | ContextRef | ClockRef | BucketRef | EventAggregate | PropertyRef | EventTime | Composite

# --- conditions -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AllOf:
    """True if every condition is true; false if one is false; else unknown."""

    conditions: tuple[Condition, ...]
    span: Span = field(default=NO_SPAN, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """True if a condition is true; false if every one is false; else unknown."""

    conditions: tuple[Condition, ...]
    span: Span = field(default=NO_SPAN, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Not:
    """True if the condition is false, false if it is true, unknown if it is unknown."""

    condition: Condition
    span: Span = field(default=NO_SPAN, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Predicate:
    """``operand operator argument``.

    Unknown on a missing operand, or true if ``or_missing``; ``exists`` is never unknown.

    ``argument`` is already converted: instants, durations and times of day are microseconds, lists are tuples,
    ``operand_type`` is the type against which the argument was checked (None where nothing declares one). Two sides are
    an operator on a :class:`TwoSides`, whose argument is 0.
    """

    operand: Operand
    operator: str
    argument: Any
    operand_type: ValueType | None = None
    ignore_case: bool = False
    or_missing: bool = False
    span: Span = field(default=NO_SPAN, compare=False, repr=False)

    def __str__(self) -> str:
        options = " ignore_case" if self.ignore_case else ""
        options += " or_missing" if self.or_missing else ""
        if isinstance(self.operand, TwoSides):
            return f"{self.operand.left} {self.operator} {self.operand.right}{options}"
        argument = format_argument(self.operator, self.argument, self.operand_type)
        return f"{self.operand} {self.operator} {argument}{options}"


@dataclass(frozen=True, slots=True)
class SequenceStep:
    """One step: the event happens (``negated`` False) or must not.

    ``within`` runs from the instant at which the step before it matched. A negated step with ``within`` is a gap, which
    matches at its end; without, the event must not come between the steps around it. ``did_not: [A, B]`` is a step for
    each event; all but the first are ``together`` with the one before, and run from where it runs.
    """

    match: EventMatch
    negated: bool = False
    within: int | None = None
    together: bool = False
    span: Span = field(default=NO_SPAN, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Sequence:
    """Ordered steps; see "Sequences" in the language reference."""

    steps: tuple[SequenceStep, ...]
    within: int | None = None
    match_on: str | None = None
    latest_only: bool = False
    span: Span = field(default=NO_SPAN, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class SegmentRef:
    """Another segment's answer."""

    name: str
    span: Span = field(default=NO_SPAN, compare=False, repr=False)


Condition = AllOf | AnyOf | Not | Predicate | Sequence | SegmentRef


def format_where(condition: Condition) -> str:
    """Return a condition on an event in one line.

    >>> gift = Predicate(PropertyRef("gift"), "equals", True)
    >>> format_where(Not(AnyOf((gift, Predicate(PropertyRef("price"), "at_least", 5)))))
    'not (gift equals true or price at_least 5)'
    """
    match condition:
        case AllOf(conditions) | AnyOf(conditions):
            word = " and " if isinstance(condition, AllOf) else " or "
            return f"({word.join(map(format_where, conditions))})"
        case Not(inner):
            return f"not {format_where(inner)}" if isinstance(inner, AllOf | AnyOf) else f"not ({format_where(inner)})"
        case _:
            return str(condition)


# --- definitions ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ListFile:
    """A file of keys: its path from the project's folder, and the column; None is the entity's join key."""

    file: str
    column: str | None = None
    span: Span = field(default=NO_SPAN, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Segment:
    """A named condition.

    Attributes
    ----------
    public
        whether a key that may be in a browser sees it.
    group, after
        the group, and the segments before this one in it. ``when`` is then the own condition, and none of
        theirs.
    list
        the file that names its members; ``when`` then asks whether somebody was on it when it was imported.
    """

    name: str
    when: Condition
    description: str = ""
    owner: str = ""
    tags: tuple[str, ...] = ()
    public: bool = False
    group: str = ""
    after: tuple[str, ...] = ()
    list: ListFile | None = None
    span: Span = field(default=NO_SPAN, compare=False, repr=False)
