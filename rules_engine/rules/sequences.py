"""Tells whether an entity's events take the steps of a sequence; docs/language.md says what a sequence means."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

from rules_engine.rules.inputs import Event, KeptEvents
from rules_engine.rules.nodes import EventMatch, SequenceStep
from rules_engine.rules.nodes import Sequence as SequenceNode
from rules_engine.rules.types import Value, conform


@dataclass(frozen=True, slots=True)
class Leg:
    """A ``did`` step, and the ``did_not`` steps between it and the next one.

    Attributes
    ----------
    step
        the place of the ``did`` in the sequence.
    within
        how long after the pause before it at most it may come; None: any time.
    forbidden
        the places of the ``did_not`` steps without ``within``: no such event until the next leg.
    gaps
        the places of those with ``within``, and from when to when after the ``did`` no such event must come.
    pause
        the length of all gaps: the next leg comes after it, and a last one is complete at its end.
    """

    step: int
    within: int | None
    forbidden: tuple[int, ...]
    gaps: tuple[tuple[int, int, int], ...]
    pause: int


def legs_of(steps: Sequence[SequenceStep]) -> tuple[Leg, ...]:
    """Return the legs of a sequence.

    >>> cart, buy = EventMatch("cart"), EventMatch("buy")
    >>> legs_of([SequenceStep(cart), SequenceStep(buy, negated=True, within=30)])
    (Leg(step=0, within=None, forbidden=(), gaps=((1, 0, 30),), pause=30),)
    """
    starts = [place for place, step in enumerate(steps) if not step.negated]
    legs = []
    for start, end in pairwise([*starts, len(steps)]):
        forbidden: list[int] = []
        gaps: list[tuple[int, int, int]] = []
        begun = pause = 0
        for place in range(start + 1, end):
            within = steps[place].within
            if within is None:
                forbidden.append(place)
                continue
            begun = begun if steps[place].together else pause
            pause = begun + within
            gaps.append((place, begun, pause))
        legs.append(Leg(start, steps[start].within, tuple(forbidden), tuple(gaps), pause))
    return tuple(legs)


@dataclass(slots=True)
class StepEvents:
    """The events that a step means, in order: their instants, and what tells each from all other events.

    Do not change it. It is not frozen because that takes longer to make, and every look at a sequence makes some.
    """

    ats: Sequence[int]
    ids: Sequence[Hashable]

    def of_instant(self, at: int) -> set[Hashable]:
        """Return the events of one instant."""
        start = bisect_left(self.ats, at)
        return set(self.ids[start : bisect_right(self.ats, at, start)])

    def first_after(self, at: int) -> int | None:
        """Return the first later instant; None if there is none."""
        place = bisect_right(self.ats, at)
        return self.ats[place] if place < len(self.ats) else None

    def is_clear(self, start: int, end: int) -> bool:
        """Say whether none lies in [start, end]."""
        return bisect_left(self.ats, start) == bisect_right(self.ats, end)


def completing(legs: Sequence[Leg], happened: Sequence[StepEvents], now: int) -> list[int]:
    """Return the instants of first events from which all later steps can be taken, ascending.

    From the last leg to the first: of the instants at which a leg could be taken, those from which the rest goes on.
    Only the soonest instant of the next leg matters, because every bound on it (``within``, a forbidden event) is an
    upper one. So this takes legs times events, however many ways there are to choose.

    Parameters
    ----------
    happened
        for each step the events up to now that it means.
    """
    search = _Search(legs, happened, now)
    for first in reversed(range(len(legs))):
        search.begins[first] = search.begins_of(first)
    return list(search.begins[0])


class _Search:
    """Finds the instants at which each leg may be the first one of its instant, and the rest goes on.

    Legs that follow each other at one instant are one run: different events have to take them. Where only one event
    happened at an instant there is nothing to look at.
    """

    def __init__(self, legs: Sequence[Leg], happened: Sequence[StepEvents], now: int) -> None:
        self.begins: list[Sequence[int]] = [()] * len(legs)
        self._legs = legs
        self._happened = happened
        self._now = now
        distinct = {id(events): events.ats for events in happened}
        ats = list(chain.from_iterable(distinct.values()))
        is_distinct = len(set(ats)) == len(ats)
        self._shared = () if is_distinct else {at for at, other in pairwise(sorted(ats)) if at == other}

    def begins_of(self, first: int) -> Sequence[int]:
        """Return the instants at which a run can begin with this leg, where those of later legs are known."""
        leg = self._legs[first]
        ats = self._happened[leg.step].ats
        if self._shared:
            return [at for at in dict.fromkeys(ats) if self._begins(first, at)]
        if first + 1 == len(self._legs):
            complete = ats[: bisect_right(ats, self._now - leg.pause)]
            return [at for at in complete if self._is_quiet(leg, at)] if leg.gaps else complete
        later = self.begins[first + 1]
        if not later:
            return ()
        within = self._legs[first + 1].within
        start = 0 if within is None else bisect_left(ats, later[0] - leg.pause - within)
        ats = ats[start : bisect_left(ats, later[-1] - leg.pause)]
        if leg.gaps or leg.forbidden:
            return [at for at in ats if self._goes_on(first, at)]
        return ats if within is None else _soon_followed(ats, later, within)

    def _begins(self, first: int, at: int) -> bool:
        """Say whether a run that begins with this leg at the instant can be taken, and all that follows it."""
        if at not in self._shared:
            return self._goes_on(first, at)
        return any(self._goes_on(last, at) and self._is_taken(first, last, at) for last in self._ends(first))

    def _ends(self, first: int) -> Iterator[int]:
        """Yield the legs with which a run may end: what follows a gap is later."""
        for last in range(first, len(self._legs)):
            yield last
            if self._legs[last].pause:
                return

    def _is_taken(self, first: int, last: int, at: int) -> bool:
        """Say whether different events of an instant take these legs, and none of it is one that must not come."""
        run = self._legs[first : last + 1]
        takers = [self._happened[leg.step].of_instant(at) for leg in run]
        if not each_has_its_own(takers):
            return False
        absent = [step for leg in (*self._legs[max(first - 1, 0) : first], *run) for step in leg.forbidden]
        absent += [step for step, begin, _ in run[-1].gaps if begin == 0]
        taken = set().union(*takers)
        return all(self._happened[step].of_instant(at) <= taken for step in absent)

    def _goes_on(self, last: int, at: int) -> bool:
        """Say whether what follows the run that ends with this leg at the instant can be taken."""
        leg = self._legs[last]
        if not self._is_quiet(leg, at):
            return False
        end = at + leg.pause
        if last == len(self._legs) - 1:
            return end <= self._now
        later = self.begins[last + 1]
        place = bisect_right(later, end)
        if place == len(later):
            return False
        within = self._legs[last + 1].within
        if within is not None and later[place] - end > within:
            return False
        for step in leg.forbidden:
            forbidden = self._happened[step].first_after(at)
            if forbidden is not None and forbidden < later[place]:
                return False
        return True

    def _is_quiet(self, leg: Leg, at: int) -> bool:
        """Say whether nothing came in the gaps after an instant."""
        # What came at the instant itself is looked at with the run.
        return all(self._happened[step].is_clear(at + max(begin, 1), at + end) for step, begin, end in leg.gaps)


def _soon_followed(ats: Sequence[int], later: Sequence[int], within: int) -> list[int]:
    """Return the instants that a later one follows in time; the last of ``later`` is later than all of them.

    >>> _soon_followed([1, 5, 7], [6, 20], within=3)
    [5]
    """
    followed, place = [], 0
    for at in ats:
        while later[place] <= at:
            place += 1
        if later[place] - at <= within:
            followed.append(at)
    return followed


def each_has_its_own(choices: Sequence[Collection[Hashable]]) -> bool:
    """Say whether everybody can have one of their choices that nobody else has.

    >>> each_has_its_own([{"a", "b"}, {"a"}]), each_has_its_own([{"a"}, {"a"}])
    (True, False)
    """
    owners: dict[Hashable, int] = {}

    def settle(number: int, tried: set[Hashable]) -> bool:
        for choice in choices[number]:
            if choice not in tried:
                tried.add(choice)
                if choice not in owners or settle(owners[choice], tried):
                    owners[choice] = number
                    return True
        return False

    return all(settle(number, set()) for number in range(len(choices)))


# --- on ordered events ----------------------------------------------------------------------------------------------


def sequence_matches(sequence: SequenceNode, events: Sequence[Event], now: int) -> bool:
    """Say whether some choice of events takes every step, completes at or before now, and starts within the own window.

    >>> from rules_engine.clock import MINUTE
    >>> steps = (SequenceStep(EventMatch("cart")), SequenceStep(EventMatch("buy"), negated=True, within=30 * MINUTE))
    >>> cart = [Event("cart", 0, "1")]
    >>> [sequence_matches(SequenceNode(steps), cart, minute * MINUTE) for minute in (29, 30)]
    [False, True]
    """
    past = events[: bisect_right(events, now, key=lambda event: event.at)]
    starts = first_events(sequence, past)
    if sequence.within is not None:
        starts = [event for event in starts if event.at > now - sequence.within]
    groups = _groups(sequence.match_on, past) if starts else {}
    legs = legs_of(sequence.steps)
    complete = {identity: completing(legs, _taken_from(group, sequence), now) for identity, group in groups.items()}
    return any(start.at in complete[_identity(sequence.match_on, start)] for start in starts)


def sequence_truth(sequence: SequenceNode, events: Sequence[Event], now: int) -> bool | None:
    """Return the answer of a sequence on a log, or on what is kept of one; None if too little is kept to tell."""
    return (
        events.sequence_truth(sequence, now)
        if isinstance(events, KeptEvents)
        else sequence_matches(sequence, events, now)
    )


def first_events(sequence: SequenceNode, past: Sequence[Event]) -> list[Event]:
    """Return the events that the first step may take: all, or with ``anchor: latest`` those of the latest instant."""
    starts = [event for event in past if event.is_meant_by(sequence.steps[0].match)]
    if sequence.match_on is not None:
        starts = [event for event in starts if _identity(sequence.match_on, event) is not None]
    return [event for event in starts if event.at == starts[-1].at] if sequence.latest_only else starts


def sequence_instants(sequence: SequenceNode, events: Sequence[Event]) -> Iterator[int]:
    """Yield the instants at which a sequence's answer may change: an event comes, a wait ends, its window closes."""
    wait = legs_of(sequence.steps)[-1].pause
    for event in events:
        yield event.at
        if wait:
            yield event.at + wait
        if sequence.within is not None:
            yield event.at + sequence.within


def _taken_from(events: Sequence[Event], sequence: SequenceNode) -> list[StepEvents]:
    """Return, by step, those of ordered events that it means."""
    by_match: dict[EventMatch, StepEvents] = {}
    for match in {step.match for step in sequence.steps}:
        ids = [place for place, event in enumerate(events) if event.is_meant_by(match)]
        by_match[match] = StepEvents([events[place].at for place in ids], ids)
    return [by_match[step.match] for step in sequence.steps]


def _groups(match_on: str | None, past: Sequence[Event]) -> dict[Hashable, list[Event]]:
    """Return the events by their value of ``match_on``, if they have one; without ``match_on`` all are one group."""
    if match_on is None:
        return {None: list(past)}
    groups: dict[Hashable, list[Event]] = {}
    for event in past:
        identity = _identity(match_on, event)
        if identity is not None:
            groups.setdefault(identity, []).append(event)
    return groups


def _identity(match_on: str | None, event: Event) -> Hashable:
    return identity_of(event.properties.get(match_on)) if match_on is not None else None


def identity_of(value: Value) -> Hashable:
    """Return what makes events agree; None for what is no single value. 1 and 1.0 are one value; True is another.

    >>> identity_of(1) == identity_of(1.0), identity_of(True) == identity_of(1), identity_of(("a",)) is None
    (True, False, True)
    """
    value = conform(value, None)
    return (isinstance(value, bool), value) if isinstance(value, bool | int | float | str | bytes) else None
