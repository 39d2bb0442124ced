"""Puts the state of an id that was joined to a person into the state of that person.

What answers for one id and what answers for the other together answer for both: each need keeps of all events at least
those that it keeps of the events of both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce

from rules_engine.events.state.entity_state import EventState, Kept, Row, handed_on_key
from rules_engine.events.state.pruning import all_together, in_pieces, settled
from rules_engine.events.state.requirements import EventRequirement, StateRequirements
from rules_engine.events.state.totals import Total

#: Of so many joined ids a state knows when they were joined.
JOINED_KEPT = 100


def merged(
    state: EventState, other: EventState, via: Sequence[str], at: int, requirements: StateRequirements
) -> EventState:
    r"""Return a person's state with that of an id that was joined to it. Merging it a second time changes nothing.

    Parameters
    ----------
    other
        the state of the id.
    via
        the id, and further ids by which the state came to the person.
    at
        the instant of the join, in microseconds.

    Examples
    --------
    >>> from rules_engine.events.state.entity_state import empty_state, update
    >>> from rules_engine.events.state.requirements import requirements_of
    >>> from rules_engine.rules.aggregates import Aggregate
    >>> from rules_engine.rules.inputs import Event
    >>> from rules_engine.rules.nodes import EventAggregate, EventMatch
    >>> from rules_engine.rules.program import Program
    >>> needs = requirements_of(Program({}), {"views": EventAggregate(Aggregate.COUNT, EventMatch("view"), 10)})
    >>> anon = update(empty_state(needs), [Event("view", 3, "a")], needs)
    >>> person = update(empty_state(needs), [Event("view", 5, "a")], needs)
    >>> both = merged(person, anon, ["anon"], 7, needs)
    >>> both.kept[0].ats, dict(both.joined), merged(both, anon, ["anon"], 7, needs) == both
    ((3, 5), {'anon': 7}, True)
    >>> update(both, [Event("view", 3, "a\0anon")], needs) == both
    True
    """
    is_repeated = via[0] in state.joined
    kept = tuple(
        mine
        if theirs == _nothing_like(theirs)
        else in_pieces(_merged(mine, theirs, via, requirement, is_repeated=is_repeated), mine, requirements.piece)
        for mine, theirs, requirement in zip(state.kept, other.kept, requirements.events, strict=True)
    )
    pruned = [instant for instant in (state.pruned_at, other.pruned_at) if instant is not None]
    merged_state = EventState(state.fingerprint, kept, max(pruned, default=None), state.joined)
    return with_joined(merged_state, {**other.joined, via[0]: at})


def with_joined(state: EventState, joined: Mapping[str, int]) -> EventState:
    """Return a state that also knows these ids to be part of it; of too many the newest."""
    newest = sorted({**state.joined, **joined}.items(), key=lambda join: (join[1], join[0]))[-JOINED_KEPT:]
    return replace(state, joined=dict(newest))


def _nothing_like(kept: Kept) -> Kept:
    return Kept(columns=((),) * len(kept.columns), totals=(Total(),) * len(kept.totals))


def _merged(mine: Kept, theirs: Kept, via: Sequence[str], requirement: EventRequirement, *, is_repeated: bool) -> Kept:
    until = max((kept.settled for kept in (mine, theirs) if kept.settled is not None), default=None)
    mine, theirs = all_together(mine), all_together(theirs)
    if until is not None:
        mine, theirs = _settled(mine, requirement, until), _settled(theirs, requirement, until)
    ours = set(mine.keys)
    rows = list(_rows(mine))
    rows += [row for row in _handed_on(theirs, via, requirement) if row[1] not in ours]
    rows.sort(key=lambda row: row[:2])
    counted = zip(mine.totals, theirs.totals, strict=True)
    # What is in a total cannot be told from what came before. So a total that comes a second time is left out, and
    # the state is made from the log.
    comes_twice = is_repeated and any(total.events for total in theirs.totals)
    return Kept(
        tuple([row[0] for row in rows]),
        tuple([row[1] for row in rows]),
        tuple([row[2] for row in rows]),
        tuple([tuple([row[3 + place] for row in rows]) for place in range(len(mine.columns))]),
        _later(mine.lost, theirs.lost),
        until,
        mine.totals if is_repeated else tuple([total.also(other) for total, other in counted]),
        mine.late + comes_twice + (0 if is_repeated else theirs.late),
    )


def _settled(kept: Kept, requirement: EventRequirement, until: int) -> Kept:
    if kept.settled is not None and kept.settled >= until:
        return kept
    return settled(kept, requirement, until) if requirement.totals else replace(kept, settled=until)


def _rows(kept: Kept) -> Sequence[Row]:
    return list(zip(kept.ats, kept.keys, kept.masks, *kept.columns, strict=True))


def _handed_on(kept: Kept, via: Sequence[str], requirement: EventRequirement) -> Sequence[Row]:
    rows: list[Row] = []
    for at, key, mask, *values in _rows(kept):
        rows.append((at, reduce(lambda own, entity: handed_on_key(own, entity, requirement), via, key), mask, *values))
    return rows


def _later(mine: Mapping[int, int], theirs: Mapping[int, int]) -> Mapping[int, int]:
    return {place: max(lost.get(place, 0) for lost in (mine, theirs) if place in lost) for place in {**mine, **theirs}}
