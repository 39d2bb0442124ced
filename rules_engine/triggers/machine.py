"""Everything that can happen to an entity, as a pure function of steps: events that arrive, timers, and looks.

Nothing here reads a clock or a store. The same steps give the same memberships, transitions and actions, whoever does
them, in whatever batches, and however often a batch is begun again. docs/adr/0009-transitions-and-triggers.md says why.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from hashlib import blake2b
from typing import Any

from rules_engine.clock import DAY
from rules_engine.events.state import EventState, update
from rules_engine.features.selection import EntityFeatures
from rules_engine.rules.inputs import Event
from rules_engine.rules.nodes import FeatureRef
from rules_engine.rules.trigger_nodes import OnEvent, QuietHours, QuietPolicy, Trigger
from rules_engine.rules.types import STRING, conform
from rules_engine.triggers import policy
from rules_engine.triggers.lasting import FOREVER
from rules_engine.triggers.payload import feature_at, payload_of
from rules_engine.triggers.record import (
    SEEN_KEPT,
    Change,
    Outgoing,
    Pending,
    Reason,
    Record,
    State,
    StreamId,
    Transition,
    TriggerStep,
)
from rules_engine.triggers.rules import TriggerRules

#: For how long events that may start triggers are remembered.
SEEN_FOR = 7 * DAY

#: What a timer's transitions have as their cause, and those of changed definitions.
TIMER, APPLY, BASELINE = "timer", "apply", "baseline"


def cause_of(event: Event) -> str:
    """What an event is called as a cause. The id of a checked event begins with its name already.

    >>> cause_of(Event("visit", 0, "visit:a1")), cause_of(Event("visit", 0, "a1"))
    ('event:visit:a1', 'event:visit:a1')
    """
    return f"event:{event.id}" if event.id.startswith(f"{event.name}:") else f"event:{event.name}:{event.id}"


class Machine:
    """One entity, taken from step to step.

    Parameters
    ----------
    rules
        the definitions.
    record
        what is remembered of the entity; an empty one if nothing is.
    features
        what the online store holds of it, of the features that the rules read.
    state
        its event state.
    swept
        the segments of which every entity was looked at once since they are there. Somebody of whom the record knows
        nothing was no member of these; of the others, whoever is a member is taken to have been one before.

    Attributes
    ----------
    state
        the event state after the steps.

    The logical clock is the greatest instant at which the entity was evaluated. Every step evaluates at the instant it
    names or at the clock, whichever is later, so that the clock never goes back.
    """

    def __init__(
        self,
        rules: TriggerRules,
        record: Record,
        features: EntityFeatures,
        state: EventState,
        *,
        swept: Collection[str] = (),
    ) -> None:
        self.state = state
        self._rules = rules
        self._given = record
        self._features = features
        self._view = rules.view(features, state)
        self._swept = swept
        self._clock = record.at
        self._last_id = record.last_id
        self._members = dict(record.members)
        self._dues = dict(record.dues)
        self._pending = list(record.pending)
        self._fired = dict(record.fired)
        self._seen = dict(record.seen)
        self._repeats = dict(record.repeats)
        self._outbox: list[Outgoing] = list(record.outbox)
        self._is_new = record.at is None
        self._is_adopted = record.rules == rules.fingerprint
        known = record.fresh | frozenset(swept)
        self._unknown = rules.names - known
        self._fresh = (record.fresh & rules.names) - frozenset(swept)

    # --- steps ------------------------------------------------------------------------------------------------------

    def event(self, event: Event, arrival: int, stream_id: StreamId | None = None) -> bool:
        """An event arrived; gives whether it was done, and not already before.

        Timers before its arrival come first. Then the entity is evaluated with the event, at its arrival. An event of
        the future counts from its own instant on.

        Parameters
        ----------
        arrival
            the instant in microseconds.
        stream_id
            of the entry that brought it. Entries up to the last one that was done are not done again.
        """
        if stream_id is not None:
            if self._last_id is not None and stream_id <= self._last_id:
                return False
            self._last_id = stream_id
        self.timers(arrival)
        at = self._instant(arrival)
        is_new = self._is_new
        self._adopt(at)
        self._keep(event)
        groups = self._rules.groups if is_new else {event.name, *self._due(at)}
        self._evaluate(at, groups, cause_of(event), event)
        return True

    def timers(self, until: int) -> None:
        """Do what is due before an instant, each at its own.

        ``until`` is an instant before which nothing can arrive any more: the arrival of the oldest event that waits,
        or else now.
        """
        while (due := self.next_due) is not None and due < until:
            at = self._instant(due)
            self._adopt(at)
            self._evaluate(at, self._due(at), TIMER)

    def look(self, at: int, cause: str, views: Iterable[str] | None = None) -> None:
        """Evaluate again, as something else than events changed.

        Parameters
        ----------
        at
            the instant; all that arrived before it must have been done, as for :meth:`timers`.
        cause
            what changed, e.g. ``materialize``.
        views
            the feature views that changed; None for anything.
        """
        self.timers(at)
        at = self._instant(at)
        is_new = self._is_new
        self._adopt(at)
        some = None if views is None or is_new else self._rules.groups_of_views(views)
        groups = self._rules.groups if some is None else {*some, *self._due(at)}
        self._evaluate(at, groups, cause, looks=True)

    # --- results ----------------------------------------------------------------------------------------------------

    @property
    def record(self) -> Record:
        """What is to be remembered after the steps."""
        return Record(
            rules=self._rules.fingerprint if self._is_adopted else self._given.rules,
            at=self._clock,
            last_id=self._last_id,
            members=self._members,
            dues=self._dues,
            pending=tuple(self._pending),
            fired=self._fired,
            seen=self._seen,
            fresh=self._fresh,
            repeats=self._repeats,
            outbox=tuple(self._outbox),
        )

    @property
    def next_due(self) -> int | None:
        """When there is a timer next; None if there is none.

        Definitions that are new to the record have none before its next step: a look, if nothing else happens.
        """
        due = min(self._dues.values(), default=None) if self._is_adopted else None
        if self._pending:
            waits = min(self._waits(one) for one in self._pending)
            return waits if due is None else min(due, waits)
        return due

    @property
    def changed(self) -> bool:
        """Whether the record has to be written."""
        record = self.record
        return record != self._given and not (record.is_empty and self._given.is_empty)

    # --- the clock and the state ------------------------------------------------------------------------------------

    def _instant(self, at: int) -> int:
        """The instant of an evaluation that is asked for: never before the clock, nor before the state can answer."""
        pruned_at, clock = self.state.pruned_at, self._clock
        if pruned_at is not None and pruned_at > at:
            at = pruned_at
        return clock if clock is not None and clock > at else at

    def _due(self, at: int) -> list[str]:
        """What is to be looked at again at an instant, whatever else happens."""
        return [group for group, due in self._dues.items() if due <= at]

    def _keep(self, event: Event) -> None:
        state = update(self.state, (event,), self._rules.events.requirements)
        if state is not self.state:
            self.state = state
            self._view = self._rules.view(self._features, state)

    def _adopt(self, at: int) -> None:
        """Compare with definitions that are new to the record, before anything else happens at an instant."""
        if self._unknown:
            self._take_baseline(at)
        if self._is_adopted:
            return
        self._is_adopted = True
        self._dues = {}
        self._members = {name: since for name, since in self._members.items() if name in self._rules.names}
        for one in [one for one in self._pending if one.trigger not in self._rules.triggers]:
            self._end(one, State.CANCELLED, at, Reason.REMOVED)
        if not self._is_new:
            self._evaluate(at, self._rules.groups, APPLY, looks=True)

    def _take_baseline(self, at: int) -> None:
        for name in sorted(self._unknown - self._members.keys()):
            if not self._rules.check(name, self._view, at)[0]:
                continue
            self._members[name] = at
            self._outbox.append(Transition(name, Change.BASELINE, at, BASELINE, self._rules.version))
        self._fresh |= self._unknown
        self._unknown = frozenset()

    # --- evaluation -------------------------------------------------------------------------------------------------

    def _evaluate(
        self, at: int, groups: Iterable[str], cause: str, event: Event | None = None, *, looks: bool = False
    ) -> None:
        """Bring memberships and waiting triggers to an instant, at which one thing happened."""
        before = self._clock
        if at != before:
            self._clock = at
            self._repeats = {}
        self._is_new = False
        began: list[tuple[Trigger, str, int]] = []
        for move in self._moves(at, groups, cause):
            self._outbox.append(move)
            began += [(trigger, move.name, at) for trigger in self._rules.on(move.change, move.segment)]
        if event is not None:
            began += self._started_by(event, at)
        created = {Pending(trigger.name, name, begins, begins + trigger.delay) for trigger, name, begins in began}
        self._pending += created
        if self._pending:
            self._settle(at, before, created, event, looks=looks)

    def _moves(self, at: int, groups: Iterable[str], cause: str) -> list[Transition]:
        """What begins and ends at an instant, by the names of the segments."""
        moves: list[tuple[str, bool]] = []
        for group in groups:
            names = self._rules.groups.get(group)
            if names is None:
                continue
            found, until = self._rules.look(group, self._view, at)
            self._look_again(group, until)
            members = self._members
            for name in found:
                if name not in members:
                    members[name] = at
                    moves.append((name, True))
            ended = names.intersection(members).difference(found)
            for name in ended:
                if members.pop(name) == at:
                    self._repeats[name] = self._repeats.get(name, 0) + 1
                moves.append((name, False))
        return [
            Transition(
                name,
                Change.ENTER if entered else Change.EXIT,
                at,
                cause,
                self._rules.version,
                self._repeats.get(name, 0),
            )
            for name, entered in sorted(moves)
        ]

    def _look_again(self, name: str, until: int) -> None:
        if until == FOREVER:
            self._dues.pop(name, None)
        else:
            self._dues[name] = until

    # --- instances of triggers --------------------------------------------------------------------------------------

    def _started_by(self, event: Event, at: int) -> list[tuple[Trigger, str, int]]:
        """The triggers that an event starts: not those of one that was seen before."""
        listening = self._rules.on_event(event.name)
        if not listening or self._was_seen(event, at):
            return []
        cause = cause_of(event)
        return [
            (trigger, cause, max(at, event.at))
            for trigger in listening
            if isinstance(trigger.on, OnEvent) and event.is_meant_by(trigger.on.match)
        ]

    def _was_seen(self, event: Event, at: int) -> bool:
        """Whether it is a redelivery; it is remembered if not."""
        whole = f"{event.name}\0{event.id}".encode("utf-8", "surrogatepass")
        digest = int.from_bytes(blake2b(whole, digest_size=7).digest(), "big")
        if digest in self._seen:
            return True
        kept = [(one, when) for one, when in self._seen.items() if when > at - SEEN_FOR]
        self._seen = dict([*kept, (digest, at)][-SEEN_KEPT:])
        return False

    def _waits(self, one: Pending) -> int:
        """When a waiting instance needs attention next."""
        return one.begins if self._clock is None or one.begins > self._clock else one.due

    def _settle(
        self, at: int, before: int | None, created: Collection[Pending], event: Event | None, *, looks: bool
    ) -> None:
        """Cancel, judge or announce the instances that have begun, in the order in which they are due."""
        self._pending.sort(key=lambda one: one.order)
        cancelled = self._cancelled(at, before, created, event, looks=looks)
        for one in tuple(self._pending):
            if one.begins > at:
                continue
            if one.trigger in cancelled:
                self._end(one, State.CANCELLED, at)
            elif one.due <= at:
                self._judge(one, self._rules.triggers[one.trigger], at)
            elif one in created or before is None or one.begins > before:
                self._tell(one, State.PENDING, at)
        waiting = {one.trigger for one in self._pending}
        for trigger in self._rules.cancellable:
            if trigger.name not in waiting:
                self._dues.pop(trigger.cancel_if_name, None)

    def _cancelled(
        self, at: int, before: int | None, created: Collection[Pending], event: Event | None, *, looks: bool
    ) -> set[str]:
        """The triggers whose ``cancel_if`` is true; it is evaluated where it can have become so."""
        found: set[str] = set()
        for trigger in self._rules.cancellable:
            name = trigger.cancel_if_name
            begun = [one for one in self._pending if one.trigger == trigger.name and one.begins <= at]
            if not begun:
                continue
            can_change = (
                looks
                or self._dues.get(name, at + 1) <= at
                or (event is not None and self._rules.reads_event(name, event.name))
                or any(one in created or one.due <= at or before is None or one.begins > before for one in begun)
            )
            if not can_change:
                continue
            holds, until = self._rules.check(name, self._view, at)
            self._look_again(name, until)
            if holds:
                found.add(trigger.name)
        return found

    def _judge(self, one: Pending, trigger: Trigger, at: int) -> None:
        """Fire a due instance, or say what keeps it from firing."""
        reason = self._obstacle(trigger, at)
        if reason is None and trigger.quiet_hours is not None:
            reason, until = self._quiet(trigger.quiet_hours, at)
            if until is not None:
                self._defer(one, until, at)
                return
        fired = self._fired.get(trigger.name, ())
        if reason is None and policy.is_cooling(trigger, fired, at):
            reason = Reason.COOLDOWN
        if reason is None and policy.is_capped(trigger, fired, at):
            reason = Reason.CAP
        if reason is not None:
            self._end(one, State.SUPPRESSED, at, reason)
            return
        kept = policy.remembered(trigger, fired, at)
        if kept:
            self._fired[trigger.name] = kept
        payload = payload_of(trigger, self._features, self._view.reader, at, self._rules.types)
        self._end(one, State.FIRED, at, payload=payload, sinks=tuple(map(str, trigger.send)))

    def _obstacle(self, trigger: Trigger, at: int) -> Reason | None:
        """What stands in the way of a trigger whatever the time of day."""
        if policy.is_held_out(trigger, self._features.entity):
            return Reason.HOLDOUT
        if trigger.if_ is not None and not self._is_true(trigger.if_name, at):
            return Reason.CONDITION
        if trigger.consent is not None and not self._is_true(trigger.consent_name, at):
            return Reason.CONSENT
        return None

    def _is_true(self, name: str, at: int) -> bool:
        return self._rules.check(name, self._view, at)[0]

    def _quiet(self, hours: QuietHours, at: int) -> tuple[Reason | None, int | None]:
        """Whether quiet hours stand in the way, and until when an instance is to wait for their end."""
        zone = hours.timezone
        if isinstance(zone, FeatureRef):
            zone = conform(feature_at(self._features, zone, at), STRING)
        quiet = policy.is_quiet(hours, zone, at) if zone is not None else None
        if zone is None or quiet is None:
            return Reason.TIMEZONE, None
        if not quiet:
            return None, None
        return Reason.QUIET_HOURS, policy.quiet_until(hours, zone, at) if hours.policy is QuietPolicy.DEFER else None

    def _defer(self, one: Pending, until: int, at: int) -> None:
        self._pending.remove(one)
        deferred = replace(one, due=until)
        self._pending.append(deferred)
        self._tell(deferred, State.PENDING, at, Reason.QUIET_HOURS)

    def _end(self, one: Pending, state: State, at: int, reason: Reason | None = None, **sent: Any) -> None:
        self._pending.remove(one)
        self._tell(one, state, at, reason, **sent)

    def _tell(self, one: Pending, state: State, at: int, reason: Reason | None = None, **sent: Any) -> None:
        step = TriggerStep(one.trigger, one.cause, state, at, one.due, reason, self._rules.version, **sent)
        self._outbox.append(step)
