"""The syntax tree of a trigger, frozen and safe to share: its cause, its waiting conditions, and its actions.

The conditions inside are ordinary ones. They are evaluated as additional segments, whose names no segment in a file can
have (:func:`hidden_segments`), so they mean the same as everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from rules_engine.diagnostics import NO_SPAN, Span
from rules_engine.rules.nodes import Condition, EventAggregate, EventMatch, FeatureRef, Predicate, Segment
from rules_engine.rules.settings.nodes import Consent, SinkRef
from rules_engine.rules.types import BOOLEAN, ValueType

# --- what starts it -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OnEnter:
    """The entity becomes a member of the segment."""

    segment: str

    def __str__(self) -> str:
        return f"enter {self.segment}"


@dataclass(frozen=True, slots=True)
class OnExit:
    """The entity's membership of the segment ends: its answer is false or unknown from now on."""

    segment: str

    def __str__(self) -> str:
        return f"exit {self.segment}"


@dataclass(frozen=True, slots=True)
class OnEvent:
    """Such an event arrives."""

    match: EventMatch

    def __str__(self) -> str:
        return f"event {self.match}"


Cause = OnEnter | OnExit | OnEvent

#: The length of time of which ``ever`` speaks: longer than any two instants are apart.
EVER = 2**62

# --- what it waits for ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cap:
    """At most ``max`` times in (now - per, now] for one entity; ``per`` is in microseconds, or :data:`EVER`."""

    max: int
    per: int


class QuietPolicy(Enum):
    """The ways to treat a trigger that is due in quiet hours."""

    DEFER = "defer"
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class QuietHours:
    """The local times [start, end) in microseconds since midnight, over midnight if ``start`` is the later one.

    ``default`` is the zone of those whose feature names none.
    """

    start: int
    end: int
    timezone: str | FeatureRef
    policy: QuietPolicy = QuietPolicy.DEFER
    default: str | None = None


# --- what it sends, and where ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Constant:
    """A value of the payload that is the same in every action; a list is a tuple."""

    value: bool | int | float | str | tuple[bool | int | float | str, ...] | None


@dataclass(frozen=True, slots=True)
class EventProperty:
    """A property of the event that started the trigger; a value of another type than ``type`` is missing."""

    name: str
    type: ValueType | None = None


PayloadValue = FeatureRef | EventAggregate | EventProperty | Constant


@dataclass(frozen=True, slots=True)
class Trigger:
    """An action that follows a cause.

    Attributes
    ----------
    if_
        evaluated when it is due.
    delay, cooldown
        in microseconds; a cooldown may be :data:`EVER`.
    cancel_if
        evaluated at the start, and until it is due.
    holdout
        the share of entities that get no actions, in hundredths of a percent: 1000 is 10%.
    holdout_seed
        by which they are drawn; triggers of one seed hold out the same entities.
    priority
        of those that are due at one instant, the higher ones are decided first.
    payload
        names and values, in the order of the file.
    """

    name: str
    on: Cause
    send: tuple[SinkRef, ...]
    if_: Condition | None = None
    delay: int = 0
    cancel_if: Condition | None = None
    cooldown: int | None = None
    cap: Cap | None = None
    quiet_hours: QuietHours | None = None
    consent: Consent | None = None
    holdout: int = 0
    holdout_seed: str = ""
    priority: int = 0
    payload: tuple[tuple[str, PayloadValue], ...] = ()
    description: str = ""
    owner: str = ""
    tags: tuple[str, ...] = ()
    span: Span = field(default=NO_SPAN, compare=False, repr=False)

    @property
    def if_name(self) -> str:
        """Return the name of the hidden segment of ``if``."""
        return f"trigger.{self.name}.if"

    @property
    def cancel_if_name(self) -> str:
        """Return the name of the hidden segment of ``cancel_if``."""
        return f"trigger.{self.name}.cancel_if"

    @property
    def consent_name(self) -> str:
        """Return the name of the hidden segment of those who gave the consent."""
        return f"trigger.{self.name}.consent"

    @property
    def segment(self) -> str | None:
        """Return the segment whose members' entering or leaving starts it."""
        return None if isinstance(self.on, OnEvent) else self.on.segment


def hidden_segments(triggers: Iterable[Trigger]) -> dict[str, Segment]:
    """Return the conditions of triggers as segments, named ``trigger.NAME.if``, ``.cancel_if`` and ``.consent``.

    >>> consent = Consent("marketing", FeatureRef("user", "marketing"))
    >>> list(hidden_segments([Trigger("mail", OnEnter("vip"), (), consent=consent)]))
    ['trigger.mail.consent']
    """
    return {
        name: Segment(name, condition, span=trigger.span)
        for trigger in triggers
        for name, condition in _conditions(trigger)
    }


def _conditions(trigger: Trigger) -> Iterator[tuple[str, Condition]]:
    if trigger.if_ is not None:
        yield trigger.if_name, trigger.if_
    if trigger.cancel_if is not None:
        yield trigger.cancel_if_name, trigger.cancel_if
    if trigger.consent is not None:
        yield trigger.consent_name, Predicate(trigger.consent.feature, "equals", True, BOOLEAN)


def payload_aggregates(triggers: Iterable[Trigger]) -> dict[str, EventAggregate]:
    """Return the aggregates in payloads, by ``trigger.NAME.payload.KEY``, which states have to keep exactly."""
    return {
        f"trigger.{trigger.name}.payload.{key}": value
        for trigger in triggers
        for key, value in trigger.payload
        if isinstance(value, EventAggregate)
    }


def payload_features(triggers: Iterable[Trigger]) -> frozenset[str]:
    """Return the features (``VIEW:NAME``) that payloads and the zones of quiet hours read."""
    features: set[str] = set()
    for trigger in triggers:
        features |= {value.key for _, value in trigger.payload if isinstance(value, FeatureRef)}
        if trigger.quiet_hours is not None and isinstance(trigger.quiet_hours.timezone, FeatureRef):
            features.add(trigger.quiet_hours.timezone.key)
    return frozenset(features)
