"""Evaluates sequences of events, with the instant until which an answer lasts."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Hashable, Sequence

from rules_engine.events.state.reading import SequencePlan, StateLayout
from rules_engine.events.state.stream import Stream
from rules_engine.rules.nodes import Sequence as SequenceNode
from rules_engine.rules.sequences import StepEvents, completing, identity_of, legs_of
from rules_engine.targets.stepwise.view import FOREVER, LOOK_AHEAD, NEVER, Answer, Check, View, next_instant


def check_sequence(layout: StateLayout, sequence: SequenceNode, positive: bool) -> Check:
    """Return the check of a sequence; with ``positive`` False, of its negation."""
    plan = layout.plan(sequence)
    assert isinstance(plan, SequencePlan), sequence
    of_kept = (_Sequence(plan) if sequence.match_on is None else _MatchedSequence(plan)).answer
    check = of_kept if positive else _negated(of_kept)

    def answer(view: View, now: int) -> Answer:
        if view.reader.is_whole or view.reader.dropped_until(sequence, now) is None:
            return check(view, now)
        return view.reader.sequence(sequence, now) is positive, next_instant(view, sequence, now)

    return answer


def _negated(check: Check) -> Check:
    def answer(view: View, now: int) -> Answer:
        holds, until = check(view, now)
        return not holds, until

    return answer


#: The number of first steps that are looked at, the newest first, before all of them are: first these, then so many
#: times as many.
_TAIL, _TIMES = 32, 8


class _Sequence:
    """Evaluates a sequence without ``match_on``, which depends only on the instants of the events."""

    def __init__(self, plan: SequencePlan) -> None:
        self._legs = legs_of(plan.sequence.steps)
        self._places = [int(step.match.event) for step in plan.sequence.steps]
        self._sources = plan.sources
        self._within = plan.sequence.within
        self._latest_only = plan.sequence.latest_only
        self._last_did = self._legs[-1].step
        #: How long after the last `did` the sequence is complete.
        self._wait = self._legs[-1].pause

    def answer(self, view: View, now: int) -> Answer:
        until = FOREVER
        past: list[_Past] = []
        for source in self._sources:
            stream = view.reader.stream(source)
            end = bisect_right(stream.ats, now)
            if end < len(stream.ats):  # events of the future
                until = min(until, stream.ats[end])
            past.append(_Past(stream, end))
        starts = past[self._places[0]].ats
        if not starts or not past[self._places[self._last_did]].ats:
            return False, until
        holds, lasts = self._without_events(lambda begin: [events.begin(begin) for events in past], now, starts)
        return holds, min(until, lasts)

    def _without_events(self, events_from: _From, now: int, starts: Sequence[int], latest: int | None = None) -> Answer:
        """Return the answer if no further event happens.

        Parameters
        ----------
        events_from
            gives the events of each source from an instant on.
        starts
            the instants of the first steps, in order.
        latest
            the instant of the latest first step, if it may be another than the last of these.
        """
        latest = starts[-1] if latest is None else latest
        start = self._latest_start(events_from, now, starts, latest)
        if start is not None:
            return True, FOREVER if self._within is None else start + self._within
        return False, self._completes(events_from, now, starts, latest)

    def _latest_start(self, events_from: _From, now: int, starts: Sequence[int], latest: int) -> int | None:
        """Return the instant of the latest first step from which the sequence holds; None if there is none.

        What follows a first step is not before it. So events before it do not matter, and the newest first steps are
        looked at before the others.
        """
        first = 0 if self._within is None else bisect_right(starts, now - self._within)
        if first == len(starts):
            return None
        if self._latest_only:
            if starts[-1] != latest:
                return None
            first = bisect_left(starts, latest)
        tail = _TAIL
        while True:
            place = max(first, len(starts) - tail)
            by_source = events_from(starts[place])
            start = max(completing(self._legs, [by_source[source] for source in self._places], now), default=None)
            if start is not None or place == first:
                return start
            tail *= _TIMES

    def _completes(self, events_from: _From, now: int, starts: Sequence[int], latest: int) -> int:
        """Return the instant at which the end of a wait makes the sequence hold; ``FOREVER`` if none does."""
        if not self._wait:
            return FOREVER
        dids = events_from(now - self._wait + 1)[self._places[self._last_did]].ats
        if self._latest_only and self._last_did == 0:
            dids = dids[-1:]
        for tried, at in enumerate(dict.fromkeys(dids)):
            complete = at + self._wait
            if tried == LOOK_AHEAD or self._latest_start(events_from, complete, starts, latest) is not None:
                return complete
        return FOREVER


#: Gives the events of each source from an instant on.
_From = Callable[[int], Sequence[StepEvents]]


class _Past:
    """The events of one source up to an instant."""

    __slots__ = ("_stream", "ats")

    def __init__(self, stream: Stream, end: int) -> None:
        self._stream = stream
        self.ats = stream.ats if end == len(stream.ats) else stream.ats[:end]

    def begin(self, at: int) -> StepEvents:
        """Return the events from an instant on."""
        first = bisect_left(self.ats, at)
        return StepEvents(self.ats[first:], self._stream.ids_from(first))


class _MatchedSequence(_Sequence):
    """Evaluates a sequence with ``match_on``: it holds if the events of at least one value form the sequence."""

    def answer(self, view: View, now: int) -> Answer:
        groups: dict[Hashable, list[tuple[list[int], list[int]]]] = {}
        until, latest = FOREVER, NEVER
        after = NEVER if self._within is None else now - self._within
        for place, source in enumerate(self._sources):
            stream = view.reader.stream(source)
            ats = stream.ats
            first = bisect_right(ats, after)
            rows = zip(ats[first:], stream.ids_from(first), stream.column(source.column)[first:], strict=True)
            for at, event, value in rows:
                identity = identity_of(value)
                if identity is None:
                    continue
                if at > now:
                    until = min(until, at)
                    break
                if identity not in groups:
                    groups[identity] = [([], []) for _ in self._sources]
                group = groups[identity][place]
                group[0].append(at)
                group[1].append(event)
                if place == 0 and at > latest:
                    latest = at
        answers = [
            self._without_events(_from(group), now, group[self._places[0]][0], latest)
            for group in groups.values()
            if group[0][0]
        ]
        longest = max((lasts for holds, lasts in answers if holds), default=None)
        if longest is not None:
            return True, min(until, longest)
        return False, min([until, *(lasts for _, lasts in answers)])


def _from(group: Sequence[tuple[list[int], list[int]]]) -> _From:
    def events_from(begin: int) -> Sequence[StepEvents]:
        by_source = []
        for ats, ids in group:
            first = bisect_left(ats, begin)
            by_source.append(StepEvents(ats[first:], ids[first:]))
        return by_source

    return events_from
