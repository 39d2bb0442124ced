"""The record of an entity: its memberships, waiting triggers, and what is to be published, without its event state.

Plain data. The machine makes a new record from an old one; :mod:`rules_engine.triggers.encoding` turns it into bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from rules_engine.triggers.actions import Action, action_key

#: The id of an entry of a stream: its millisecond, and its number in it.
StreamId = tuple[int, int]

#: The most events that are remembered per entity so that redeliveries start no triggers.
SEEN_KEPT = 256

#: The most instances of triggers that may wait for one entity.
PENDING_KEPT = 1_000


class MembershipChange(Enum):
    """The kinds of changes of a membership."""

    ENTER = "enter"
    EXIT = "exit"
    BASELINE = "baseline"  # was a member when the segment was first looked at: starts nothing


class State(Enum):
    """The states of an instance of a trigger."""

    PENDING = "pending"
    FIRED = "fired"
    CANCELLED = "cancelled"
    SUPPRESSED = "suppressed"


class SuppressionReason(Enum):
    """The reasons why an instance of a trigger did not fire, or waits longer."""

    HOLDOUT = "holdout"
    CONDITION = "condition"
    CONSENT = "consent"
    TIMEZONE = "timezone"
    QUIET_HOURS = "quiet_hours"
    COOLDOWN = "cooldown"
    CAP = "cap"
    FREQUENCY = "frequency"
    TOO_MANY = "too_many"  # others wait for the same entity
    REMOVED = "removed"  # its definition is gone
    JOINED = "joined"  # the entity was joined to a person


@lru_cache(maxsize=8_192)  # it is asked for the ledger, and again for the stream of transitions
def key_of(entity: str, name: str) -> str:
    """Return an idempotency key: equal for the same entity and cause. It reveals neither.

    >>> key_of("42", "enter:vip:1")
    '16113033fb0382794fa252355a85b1a7'
    """
    whole = f"{entity}\0{name}".encode("utf-8", "surrogatepass")
    return blake2b(whole, digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Transition:
    """A membership that began, ended, or existed when the segment was first evaluated.

    Attributes
    ----------
    at
        the instant in microseconds.
    cause
        ``event:NAME:ID``, ``timer``, ``join:ENTITY``, or the cause of a look, e.g. ``apply`` or ``materialize``.
    version
        of the definitions.
    number
        how often the segment was entered and left before at the same instant.
    """

    segment: str
    change: MembershipChange
    at: int
    cause: str
    version: str = ""
    number: int = 0

    @property
    def name(self) -> str:
        """Return the name by which triggers refer to it as their cause: the same whenever the steps are repeated.

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
    """A step of an instance of a trigger: it began to wait, fired, was cancelled or was suppressed.

    An instance that is decided at the instant of its cause has one step; else its first one is ``pending``.

    Attributes
    ----------
    cause
        ``enter:SEGMENT:T``, ``exit:SEGMENT:T`` or ``event:NAME:ID``.
    payload, sinks
        the values that are sent, and the sinks (``kind:name``), if it fired.
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
        """Return the actions to send, one for each sink.

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
    """A waiting instance of a trigger.

    Attributes
    ----------
    begins
        the instant of its cause, which for an event of the future is still to come.
    due
        the instant at which it is decided.
    properties
        those of its event that the payload names, as JSON has them.
    """

    trigger: str
    cause: str
    begins: int
    due: int
    properties: Mapping[str, Any] = field(default_factory=dict)

    @property
    def order(self) -> tuple[int, int, str, str]:
        """Return the key by which instances are ordered before they are decided."""
        return self.due, self.begins, self.trigger, self.cause


@dataclass(frozen=True, slots=True)
class Record:
    """The memory of one entity.

    Attributes
    ----------
    rules
        the fingerprint of the definitions by which it was last evaluated.
    at
        the logical clock: the last instant of an evaluation; it never goes back. None before the first.
    last_id
        the last entry of the stream that was processed.
    members
        the instant at which each membership began, by segment.
    dues
        the next instant of evaluation, by group of segments (see :class:`~rules_engine.triggers.rules.TriggerRules`).
    pending
        the instances that wait.
    fired
        the latest instants at which each trigger fired, as many as its cap and cooldown need; and those at which one of
        several did that a frequency limits together.
    seen
        digests of events that may start triggers, with the seconds of their steps, so that redeliveries start nothing.
    fresh
        the segments that were evaluated before their first sweep of all entities was complete.
    repeats
        how often each segment was left at the instant at which it was entered, if that is ``at``.
    outbox
        the transitions and trigger steps that are not published yet.
    person
        to whom the entity was joined; it is nobody since, and its events are handed on. None: to nobody.
    handed_on
        events, and the state of the entity, that are not handed on to that person yet, as they are appended.
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
    person: str | None = None
    handed_on: tuple[bytes, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Say whether nothing would be lost without the record.

        >>> Record(rules=7, at=3).is_empty, Record(members={"vip": 3}).is_empty
        (True, False)
        """
        contents = self.last_id, self.members, self.dues, self.pending, self.fired, self.seen, self.outbox, self.person
        return not any(contents)

    @property
    def is_published(self) -> bool:
        """Say whether nothing is left to publish or to hand on."""
        return not self.outbox and not self.handed_on

    @property
    def next_due(self) -> int | None:
        """Return the instant of the next evaluation if nothing happens before; None if never."""
        now = self.at
        waits = [instance.begins if now is None or instance.begins > now else instance.due for instance in self.pending]
        return min([*self.dues.values(), *waits], default=None)

    def published(self) -> Record:
        """Return the record with nothing left to publish."""
        return self if self.is_published else replace(self, outbox=(), handed_on=())
