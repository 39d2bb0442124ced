"""Lists what rules may mention: features with their types, and events with their properties."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rules_engine.rules.nodes import EventAggregate
from rules_engine.rules.types import ValueType

#: The view name under which the named windowed features of events.yaml are read.
EVENT_VIEW = "events"


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature of a feature view. ``type`` is None if rules cannot read it; ``feast_type`` names what Feast stores."""

    view: str
    name: str
    type: ValueType | None
    feast_type: str
    description: str = ""

    @property
    def key(self) -> str:
        return f"{self.view}:{self.name}"


@dataclass(frozen=True, slots=True)
class EventType:
    """A declared event. ``retention`` is in microseconds, None for ever."""

    name: str
    properties: Mapping[str, ValueType] = field(default_factory=dict)
    retention: int | None = None
    description: str = ""


@dataclass(frozen=True, slots=True)
class Catalog:
    """Everything that a definition can name.

    Attributes
    ----------
    features
        by key, ``"view:name"``.
    ttl
        by view, in microseconds; a view without one is not listed.
    events
        by name.
    event_features
        the named windowed features of events.yaml, by name without the ``events:`` prefix.
    closed
        True refuses names that are not listed. False (in tests and ``rules_engine.testing``) lets any name pass:
        a type that is not listed is then taken from the literal.
    """

    features: Mapping[str, Feature] = field(default_factory=dict)
    ttl: Mapping[str, int] = field(default_factory=dict)
    events: Mapping[str, EventType] = field(default_factory=dict)
    event_features: Mapping[str, EventAggregate] = field(default_factory=dict)
    closed: bool = True

    def types_of(self, view: str) -> dict[str, str]:
        """Return the features of a view, by name Feast's name of the type; empty if there is no such view."""
        return {feature.name: feature.feast_type for feature in self.features.values() if feature.view == view}
