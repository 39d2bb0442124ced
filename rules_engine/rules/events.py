"""Tells what event conditions say of an entity's ordered events at an instant: windows, aggregates and sequences."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Hashable, Iterator, Sequence

from rules_engine.rules.aggregates import AGGREGATES, Aggregate
from rules_engine.rules.inputs import Event, KeptEvents
from rules_engine.rules.nodes import EventAggregate, EventMatch, SequenceStep
from rules_engine.rules.nodes import Sequence as SequenceNode
from rules_engine.rules.types import Value, conform


def matching(match: EventMatch, events: Sequence[Event]) -> list[Event]:
    """Return the events that a match means, in their order."""
    return [event for event in events if event.is_meant_by(match)]


def in_window(events: Sequence[Event], now: int, within: int | None) -> Sequence[Event]:
    """Return those of ordered events in (now - within, now]; with ``within`` None all up to now.

    >>> [event.at for event in in_window([Event("a", at, str(at)) for at in (0, 1, 5, 6)], now=5, within=5)]
    [1, 5]
    """
    end = bisect_right(events, now, key=lambda event: event.at)
    start = 0 if within is None else bisect_right(events, now - within, key=lambda event: event.at)
    return events[start:end]


# --- aggregates -----------------------------------------------------------------------------------------------------


def aggregate_value(aggregate: EventAggregate, events: Sequence[Event], now: int) -> Value:
    """Return the aggregate over the matching events in its window; None where it is missing.

    >>> from rules_engine.clock import HOUR
    >>> views = [Event("view", at * HOUR, str(at)) for at in range(5)]
    >>> aggregate_value(EventAggregate(Aggregate.COUNT, EventMatch("view"), 2 * HOUR), views, now=4 * HOUR)
    2
    """
    if isinstance(events, KeptEvents):
        return events.aggregate_value(aggregate, now)
    return reduce_events(aggregate, in_window(matching(aggregate.match, events), now, aggregate.within))


def reduce_events(aggregate: EventAggregate, counted: Sequence[Event]) -> Value:
    """Return the aggregate over exactly these events, which are in order."""
    if aggregate.of is None:
        return AGGREGATES[aggregate.function].reduce([None] * len(counted))
    values = [conform(event.properties.get(aggregate.of or ""), aggregate.of_type) for event in counted]
    return reduce_values(aggregate.function, values)


def reduce_values(function: Aggregate, values: Sequence[Value]) -> Value:
    """Return the aggregate over the values of the events that count, which are in order; None is a missing value.

    >>> reduce_values(Aggregate.MAX, [1, None, 3]), reduce_values(Aggregate.LAST, [1, None])
    (3, None)
    """
    return AGGREGATES[function].reduce(values)


# --- sequences ------------------------------------------------------------------------------------------------------


def sequence_matches(sequence: SequenceNode, events: Sequence[Event], now: int) -> bool:
    """Say whether some choice of events takes every step, completes at or before now, and starts within the own window.

    >>> from rules_engine.clock import MINUTE
    >>> from rules_engine.rules.nodes import SequenceStep
    >>> steps = (SequenceStep(EventMatch("cart")), SequenceStep(EventMatch("buy"), negated=True, within=30 * MINUTE))
    >>> cart = [Event("cart", 0, "1")]
    >>> [sequence_matches(SequenceNode(steps), cart, minute * MINUTE) for minute in (29, 30)]
    [False, True]
    """
    past = in_window(events, now, None)
    starts = first_events(sequence, past)
    if sequence.within is not None:
        starts = [event for event in starts if event.at > now - sequence.within]
    groups = _groups(sequence.match_on, past) if starts else {}
    completing = {identity: _completing(sequence.steps, group, now) for identity, group in groups.items()}
    return any(start.at in completing[_identity(sequence.match_on, start)] for start in starts)


def sequence_truth(sequence: SequenceNode, events: Sequence[Event], now: int) -> bool | None:
    """Return the answer of a sequence on a log, or on what is kept of one; None if too little is kept to tell."""
    return (
        events.sequence_truth(sequence, now)
        if isinstance(events, KeptEvents)
        else sequence_matches(sequence, events, now)
    )


def first_events(sequence: SequenceNode, past: Sequence[Event]) -> list[Event]:
    """Return the events that the first step may take: all, or with ``anchor: latest`` those of the latest instant."""
    starts = matching(sequence.steps[0].match, past)
    if sequence.match_on is not None:
        starts = [event for event in starts if _identity(sequence.match_on, event) is not None]
    return [event for event in starts if event.at == starts[-1].at] if sequence.latest_only else starts


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


def _completing(steps: Sequence[SequenceStep], events: Sequence[Event], now: int) -> set[int]:
    return completing(steps, [[event.at for event in matching(step.match, events)] for step in steps], now)


def completing(steps: Sequence[SequenceStep], happened: Sequence[Sequence[int]], now: int) -> set[int]:
    """Return the instants of first events from which all later steps can be taken.

    From the last step to the first: of the events that a step could take, those from which the steps behind it go on.
    Only the soonest next event matters, because every bound on it (``within``, a forbidden event) is an upper one. So
    this takes steps times events, however many ways there are to choose.

    Parameters
    ----------
    happened
        for each step the instants up to now of the events that it means, ascending.
    """
    later: list[int] | None = None  # the instants at which the next `did` can be taken; None behind the last one
    wait: int | None = None
    absent: list[tuple[int | None, Sequence[int]]] = []
    for step, times in zip(reversed(steps), reversed(happened), strict=True):
        if step.negated:
            absent.append((step.within, times))
            continue
        if later is None:
            later = [at for at in times if _stayed_away(absent, at, now)] if absent else list(times)
        elif not absent:
            later = _followed(times, later, wait)
        else:
            later = [at for at in times if _goes_on(absent, _first_after(later, at, wait), at)]
        wait, absent = step.within, []
    return set(later or ())


def _followed(times: Sequence[int], later: Sequence[int], within: int | None) -> list[int]:
    """Return those of ascending instants that one of the later ones follows, in (at, at + within]."""
    size, longest = len(later), math.inf if within is None else within
    return [at for at in times if (place := bisect_right(later, at)) < size and later[place] - at <= longest]


def _stayed_away(absent: Sequence[tuple[int | None, Sequence[int]]], at: int, now: int) -> bool:
    """Say whether the last ``did_not`` steps have completed: their time has passed and no such event came."""
    for within, times in absent:
        assert within is not None, "the parser requires `within` on a last did_not step"
        if at + within > now or _first_after(times, at, within) is not None:
            return False
    return True


def _goes_on(absent: Sequence[tuple[int | None, Sequence[int]]], following: int | None, at: int) -> bool:
    """Say whether there is a following event, and no forbidden one between the two."""
    if following is None:
        return False
    found = (_first_after(times, at, within) for within, times in absent)
    return all(forbidden is None or forbidden >= following for forbidden in found)


def _first_after(times: Sequence[int], at: int, within: int | None) -> int | None:
    """Return the first of ascending instants in (at, at + within], or None."""
    position = bisect_right(times, at)
    if position == len(times) or (within is not None and times[position] > at + within):
        return None
    return times[position]


def sequence_instants(sequence: SequenceNode, events: Sequence[Event]) -> Iterator[int]:
    """Yield the instants at which a sequence's answer may change: an event comes, a wait ends, its window closes."""
    waits = {step.within for step in sequence.steps if step.negated and step.within is not None}
    for event in events:
        yield event.at
        yield from (event.at + wait for wait in waits)
        if sequence.within is not None:
            yield event.at + sequence.within
