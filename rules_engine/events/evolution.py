"""From one set of definitions to the next: what a state still answers, and what has to come from the event log."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import compress

from rules_engine.events.requirements import EventRequirement, Need, StateRequirements
from rules_engine.events.state import EventState, Kept, digest_of, nothing_kept
from rules_engine.events.totals import Total


def uncovered(old: StateRequirements, new: StateRequirements) -> tuple[Need, ...]:
    """What the new requirements need and the old ones did not keep; empty if :func:`carry_over` is exact.

    >>> from rules_engine.events.requirements import requirements_of
    >>> from rules_engine.rules.nodes import Aggregate, EventAggregate, EventMatch
    >>> from rules_engine.rules.program import Program
    >>> day, week = (
    ...     requirements_of(Program({}), {"views": EventAggregate(Aggregate.COUNT, EventMatch("view"), days)})
    ...     for days in (1, 7)
    ... )
    >>> uncovered(week, day), [need.horizon for need in uncovered(day, week)]
    ((), [7])
    """
    return tuple(_uncovered(old, new))


def _uncovered(old: StateRequirements, new: StateRequirements) -> Iterator[Need]:
    for requirement in new.events:
        place = old.places.get(requirement.event)
        known = old.events[place] if place is not None else None
        for need in requirement.needs:
            if known is None or _lacks_ids(known, requirement) or _covering(known, need) is None:
                yield need


def _lacks_ids(known: EventRequirement, requirement: EventRequirement) -> bool:
    return requirement.whole_ids and not known.whole_ids


def _covering(requirement: EventRequirement, need: Need) -> int | None:
    """The number of the need that keeps all that this one needs."""
    return next((number for number, kept in enumerate(requirement.needs) if kept.covers(need)), None)


def carry_over(state: EventState, old: StateRequirements, new: StateRequirements) -> EventState:
    """The state as it is kept for the new requirements. What they need beyond the old ones is not in it."""
    kept = (_carry(state, old, requirement) for requirement in new.events)
    return EventState(new.fingerprint, tuple(kept), state.pruned_at)


def _carry(state: EventState, old: StateRequirements, requirement: EventRequirement) -> Kept:
    place = old.places.get(requirement.event)
    if place is None or _lacks_ids(old.events[place], requirement):
        return nothing_kept(requirement)
    known, kept = old.events[place], state.kept[place]
    bits = [(known.bits[match], bit) for match, bit in requirement.bits.items() if match in known.bits]
    masks = tuple(sum(bit for known_bit, bit in bits if mask & known_bit) for mask in kept.masks)
    absent = (None,) * len(kept.ats)
    columns = (kept.columns[known.columns.index(c)] if c in known.columns else absent for c in requirement.columns)
    keys = kept.keys if requirement.whole_ids or not known.whole_ids else tuple(map(digest_of, kept.keys))
    return Kept(
        tuple(compress(kept.ats, masks)),
        tuple(compress(keys, masks)),
        tuple(compress(masks, masks)),
        tuple(tuple(compress(column, masks)) for column in columns),
        _carried_losses(kept, known, requirement),
        kept.settled if requirement.totals else None,
        _carried_totals(kept, known, requirement),
        kept.late if requirement.totals else 0,
    )


def _carried_losses(kept: Kept, known: EventRequirement, requirement: EventRequirement) -> dict[int, int]:
    losses = {}
    for number, need in enumerate(requirement.needs):
        covering = _covering(known, need)
        if covering is not None and covering in kept.lost:
            losses[number] = kept.lost[covering]
    return losses


def _carried_totals(kept: Kept, known: EventRequirement, requirement: EventRequirement) -> tuple[Total, ...]:
    totals = [(place.need, total) for place, total in zip(known.totals, kept.totals, strict=True)]
    return tuple(
        next((total for need, total in totals if need.covers(place.need)), Total()) for place in requirement.totals
    )
