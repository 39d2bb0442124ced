"""Reading event states: values of aggregates and answers of sequences at an instant, as over the whole log."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import count

from rules_engine.clock import format_instant
from rules_engine.errors import DataError
from rules_engine.events.state.entity_state import EventState
from rules_engine.events.state.requirements import KeepRule, Need, StateRequirements, aggregate_need, sequence_needs
from rules_engine.events.state.stream import Stream
from rules_engine.rules.aggregates import AGGREGATES, Aggregate
from rules_engine.rules.events import answer_from, in_window, reduce_values
from rules_engine.rules.inputs import Event
from rules_engine.rules.nodes import EventAggregate, EventMatch, Predicate, Sequence
from rules_engine.rules.predicates import Truth
from rules_engine.rules.sequences import first_events, sequence_instants, sequence_matches
from rules_engine.rules.types import Value
from rules_engine.rules.undecided import UNDECIDED, Undecided
from rules_engine.rules.walk import event_sources

#: The number of conditions remembered by identity before the memory is cleared.
_MAX_REMEMBERED = 10_000

_COUNTS = tuple(function for function, row in AGGREGATES.items() if row.is_count)


@dataclass(frozen=True, slots=True)
class Source:
    """The place of the events of one stream: that of their name, the bit of the stream, the column that is read.

    ``bit`` is 0 if all events of the name are meant; ``need`` is the number of the need that they are kept for.
    """

    stream: tuple[int, int]
    column: int | None
    need: int


@dataclass(frozen=True, slots=True)
class AggregatePlan:
    """The way to read one aggregate. ``total`` is the place of its total, if it has one."""

    function: Aggregate
    within: int | None
    source: Source
    limit: int | None
    total: int | None


@dataclass(frozen=True, slots=True)
class SequencePlan:
    """The way to read one sequence: as ``sequence``, on events that are named by the places of their sources."""

    sequence: Sequence
    sources: tuple[Source, ...]


ReadingPlan = AggregatePlan | SequencePlan


@dataclass(frozen=True, slots=True)
class _SourceEvent(Event):
    """An event of one or several sources of a sequence, each named by its place."""

    sources: tuple[str, ...] = ()

    def is_meant_by(self, match: EventMatch) -> bool:
        return match.event in self.sources


class StateLayout:
    """The ways to read event conditions from states of these requirements. Made once, and shared by all readers.

    Its methods raise ``KeyError`` for a condition that the requirements were not made for.
    """

    def __init__(self, requirements: StateRequirements) -> None:
        self.requirements = requirements
        self._plans: dict[EventAggregate | Sequence, ReadingPlan] = {
            **{aggregate: _aggregate_plan(requirements, aggregate) for aggregate in requirements.limits},
            **{sequence: _sequence_plan(requirements, sequence) for sequence in requirements.sequences},
        }
        self._numbers: dict[tuple[Predicate | Sequence, bool], int] = {}
        self._unused = count()
        # The same condition object is looked up many times, and hashing its tree costs more than the answer.
        self._remembered: dict[int, tuple[EventAggregate | Sequence, ReadingPlan]] = {}

    def plan(self, condition: EventAggregate | Sequence) -> ReadingPlan:
        """Return the way to read an aggregate or a sequence."""
        remembered = self._remembered.get(id(condition))
        if remembered is not None and remembered[0] is condition:
            return remembered[1]
        plan = self._plans[condition]
        if len(self._remembered) >= _MAX_REMEMBERED:
            self._remembered.clear()
        self._remembered[id(condition)] = condition, plan
        return plan

    def number(self, condition: Predicate | Sequence, positive: bool) -> int:
        """Return the number of the question whether a condition is true, or whether it is false: no other has it."""
        return self._numbers.setdefault((condition, positive), next(self._unused))

    def places_of(self, condition: EventAggregate | Sequence) -> frozenset[int]:
        """Return the places of the requirements whose events a condition reads."""
        plan = self.plan(condition)
        sources = plan.sources if isinstance(plan, SequencePlan) else (plan.source,)
        return frozenset(source.stream[0] for source in sources)


def _aggregate_plan(requirements: StateRequirements, aggregate: EventAggregate) -> AggregatePlan:
    limit = requirements.limits[aggregate]
    need = aggregate_need(aggregate, limit)
    source = _source(requirements, need)
    totals = enumerate(requirements.events[source.stream[0]].totals)
    is_total = need.keep is KeepRule.TOTAL
    total = next((number for number, place in totals if is_total and place.need.covers(need)), None)
    return AggregatePlan(aggregate.function, aggregate.within, source, limit, total)


def _sequence_plan(requirements: StateRequirements, sequence: Sequence) -> SequencePlan:
    needs = list(dict.fromkeys(sequence_needs(sequence)))
    names = {need.match: EventMatch(str(position)) for position, need in enumerate(needs)}
    steps = tuple(replace(step, match=names[step.match]) for step in sequence.steps)
    return SequencePlan(replace(sequence, steps=steps), tuple(_source(requirements, need) for need in needs))


def _source(requirements: StateRequirements, need: Need) -> Source:
    place = requirements.places[need.match.event]
    requirement = requirements.events[place]
    covering = next(number for number, other in enumerate(requirement.needs) if other.covers(need))
    column = requirement.columns.index(need.column) if need.column is not None else None
    bit = 0 if len(requirement.bits) == 1 else requirement.bits[need.match]
    return Source((place, bit), column, covering)


class StateReader:
    """The answers of one entity's state, with the methods by which the rule index asks for events.

    >>> from rules_engine.events.state.requirements import requirements_of
    >>> from rules_engine.events.state.entity_state import empty_state, update
    >>> from rules_engine.rules.program import Program
    >>> views = EventAggregate(Aggregate.COUNT, EventMatch("view"), within=10)
    >>> requirements = requirements_of(Program({}), {"views": views})
    >>> state = update(empty_state(requirements), [Event("view", 5, "b"), Event("view", 3, "a")], requirements)
    >>> reader = StateReader(state, StateLayout(requirements))
    >>> [reader.aggregate(views, now) for now in (4, 5, 13, 15)], sorted(reader.instants(views))
    ([1, 2, 1, 0], [3, 5, 13, 15])
    """

    __slots__ = ("_layout", "_sequences", "is_whole", "state", "streams")

    def __init__(self, state: EventState, layout: StateLayout) -> None:
        self.state = state
        #: True if no event was dropped because of the bound.
        self.is_whole = not any(kept.lost for kept in state.kept)
        self._layout = layout
        self.streams: dict[tuple[int, int], Stream] = {}
        self._sequences: dict[int, list[_SourceEvent]] = {}

    @property
    def requirements(self) -> StateRequirements:
        """Return the requirements that the state was kept for."""
        return self._layout.requirements

    def grown(self, state: EventState) -> StateReader:
        """Return the reader of a state to which events were added; what was read of the others it need not read."""
        reader = StateReader(state, self._layout)
        kept = state.kept
        for key, stream in self.streams.items():
            if kept[key[0]] is stream.kept:
                reader.streams[key] = stream
        return reader

    def aggregate(self, aggregate: EventAggregate, now: int) -> Value:
        """Return the aggregate's value; None if it is missing, :class:`Undecided` if more events came than are kept.

        A count above what any definition tells apart is that number.

        Raises
        ------
        DataError
            if the state was pruned for a later instant.
        """
        value = self._of_kept(aggregate, now)
        if self.is_whole or self.dropped_until(aggregate, now) is None:
            return value
        return Undecided(value) if aggregate.function in _COUNTS else UNDECIDED

    def _of_kept(self, aggregate: EventAggregate, now: int) -> Value:
        plan = self._layout.plan(aggregate)
        assert isinstance(plan, AggregatePlan), aggregate
        self._check(now)
        stream = self.stream(plan.source)
        if plan.total is not None:
            return self._total(plan, plan.total, stream, now)
        after, until = aggregate.bounds(now)
        start = 0 if after is None else bisect_right(stream.ats, after)
        end = bisect_right(stream.ats, until, start)
        if plan.function is Aggregate.COUNT:
            value: Value = end - start
        else:
            value = reduce_values(plan.function, stream.column(plan.source.column)[start:end], aggregate.skip)
        return value if plan.limit is None else min(value, plan.limit)

    def _total(self, plan: AggregatePlan, total: int, stream: Stream, now: int) -> Value:
        kept = stream.kept
        start = 0 if kept.settled is None else bisect_right(stream.ats, kept.settled)
        further = stream.column(plan.source.column)[start : bisect_right(stream.ats, now, start)]
        return kept.totals[total].value(plan.function, further)

    def sequence(self, sequence: Sequence, now: int) -> bool | None:
        """Return the sequence's answer; None if events were dropped and the kept ones do not decide it.

        Raises
        ------
        DataError
            if the state was pruned for a later instant.
        """
        plan = self._layout.plan(sequence)
        assert isinstance(plan, SequencePlan), sequence
        self._check(now)
        start = None if sequence.within is None else now - sequence.within
        dropped = None if self.is_whole else self.dropped_until(sequence, now)
        if dropped is not None:
            return self._after(dropped, plan, now)
        starts = self.stream(plan.sources[0]).ats
        if bisect_right(starts, now) == (0 if start is None else bisect_right(starts, start)):
            return False
        events = self._sequence_events(plan)
        if start is not None:  # no event before the first step matters
            events = events[bisect_right(events, start, key=lambda event: event.at) :]
        return sequence_matches(plan.sequence, events, now)

    def _after(self, dropped: int, plan: SequencePlan, now: int) -> bool | None:
        """Return the answer from the events after the dropped ones; None if the dropped ones could change it."""
        events = self._sequence_events(plan)
        events = events[bisect_right(events, dropped, key=lambda event: event.at) :]
        if sequence_matches(plan.sequence, events, now):
            return True
        has_latest = plan.sequence.latest_only and first_events(plan.sequence, in_window(events, now, None))
        return False if has_latest else None

    def answer(self, predicate: Predicate, now: int) -> Truth:
        """Return the answer of a predicate on an aggregate; None if it is not known."""
        return answer_from(predicate, lambda aggregate: self.aggregate(aggregate, now), now)

    def instants(self, source: EventAggregate | Predicate | Sequence) -> Iterator[int]:
        """Return the instants at which the value may change without new events; others may be among them."""
        if isinstance(source, Predicate):
            for part in event_sources(source):
                yield from self.instants(part)
            return
        plan = self._layout.plan(source)
        if isinstance(plan, SequencePlan):
            yield from sequence_instants(plan.sequence, self._sequence_events(plan))
            yield from self._dropped_leave(plan.sources, source)
            return
        yield from self._dropped_leave((plan.source,), source)
        assert isinstance(source, EventAggregate), source
        for at in self.stream(plan.source).ats:
            yield from source.turns(at)

    def incomplete_until(self, source: EventAggregate | Sequence, now: int) -> int | None:
        """Return the instant up to which a condition may lack events; None if its answer is exact.

        Such events were dropped because of the bound; or they came for a total that was already settled up to that
        instant, too late or for a second time.
        """
        plan = self._layout.plan(source)
        if isinstance(plan, AggregatePlan) and plan.total is not None:
            kept = self.state.kept[plan.source.stream[0]]
            if kept.late:
                return kept.settled
        return self.dropped_until(source, now)

    def dropped_until(self, source: EventAggregate | Sequence, now: int) -> int | None:
        """Return the latest instant of a dropped event in the condition's window; None if the bound dropped none."""
        plan = self._layout.plan(source)
        if isinstance(plan, SequencePlan):
            return self._lost(plan.sources, source, now)
        if plan.limit is not None and isinstance(source, EventAggregate) and self._of_kept(source, now) >= plan.limit:
            return None  # more would not be told apart
        return self._lost((plan.source,), source, now)

    def events_behind(self, source: EventAggregate | Sequence) -> int:
        """Return how many events are looked at to answer a condition, about.

        Of those in pieces an aggregate over a rolling window needs only what is remembered.
        """
        plan = self._layout.plan(source)
        if isinstance(plan, AggregatePlan) and isinstance(source, EventAggregate) and source.window is None:
            return len(self.state.kept[plan.source.stream[0]].ats)
        sources = plan.sources if isinstance(plan, SequencePlan) else (plan.source,)
        return sum(len(self.stream(place).ats) for place in sources)

    def _dropped_leave(self, sources: Iterable[Source], source: EventAggregate | Sequence) -> Iterator[int]:
        """Yield the instants at which dropped events leave the window."""
        if self.is_whole or source.within is None:
            return
        for place in sources:
            until = self.state.kept[place.stream[0]].lost.get(place.need)
            if until is not None:
                yield until + source.within

    def at_least(self, aggregate: EventAggregate, now: int) -> int | None:
        """Return a lower bound of a count that is not exact, as events were dropped or counting stopped; else None."""
        if aggregate.function not in _COUNTS:
            return None
        plan = self._layout.plan(aggregate)
        assert isinstance(plan, AggregatePlan), aggregate
        number: int = self._of_kept(aggregate, now)
        is_capped = plan.limit is not None and number >= plan.limit
        if not is_capped and self.dropped_until(aggregate, now) is None:
            return None
        if aggregate.function is Aggregate.DISTINCT:
            return number
        ats = self.stream(plan.source).ats
        after, until = aggregate.bounds(now)
        start = 0 if after is None else bisect_right(ats, after)
        return bisect_right(ats, until, start) - start

    def note(self, source: EventAggregate | Sequence, now: int) -> str | None:
        """Return a note for explanations if not all events behind an answer are kept; else None."""
        if self.dropped_until(source, now) is not None:
            return f"more than {self.requirements.bound:,} events came, and the oldest of them are not kept"
        until = self.incomplete_until(source, now)
        if until is not None:
            return f"events up to {format_instant(until)} may be lacking"
        plan = self._layout.plan(source)
        if isinstance(plan, SequencePlan) or not isinstance(source, EventAggregate):
            return None
        need = self.requirements.events[plan.source.stream[0]].needs[plan.source.need]
        if plan.limit is not None:
            return None
        return None if need.keep is KeepRule.ALL else "events that no longer decide are not kept"

    def _lost(self, sources: Iterable[Source], source: EventAggregate | Sequence, now: int) -> int | None:
        lost = (self.state.kept[source.stream[0]].lost.get(source.need) for source in sources)
        until = max((instant for instant in lost if instant is not None), default=None)
        is_seen = until is not None and (source.within is None or until > now - source.within)
        return until if is_seen else None

    def _check(self, now: int) -> None:
        pruned_at = self.state.pruned_at
        if pruned_at is not None and now < pruned_at:
            raise DataError(
                f"the event state answers from {format_instant(pruned_at)} on, and {format_instant(now)} was asked for",
                hint="answers about the past come from the event log",
            )

    def stream(self, source: Source) -> Stream:
        """Return the events of one stream."""
        stream = self.streams.get(source.stream)
        if stream is None:
            place, bit = source.stream
            stream = self.streams[source.stream] = Stream(self.state.kept[place], place, bit)
        return stream

    def _sequence_events(self, plan: SequencePlan) -> list[_SourceEvent]:
        events = self._sequences.get(id(plan))
        if events is None:
            events = self._sequences[id(plan)] = self._named_events(plan)
        return events

    def _named_events(self, plan: SequencePlan) -> list[_SourceEvent]:
        name = plan.sequence.match_on
        events: dict[int, _SourceEvent] = {}
        for number, source in enumerate(plan.sources):
            stream = self.stream(source)
            for identity, at, value in zip(stream.ids, stream.ats, stream.column(source.column), strict=True):
                other = events.get(identity)
                sources = (*(other.sources if other is not None else ()), str(number))
                events[identity] = _SourceEvent("", at, "", {} if name is None else {name: value}, sources)
        return sorted(events.values(), key=lambda event: event.at)
