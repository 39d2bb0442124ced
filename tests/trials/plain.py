"""Answers by the plain evaluator on everything that a project was made of."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from rules_engine.clock import from_micros, to_micros
from rules_engine.events.state.requirements import DEFAULT_BOUND
from rules_engine.rules.evaluate import Evaluation
from rules_engine.rules.inputs import Event, Inputs, in_order
from rules_engine.rules.program import Program
from tests.property import pools
from tests.trials.world import World


class Plain:
    """Answers for the entities of a world.

    Attributes
    ----------
    names
        of the segments, sorted.
    """

    def __init__(self, world: World, program: Program) -> None:
        self._world = world
        self._program = program
        self.names = sorted(program.segments)
        self._events = _events_by_entity(world)
        self._kept = {entity: Counter(event.name for event in events) for entity, events in self._events.items()}

    def events(self, entity: str) -> tuple[Event, ...]:
        """Return the events of an entity in order."""
        return self._events.get(entity, ())

    def is_beyond_bound(self, entity: str) -> bool:
        """Tell whether an entity has more events of a name than a state keeps for one condition."""
        return max(self._kept.get(entity, {"": 0}).values()) > DEFAULT_BOUND

    def answers(self, entity: str, at: int, known_at: int | None = None) -> dict[str, Any]:
        """Answer as of an instant by the features that were known then, or at another instant."""
        evaluation = Evaluation(self._program, self.inputs(entity, at if known_at is None else known_at), at)
        return {name: evaluation.segment(name) for name in self.names}

    def inputs(self, entity: str, as_of: int) -> Inputs:
        """Return what is known of an entity: its newest rows as of an instant, and all of its events."""
        values, rows_at = self._world.features(entity, from_micros(as_of))
        features = {name: _inside(value) for name, value in values.items()}
        updated_at = {view: to_micros(at) for view, at in rows_at.items()}
        ttls = {view: self._world.ttls[view] // timedelta(microseconds=1) for view in updated_at}
        expires_at = {view: at + ttls[view] + 1 for view, at in updated_at.items() if ttls[view]}
        return Inputs(features, {}, self.events(entity), updated_at, expires_at)


def _events_by_entity(world: World) -> dict[str, tuple[Event, ...]]:
    found: dict[str, list[Event]] = {}
    for raw in world.events:
        properties = {name: _inside(raw[name]) for name in pools.PROPERTIES if name in raw}
        event = Event(raw["event"], to_micros(raw["at"]), f"{raw['event']}:{raw['event_id']}", properties)
        found.setdefault(raw["entity"], []).append(event)
    return {entity: in_order(events) for entity, events in found.items()}


def _inside(value: Any) -> Any:
    """Return a value as evaluators hold it: an instant in microseconds."""
    return to_micros(value) if isinstance(value, datetime) else value
