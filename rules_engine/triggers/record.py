"""Describes what is remembered of an entity besides its event state: memberships, waiting triggers, what is to publish.

Plain data. The machine makes one record of another; :mod:`rules_engine.triggers.encoding` makes bytes of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from hashlib import blake2b
from typing import Any

from rules_engine.triggers.actions import Action, action_key

#: The id of an entry of a stream: its millisecond, and its number in it.
StreamId = tuple[int, int]

#: How many events that may start triggers are remembered, so that a redelivery is known.
SEEN_KEPT = 256

#: How many instances of triggers may wait for one entity.
PENDING_KEPT = 1_000


class MembershipChange(Enum):
    """Says what happened to a membership."""

    ENTER = "enter"
    EXIT = "exit"
    BASELINE = "baseline"  # was a member when the segment was first looked at: starts nothing


class State(Enum):
    """Says how far an instance of a trigger is."""

    PENDING = "pending"
    FIRED = "fired"
    CANCELLED = "cancelled"
    SUPPRESSED = "suppressed"


class SuppressionReason(Enum):
    """Says why an instance of a trigger did not fire, or waits longer."""

    HOLDOUT = "holdout"
    CONDITION = "condition"
    CONSENT = "consent"
    TIMEZONE = "timezone"
    QUIET_HOURS = "quiet_hours"
    COOLDOWN = "cooldown"
    CAP = "cap"
    TOO_MANY = "too_many"  # others wait for the same entity
    REMOVED = "removed"  # its definition is gone


def key_of(entity: str, name: str) -> str:
    """Return an idempotency key: the same for the same entity and cause, and nothing can be read from it.

    >>> key_of("42", "enter:vip:1")
    '16113033fb0382794fa252355a85b1a7'
    """
    whole = f"{entity}\0{name}".encode("utf-8", "surrogatepass")
    return blake2b(whole, digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Transition:
    """Describes a membership that began, ended, or existed when the segment was first looked at.

    Attributes
    ----------
    at
        the instant in microseconds.
    cause
        what made it: ``event:NAME:ID``, ``timer``, or what a look was for, e.g. ``apply`` or ``materialize``.
    version
        of the definitions.
    number
        tells changes of one segment at one instant apart: how often it was entered and left at it before.
    """

    segment: str
    change: MembershipChange
    at: int
    cause: str
    version: str = ""
    number: int = 0

    @property
    def name(self) -> str:
        """Return what triggers have as their cause: the same whenever the steps are repeated.

        >>> Transition("vip", MembershipChange.ENTER, 17, "timer").name
        'enter:vip:17'
        """
        name = f"{self.change.value}:{self.segment}:{self.at}"
        return f"{name}:{self.number}" if self.number else name

    def key(self, entity: str) -> str:
        """Return the key of this transition of an entity."""
        return key_of(entity, self.name)


@dataclass(frozen=True, slots=True)
class TriggerStep:
    """Describes that an instance of a trigger began to wait, fired, was cancelled or was suppressed.

    An instance that is decided at the instant of its cause has one step; else its first one is ``pending``.

    Attributes
    ----------
    cause
        ``enter:SEGMENT:T``, ``exit:SEGMENT:T`` or ``event:NAME:ID``.
    payload, sinks
        what is sent, and to which sinks (``kind:name``), if it fired.
    """

    trigger: str
    cause: str
    state: State
    at: int
    due: int
    reason: SuppressionReason | None = None
    version: str = ""
    payload: Mapping[str, Any] = field(default_factory=dict)
    sinks: tuple[str, ...] = ()

    def key(self, entity: str) -> str:
        """Return the key of the instance: the same whenever the steps are repeated."""
        return key_of(entity, f"{self.trigger}:{self.cause}")

    def actions(self, entity: str) -> list[Action]:
        """Return what is sent, one action for each sink.

        >>> step = TriggerStep("mail", "enter:vip:5", State.FIRED, 7, 7, sinks=("stream:mails",))
        >>> [(action.sink, action.cause, action.segment) for action in step.actions("42")]
        [('stream:mails', 'enter', 'vip')]
        """
        key = self.key(entity)
        kind, _, rest = self.cause.partition(":")
        name = rest.partition(":")[0]
        segment, event = (None, name) if kind == "event" else (name, None)
        return [
            Action(
                key=action_key(key, sink),
                sink=sink,
                trigger=self.trigger,
                entity=entity,
                cause=kind,
                at=self.at,
                segment=segment,
                event=event,
                definitions=self.version,
                payload=self.payload,
            )
            for sink in self.sinks
        ]


Outgoing = Transition | TriggerStep


@dataclass(frozen=True, slots=True)
class Pending:
    """Describes an instance of a trigger that waits.

    Attributes
    ----------
    begins
        the instant of its cause; for an event of the future that is still to come.
    due
        when it is judged.
    """

    trigger: str
    cause: str
    begins: int
    due: int

    @property
    def order(self) -> tuple[int, int, str, str]:
        """Return the key by which instances are ordered before they are judged."""
        return self.due, self.begins, self.trigger, self.cause


@dataclass(frozen=True, slots=True)
class Record:
    """Holds what is remembered of one entity.

    Attributes
    ----------
    rules
        the fingerprint of the definitions by which it was last looked at.
    at
        the logical clock: the last instant of an evaluation; it never goes back. None before the first.
    last_id
        the last entry of the stream that was done.
    members
        by segment: since when.
    dues
        by group of segments (see :class:`~rules_engine.triggers.rules.TriggerRules`): when to look again.
    pending
        the instances that wait.
    fired
        by trigger: the latest instants at which it fired, as many as its cap and cooldown look at.
    seen
        digests of events that may start triggers, with the seconds of their steps: a redelivery starts nothing.
    fresh
        the segments that were looked at before their first sweep of all entities was complete.
    repeats
        by segment: how often it was left at the very instant at which it was entered, if that is ``at``.
    outbox
        what is not published yet.
    """

    rules: int = 0
    at: int | None = None
    last_id: StreamId | None = None
    members: Mapping[str, int] = field(default_factory=dict)
    dues: Mapping[str, int] = field(default_factory=dict)
    pending: tuple[Pending, ...] = ()
    fired: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    seen: Mapping[int, int] = field(default_factory=dict)
    fresh: frozenset[str] = frozenset()
    repeats: Mapping[str, int] = field(default_factory=dict)
    outbox: tuple[Outgoing, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Return whether nothing would be lost without it.

        >>> Record(rules=7, at=3).is_empty, Record(members={"vip": 3}).is_empty
        (True, False)
        """
        kept = self.last_id, self.members, self.dues, self.pending, self.fired, self.seen, self.outbox
        return not any(kept)

    @property
    def next_due(self) -> int | None:
        """Return when the entity is to be evaluated next if nothing happens before; None if never."""
        now = self.at
        waits = [one.begins if now is None or one.begins > now else one.due for one in self.pending]
        return min([*self.dues.values(), *waits], default=None)

    def published(self) -> Record:
        """Return the record with nothing left to publish."""
        return replace(self, outbox=()) if self.outbox else self
