"""The inputs of an evaluation: features, context and events of one entity."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rules_engine.rules.nodes import EventAggregate, EventMatch, Sequence
from rules_engine.rules.one_event import selects
from rules_engine.rules.types import Value

#: What separates an event's id from the ids by which it came to a person to whom they were joined. Neither ids of
#: events nor keys of entities contain it.
VIA = "\0"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that the entity did. ``at`` is in microseconds; events are ordered by ``(at, id)``.

    Two events of one entity with the same ``id`` are the same event, however often it is delivered. The id of what
    an id did that was joined to the entity ends with that id, so that it differs from the entity's own events.
    """

    name: str
    at: int
    id: str
    properties: Mapping[str, Value] = field(default_factory=dict)

    @property
    def order(self) -> tuple[int, str]:
        return self.at, self.id

    @property
    def spelled_id(self) -> str:
        r"""Return the id as people read it.

        >>> Event("view", 5, "view:a").spelled_id, Event("view", 5, "view:a\0anon\0u1").spelled_id
        ('view:a', 'view:a by anon')
        """
        own, *via = self.id.split(VIA)
        return f"{own} by {via[0]}" if via else own

    def is_meant_by(self, match: EventMatch) -> bool:
        """Say whether the event is one of those that a match means."""
        return selects(match, self.name, self.properties, self.at)


class KeptEvents(tuple[Event, ...]):
    """The kept events of a log, and methods that answer conditions as the whole log would.

    It can be passed in place of the log's events.
    """

    __slots__ = ()

    def aggregate_value(self, aggregate: EventAggregate, now: int) -> Value:
        """Return the aggregate over the whole log; undecided if too few events are kept."""
        raise NotImplementedError

    def sequence_truth(self, sequence: Sequence, now: int) -> bool | None:
        """Return the sequence's answer on the whole log; None if too few events are kept to determine it."""
        raise NotImplementedError

    def instants(self, condition: EventAggregate | Sequence) -> Iterable[int]:
        """Return the instants at which the condition may change without new events; others may be among them."""
        raise NotImplementedError

    def at_least(self, aggregate: EventAggregate, now: int) -> int | None:
        """Return a lower bound of a count that is not exact; None if it is exact."""
        raise NotImplementedError

    def note(self, condition: EventAggregate | Sequence, now: int) -> str | None:
        """Return a note for explanations if not all events behind an answer are kept; else None."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything about one entity that rules read.

    Attributes
    ----------
    features
        by key ``"view:name"``; a missing value is absent or None.
    context
        what the caller passed with the request; times are aware datetimes.
    events
        the entity's events, ordered and without duplicates: see :func:`in_order`. Events of the future may be among
        them.
    updated_at
        the instant at which the row of a view was observed, in microseconds, by view. Only for explanations.
    expires_at
        the first instant at which the values of a view are past their ttl, and so missing, by view.
    entity
        its key, on which samples depend; None if it is nobody in particular.
    joined
        the ids that were joined to it and whose events are among them, with the instants of the joins in microseconds.
        Only for explanations.
    """

    features: Mapping[str, Value] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    updated_at: Mapping[str, int] = field(default_factory=dict)
    expires_at: Mapping[str, int] = field(default_factory=dict)
    entity: str | None = None
    joined: Mapping[str, int] = field(default_factory=dict)


def in_order(events: Iterable[Event]) -> tuple[Event, ...]:
    """Return events ordered by ``(at, id)``; of several with the same id only the first.

    >>> [event.at for event in in_order([Event("a", 2, "x"), Event("a", 1, "y"), Event("a", 9, "x")])]
    [1, 2]
    """
    by_id: dict[str, Event] = {}
    for event in events:
        by_id.setdefault(event.id, event)
    return tuple(sorted(by_id.values(), key=lambda event: event.order))
