"""Derive what the rules of a read plan need of events, and read it from the stored event state of an entity."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rules_engine.events.declarations.plan_data import decode_features
from rules_engine.events.state.entity_state import EventState, empty_state
from rules_engine.events.state.kept_events import StateEvents
from rules_engine.events.state.reading import StateLayout, StateReader
from rules_engine.events.state.requirements import StateRequirements, requirements_of
from rules_engine.events.state.store import state_name
from rules_engine.events.state.waiting import decode_current
from rules_engine.rules.catalog import EVENT_VIEW
from rules_engine.rules.decisions.codec import decode_decisions
from rules_engine.rules.decisions.nodes import with_decisions
from rules_engine.rules.nodes import EventAggregate, Predicate, Sequence
from rules_engine.rules.predicates import Truth
from rules_engine.rules.program import Program
from rules_engine.rules.types import Value
from rules_engine.rules.walk import event_sources
from rules_engine.targets.stepwise.outlooks import Outlooks


class EventRules:
    """Holds what segments, decisions, named windowed features and triggers need of events. Immutable, safe to share.

    Parameters
    ----------
    program
        the segments.
    definitions
        what the read plan carries: of it, the declared events, the decisions and the triggers.

    Attributes
    ----------
    requirements
        what is kept of events.
    name
        what ends the key of the states that were kept for it.
    features
        by ``"events:name"``: the named windowed features.
    layout
        how each event condition is read from a state.
    outlooks
        makes the outlooks of states.
    """

    def __init__(self, program: Program, definitions: Mapping[str, Any]) -> None:
        program = with_decisions(program, decode_decisions(definitions).values())
        declared = definitions.get("events")
        features = {} if declared is None else decode_features(declared)
        self.requirements = _requirements(program, features, definitions)
        self.name = state_name(self.requirements)
        self.features = {f"{EVENT_VIEW}:{name}": aggregate for name, aggregate in features.items()}
        self.layout = StateLayout(self.requirements)
        self.outlooks = Outlooks(program, self.layout)
        self._nothing = StateReader(empty_state(self.requirements), self.layout)

    def reader(self, raw: bytes | None) -> StateReader:
        """Return a reader of a stored state.

        Raises
        ------
        StoreDataError
            if the bytes are damaged.
        """
        return self._nothing if raw is None else StateReader(decode_current(raw, self.requirements), self.layout)

    def read(self, state: EventState) -> StateReader:
        """Return a reader of a state that is decoded already."""
        return StateReader(state, self.layout)

    def log(self, raw: bytes | None) -> StateEvents:
        """Return the events that a stored state keeps, for explanations."""
        return StateEvents(self.reader(raw))

    def values(self, raw: bytes | None) -> LazyState:
        """Return a stored state that is decoded when it is first read."""
        return LazyState(self, raw)


def _requirements(
    program: Program, features: Mapping[str, EventAggregate], definitions: Mapping[str, Any]
) -> StateRequirements:
    if not definitions.get("triggers"):
        return requirements_of(program, features)
    from rules_engine.rules.triggers.codec import decode_triggers
    from rules_engine.rules.triggers.nodes import hidden_segments, payload_aggregates

    triggers = decode_triggers(definitions).values()
    whole = Program({**program.segments, **hidden_segments(triggers)})
    return requirements_of(whole, {**features, **payload_aggregates(triggers)})


class LazyState:
    """Decodes a state when the rules first read it: most requests are decided without it."""

    __slots__ = ("_raw", "_reader", "_rules")

    def __init__(self, rules: EventRules, raw: bytes | None) -> None:
        self._rules = rules
        self._raw = raw
        self._reader: StateReader | None = None

    @property
    def reader(self) -> StateReader:
        """Return the reader of the state, which is decoded on first use."""
        reader = self._reader
        if reader is None:
            reader = self._reader = self._rules.reader(self._raw)
        return reader

    @property
    def is_whole(self) -> bool:
        """Tell whether no event was dropped because of the bound."""
        return self.reader.is_whole

    def log(self) -> StateEvents:
        """Return the events that the state keeps, for the plain evaluator."""
        return StateEvents(self.reader)

    def lacks(self, program: Program, segment: str, now: int) -> bool:
        """Say whether a segment's answer rests on events that were dropped because of the bound."""
        return any(
            self.reader.dropped_until(source, now) is not None
            for reached in program.closure([segment])
            for source in event_sources(program.segment(reached).when)
        )

    def aggregate(self, aggregate: EventAggregate, now: int) -> Value:
        """Return the aggregate's value at an instant; None if it is missing, ``Undecided`` if it is not known."""
        return self.reader.aggregate(aggregate, now)

    def sequence(self, sequence: Sequence, now: int) -> bool | None:
        """Return the sequence's answer at an instant; None if it is not known."""
        return self.reader.sequence(sequence, now)

    def answer(self, predicate: Predicate, now: int) -> Truth:
        """Return the answer of a predicate on an aggregate at an instant; None if it is not known."""
        return self.reader.answer(predicate, now)

    def instants(self, source: EventAggregate | Predicate | Sequence) -> Iterable[int]:
        """Return the instants at which the value may change without new events; others may be among them."""
        return self.reader.instants(source)
