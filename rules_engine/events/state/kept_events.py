"""A state's events in the place of a log, for the plain evaluator and for explanations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

from rules_engine.events.state.entity_state import EventState
from rules_engine.events.state.pieces import EventRows
from rules_engine.events.state.reading import StateReader
from rules_engine.events.state.requirements import EventRequirement, StateRequirements
from rules_engine.rules.inputs import Event, KeptEvents
from rules_engine.rules.nodes import EventAggregate, EventMatch, Sequence
from rules_engine.rules.types import Value


@dataclass(frozen=True, slots=True)
class KeptEvent(Event):
    """An event as it was kept: it knows which conditions mean it, and has only the properties that they read.

    Its id is the event's id, or the digest of that in hexadecimal where only the digest is kept.
    """

    streams: tuple[EventMatch, ...] = ()

    def is_meant_by(self, match: EventMatch) -> bool:
        return match in self.streams


class StateEvents(KeptEvents):
    """All that is kept of one entity's events, in order.

    >>> from rules_engine.events.state.reading import StateLayout
    >>> from rules_engine.events.state.requirements import requirements_of
    >>> from rules_engine.events.state.entity_state import empty_state, update
    >>> from rules_engine.rules.aggregates import Aggregate
    >>> from rules_engine.rules.program import Program
    >>> views = EventAggregate(Aggregate.COUNT, EventMatch("view"), within=10)
    >>> requirements = requirements_of(Program({}), {"views": views})
    >>> state = update(empty_state(requirements), [Event("view", 5, "b"), Event("view", 3, "a")], requirements)
    >>> events = StateEvents(StateReader(state, StateLayout(requirements)))
    >>> [event.at for event in events], events.aggregate_value(views, now=13)
    ([3, 5], 1)
    """

    def __new__(cls, reader: StateReader) -> Self:
        """Return the events of a reader's state."""
        events = super().__new__(cls, sorted(_events(reader.state, reader.requirements), key=lambda event: event.order))
        events._reader = reader
        return events

    _reader: StateReader

    @property
    def joined(self) -> Mapping[str, int]:
        """Return the ids whose events are among them, with the instants of their joins."""
        return self._reader.state.joined

    def aggregate_value(self, aggregate: EventAggregate, now: int) -> Value:
        return self._reader.aggregate(aggregate, now)

    def sequence_truth(self, sequence: Sequence, now: int) -> bool | None:
        return self._reader.sequence(sequence, now)

    def instants(self, condition: EventAggregate | Sequence) -> Iterator[int]:
        return self._reader.instants(condition)

    def at_least(self, aggregate: EventAggregate, now: int) -> int | None:
        return self._reader.at_least(aggregate, now)

    def note(self, condition: EventAggregate | Sequence, now: int) -> str | None:
        return self._reader.note(condition, now)


def _events(state: EventState, requirements: StateRequirements) -> Iterator[KeptEvent]:
    for kept, requirement in zip(state.kept, requirements.events, strict=True):
        rows = kept.rows
        for row in range(len(rows.ats)):
            yield _event(rows, row, requirement)


def _event(kept: EventRows, row: int, requirement: EventRequirement) -> KeptEvent:
    key, mask = kept.keys[row], kept.masks[row]
    values = ((column.name, values[row]) for column, values in zip(requirement.columns, kept.columns, strict=True))
    return KeptEvent(
        requirement.event,
        kept.ats[row],
        key.decode("utf-8", "surrogatepass") if requirement.whole_ids else key.hex(),
        {name: value for name, value in values if isinstance(name, str) and value is not None},
        tuple(match for match, bit in requirement.bits.items() if mask & bit),
    )
