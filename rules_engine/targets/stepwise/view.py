"""The features and events of an entity, on which conditions are evaluated, and the form of their answers."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping

from rules_engine.events.state.entity_state import EventState
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

#: The most instants that are tried to find the one at which an answer changes; after that the next one is taken.
LOOK_AHEAD = 8


#: Whether a condition has the answer that is checked for, and an instant until which that stays so.
Answer = tuple[bool, int]


class View:
    """The features and the kept events of an entity, and the ``answers`` of segments that were evaluated on them.

    Attributes
    ----------
    fixed
        the conjunctions that its features leave, and until when, for looks at many segments; None before the first.
        It is the same whatever events come.
    remembered
        by number of an event condition: from when its answer holds, and the answer.
    """

    __slots__ = ("answers", "entity", "expires_at", "fixed", "reader", "remembered", "streams", "values")

    def __init__(self, features: EntityFeatures, reader: StateReader) -> None:
        self.entity = features.entity or None
        self.values = features.values
        self.expires_at = features.expires_at
        self.reader = reader
        self.streams = reader.streams
        self.fixed: tuple[int, int] | None = None
        self.answers: dict[tuple[str, bool], tuple[int, Answer]] = {}
        self.remembered: dict[int, tuple[int, Answer]] = {}

    def grown(self, state: EventState) -> View:
        """Return a view of the same features and of a state to which events were added."""
        view = View.__new__(View)
        view.entity = self.entity
        view.values, view.expires_at, view.fixed = self.values, self.expires_at, self.fixed
        view.reader = reader = self.reader.grown(state)
        view.streams = reader.streams
        view.answers, view.remembered = {}, {}
        return view

    def without_features(self) -> View:
        """Return a view of the same events alone, which has what was remembered of them."""
        view = View(EntityFeatures(""), self.reader)
        view.remembered = self.remembered
        return view

    def feature(self, ref: FeatureRef, now: int) -> tuple[Value, int]:
        """Return a feature's value, None if missing or past its view's ttl, and the instant until which it lasts."""
        expires_at = self.expires_at.get(ref.view)
        if expires_at is None:
            return self.values.get(ref.key), FOREVER
        return (None, FOREVER) if now >= expires_at else (self.values.get(ref.key), expires_at)

    def current(self, now: int) -> Mapping[str, Value]:
        """Return the features that are not past their view's ttl."""
        expired = tuple(f"{name}:" for name, expires_at in self.expires_at.items() if now >= expires_at)
        return (
            {key: value for key, value in self.values.items() if not key.startswith(expired)}
            if expired
            else self.values
        )

    def expiry(self, views: Container[str], now: int) -> int:
        """Return the next instant at which values of some feature views expire."""
        until = FOREVER
        for name, at in self.expires_at.items():
            if now < at < until and name in views:
                until = at
        return until


#: A condition, compiled.
Check = Callable[[View, int], Answer]


def next_instant(view: View, source: EventAggregate | SequenceNode, now: int) -> int:
    """Return the first instant after now at which the answer on kept or dropped events may change."""
    return min((at for at in view.reader.instants(source) if at > now), default=FOREVER)
