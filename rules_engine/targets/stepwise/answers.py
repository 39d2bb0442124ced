"""Answers with how long they last: what a worker asks of one entity, segment by segment, after every event.

A condition becomes a function that gives whether it is true (or whether it is false), and an instant until which that
holds if nothing happens. The instant is never too late, and mostly exact; who looks again too early only looks again.
The truth of values is :func:`~rules_engine.rules.predicates.judge`'s, as everywhere, and events are read as
:mod:`rules_engine.events.state.reading` plans it. tests/property/test_lasting.py holds both to the plain evaluator.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable, Sequence

from rules_engine.clock import LAST_INSTANT
from rules_engine.events.state.reading import AggregatePlan, SequencePlan, StateLayout, StateReader
from rules_engine.features.online.selection import EntityFeatures
from rules_engine.rules.aggregates import Aggregate
from rules_engine.rules.changes import CLOCK_HORIZON
from rules_engine.rules.events import completing, identity_of, reduce_values
from rules_engine.rules.local_time import crossings, local_time
from rules_engine.rules.nodes import (
    AllOf,
    AnyOf,
    ClockField,
    ClockRef,
    Condition,
    ContextRef,
    EventAggregate,
    FeatureRef,
    Not,
    Predicate,
    SegmentRef,
    SequenceStep,
)
from rules_engine.rules.nodes import Sequence as SequenceNode
from rules_engine.rules.operators import OPERATORS
from rules_engine.rules.predicates import context_value, judge
from rules_engine.rules.program import Program
from rules_engine.rules.types import STRING, Value, conform

#: Later than every instant, and earlier.
FOREVER, NEVER = 2**62, -(2**62)

#: How many instants are looked at to find the one at which an answer changes; then the next one has to do.
_LOOK_AHEAD = 8

#: Counts that are told apart by a table; beyond it each is judged.
_COUNTED = 256

#: Whether it is so, and until when at least.
Answer = tuple[bool, int]


class View:
    """What is known of an entity."""

    __slots__ = ("expires_at", "known", "reader", "streams", "values")

    def __init__(self, features: EntityFeatures, reader: StateReader) -> None:
        self.values = features.values
        self.expires_at = features.expires_at
        self.reader = reader
        self.streams = reader.streams
        self.known: dict[tuple[str, bool], tuple[int, Answer]] = {}

    def feature(self, ref: FeatureRef, now: int) -> tuple[Value, int]:
        """A feature's value, and until when it is that; None if it is missing or past its view's ttl."""
        expires_at = self.expires_at.get(ref.view)
        if expires_at is None:
            return self.values.get(ref.key), FOREVER
        return (None, FOREVER) if now >= expires_at else (self.values.get(ref.key), expires_at)


Check = Callable[[View, int], Answer]


class Checks:
    """The conditions of a program, compiled when they are first asked for.

    >>> from rules_engine.events.state.requirements import requirements_of
    >>> from rules_engine.events.state.entity_state import empty_state, update
    >>> from rules_engine.rules.inputs import Event
    >>> from rules_engine.rules.nodes import EventMatch, Segment
    >>> viewed = Predicate(EventAggregate(Aggregate.COUNT, EventMatch("view"), within=10), "at_least", 1)
    >>> program = Program({"viewed": Segment("viewed", viewed)})
    >>> requirements = requirements_of(program)
    >>> layout = StateLayout(requirements)
    >>> state = update(empty_state(requirements), [Event("view", 3, "a")], requirements)
    >>> view = View(EntityFeatures("42"), StateReader(state, layout))
    >>> Checks(program, layout).segment("viewed")(view, 5)
    (True, 13)
    """

    def __init__(self, program: Program, layout: StateLayout) -> None:
        self._program = program
        self._layout = layout
        self._segments: dict[tuple[str, bool], Check] = {}

    def segment(self, name: str, wanted: bool = True) -> Check:
        """Whether a segment is true; with ``wanted`` False, whether it is false."""
        key = (name, wanted)
        if key not in self._segments:
            self._segments[key] = self.condition(self._program.segment(name).when, wanted)
        return self._segments[key]

    def condition(self, condition: Condition, wanted: bool = True) -> Check:
        """Whether a condition is true; with ``wanted`` False, whether it is false."""
        match condition:
            case AllOf(conditions) | AnyOf(conditions):
                parts = [self.condition(part, wanted) for part in sorted(conditions, key=_cost)]
                if len(parts) == 1:
                    return parts[0]
                return _every(parts) if isinstance(condition, AllOf) is wanted else _some(parts)
            case Not(inner):
                return self.condition(inner, not wanted)
            case SegmentRef(name):
                return _remembered(self.segment(name, wanted), (name, wanted))
            case SequenceNode():
                return _sequence(self._layout, condition, wanted)
            case Predicate():
                return _predicate(self._layout, condition, wanted)


def _cost(condition: Condition) -> int:
    """Cheap ones first: they may decide."""
    if isinstance(condition, Predicate):
        if isinstance(condition.operand, ClockRef):
            return 4
        return 1 if isinstance(condition.operand, EventAggregate) else 0
    return 3 if isinstance(condition, SequenceNode) else 2


def _remembered(check: Check, key: tuple[str, bool]) -> Check:
    """What several segments refer to is judged once."""

    def answer(view: View, now: int) -> Answer:
        known = view.known.get(key)
        if known is not None and known[0] == now:
            return known[1]
        found = check(view, now)
        view.known[key] = now, found
        return found

    return answer


def _every(checks: Sequence[Check]) -> Check:
    def answer(view: View, now: int) -> Answer:
        until, failed = FOREVER, NEVER
        for check in checks:
            holds, lasts = check(view, now)
            if holds:
                if lasts < until:
                    until = lasts
            elif lasts == FOREVER:
                return False, FOREVER
            elif lasts > failed:  # any one that fails will do: the longest
                failed = lasts
        return (True, until) if failed == NEVER else (False, failed)

    return answer


def _some(checks: Sequence[Check]) -> Check:
    def answer(view: View, now: int) -> Answer:
        until, held = FOREVER, NEVER
        for check in checks:
            holds, lasts = check(view, now)
            if not holds:
                if lasts < until:
                    until = lasts
            elif lasts == FOREVER:
                return True, FOREVER
            elif lasts > held:
                held = lasts
        return (False, until) if held == NEVER else (True, held)

    return answer


# --- predicates -----------------------------------------------------------------------------------------------------


def _predicate(layout: StateLayout, predicate: Predicate, wanted: bool) -> Check:
    operand = predicate.operand
    match operand:
        case FeatureRef():
            return _feature(predicate, operand, wanted)
        case ContextRef():
            return _context(predicate, operand, wanted)
        case ClockRef():
            return _clock(predicate, operand, wanted)
        case EventAggregate():
            return _aggregate(layout, predicate, operand, wanted)
    raise TypeError(f"{operand} is not read here")


def _lasts(predicate: Predicate, value: Value, now: int, until: int) -> int:
    """Until when a predicate on a value that lasts ``until`` keeps its truth."""
    boundaries = OPERATORS[predicate.operator].boundaries
    if boundaries is None or value is None:
        return until
    return min([until, *(at for at in boundaries(value, predicate.argument) if at > now)])


def _feature(predicate: Predicate, ref: FeatureRef, wanted: bool) -> Check:
    value_type = predicate.operand_type

    def answer(view: View, now: int) -> Answer:
        raw, until = view.feature(ref, now)
        value = conform(raw, value_type)
        return judge(predicate, value, now) is wanted, _lasts(predicate, value, now, until)

    return answer


def _context(predicate: Predicate, ref: ContextRef, wanted: bool) -> Check:
    """There is no request, so there is only the default."""
    value = context_value(ref, predicate.operand_type, {})

    def answer(_view: View, now: int) -> Answer:
        return judge(predicate, value, now) is wanted, _lasts(predicate, value, now, FOREVER)

    return answer


def _clock(predicate: Predicate, clock: ClockRef, wanted: bool) -> Check:
    times = {0, *_times_of_day(predicate, clock)}

    def read(zone: str, at: int) -> Value:
        local = local_time(at, zone)
        return None if local is None else local[0] if clock.field is ClockField.TIME_OF_DAY else local[1]

    def holds(zone: str, at: int) -> bool:
        return judge(predicate, conform(read(zone, at), predicate.operand_type), at) is wanted

    def answer(view: View, now: int) -> Answer:
        zone, until = (
            (clock.timezone, FOREVER) if isinstance(clock.timezone, str) else view.feature(clock.timezone, now)
        )
        zone = conform(zone, STRING)
        if zone is None or read(zone, now) is None:
            return judge(predicate, None, now) is wanted, until
        first = holds(zone, now)
        last = min(now + CLOCK_HORIZON, LAST_INSTANT)
        change = next((at for at in crossings(now, last, zone, times) if at >= until or holds(zone, at) != first), last)
        return first, min(until, change)

    return answer


def _times_of_day(predicate: Predicate, clock: ClockRef) -> Iterable[int]:
    if clock.field is not ClockField.TIME_OF_DAY:
        return ()
    argument = predicate.argument
    times = argument if isinstance(argument, tuple) else (argument,)
    return [at for time in times for at in (time, time + 1)]


# --- aggregates -----------------------------------------------------------------------------------------------------


def _aggregate(layout: StateLayout, predicate: Predicate, aggregate: EventAggregate, wanted: bool) -> Check:
    plan = layout.plan(aggregate)
    assert isinstance(plan, AggregatePlan), aggregate
    check = _aggregate_of_kept(plan, predicate, aggregate, wanted)

    def answer(view: View, now: int) -> Answer:
        if view.reader.is_whole or view.reader.dropped_until(aggregate, now) is None:
            return check(view, now)
        value = view.reader.aggregate(aggregate, now)
        return judge(predicate, value, now) is wanted, _next(view, aggregate, now)

    return answer


def _next(view: View, source: EventAggregate | SequenceNode, now: int) -> int:
    """Return the first instant after now at which what is kept of events, or was dropped, may say something else."""
    return min((at for at in view.reader.instants(source) if at > now), default=FOREVER)


def _aggregate_of_kept(plan: AggregatePlan, predicate: Predicate, aggregate: EventAggregate, wanted: bool) -> Check:
    if aggregate.function is Aggregate.COUNT and plan.limit is not None and plan.limit <= _COUNTED:
        return _count(plan, predicate, wanted)
    if aggregate.function is Aggregate.LAST and plan.source.column is not None:
        return _last(plan, predicate, wanted)

    if plan.total is not None:
        return _total(plan, predicate, aggregate, wanted)
    if aggregate.function is Aggregate.DISTINCT and plan.limit is not None and plan.limit <= _COUNTED:
        return _distinct(plan, predicate, wanted)
    if aggregate.function in (Aggregate.MIN, Aggregate.MAX):
        return _extreme(plan, predicate, wanted)
    return _reduced(plan, predicate, wanted)


def _total(plan: AggregatePlan, predicate: Predicate, aggregate: EventAggregate, wanted: bool) -> Check:
    def answer(view: View, now: int) -> Answer:
        value = conform(view.reader.aggregate(aggregate, now), predicate.operand_type)
        ats = view.reader.stream(plan.source).ats
        comes = bisect_right(ats, now)
        return judge(predicate, value, now) is wanted, ats[comes] if comes < len(ats) else FOREVER

    return answer


def _reduced(plan: AggregatePlan, predicate: Predicate, wanted: bool) -> Check:
    function, within, limit = plan.function, plan.within, plan.limit

    def reduced(values: Sequence[Value]) -> Value:
        value = reduce_values(function, values)
        return conform(value if limit is None else min(value, limit), predicate.operand_type)

    def answer(view: View, now: int) -> Answer:
        stream = view.reader.stream(plan.source)
        ats, column = stream.ats, stream.column(plan.source.column)
        end = bisect_right(ats, now)
        start = 0 if within is None else bisect_right(ats, now - within, 0, end)
        until = ats[end] if end < len(ats) else FOREVER
        value = reduced(column[start:end])
        holds = judge(predicate, value, now) is wanted
        if within is None:
            return holds, until
        for tried, place in enumerate(range(start, end), 1):  # one after the other leaves the window
            leaves = ats[place] + within
            if leaves >= until:
                break
            if place + 1 < end and ats[place + 1] == ats[place]:
                continue
            left = reduced(column[place + 1 : end])
            if tried == _LOOK_AHEAD or (left is not value and (judge(predicate, left, now) is wanted) != holds):
                return holds, leaves
        return holds, until

    return answer


def _counted(predicate: Predicate, limit: int, wanted: bool) -> tuple[list[bool], list[int]]:
    """By number, whether it is so; and the next smaller number at which it is otherwise, -1 if there is none."""
    truths = [judge(predicate, number, 0) is wanted for number in range(limit + 1)]
    falls = [-1]
    for number in range(1, limit + 1):
        falls.append(number - 1 if truths[number - 1] != truths[number] else falls[number - 1])
    return truths, falls


def _count(plan: AggregatePlan, predicate: Predicate, wanted: bool) -> Check:
    source, within, limit = plan.source, plan.within, plan.limit
    assert limit is not None
    key = source.stream
    truths, falls = _counted(predicate, limit, wanted)

    def answer(view: View, now: int) -> Answer:
        stream = view.streams.get(key)
        ats = view.reader.stream(source).ats if stream is None else stream.ats
        size = len(ats)
        if not size:
            return truths[0], FOREVER
        end = size if ats[-1] <= now else bisect_right(ats, now)
        start = 0 if within is None else bisect_right(ats, now - within, 0, end)
        number = end - start
        if number > limit:
            number = limit
        until = FOREVER if end == size else ats[end]
        falls_to = falls[number]
        if falls_to >= 0 and within is not None:
            leaves = ats[end - falls_to - 1] + within
            if leaves < until:
                until = leaves
        return truths[number], until

    return answer


def _distinct(plan: AggregatePlan, predicate: Predicate, wanted: bool) -> Check:
    within, limit = plan.within, plan.limit
    assert limit is not None
    truths, falls = _counted(predicate, limit, wanted)

    def answer(view: View, now: int) -> Answer:
        stream = view.reader.stream(plan.source)
        ats, column = stream.ats, stream.column(plan.source.column)
        end = bisect_right(ats, now)
        start = 0 if within is None else bisect_right(ats, now - within, 0, end)
        until = ats[end] if end < len(ats) else FOREVER
        newest: dict[tuple[bool, Value], int] = {}  # by value, in the order from the newest back
        for place in range(end - 1, start - 1, -1):
            value = column[place]
            if value is not None:
                newest.setdefault((value is True or value is False, value), ats[place])
        number = min(len(newest), limit)
        if within is not None and falls[number] >= 0:
            until = min(until, list(newest.values())[falls[number]] + within)
        return truths[number], until

    return answer


def _extreme(plan: AggregatePlan, predicate: Predicate, wanted: bool) -> Check:
    within, greatest = plan.within, plan.function is Aggregate.MAX

    def answer(view: View, now: int) -> Answer:
        stream = view.reader.stream(plan.source)
        ats, column = stream.ats, stream.column(plan.source.column)
        end = bisect_right(ats, now)
        start = 0 if within is None else bisect_right(ats, now - within, 0, end)
        until = ats[end] if end < len(ats) else FOREVER
        best: list[tuple[int, Value]] = []  # from the newest back, those that no newer one equals or beats
        for place in range(end - 1, start - 1, -1):
            value = column[place]
            if value is not None and (not best or (value > best[-1][1] if greatest else value < best[-1][1])):
                best.append((ats[place], value))
        if not best:
            return judge(predicate, None, now) is wanted, until
        at, value = best.pop()
        holds = judge(predicate, conform(value, predicate.operand_type), now) is wanted
        while within is not None and at + within < until:
            leaves = at + within
            at, value = best.pop() if best else (FOREVER, None)
            if (judge(predicate, conform(value, predicate.operand_type), now) is wanted) != holds:
                return holds, leaves
        return holds, until

    return answer


def _last(plan: AggregatePlan, predicate: Predicate, wanted: bool) -> Check:
    within = plan.within
    of_nothing = judge(predicate, None, 0) is wanted

    def answer(view: View, now: int) -> Answer:
        stream = view.reader.stream(plan.source)
        ats = stream.ats
        end = bisect_right(ats, now)
        until = ats[end] if end < len(ats) else FOREVER
        if not end or (within is not None and ats[end - 1] <= now - within):
            return of_nothing, until
        value = conform(stream.column(plan.source.column)[end - 1], predicate.operand_type)
        holds = judge(predicate, value, now) is wanted
        if within is not None and holds != of_nothing:
            until = min(until, ats[end - 1] + within)
        return holds, until

    return answer


# --- sequences ------------------------------------------------------------------------------------------------------


def _sequence(layout: StateLayout, sequence: SequenceNode, wanted: bool) -> Check:
    plan = layout.plan(sequence)
    assert isinstance(plan, SequencePlan), sequence
    of_kept = (_Sequence(plan) if sequence.match_on is None else _MatchedSequence(plan)).answer
    check = of_kept if wanted else _negated(of_kept)

    def answer(view: View, now: int) -> Answer:
        if view.reader.is_whole or view.reader.dropped_until(sequence, now) is None:
            return check(view, now)
        return view.reader.sequence(sequence, now) is wanted, _next(view, sequence, now)

    return answer


def _negated(check: Check) -> Check:
    def answer(view: View, now: int) -> Answer:
        holds, until = check(view, now)
        return not holds, until

    return answer


class _Sequence:
    """A sequence without ``match_on``: the instants of the events are all that it looks at."""

    def __init__(self, plan: SequencePlan) -> None:
        self._steps: tuple[SequenceStep, ...] = plan.sequence.steps
        self._sources = [plan.sources[int(step.match.event)] for step in self._steps]
        self._within = plan.sequence.within
        self._latest_only = plan.sequence.latest_only
        trailing = next(number for number, step in enumerate(reversed(self._steps)) if not step.negated)
        self._last_did = len(self._steps) - 1 - trailing
        waits = [step.within or 0 for step in self._steps[self._last_did + 1 :]]
        #: After the last `did`, when the sequence is complete.
        self._wait = max(waits, default=None)

    def answer(self, view: View, now: int) -> Answer:
        streams: list[Sequence[int]] = [view.reader.stream(source).ats for source in self._sources]
        until = FOREVER
        for place, ats in enumerate(streams):
            if ats and ats[-1] > now:  # events of the future
                end = bisect_right(ats, now)
                until = min(until, ats[end])
                streams[place] = ats[:end]
        if not streams[0]:
            return False, until
        holds, lasts = self._judged(streams, now, streams[0][-1])
        return holds, min(until, lasts)

    def _judged(self, streams: Sequence[Sequence[int]], now: int, latest: int) -> Answer:
        """The answer if nothing happens any more; ``latest`` is the instant of the latest first step."""
        since = self._holds_since(streams, now, latest)
        if since is not None:
            return True, FOREVER if self._within is None else since + self._within
        return False, self._completes(streams, now, latest)

    def _holds_since(self, streams: Sequence[Sequence[int]], now: int, latest: int) -> int | None:
        """The latest first step from which the sequence holds."""
        starts = streams[0]
        after = None if self._within is None else now - self._within
        if after is not None and starts[-1] <= after:
            return None
        if self._latest_only:
            if starts[-1] != latest:
                return None
            starts = starts[-1:]
        found = max(completing(self._steps, [starts, *streams[1:]], now), default=None)
        return None if found is None or (after is not None and found <= after) else found

    def _completes(self, streams: Sequence[Sequence[int]], now: int, latest: int) -> int:
        """When a wait that is under way makes the sequence hold."""
        if self._wait is None:
            return FOREVER
        dids = streams[self._last_did]
        if self._latest_only and self._last_did == 0:
            dids = dids[-1:]
        begun = dids[bisect_right(dids, now - self._wait) :]
        for tried, at in enumerate(dict.fromkeys(begun)):
            complete = at + self._wait
            if tried == _LOOK_AHEAD or self._holds_since(streams, complete, latest) is not None:
                return complete
        return FOREVER


class _MatchedSequence(_Sequence):
    """A sequence with ``match_on``: the events of each value are a sequence of their own, and one of them is enough."""

    def answer(self, view: View, now: int) -> Answer:
        groups: dict[Hashable, list[list[int]]] = {}
        until, latest = FOREVER, NEVER
        for place, source in enumerate(self._sources):
            stream = view.reader.stream(source)
            for at, value in zip(stream.ats, stream.column(source.column), strict=True):
                identity = identity_of(value)
                if identity is None:
                    continue
                if at > now:
                    until = min(until, at)
                    break
                if identity not in groups:
                    groups[identity] = [[] for _ in self._steps]
                groups[identity][place].append(at)
                if place == 0 and at > latest:
                    latest = at
        answers = [self._judged(streams, now, latest) for streams in groups.values() if streams[0]]
        held = max((lasts for holds, lasts in answers if holds), default=None)
        if held is not None:
            return True, min(until, held)
        return False, min([until, *(lasts for _, lasts in answers)])
