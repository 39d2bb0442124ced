"""Holds what is known of an entity at an instant, and the answers that conditions give on it."""

from __future__ import annotations

from collections.abc import Callable

from rules_engine.events.state.reading import StateReader
from rules_engine.features.online.selection import EntityFeatures
from rules_engine.rules.nodes import (
    EventAggregate,
    FeatureRef,
)
from rules_engine.rules.nodes import Sequence as SequenceNode
from rules_engine.rules.types import Value

#: Later than every instant, and earlier.
FOREVER, NEVER = 2**62, -(2**62)

#: How many instants are looked at to find the one at which an answer changes; then the next one has to do.
LOOK_AHEAD = 8


#: Whether it is so, and until when at least.
Answer = tuple[bool, int]


class View:
    """Holds what is known of an entity: its features, and its events as they are kept."""

    __slots__ = ("expires_at", "known", "reader", "streams", "values")

    def __init__(self, features: EntityFeatures, reader: StateReader) -> None:
        self.values = features.values
        self.expires_at = features.expires_at
        self.reader = reader
        self.streams = reader.streams
        self.known: dict[tuple[str, bool], tuple[int, Answer]] = {}

    def feature(self, ref: FeatureRef, now: int) -> tuple[Value, int]:
        """Return a feature's value, and until when it is that; None if it is missing or past its view's ttl."""
        expires_at = self.expires_at.get(ref.view)
        if expires_at is None:
            return self.values.get(ref.key), FOREVER
        return (None, FOREVER) if now >= expires_at else (self.values.get(ref.key), expires_at)


#: A condition, compiled.
Check = Callable[[View, int], Answer]


def next_instant(view: View, source: EventAggregate | SequenceNode, now: int) -> int:
    """Return the first instant after now at which what is kept of events, or was dropped, may say something else."""
    return min((at for at in view.reader.instants(source) if at > now), default=FOREVER)
