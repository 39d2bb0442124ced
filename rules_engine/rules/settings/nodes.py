"""Holds a project's settings: the instant that counts as now, the consents, and the sinks that actions go to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rules_engine.rules.nodes import FeatureRef
from rules_engine.sinks.settings import SinkSettings

# --- consents -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Consent:
    """The consent that the project's settings name so, and the feature that is true where it was given."""

    name: str
    feature: FeatureRef


# --- sinks ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SinkRef:
    """A sink by kind and name. Sinks of two kinds may have one name only if one of them is a stream."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


# --- the document ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Settings:
    """Holds what the ``project:`` document says. ``now`` is in microseconds; None is the wall clock.

    ``consent`` has by name the feature that is true where somebody consented; ``sinks`` where actions may go.
    """

    name: str = ""
    now: int | None = None
    consent: Mapping[str, FeatureRef] = field(default_factory=dict)
    sinks: Mapping[str, SinkSettings] = field(default_factory=dict)
