"""Keeps the instances of triggers that wait for one entity, and decides what becomes of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any

from rules_engine.features.online.selection import EntityFeatures
from rules_engine.rules.inputs import Event
from rules_engine.rules.nodes import FeatureRef
from rules_engine.rules.triggers.nodes import QuietHours, QuietPolicy, Trigger
from rules_engine.rules.types import STRING, conform
from rules_engine.targets.stepwise.view import FOREVER, View
from rules_engine.triggers import policy
from rules_engine.triggers.payload import feature_at, payload_of
from rules_engine.triggers.record import PENDING_KEPT, Outgoing, Pending, Record, State, SuppressionReason, TriggerStep
from rules_engine.triggers.rules import TriggerRules

#: A trigger that started: itself, its cause, and the instant at which it begins.
Start = tuple[Trigger, str, int]


@dataclass(frozen=True, slots=True)
class Moment:
    """Describes an evaluation: its instant and the previous one, the event that came, whether anything may differ."""

    at: int
    before: int | None
    event: Event | None = None
    looks: bool = False

    def begins(self, one: Pending) -> bool:
        """Return whether an instance that has begun did so after the previous evaluation."""
        return self.before is None or one.begins > self.before


class Instances:
    """Holds what waits for an entity.

    Parameters
    ----------
    rules
        the definitions.
    features
        of the entity.
    record
        what is remembered of it.
    dues
        when to look again, by group of segments and by the names of hidden segments; changed here.
    outbox
        takes what happens.

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
        """Let go of triggers that are no longer defined."""
        known = self._rules.triggers
        self.fired = {name: fired for name, fired in self.fired.items() if name in known}
        removed = [one for one in self.pending if one.trigger not in known]
        for one in sorted(removed, key=lambda one: one.order):
            self._end(one, State.CANCELLED, at, SuppressionReason.REMOVED)

    def begin(self, began: Iterable[Start], at: int) -> list[Pending]:
        """Make instances of what started; those that wait."""
        created: list[Pending] = []
        for trigger, name, begins in began:
            one = Pending(trigger.name, name, begins, begins + trigger.delay)
            if len(self.pending) < PENDING_KEPT:
                self.pending.append(one)
                created.append(one)
            else:
                self._tell(one, State.SUPPRESSED, at, SuppressionReason.TOO_MANY)
        return created

    def next_wait(self, clock: int | None) -> int | None:
        """Return when one needs attention next: when it begins, and else when it is due."""
        if not self.pending:
            return None
        return min(one.begins if clock is None or one.begins > clock else one.due for one in self.pending)

    def settle(self, moment: Moment, created: Collection[Pending], view: View) -> None:
        """Cancel, judge or announce the instances that have begun, in the order in which they are due."""
        self.pending.sort(key=lambda one: one.order)
        cancelled = self._cancelled(moment, created, view)
        at = moment.at
        for one in tuple(self.pending):
            if one.begins > at:
                continue
            if one.trigger in cancelled:
                self._end(one, State.CANCELLED, at)
            elif one.due <= at:
                self._judge(one, self._rules.triggers[one.trigger], at, view)
            elif one in created or moment.begins(one):
                self._tell(one, State.PENDING, at)
        waiting = {one.trigger for one in self.pending}
        for trigger in self._rules.cancellable:
            if trigger.name not in waiting:
                self._dues.pop(trigger.cancel_if_name, None)

    def _cancelled(self, moment: Moment, created: Collection[Pending], view: View) -> set[str]:
        """Return the triggers whose ``cancel_if`` is true; it is evaluated where it can have become so."""
        found: set[str] = set()
        for trigger in self._rules.cancellable:
            begun = [one for one in self.pending if one.trigger == trigger.name and one.begins <= moment.at]
            if not begun or not self._can_change(trigger.cancel_if_name, moment, begun, created):
                continue
            holds, until = self._rules.check(trigger.cancel_if_name, view, moment.at)
            if holds:
                found.add(trigger.name)
            if until == FOREVER:
                self._dues.pop(trigger.cancel_if_name, None)
            else:
                self._dues[trigger.cancel_if_name] = until
        return found

    def _can_change(self, name: str, moment: Moment, begun: Iterable[Pending], created: Collection[Pending]) -> bool:
        if moment.looks or self._dues.get(name, moment.at + 1) <= moment.at:
            return True
        if moment.event is not None and self._rules.reads_event(name, moment.event.name):
            return True
        return any(one in created or one.due <= moment.at or moment.begins(one) for one in begun)

    def _judge(self, one: Pending, trigger: Trigger, at: int, view: View) -> None:
        """Fire a due instance, or say what keeps it from firing."""
        reason = self._obstacle(trigger, at, view)
        if reason is None and trigger.quiet_hours is not None:
            reason, until = self._quiet(trigger.quiet_hours, at)
            if until is not None:
                self._defer(one, until, at)
                return
        fired = self.fired.get(trigger.name, ())
        if reason is None and policy.is_cooling(trigger, fired, at):
            reason = SuppressionReason.COOLDOWN
        if reason is None and policy.is_capped(trigger, fired, at):
            reason = SuppressionReason.CAP
        if reason is not None:
            self._end(one, State.SUPPRESSED, at, reason)
            return
        kept = policy.remembered(trigger, fired, at)
        if kept:
            self.fired[trigger.name] = kept
        payload = payload_of(trigger, self._features, view.reader, at, self._rules.types)
        self._end(one, State.FIRED, at, payload=payload, sinks=tuple(map(str, trigger.send)))

    def _obstacle(self, trigger: Trigger, at: int, view: View) -> SuppressionReason | None:
        """Return what stands in the way of a trigger whatever the time of day."""
        if policy.is_held_out(trigger, self._features.entity):
            return SuppressionReason.HOLDOUT
        if trigger.if_ is not None and not self._rules.check(trigger.if_name, view, at)[0]:
            return SuppressionReason.CONDITION
        if trigger.consent is not None and not self._rules.check(trigger.consent_name, view, at)[0]:
            return SuppressionReason.CONSENT
        return None

    def _quiet(self, hours: QuietHours, at: int) -> tuple[SuppressionReason | None, int | None]:
        """Return whether quiet hours stand in the way, and until when an instance is to wait for their end."""
        zone = hours.timezone
        if isinstance(zone, FeatureRef):
            zone = conform(feature_at(self._features, zone, at), STRING)
        quiet = policy.is_quiet(hours, zone, at) if zone is not None else None
        if zone is None or quiet is None:
            return SuppressionReason.TIMEZONE, None
        if not quiet:
            return None, None
        return SuppressionReason.QUIET_HOURS, policy.quiet_until(
            hours, zone, at
        ) if hours.policy is QuietPolicy.DEFER else None

    def _defer(self, one: Pending, until: int, at: int) -> None:
        self.pending.remove(one)
        deferred = replace(one, due=until)
        self.pending.append(deferred)
        self._tell(deferred, State.PENDING, at, SuppressionReason.QUIET_HOURS)

    def _end(self, one: Pending, state: State, at: int, reason: SuppressionReason | None = None, **sent: Any) -> None:
        self.pending.remove(one)
        self._tell(one, state, at, reason, **sent)

    def _tell(self, one: Pending, state: State, at: int, reason: SuppressionReason | None = None, **sent: Any) -> None:
        step = TriggerStep(one.trigger, one.cause, state, at, one.due, reason, self._rules.version, **sent)
        self._outbox.append(step)
