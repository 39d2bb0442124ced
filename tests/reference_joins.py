"""Joins by brute force, as the documentation says what they mean: who is who, and which events count for whom."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rules_engine.rules.inputs import VIA, Event


@dataclass(frozen=True)
class Joined:
    """An id that was joined to a person at an instant."""

    entity: str
    person: str
    at: int


def taken(joins: Iterable[Joined]) -> list[Joined]:
    """The joins that count, of all in the order in which they came: the first of each id, if nobody becomes oneself."""
    counting: list[Joined] = []
    for join in joins:
        is_first = all(join.entity != earlier.entity for earlier in counting)
        if is_first and path(join.person, counting)[-1] != join.entity:
            counting.append(join)
    return counting


def path(entity: str, joins: Sequence[Joined], as_of: int | None = None) -> list[str]:
    """The ids that an event of an entity passes, up to the person for whom it counts."""
    passed = [entity]
    while True:
        steps = [join for join in joins if join.entity == passed[-1] and (as_of is None or join.at <= as_of)]
        if not steps:
            return passed
        passed.append(steps[0].person)


def log_of(
    person: str, log: Iterable[tuple[str, Event]], joins: Sequence[Joined], as_of: int | None = None
) -> list[Event]:
    """The events that count for somebody as of an instant; of a joined id, with an id that says by whom it came."""
    counting = []
    for entity, event in log:
        *via, owner = path(entity, joins, as_of)
        if owner == person and (as_of is None or event.at <= as_of):
            counting.append(replace(event, id=VIA.join([event.id, *via])))
    return counting
