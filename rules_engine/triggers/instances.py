"""Keeps the waiting instances of an entity's triggers, and decides which fire, wait longer, or end."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rules_engine.features.online.selection import EntityFeatures
from rules_engine.rules.inputs import Event
from rules_engine.rules.local_time import find_zone
from rules_engine.rules.nodes import FeatureRef
from rules_engine.rules.triggers.nodes import QuietHours, QuietPolicy, Trigger
from rules_engine.rules.types import STRING, conform
from rules_engine.targets.stepwise.view import FOREVER, View
from rules_engine.triggers import policy
from rules_engine.triggers.payload import feature_at, payload_of
from rules_engine.triggers.record import PENDING_KEPT, Outgoing, Pending, Record, State, SuppressionReason, TriggerStep
from rules_engine.triggers.rules import TriggerRules

#: A trigger that started: itself, its cause, the instant at which it begins, and what its payload names of its event.
Start = tuple[Trigger, str, int, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Moment:
    """An evaluation: its instant and the previous one, the event that came, and whether anything may have changed."""

    at: int
    before: int | None
    event: Event | None = None
    looks: bool = False

    def begins(self, instance: Pending) -> bool:
        """Say whether an instance, which has begun, began after the previous evaluation."""
        return self.before is None or instance.begins > self.before


class Instances:
    """The waiting instances of an entity.

    Parameters
    ----------
    rules
        the definitions.
    features
        of the entity.
    record
        the record of the entity.
    dues
        the next instants of evaluation, by group of segments and by name of hidden segment; changed here.
    outbox
        the list to which steps are added.

    Attributes
    ----------
    pending, fired
        as in the record.
    """

    def __init__(
        self,
        rules: TriggerRules,
        features: EntityFeatures,
        record: Record,
        dues: dict[str, int],
        outbox: list[Outgoing],
    ) -> None:
        self.pending = list(record.pending)
        self.fired = dict(record.fired)
        self._rules = rules
        self._features = features
        self._dues = dues
        self._outbox = outbox

    def adopt(self, at: int) -> None:
        """Cancel instances of triggers that are no longer defined."""
        defined = self._rules.triggers
        counted = {limit.counted_as for limit in self._rules.frequency}
        self.fired = {name: fired for name, fired in self.fired.items() if name in defined or name in counted}
        removed = [instance for instance in self.pending if instance.trigger not in defined]
        self._cancel(removed, at, SuppressionReason.REMOVED)

    def leave(self, at: int) -> None:
        """Cancel all instances: the entity was joined to a person, whose triggers see what it did."""
        self.fired = {}
        self._cancel(self.pending, at, SuppressionReason.JOINED)

    def _cancel(self, instances: Iterable[Pending], at: int, reason: SuppressionReason) -> None:
        for instance in sorted(instances, key=lambda instance: instance.order):
            self._end(instance, State.CANCELLED, at, reason)

    def begin(self, began: Iterable[Start], at: int) -> list[Pending]:
        """Make instances of the triggers that started. Return those that wait."""
        created: list[Pending] = []
        for trigger, name, begins, properties in began:
            instance = Pending(trigger.name, name, begins, begins + trigger.delay, properties)
            if len(self.pending) < PENDING_KEPT:
                self.pending.append(instance)
                created.append(instance)
            else:
                self._tell(instance, State.SUPPRESSED, at, SuppressionReason.TOO_MANY)
        return created

    def next_wait(self, clock: int | None) -> int | None:
        """Return the next instant at which an instance begins or, if it has begun, is due; None if none waits."""
        if not self.pending:
            return None
        return min(
            instance.begins if clock is None or instance.begins > clock else instance.due for instance in self.pending
        )

    def settle(self, moment: Moment, created: Collection[Pending], view: View) -> None:
        """Cancel, decide or announce the instances that have begun, in the order in which they are due."""
        self.pending.sort(key=self._order)
        cancelled = self._cancelled(moment, created, view)
        at = moment.at
        for instance in tuple(self.pending):
            if instance.begins > at:
                continue
            if instance.trigger in cancelled:
                self._end(instance, State.CANCELLED, at)
            elif instance.due <= at:
                self._decide(instance, self._rules.triggers[instance.trigger], at, view)
            elif instance in created or moment.begins(instance):
                self._tell(instance, State.PENDING, at)
        waiting = {instance.trigger for instance in self.pending}
        for trigger in self._rules.cancellable:
            if trigger.name not in waiting:
                self._dues.pop(trigger.cancel_if_name, None)

    def _order(self, instance: Pending) -> tuple[int, int, tuple[int, int, str, str]]:
        """Return the key by which instances are decided: of those due at one instant, the higher priority first."""
        return instance.due, -self._rules.triggers[instance.trigger].priority, instance.order

    def _cancelled(self, moment: Moment, created: Collection[Pending], view: View) -> set[str]:
        """Return the triggers whose ``cancel_if`` is true, evaluated only where it may have become true."""
        cancelled: set[str] = set()
        for trigger in self._rules.cancellable:
            begun = [
                instance
                for instance in self.pending
                if instance.trigger == trigger.name and instance.begins <= moment.at
            ]
            if not begun or not self._can_change(trigger.cancel_if_name, moment, begun, created):
                continue
            holds, until = self._rules.check(trigger.cancel_if_name, view, moment.at)
            if holds:
                cancelled.add(trigger.name)
            if until == FOREVER:
                self._dues.pop(trigger.cancel_if_name, None)
            else:
                self._dues[trigger.cancel_if_name] = until
        return cancelled

    def _can_change(self, name: str, moment: Moment, begun: Iterable[Pending], created: Collection[Pending]) -> bool:
        if moment.looks or self._dues.get(name, moment.at + 1) <= moment.at:
            return True
        if moment.event is not None and self._rules.reads_event(name, moment.event.name):
            return True
        return any(instance in created or instance.due <= moment.at or moment.begins(instance) for instance in begun)

    def _decide(self, instance: Pending, trigger: Trigger, at: int, view: View) -> None:
        """Fire a due instance, defer it, or suppress it with the reason."""
        reason = self._obstacle(trigger, at, view)
        if reason is None and trigger.quiet_hours is not None:
            reason, until = self._quiet(trigger.quiet_hours, at)
            if until is not None:
                self._defer(instance, until, at)
                return
        fired = self.fired.get(trigger.name, ())
        if reason is None and policy.is_cooling(trigger, fired, at):
            reason = SuppressionReason.COOLDOWN
        if reason is None and policy.is_capped(trigger, fired, at):
            reason = SuppressionReason.CAP
        limits = self._rules.limits_of(trigger)
        if reason is None and policy.is_too_frequent(limits, self.fired, at):
            reason = SuppressionReason.FREQUENCY
        if reason is not None:
            self._end(instance, State.SUPPRESSED, at, reason)
            return
        remembered = policy.remembered(trigger, fired, at)
        if remembered:
            self.fired[trigger.name] = remembered
        self.fired |= policy.remembered_together(limits, self.fired, at)
        payload = payload_of(trigger, self._features, view.reader, at, self._rules.types, instance.properties)
        self._end(instance, State.FIRED, at, payload=payload, sinks=tuple(map(str, trigger.send)))

    def _obstacle(self, trigger: Trigger, at: int, view: View) -> SuppressionReason | None:
        """Return the reason, other than the time, that keeps a trigger from firing; None if there is none."""
        if policy.is_held_out(trigger, self._features.entity):
            return SuppressionReason.HOLDOUT
        if trigger.if_ is not None and not self._rules.check(trigger.if_name, view, at)[0]:
            return SuppressionReason.CONDITION
        if trigger.consent is not None and not self._rules.check(trigger.consent_name, view, at)[0]:
            return SuppressionReason.CONSENT
        return None

    def _quiet(self, hours: QuietHours, at: int) -> tuple[SuppressionReason | None, int | None]:
        """Return the reason if quiet hours keep a trigger from firing, and the instant until which to defer it."""
        zone = self._zone(hours, at)
        quiet = policy.is_quiet(hours, zone, at) if zone is not None else None
        if zone is None or quiet is None:
            return SuppressionReason.TIMEZONE, None
        if not quiet:
            return None, None
        return SuppressionReason.QUIET_HOURS, policy.quiet_until(
            hours, zone, at
        ) if hours.policy is QuietPolicy.DEFER else None

    def _zone(self, hours: QuietHours, at: int) -> str | None:
        """Return the zone of quiet hours: the default's where the entity's feature names none."""
        if not isinstance(hours.timezone, FeatureRef):
            return hours.timezone
        named: str | None = conform(feature_at(self._features, hours.timezone, at), STRING)
        return hours.default if named is None or find_zone(named) is None else named

    def _defer(self, instance: Pending, until: int, at: int) -> None:
        self.pending.remove(instance)
        deferred = replace(instance, due=until)
        self.pending.append(deferred)
        self._tell(deferred, State.PENDING, at, SuppressionReason.QUIET_HOURS)

    def _end(
        self, instance: Pending, state: State, at: int, reason: SuppressionReason | None = None, **sent: Any
    ) -> None:
        self.pending.remove(instance)
        self._tell(instance, state, at, reason, **sent)

    def _tell(
        self, instance: Pending, state: State, at: int, reason: SuppressionReason | None = None, **sent: Any
    ) -> None:
        step = TriggerStep(
            instance.trigger, instance.cause, state, at, instance.due, reason, self._rules.version, **sent
        )
        self._outbox.append(step)
