"""One entity's raw values as the tables read them, each fetched at most once per request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rules_engine.rules.buckets import bucket
from rules_engine.rules.comparison import composite_value
from rules_engine.rules.inputs import Inputs
from rules_engine.rules.local_time import local_time
from rules_engine.rules.nodes import (
    BucketRef,
    ClockField,
    ClockRef,
    Composite,
    ContextRef,
    EventAggregate,
    FeatureRef,
    Operand,
    Predicate,
    Sequence,
)
from rules_engine.rules.predicates import as_read, context_value
from rules_engine.rules.types import STRING, Value, ValueType, conform
from rules_engine.rules.undecided import UNDECIDED
from rules_engine.targets.index.event_values import EventValues, LoggedEvents
from rules_engine.targets.index.slots import Slot


def unexpired(inputs: Inputs, now: int) -> Mapping[str, Value]:
    """Return the features whose view is not past its ttl.

    >>> unexpired(Inputs({"user:age": 40, "visit:page": "a"}, expires_at={"visit": 10}), now=10)
    {'user:age': 40}
    """
    for expires_at in inputs.expires_at.values():
        if now >= expires_at:
            break
    else:
        return inputs.features
    expired = tuple(f"{view}:" for view, expires_at in inputs.expires_at.items() if now >= expires_at)
    return {key: value for key, value in inputs.features.items() if not key.startswith(expired)}


class Request:
    """The inputs at one instant; ``entity`` is the key, None if it is nobody in particular."""

    __slots__ = ("_local", "context", "entity", "events", "features", "now")

    def __init__(
        self,
        features: Mapping[str, Value],
        context: Mapping[str, Any],
        events: EventValues | LoggedEvents,
        now: int,
        entity: str | None = None,
    ) -> None:
        self.features = features
        self.context = context
        self.events = events
        self.now = now
        self.entity = entity
        self._local: dict[str, tuple[int, str] | None] = {}

    def raw(self, slot: Slot) -> Value:
        """Return the value of a slot, as it was read."""
        source = slot.source
        if isinstance(source, FeatureRef | ContextRef | EventAggregate):
            return self._read(source, slot.type)
        if isinstance(source, Composite):
            return composite_value(source, lambda part, value_type: as_read(self._read(part, value_type), value_type))
        if isinstance(source, ClockRef):
            return self._clock(source)
        if isinstance(source, BucketRef):
            return None if self.entity is None else bucket(source.seed, self.entity)
        if isinstance(source, Sequence):
            truth = self.events.sequence(source, self.now)
            return UNDECIDED if truth is None else truth
        if isinstance(source, Predicate):
            return self.events.answer(source, self.now)
        raise TypeError(f"the property {source} is read outside `where`")

    def _read(self, source: Operand, value_type: ValueType | None) -> Value:
        if isinstance(source, FeatureRef):
            return self.features.get(source.key)
        if isinstance(source, ContextRef):
            return context_value(source, value_type, self.context)
        assert isinstance(source, EventAggregate), source
        return self.events.aggregate(source, self.now)

    def _clock(self, clock: ClockRef) -> Value:
        zone = clock.timezone
        if isinstance(zone, FeatureRef):
            zone = conform(self.features.get(zone.key), STRING)
        if zone is None:
            return None
        if zone not in self._local:
            self._local[zone] = local_time(self.now, zone)
        local = self._local[zone]
        if local is None:
            return None
        return local[0] if clock.field is ClockField.TIME_OF_DAY else local[1]
