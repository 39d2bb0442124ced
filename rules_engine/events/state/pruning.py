"""Dropping what no later instant needs: too old, superseded by newer events, or counted into a total."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rules_engine.events.state.choices import CHOICES
from rules_engine.events.state.entity_state import EventState, Kept
from rules_engine.events.state.pieces import NOTHING_OLDER, EventRows, picked, repacked
from rules_engine.events.state.requirements import (
    EventRequirement,
    KeepRule,
    KeptColumn,
    Need,
    NeedPlace,
    StateRequirements,
)
from rules_engine.rules.nodes import Sequence as SequenceNode
from rules_engine.rules.types import Value

#: Before every event.
_NEVER = -(2**63)


def prune(state: EventState, requirements: StateRequirements, now: int) -> EventState:
    """Drop the parts of a state that no answer from now on needs, and put older events into pieces if it has many.

    Those answers stay the same.

    Pass an instant that no reader's clock is behind, e.g. a minute ago. When a log of the past is replayed, pass the
    instant up to which it was read: events older than ``now - lateness`` no longer enter totals.

    >>> from rules_engine.events.state.requirements import requirements_of
    >>> from rules_engine.events.state.entity_state import empty_state, update
    >>> from rules_engine.rules.inputs import Event
    >>> from rules_engine.rules.nodes import EventAggregate, EventMatch
    >>> from rules_engine.rules.aggregates import Aggregate
    >>> from rules_engine.rules.program import Program
    >>> requirements = requirements_of(Program({}), {"views": EventAggregate(Aggregate.COUNT, EventMatch("view"), 10)})
    >>> state = update(empty_state(requirements), [Event("view", 5, "b"), Event("view", 3, "a")], requirements)
    >>> prune(state, requirements, now=13).kept[0].ats
    (5,)
    """
    if state.pruned_at is not None:
        now = max(now, state.pruned_at)
    whole = [all_together(kept) for kept in state.kept]
    starts = _latest_starts(whole, requirements, now)
    pruned = [
        _prune_kept(_settle(kept, requirement, requirements, now), requirement, requirements.bound, now, starts)
        if kept.ats
        else kept
        for kept, requirement in zip(whole, requirements.events, strict=True)
    ]
    packed = [in_pieces(kept, before, requirements.piece) for kept, before in zip(pruned, state.kept, strict=True)]
    return EventState(state.fingerprint, tuple(packed), now, state.joined)


def all_together(kept: Kept) -> Kept:
    """Return the same with all events in one place."""
    return replace(kept.with_rows(kept.rows), older=NOTHING_OLDER) if kept.older.pieces else kept


def in_pieces(kept: Kept, before: Kept, size: int) -> Kept:
    """Return the same with older events in pieces, in those that there were as far as they are needed."""
    if not before.older.pieces and len(kept.ats) <= size + size // 2:
        return kept
    older, rows = repacked(before.older, kept, size)
    return replace(kept.with_rows(rows), older=older)


def _latest_starts(whole: Sequence[Kept], requirements: StateRequirements, now: int) -> Mapping[SequenceNode, int]:
    """Return the instant of the latest first step of each sequence with ``anchor: latest``: it needs nothing older."""
    starts: dict[SequenceNode, int] = {}
    for sequence in requirements.sequences:
        if sequence.latest_only:
            match = sequence.steps[0].match
            place = requirements.places[match.event]
            at = _latest(whole[place], requirements.events[place], sequence, now)
            if at is not None:
                starts[sequence] = at
    return starts


def _latest(kept: Kept, requirement: EventRequirement, sequence: SequenceNode, now: int) -> int | None:
    bit = requirement.bits[sequence.steps[0].match]
    agreed: tuple[Value, ...] = kept.ats
    if sequence.match_on is not None:
        agreed = kept.columns[requirement.columns.index(KeptColumn(sequence.match_on))]
    rows = zip(kept.ats, kept.masks, agreed, strict=True)
    return max((at for at, mask, value in rows if at <= now and mask & bit and value is not None), default=None)


# --- totals ---------------------------------------------------------------------------------------------------------


def _settle(kept: Kept, requirement: EventRequirement, requirements: StateRequirements, now: int) -> Kept:
    """Add events to the totals once they are too old to be redelivered, or sooner if more than the bound wait."""
    if not requirement.totals:
        return kept
    start = _NEVER if kept.settled is None else kept.settled
    until = max(start, now - requirements.lateness, _overflow(kept, requirement, start, now, requirements.bound))
    return kept if until == start else settled(kept, requirement, until)


def settled(kept: Kept, requirement: EventRequirement, until: int) -> Kept:
    """Return the events with those up to an instant, which is later than the last one, in the totals."""
    start = _NEVER if kept.settled is None else kept.settled
    totals = []
    for place, total in zip(requirement.totals, kept.totals, strict=True):
        rows = [row for row in _rows(kept, place.bit, start) if kept.ats[row] <= until]
        values = _values(kept, place)
        totals.append(total.plus([values[row] for row in rows] if values else [None] * len(rows)))
    return replace(kept, settled=until, totals=tuple(totals))


def _overflow(kept: Kept, requirement: EventRequirement, start: int, now: int, bound: int) -> int:
    """Return the instant up to which events must be settled so that at most ``bound`` of them wait for a total."""
    until = start
    for place in requirement.totals:
        waiting = [row for row in _rows(kept, place.bit, start) if kept.ats[row] <= now]
        if len(waiting) > bound:
            until = max(until, kept.ats[waiting[-bound - 1]])
    return until


# --- which rows are needed ------------------------------------------------------------------------------------------


def _prune_kept(
    kept: Kept, requirement: EventRequirement, bound: int, now: int, starts: Mapping[SequenceNode, int]
) -> Kept:
    masks, uses = [0] * len(kept.ats), [0] * len(kept.ats)
    lost: dict[int, int] = {}
    for number, place in enumerate(requirement.places):
        rows, dropped = _needed_rows(kept, place, bound, now, starts)
        if dropped or number in kept.lost:
            lost.update(_lost_until(kept, number, place.need, dropped, now))
        use = 0 if place.column is None else 1 << place.column
        for row in rows:
            masks[row] |= place.bit
            uses[row] |= use
    columns = tuple([_used(column, 1 << place, uses) for place, column in enumerate(kept.columns)])
    if 0 not in masks:
        return Kept(kept.ats, kept.keys, tuple(masks), columns, lost, kept.settled, kept.totals, kept.late)
    needed = picked(EventRows(kept.ats, kept.keys, tuple(masks), columns), masks)
    return Kept(needed.ats, needed.keys, needed.masks, needed.columns, lost, kept.settled, kept.totals, kept.late)


def _used(column: tuple[Value, ...], bit: int, uses: Sequence[int]) -> tuple[Value, ...]:
    """Return a column without the values that nothing uses."""
    return tuple([value if use & bit else None for value, use in zip(column, uses, strict=True)])


def _needed_rows(
    kept: Kept, place: NeedPlace, bound: int, now: int, starts: Mapping[SequenceNode, int]
) -> tuple[list[int], list[int]]:
    """Return the rows that a need keeps, and those that the bound drops: the oldest, and the furthest ahead."""
    need = place.need
    rows = _rows(kept, place.bit, _cutoff(kept, need, now, starts))
    due = bisect_right(rows, now, key=kept.ats.__getitem__)
    past = CHOICES[need.keep](rows[:due], _values(kept, place), need.limit)
    future = rows[due:]
    surplus = max(0, len(past) - bound)
    return past[surplus:] + future[:bound], past[:surplus] + future[bound:]


def _cutoff(kept: Kept, need: Need, now: int, starts: Mapping[SequenceNode, int]) -> int:
    """Return the instant up to which events are not needed."""
    if need.keep is KeepRule.TOTAL:
        return _NEVER if kept.settled is None else kept.settled
    start = starts.get(need.latest, _NEVER) - 1 if need.latest is not None else _NEVER
    return start if need.horizon is None else max(start, now - need.horizon)


def _rows(kept: Kept, bit: int, after: int) -> list[int]:
    """Return the rows of a stream that are later than an instant."""
    start = 0 if after == _NEVER else bisect_right(kept.ats, after)
    return [row for row, mask in enumerate(kept.masks[start:], start) if mask & bit]


def _values(kept: Kept, place: NeedPlace) -> tuple[Value, ...]:
    return () if place.column is None else kept.columns[place.column]


def _lost_until(kept: Kept, number: int, need: Need, dropped: Sequence[int], now: int) -> dict[int, int]:
    """Return, by the number of the need, the instant up to which it is incomplete, as long as that matters."""
    until = max([kept.lost.get(number, _NEVER), *(kept.ats[row] for row in dropped)])
    return {} if need.horizon is not None and until <= now - need.horizon else {number: until}
