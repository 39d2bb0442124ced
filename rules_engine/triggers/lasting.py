"""Answers with how long they last: what a worker asks of one entity, segment by segment, after every event.

A condition becomes a function that gives whether it is true (or whether it is false), and an instant until which that
holds if nothing happens. The instant is never too late, and mostly exact; who looks again too early only looks again.
The truth of values is :func:`~rules_engine.rules.predicates.judge`'s, as everywhere, and events are read as
:mod:`rules_engine.events.reading` plans it. tests/property/test_lasting.py holds both to the plain evaluator.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence

from rules_engine.clock import LAST_INSTANT
from rules_engine.events.reading import AggregatePlan, SequencePlan, Source, StateLayout, StateReader
from rules_engine.features.selection import EntityFeatures
from rules_engine.rules.changes import CLOCK_HORIZON
from rules_engine.rules.events import completing
from rules_engine.rules.local_time import crossings, local_time
from rules_engine.rules.nodes import (
    Aggregate,
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

    __slots__ = ("expires_at", "known", "reader", "values")

    def __init__(self, features: EntityFeatures, reader: StateReader) -> None:
        self.values = features.values
        self.expires_at = features.expires_at
        self.reader = reader
        self.known: dict[tuple[str, bool], tuple[int, Answer]] = {}

    def ats(self, source: Source) -> Sequence[int]:
        """The instants of the events of a stream."""
        return self.reader.stream(source).ats

    def feature(self, ref: FeatureRef, now: int) -> tuple[Value, int]:
        """A feature's value, and until when it is that; None if it is missing or past its view's ttl."""
        expires_at = self.expires_at.get(ref.view)
        if expires_at is None:
            return self.values.get(ref.key), FOREVER
        return (None, FOREVER) if now >= expires_at else (self.values.get(ref.key), expires_at)


Check = Callable[[View, int], Answer]


class Checks:
    """The conditions of a program, compiled when they are first asked for.

    >>> from rules_engine.events.requirements import requirements_of
    >>> from rules_engine.events.state import empty_state, update
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
    if aggregate.function is Aggregate.COUNT and plan.limit is not None and plan.limit <= _COUNTED:
        return _count(plan, predicate, wanted)
    if aggregate.function is Aggregate.LAST and plan.source.column is not None:
        return _last(plan, predicate, wanted)

    def holds(view: View, at: int) -> bool:
        value = conform(view.reader.aggregate(aggregate, at), predicate.operand_type)
        return judge(predicate, value, at) is wanted

    def answer(view: View, now: int) -> Answer:
        ats = view.ats(plan.source)
        comes = bisect_right(ats, now)
        changes = list(ats[comes : comes + _LOOK_AHEAD])
        if plan.within is not None:
            leaves = bisect_right(ats, now - plan.within)
            changes += [at + plan.within for at in ats[leaves : leaves + _LOOK_AHEAD]]
        return _followed(holds, view, now, sorted(set(changes)))

    return answer


def _followed(holds: Callable[[View, int], bool], view: View, now: int, changes: Sequence[int]) -> Answer:
    """The answer now, and the first of the next instants of change at which it is another one."""
    first = holds(view, now)
    for at in changes[: _LOOK_AHEAD - 1]:
        if holds(view, at) != first:
            return first, at
    return first, changes[_LOOK_AHEAD - 1] if len(changes) >= _LOOK_AHEAD else FOREVER


def _count(plan: AggregatePlan, predicate: Predicate, wanted: bool) -> Check:
    source, within, limit = plan.source, plan.within, plan.limit
    assert limit is not None
    truths = [judge(predicate, count, 0) is wanted for count in range(limit + 1)]
    #: By count, the next smaller one that is judged differently.
    falls = [
        next((less for less in reversed(range(count)) if truths[less] != truths[count]), -1)
        for count in range(limit + 1)
    ]

    def answer(view: View, now: int) -> Answer:
        ats = view.reader.stream(source).ats
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
    if sequence.match_on is None:
        follow = _Sequence(plan)
        return follow.answer if wanted else _negated(follow.answer)

    def holds(view: View, at: int) -> bool:
        return view.reader.sequence(sequence, at) is wanted

    def answer(view: View, now: int) -> Answer:
        changes = sorted({at for at in view.reader.instants(sequence) if at > now})
        return _followed(holds, view, now, changes)

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
        streams = [view.reader.stream(source).ats for source in self._sources]
        until = FOREVER
        for place, ats in enumerate(streams):
            if ats and ats[-1] > now:  # events of the future
                end = bisect_right(ats, now)
                until = min(until, ats[end])
                streams[place] = ats[:end]
        if not streams[0]:
            return False, until
        since = self._holds_since(streams, now)
        if since is not None:
            return True, until if self._within is None else min(until, since + self._within)
        return False, min(until, self._completes(streams, now))

    def _holds_since(self, streams: Sequence[Sequence[int]], now: int) -> int | None:
        """The latest first step from which the sequence holds."""
        starts = streams[0]
        if self._within is not None and starts[-1] <= now - self._within:
            return None
        if self._latest_only:
            starts = starts[-1:]
        found = completing(self._steps, [starts, *streams[1:]], now)
        latest = max(found, default=None)
        if latest is None or (self._within is not None and latest <= now - self._within):
            return None
        return latest

    def _completes(self, streams: Sequence[Sequence[int]], now: int) -> int:
        """When a wait that is under way makes the sequence hold, if nothing happens."""
        if self._wait is None:
            return FOREVER
        dids = streams[self._last_did]
        if self._latest_only and self._last_did == 0:
            dids = dids[-1:]
        begun = dids[bisect_right(dids, now - self._wait) :]
        for tried, at in enumerate(dict.fromkeys(begun)):
            complete = at + self._wait
            if tried == _LOOK_AHEAD or self._holds_since(streams, complete) is not None:
                return complete
        return FOREVER


def checks_of(checks: Checks, groups: Mapping[str, Iterable[str]]) -> dict[str, tuple[tuple[str, Check], ...]]:
    """By group, its segments with their checks."""
    return {group: tuple((name, checks.segment(name)) for name in sorted(names)) for group, names in groups.items()}
