"""Requirements: the events that must be kept so that the loaded definitions are answered exactly.

Every event condition becomes a :class:`Need`: which events, for how long, and which of them. Nothing else is kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from hashlib import blake2b

from rules_engine.clock import DAY
from rules_engine.rules.aggregates import AGGREGATES, Aggregate, require_aggregates
from rules_engine.rules.nodes import Condition, EventAggregate, EventMatch, EventValue, Predicate, Sequence
from rules_engine.rules.program import Program
from rules_engine.rules.types import ValueType
from rules_engine.rules.walk import parts, walk
from rules_engine.rules.windows import AgoWindow, BeforeWindow

#: The most events that one need keeps. Beyond it the state records the instant up to which it is incomplete.
DEFAULT_BOUND = 100_000

#: How many events of one name a piece has. The state itself holds at most half as many again, until it is next pruned.
DEFAULT_PIECE = 512

#: Incremented whenever states are kept or encoded differently, so that older states are recognized.
STATE_VERSION = 3

#: How late an event may come and still enter a sum, mean or count that has no start.
DEFAULT_LATENESS = 7 * DAY


class KeepRule(Enum):
    """The choice of the events that a need keeps, of those that are not too old."""

    ALL = "all"
    NEWEST = "newest"  # up to the limit
    EARLIEST = "earliest"  # up to the limit
    LEAST = "least"  # those with no smaller or equal value after them
    GREATEST = "greatest"  # those with no greater or equal value after them
    DISTINCT = "distinct"  # the newest with each value, up to the limit
    TOTAL = "total"  # those that may be delivered again; older ones become a total


@dataclass(frozen=True, slots=True)
class KeptColumn:
    """Names what is kept of an event, often a property. A value of another type than ``type`` is missing."""

    name: EventValue
    type: ValueType | None = None


@dataclass(frozen=True, slots=True)
class Need:
    """One reason to keep events.

    Attributes
    ----------
    match
        the events that are meant.
    horizon
        an event this old, in microseconds, is needed no longer; None: it is needed however old.
    column
        the property whose values are needed.
    limit
        for ``NEWEST``, ``EARLIEST`` and ``DISTINCT``: how many; None is all.
    latest
        for a sequence with ``anchor: latest``: nothing before its latest first step is needed.
    """

    match: EventMatch
    keep: KeepRule
    horizon: int | None
    column: KeptColumn | None = None
    limit: int | None = None
    latest: Sequence | None = None

    def covers(self, other: Need) -> bool:
        """Say whether all that the other need keeps is kept for this one too.

        >>> day, week = (Need(EventMatch("view"), KeepRule.ALL, horizon) for horizon in (1, 7))
        >>> week.covers(day), day.covers(week)
        (True, False)
        """
        if self.match != other.match or not _no_tighter(self.horizon, other.horizon):
            return False
        if other.column is not None and self.column != other.column:
            return False
        if self.keep is KeepRule.ALL and self.latest is None:
            return other.keep is not KeepRule.TOTAL
        return self.keep is other.keep and self.latest == other.latest and _no_tighter(self.limit, other.limit)


def _no_tighter(bound: int | None, other: int | None) -> bool:
    return bound is None or (other is not None and bound >= other)


@dataclass(frozen=True, slots=True)
class NeedPlace:
    """A need with the bit of its events in their masks, and the place of its column."""

    need: Need
    bit: int
    column: int | None


@dataclass(frozen=True)
class EventRequirement:
    """The part of the events of one name that must be kept.

    Attributes
    ----------
    whole_ids
        whether ids are kept as they are, and not as digests: where ids decide which of two events is first.
    """

    event: str
    needs: tuple[Need, ...]
    whole_ids: bool = False

    @cached_property
    def bits(self) -> Mapping[EventMatch, int]:
        """Return a bit for each different ``where``. The mask of a kept event says which of them it fulfils.

        So the properties that ``where`` looks at are not kept.
        """
        return {match: 1 << place for place, match in enumerate(dict.fromkeys(need.match for need in self.needs))}

    @cached_property
    def columns(self) -> tuple[KeptColumn, ...]:
        """Return the properties whose values are kept."""
        return tuple(dict.fromkeys(need.column for need in self.needs if need.column is not None))

    @cached_property
    def columns_with_bits(self) -> tuple[tuple[KeptColumn, int], ...]:
        """Return each column with the bits of the events that need its value."""
        return tuple((column, self._bits_with(column)) for column in self.columns)

    def _bits_with(self, column: KeptColumn) -> int:
        matches = {need.match for need in self.needs if need.column == column}
        return sum(self.bits[match] for match in matches)

    @cached_property
    def places(self) -> tuple[NeedPlace, ...]:
        """Return, by need, the place of its events and values."""
        columns = {column: place for place, column in enumerate(self.columns)}
        return tuple(
            NeedPlace(need, self.bits[need.match], None if need.column is None else columns[need.column])
            for need in self.needs
        )

    @cached_property
    def totals(self) -> tuple[NeedPlace, ...]:
        """Return the needs for totals."""
        return tuple(place for place in self.places if place.need.keep is KeepRule.TOTAL)

    @cached_property
    def total_bits(self) -> int:
        """Return the bits of the events that totals are of."""
        return sum({place.bit for place in self.totals})


@dataclass(frozen=True)
class StateRequirements:
    """The content of event states, and the way in which each event condition is read from it.

    Attributes
    ----------
    events
        by name of the event, sorted.
    limits
        every aggregate that can be read, with the number up to which its count is exact: no definition distinguishes
        larger counts. None: exact without limit.
    bound
        how many events a need keeps at most.
    lateness
        how late an event may come to enter a total, in microseconds.
    piece
        how many events of one name a piece has.
    """

    events: tuple[EventRequirement, ...] = ()
    limits: Mapping[EventAggregate, int | None] = field(default_factory=dict)
    sequences: tuple[Sequence, ...] = ()
    bound: int = DEFAULT_BOUND
    lateness: int = DEFAULT_LATENESS
    piece: int = DEFAULT_PIECE

    @cached_property
    def places(self) -> Mapping[str, int]:
        """Return the place of each event's requirement in ``events``."""
        return {requirement.event: place for place, requirement in enumerate(self.events)}

    @cached_property
    def horizon(self) -> int | None:
        """Return the greatest age of events that conditions read, in microseconds; None: any age, or no events."""
        horizons = [
            None if need.keep is KeepRule.TOTAL else need.horizon for event in self.events for need in event.needs
        ]
        finite = [horizon for horizon in horizons if horizon is not None]
        return max(finite) if finite and len(finite) == len(horizons) else None

    @cached_property
    def fingerprint(self) -> int:
        """Return 64 bits that differ for different needs, and so for states encoded for them."""
        text = f"{STATE_VERSION} {self.events!r}"
        return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def requirements_of(
    program: Program,
    features: Mapping[str, EventAggregate] | None = None,
    conditions: Iterable[Condition] = (),
    *,
    bound: int = DEFAULT_BOUND,
    lateness: int = DEFAULT_LATENESS,
    piece: int = DEFAULT_PIECE,
) -> StateRequirements:
    """Work out what must be kept to answer all segments of a program.

    Parameters
    ----------
    program
        the segments.
    features
        the named windowed features of events.yaml, whose values are read exactly.
    conditions
        further conditions, such as those of triggers.
    bound, lateness, piece
        see :class:`StateRequirements`.

    >>> from rules_engine.rules.nodes import Segment
    >>> viewed = Predicate(EventAggregate(Aggregate.COUNT, EventMatch("view"), 10), "at_least", 3)
    >>> requirement, = requirements_of(Program({"s": Segment("s", viewed)})).events
    >>> [(need.keep.value, need.horizon, need.limit) for need in requirement.needs]
    [('newest', 10, 3)]
    """
    nodes = [node for root in _roots(program, conditions) for node in walk(root)]
    limits = _limits(nodes, features or {})
    sequences = tuple(dict.fromkeys(node for node in nodes if isinstance(node, Sequence)))
    needs = [aggregate_need(aggregate, limit) for aggregate, limit in limits.items()]
    needs += [need for sequence in sequences for need in sequence_needs(sequence)]
    ordered = {aggregate.match.event for aggregate in limits if aggregate.function in (Aggregate.FIRST, Aggregate.LAST)}
    names = sorted({need.match.event for need in needs})
    events = tuple(EventRequirement(name, _for_event(name, needs), name in ordered) for name in names)
    return StateRequirements(events, limits, sequences, bound, lateness, piece)


def _roots(program: Program, conditions: Iterable[Condition]) -> Iterator[Condition]:
    yield from (program.segments[name].when for name in program.names)
    yield from conditions


def _limits(nodes: Iterable[Condition], features: Mapping[str, EventAggregate]) -> dict[EventAggregate, int | None]:
    limits: dict[EventAggregate, int | None] = {}
    for node in nodes:
        if not isinstance(node, Predicate):
            continue
        for operand in parts(node.operand):
            if isinstance(operand, EventAggregate):
                limit, previous = count_limit(node), limits.get(operand, 0)
                limits[operand] = None if limit is None or previous is None else max(limit, previous)
    return limits | dict.fromkeys(features.values())


def count_limit(predicate: Predicate) -> int | None:
    """Return the least number from which on all counts give the predicate the same answer; None if there is none."""
    operand = predicate.operand
    argument = predicate.argument
    numbers = argument if isinstance(argument, tuple) else (argument,)
    if not isinstance(operand, EventAggregate) or not AGGREGATES[operand.function].is_count:
        return None
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
        return None
    least = math.ceil if predicate.operator in ("at_least", "less_than") else _above
    return max([1, *(least(number) for number in numbers)])


def _above(number: float) -> int:
    return math.floor(number) + 1


def aggregate_need(aggregate: EventAggregate, limit: int | None) -> Need:
    """Return what one aggregate needs, if counts are exact up to ``limit``."""
    column = KeptColumn(aggregate.of, aggregate.of_type) if aggregate.of is not None else None
    keep = _KEEPS[aggregate.function]
    ever = aggregate.within is None
    if limit is not None and aggregate.function is Aggregate.COUNT and _reaches_back_from(aggregate):
        return Need(aggregate.match, KeepRule.EARLIEST, None, column, limit)
    if aggregate.window is not None:  # the events that decide need not be the newest
        return Need(aggregate.match, KeepRule.ALL, aggregate.within, column)
    if aggregate.function is Aggregate.COUNT and limit is None:
        keep = KeepRule.TOTAL if ever else KeepRule.ALL
    elif ever and aggregate.function in (Aggregate.SUM, Aggregate.AVG):
        keep = KeepRule.TOTAL
    elif ever and aggregate.function is Aggregate.FIRST:
        keep = KeepRule.EARLIEST
    return Need(aggregate.match, keep, aggregate.within, column, _number(aggregate, keep, limit))


def _reaches_back_from(aggregate: EventAggregate) -> bool:
    """Say whether all events that are old enough count: the earliest then decide."""
    window = aggregate.window
    return isinstance(window, BeforeWindow) or (isinstance(window, AgoWindow) and window.begin is None)


def _number(aggregate: EventAggregate, keep: KeepRule, limit: int | None) -> int | None:
    """Return how many events are kept at most; None: all that ``keep`` chooses."""
    if keep is KeepRule.EARLIEST:
        return aggregate.skip + 1
    if aggregate.function is Aggregate.LAST:
        return 1
    return limit if keep in (KeepRule.NEWEST, KeepRule.DISTINCT) else None


_KEEPS = {
    Aggregate.COUNT: KeepRule.NEWEST,
    Aggregate.SUM: KeepRule.ALL,
    Aggregate.AVG: KeepRule.ALL,
    Aggregate.MIN: KeepRule.LEAST,
    Aggregate.MAX: KeepRule.GREATEST,
    Aggregate.DISTINCT: KeepRule.DISTINCT,
    Aggregate.FIRST: KeepRule.ALL,
    Aggregate.LAST: KeepRule.NEWEST,
}
require_aggregates("what an event state keeps", _KEEPS)


def sequence_needs(sequence: Sequence) -> list[Need]:
    """Return what the steps of a sequence need: no event before the earliest first step that still counts."""
    column = KeptColumn(sequence.match_on) if sequence.match_on is not None else None
    latest = sequence if sequence.latest_only else None
    return [Need(step.match, KeepRule.ALL, sequence.within, column, latest=latest) for step in sequence.steps]


def _for_event(name: str, needs: Iterable[Need]) -> tuple[Need, ...]:
    """Return the needs for one event without redundant ones, in an order that is independent of that of definitions."""
    ordered = sorted({need for need in needs if need.match.event == name}, key=repr)
    return tuple(need for need in ordered if not any(other.covers(need) for other in ordered if other != need))
