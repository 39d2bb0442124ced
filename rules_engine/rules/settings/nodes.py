"""Holds a project's settings: the instant that counts as now, the consents, the sinks of actions, and the service."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from rules_engine.clock import format_duration
from rules_engine.diagnostics import NO_SPAN, Span
from rules_engine.rules.nodes import FeatureRef
from rules_engine.sinks.settings import SinkSettings

# --- consents -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Consent:
    """The consent that the project's settings name so, and the feature that is true where it was given."""

    name: str
    feature: FeatureRef


# --- frequency --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Frequency:
    """Lets triggers fire at most ``max`` times in (now - per, now] for one entity.

    ``per`` is in microseconds. With a tag, the triggers that have it; without, all.
    """

    max: int
    per: int
    tag: str | None = None
    span: Span = field(default=NO_SPAN, compare=False, repr=False)

    @property
    def counted_as(self) -> str:
        """Return the key under which firings are remembered; no trigger has such a name."""
        return "of:all" if self.tag is None else f"of:tag:{self.tag}"

    def concerns(self, tags: Iterable[str]) -> bool:
        """Say whether a trigger with these tags counts."""
        return self.tag is None or self.tag in tags

    def __str__(self) -> str:
        of = "all triggers" if self.tag is None else f"tag {self.tag}"
        return f"{self.max} per {format_duration(self.per)} of {of}"


# --- sinks ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SinkRef:
    """A sink by kind and name. Sinks of two kinds may have one name only if one of them is a stream."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


# --- the service ----------------------------------------------------------------------------------------------------


class Role(StrEnum):
    """Says what the holder of a key of the service may do."""

    EVALUATE = "evaluate"  # ask about public segments: such a key may be in a browser
    TRACK = "track"  # report events
    CONSOLE = "console"  # look at the console, but not at single people
    READ = "read"  # ask about all segments, and read features, explanations and members
    ADMIN = "admin"  # everything


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """Holds what the ``service:`` of the project's settings says.

    Attributes
    ----------
    keys
        by role, texts such as ``${SHOP_KEY}``: the environment variables that hold keys.
    cors
        the origins of web pages that may ask, such as ``https://shop.example``.
    requests_per_second
        by role, how many requests each of its keys may send; a role that is absent has no limit.
    """

    keys: Mapping[Role, tuple[str, ...]] = field(default_factory=dict)
    cors: tuple[str, ...] = ()
    requests_per_second: Mapping[Role, float] = field(default_factory=dict)


# --- the document ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Settings:
    """Holds what the ``project:`` document says. ``now`` is in microseconds; None is the wall clock.

    ``consent`` has by name the feature that is true where somebody consented; ``sinks`` where actions may go;
    ``service`` who may ask over HTTP; ``frequency`` how often triggers may fire for one person; ``holdout`` the share
    of entities that take part in no experiment, from 0 to 1.
    """

    name: str = ""
    now: int | None = None
    consent: Mapping[str, FeatureRef] = field(default_factory=dict)
    sinks: Mapping[str, SinkSettings] = field(default_factory=dict)
    service: ServiceSettings = field(default_factory=ServiceSettings)
    frequency: tuple[Frequency, ...] = ()
    holdout: float = 0.0
