"""Joins: an id under which somebody was seen before they were known becomes part of a person, for good.

A join is an event of the anonymous id, ``$join``, which names the person. From its instant on, what the anonymous id
did and still does counts for the person, and the anonymous id is nobody any more. An id is joined once: the first join
that was taken counts. A person may be joined to another one in turn. docs/adr/0029-joins.md says why.

Two ids may each have an event of one name and id, and these are two events. So where an event counts for somebody else,
its id ends with the ids by which it came there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from rules_engine.clock import FIRST_INSTANT, LAST_INSTANT
from rules_engine.rules.inputs import VIA, Event

#: The name of the event that is a join, and its property that names the person.
JOIN, PERSON = "$join", "person"

#: How many joins may follow one another. It bounds how often an event is handed on.
MAX_CHAIN = 16


@dataclass(frozen=True, slots=True)
class Join:
    """From an instant on, in microseconds, what an entity did counts for a person."""

    entity: str
    person: str
    at: int

    @property
    def event(self) -> Event:
        """Return the event that is this join."""
        return Event(JOIN, self.at, f"{JOIN}:{self.person}", {PERSON: self.person})


def join_of(entity: str, event: Event) -> Join:
    """Return the join that an event ``$join`` is."""
    return Join(entity, str(event.properties[PERSON]), event.at)


def handed_on(event: Event, entity: str) -> Event:
    r"""Return an event of an entity as it counts for the person to whom that is joined.

    >>> handed_on(handed_on(Event("view", 5, "view:a"), "anon"), "u1").id
    'view:a\x00anon\x00u1'
    """
    return replace(event, id=f"{event.id}{VIA}{entity}")


def passed(event: Event, path: Iterable[str]) -> tuple[str, Event]:
    """Return for whom an event counts that passes some ids, and the event as it counts there."""
    *via, owner = path
    for entity in via:
        event = handed_on(event, entity)
    return owner, event


class Joins:
    """Holds the joins of a project.

    Parameters
    ----------
    joins
        in the order in which they were taken; those that cannot be taken are left out.

    Examples
    --------
    >>> joins = Joins([Join("phone", "u1", 5), Join("phone", "u2", 6), Join("u1", "u3", 9)])
    >>> joins.owner("phone", 4), joins.owner("phone", 5), joins.owner("phone", 9), joins.owner("u2", 9)
    ('phone', 'u1', 'u3', 'u2')
    """

    def __init__(self, joins: Iterable[Join] = ()) -> None:
        self._by_entity: dict[str, Join] = {}
        self._heights: dict[str, int] = {}
        self._members: dict[str, list[Join]] = {}
        for join in joins:
            self.add(join)

    def __len__(self) -> int:
        return len(self._by_entity)

    def __iter__(self) -> Iterator[Join]:
        return iter(self._by_entity.values())

    def __contains__(self, entity: object) -> bool:
        return entity in self._by_entity

    def entities(self) -> list[str]:
        """Return all who are joined to somebody or have somebody joined to them, sorted."""
        return sorted({*self._by_entity, *self._members})

    def get(self, entity: str) -> Join | None:
        """Return the join of an entity; None if it is not joined to anybody."""
        return self._by_entity.get(entity)

    def add(self, join: Join) -> bool:
        """Take a join. Return False if it cannot be: the entity is joined, or would be to itself, or the chain is long.

        :mod:`rules_engine.events.join_registry` decides the same in the store.
        """
        entity = join.entity
        above = self._path(join.person, LAST_INSTANT)
        height = self._heights.get(entity, 0)
        if entity in self._by_entity or entity in above or height + len(above) > MAX_CHAIN:
            return False
        self._by_entity[entity] = join
        self._members.setdefault(join.person, []).append(join)
        for steps, person in enumerate(above, 1):
            self._heights[person] = max(self._heights.get(person, 0), height + steps)
        return True

    def _path(self, entity: str, as_of: int) -> list[str]:
        """Return the entity, the person it is joined to as of an instant, and so on."""
        path = [entity]
        while (join := self._by_entity.get(path[-1])) is not None and join.at <= as_of:
            path.append(join.person)
        return path

    def owner(self, entity: str, as_of: int = LAST_INSTANT) -> str:
        """Return for whom the events of an entity count as of an instant."""
        return self._path(entity, as_of)[-1]

    def suffix(self, entity: str, as_of: int = LAST_INSTANT) -> str:
        """Return what is appended to the ids of an entity's events, as of an instant."""
        return "".join(f"{VIA}{step}" for step in self._path(entity, as_of)[:-1])

    def stations(self, entity: str) -> list[tuple[str, str, int]]:
        r"""Return for whom the events of an entity count through time.

        Returns
        -------
        list
            each with what is appended to the ids of events, and the first instant, in microseconds; the entity itself
            comes first.

        >>> Joins([Join("phone", "u1", 5), Join("u1", "u3", 9)]).stations("phone")[1:]
        [('u1', '\x00phone', 5), ('u3', '\x00phone\x00u1', 9)]
        """
        stations = [(entity, "", FIRST_INSTANT)]
        for instant in sorted({self._by_entity[step].at for step in self._path(entity, LAST_INSTANT)[:-1]}):
            owner = self.owner(entity, instant)
            if owner != stations[-1][0]:
                stations.append((owner, self.suffix(entity, instant), instant))
        return stations

    def attributed(self, entity: str, event: Event, as_of: int = LAST_INSTANT) -> tuple[str, Event]:
        """Return for whom an event counts as of an instant, and the event as it counts there."""
        return passed(event, self._path(entity, as_of))

    def into(self, person: str, as_of: int = LAST_INSTANT) -> dict[str, int]:
        """Return the ids whose events count for a person as of an instant, with the instants of their joins, sorted."""
        reached: dict[str, int] = {}
        waiting = [person]
        while waiting:
            for join in self._members.get(waiting.pop(), ()):
                if join.at <= as_of:
                    reached[join.entity] = join.at
                    waiting.append(join.entity)
        return dict(sorted(reached.items()))

    def joined(self, as_of: int = LAST_INSTANT) -> list[str]:
        """Return the ids that are nobody any more as of an instant, because they were joined to somebody."""
        return [join.entity for join in self if join.at <= as_of]
