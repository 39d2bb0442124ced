"""Evaluates sequences of events, with the instant until which an answer lasts."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Sequence

from rules_engine.events.state.reading import SequencePlan, StateLayout
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
        by_source: list[StepEvents] = []
        for source in self._sources:
            stream = view.reader.stream(source)
            ats, ids = stream.ats, stream.ids
            if ats and ats[-1] > now:  # events of the future
                end = bisect_right(ats, now)
                until = min(until, ats[end])
                ats, ids = ats[:end], ids[:end]
            by_source.append(StepEvents(ats, ids))
        happened = [by_source[place] for place in self._places]
        if not happened[0].ats:
            return False, until
        holds, lasts = self._without_events(happened, now, happened[0].ats[-1])
        return holds, min(until, lasts)

    def _without_events(self, happened: Sequence[StepEvents], now: int, latest: int) -> Answer:
        """Return the answer if no further event happens; ``latest`` is the instant of the latest first step."""
        start = self._latest_start(happened, now, latest)
        if start is not None:
            return True, FOREVER if self._within is None else start + self._within
        return False, self._completes(happened, now, latest)

    def _latest_start(self, happened: Sequence[StepEvents], now: int, latest: int) -> int | None:
        """Return the instant of the latest first step from which the sequence holds; None if there is none."""
        starts = happened[0].ats
        after = None if self._within is None else now - self._within
        if after is not None and starts[-1] <= after:
            return None
        if self._latest_only:
            if starts[-1] != latest:
                return None
            first = bisect_left(starts, latest)
            happened = [StepEvents(starts[first:], happened[0].ids[first:]), *happened[1:]]
        start = max(completing(self._legs, happened, now), default=None)
        return None if start is None or (after is not None and start <= after) else start

    def _completes(self, happened: Sequence[StepEvents], now: int, latest: int) -> int:
        """Return the instant at which the end of a wait makes the sequence hold; ``FOREVER`` if none does."""
        if not self._wait:
            return FOREVER
        dids = happened[self._last_did].ats
        if self._latest_only and self._last_did == 0:
            dids = dids[-1:]
        begun = dids[bisect_right(dids, now - self._wait) :]
        for tried, at in enumerate(dict.fromkeys(begun)):
            complete = at + self._wait
            if tried == LOOK_AHEAD or self._latest_start(happened, complete, latest) is not None:
                return complete
        return FOREVER


class _MatchedSequence(_Sequence):
    """Evaluates a sequence with ``match_on``: it holds if the events of at least one value form the sequence."""

    def answer(self, view: View, now: int) -> Answer:
        groups: dict[Hashable, list[tuple[list[int], list[int]]]] = {}
        until, latest = FOREVER, NEVER
        for place, source in enumerate(self._sources):
            stream = view.reader.stream(source)
            for at, event, value in zip(stream.ats, stream.ids, stream.column(source.column), strict=True):
                identity = identity_of(value)
                if identity is None:
                    continue
                if at > now:
                    until = min(until, at)
                    break
                if identity not in groups:
                    groups[identity] = [([], []) for _ in self._sources]
                ats, ids = groups[identity][place]
                ats.append(at)
                ids.append(event)
                if place == 0 and at > latest:
                    latest = at
        answers = [self._without_events(self._by_step(group), now, latest) for group in groups.values() if group[0][0]]
        longest = max((lasts for holds, lasts in answers if holds), default=None)
        if longest is not None:
            return True, min(until, longest)
        return False, min([until, *(lasts for _, lasts in answers)])

    def _by_step(self, group: Sequence[tuple[list[int], list[int]]]) -> list[StepEvents]:
        by_source = [StepEvents(ats, ids) for ats, ids in group]
        return [by_source[place] for place in self._places]
