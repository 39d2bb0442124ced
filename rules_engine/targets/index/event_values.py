"""The values of event conditions for the index: from a log of events, or from anything else that knows them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from operator import attrgetter
from typing import Protocol

from rules_engine.rules.events import answer_from, counted_events, matching, reduce_events
from rules_engine.rules.inputs import Event, KeptEvents
from rules_engine.rules.nodes import EventAggregate, EventMatch, Predicate
from rules_engine.rules.nodes import Sequence as SequenceNode
from rules_engine.rules.predicates import Truth
from rules_engine.rules.sequences import sequence_instants, sequence_truth
from rules_engine.rules.types import Value
from rules_engine.rules.walk import event_sources

#: What asks for events: an operand, or a condition whose answer is asked for.
EventSource = EventAggregate | Predicate | SequenceNode

_order = attrgetter("order")


class EventValues(Protocol):
    """The values of one entity's event conditions. The index reads only those that can still change the answer."""

    def aggregate(self, aggregate: EventAggregate, now: int) -> Value:
        """Return the aggregate's value at an instant; None if it is missing, :class:`Undecided` if it is not known."""

    def sequence(self, sequence: SequenceNode, now: int) -> bool | None:
        """Return the sequence's answer at an instant; None if it is not known."""

    def answer(self, predicate: Predicate, now: int) -> Truth:
        """Return the answer of a predicate on an aggregate at an instant."""

    def instants(self, source: EventSource) -> Iterable[int]:
        """Return the instants at which the value may change without new events; others may be among them."""


class LoggedEvents:
    """The values of event conditions on a log of events, or on the events that are kept of one.

    >>> from rules_engine.rules.aggregates import Aggregate
    >>> logged = LoggedEvents((Event("view", 5, "a"), Event("view", 9, "b")))
    >>> views = EventAggregate(Aggregate.COUNT, EventMatch("view"), within=3)
    >>> logged.aggregate(views, 7), sorted(logged.instants(views))
    (1, [5, 8, 9, 12])
    """

    def __init__(self, events: Sequence[Event]) -> None:
        self._events = events
        self._named: dict[str, list[Event]] | None = None
        self._matching: dict[EventMatch, list[Event]] = {}

    def _by_name(self) -> dict[str, list[Event]]:
        if self._named is None:
            self._named = {}
            for event in self._events:
                self._named.setdefault(event.name, []).append(event)
        return self._named

    def _matches(self, match: EventMatch) -> list[Event]:
        """Return the events that match."""
        if not match.where and not isinstance(self._events, KeptEvents):
            return self._by_name().get(match.event, [])
        events = self._matching.get(match)
        if events is None:
            events = self._matching[match] = matching(match, self._of([match.event]))
        return events

    def _of(self, names: Iterable[str]) -> Sequence[Event]:
        """Return the events of these names; all of them if only some events are kept, as those have other names."""
        if isinstance(self._events, KeptEvents):
            return self._events
        streams = [self._by_name().get(name, []) for name in set(names)]
        return streams[0] if len(streams) == 1 else sorted(chain.from_iterable(streams), key=_order)

    def aggregate(self, aggregate: EventAggregate, now: int) -> Value:
        if isinstance(self._events, KeptEvents):
            return self._events.aggregate_value(aggregate, now)
        return reduce_events(aggregate, counted_events(aggregate, self._matches(aggregate.match), now))

    def sequence(self, sequence: SequenceNode, now: int) -> bool | None:
        return sequence_truth(sequence, self._of(step.match.event for step in sequence.steps), now)

    def answer(self, predicate: Predicate, now: int) -> Truth:
        return answer_from(predicate, lambda aggregate: self.aggregate(aggregate, now), now)

    def instants(self, source: EventSource) -> Iterator[int]:
        if isinstance(source, Predicate):
            for part in event_sources(source):
                yield from self.instants(part)
            return
        if isinstance(source, SequenceNode):
            yield from sequence_instants(source, self._of(step.match.event for step in source.steps))
            return
        for event in self._matches(source.match):
            yield from source.turns(event.at)
