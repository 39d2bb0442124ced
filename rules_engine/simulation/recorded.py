"""Recorded events as they arrive at an entity: when they happened, or with a join of the id that did them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby

from rules_engine.events.joins import JOIN, Joins
from rules_engine.events.state.encoding import encode_state
from rules_engine.events.state.entity_state import empty_state, update
from rules_engine.events.state.requirements import StateRequirements
from rules_engine.events.state.waiting import Handover, Waiting
from rules_engine.rules.inputs import VIA, Event

#: The instant at which an event arrives at an entity, in microseconds, and the event.
Recorded = tuple[int, Event]


def recorded(entity: str, event: Event, joins: Joins) -> Iterator[tuple[str, Recorded]]:
    """Yield at whom an event arrives, and when: at the one who did it, and at each person to whom that is joined.

    >>> from rules_engine.events.joins import Join
    >>> joins = Joins([Join("phone", "u1", 5)])
    >>> [(owner, at) for at in (3, 7) for owner, (at, _) in recorded("phone", Event("view", at, "view:a"), joins)]
    [('phone', 3), ('u1', 5), ('u1', 7)]
    """
    stations = joins.stations(entity)
    ends = [begin for _, _, begin in stations[1:]]
    for (owner, suffix, begin), end in zip(stations, [*ends, None], strict=True):
        if end is None or event.at < end:
            yield owner, (max(event.at, begin), replace(event, id=event.id + suffix) if suffix else event)


def arrivals(items: Iterable[Recorded], requirements: StateRequirements) -> Iterator[tuple[int, Waiting]]:
    """Yield what arrives at an entity, and when: what came with a join in one piece, as a worker hands it over."""
    for arrival, together in groupby(items, lambda item: item[0]):
        by_id: dict[str, list[Event]] = {}
        for _, event in together:
            if event.at == arrival or VIA not in event.id:
                yield arrival, event
            else:
                own, _, via = event.id.rpartition(VIA)
                by_id.setdefault(via, []).append(replace(event, id=own))
        for entity, events in sorted(by_id.items()):
            state = update(empty_state(requirements), events, requirements)
            yield arrival, Handover((entity,), arrival, encode_state(state, requirements))


def is_nobody(items: Iterable[Recorded]) -> bool:
    """Say whether an entity was joined to a person."""
    return any(event.name == JOIN for _, event in items)
