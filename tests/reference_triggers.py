"""What triggers do, by brute force: every step looks at the whole log, and every instant that could matter is tried.

Built on `tests.reference`; shares no code with `rules_engine.triggers`. Definitions and data are plain: conditions as
YAML gives them, aware datetimes, events as dicts. A trigger is a dict:

    {"on": ("enter", segment) | ("exit", segment) | ("event", {"did": name, "where": {...}}), "delay": timedelta,
     "if": condition, "cancel_if": condition, "cooldown": timedelta, "cap": (number, timedelta), "consent": feature,
     "priority": number, "tags": [name],
     "quiet": {"from": "HH:MM", "to": "HH:MM", "timezone": name | {"feature": name}, "policy": "defer" | "drop"},
     "holdout": percent,
     "payload": {name: (function, condition) | ("feature", name) | ("value", value) | ("property", name)}}

A cooldown, or the time of a cap, that is None is for ever. A zone that is a feature may have a "default". Limits of
several triggers together are ``(number, timedelta, tag | None)``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from tests.reference import aggregate, in_window, make_world, matches_where, truth
from tests.reference_moments import candidates
from tests.reference_values import Condition, Event, World, bucket_of, clean, feature_value, kind, zone_of

MINUTE = timedelta(minutes=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(instant: datetime) -> int:
    return (instant - EPOCH) // timedelta(microseconds=1)


def latest(instants: Sequence[datetime], now: datetime, within: timedelta | None) -> int:
    """Count the instants in a time up to now; without a time, all."""
    return sum(within is None or at > now - within for at in instants)


@dataclass(frozen=True)
class Data:
    """What a user is, beside events."""

    features: Mapping[str, Any] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    updated_at: Mapping[str, datetime] = field(default_factory=dict)
    ttl: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Waiting:
    trigger: str
    cause: str
    begins: datetime
    due: datetime
    properties: Mapping[str, Any] = field(default_factory=dict)
    is_told: bool = False

    def order(self) -> tuple[datetime, datetime, str, str]:
        return self.due, self.begins, self.trigger, self.cause


class Reference:
    """One user. `told` is everything that happened, in order."""

    def __init__(
        self,
        entity: str,
        segments: Mapping[str, Condition],
        triggers: Mapping[str, Mapping[str, Any]],
        data: Data,
        swept: Collection[str],
        limits: Sequence[tuple[int, timedelta, str | None]] = (),
    ) -> None:
        self.entity = entity
        self.segments, self.triggers, self.data, self.swept = segments, triggers, data, swept
        self.log: list[Event] = []
        self.clock: datetime | None = None
        self.known: set[str] = set(swept)
        self.members: set[str] = set()
        self.since: dict[str, datetime] = {}
        self.again: dict[str, int] = {}
        self.waiting: list[Waiting] = []
        self.fired: dict[str, list[datetime]] = {}
        self.limits = limits
        self.counted: dict[str | None, list[datetime]] = {}
        self.seen: set[tuple[str, str]] = set()
        self.changed = False
        self.told: list[tuple[Any, ...]] = []

    # --- steps ------------------------------------------------------------------------------------------------------

    def event(self, event: Event, arrival: datetime) -> None:
        self.timers(arrival)
        now = self.later(arrival)
        self.compare_definitions(now)
        name = (event["event"], event["event_id"])
        if all((one["event"], one["event_id"]) != name for one in self.log):
            self.log.append(event)
        self.evaluate(now, f"event:{name[0]}:{name[1]}", event)

    def timers(self, until: datetime) -> None:
        if self.clock is None:
            return
        moments = self.moments()
        moment = next(moments, None)
        while True:
            if moment is None:  # clocks are followed for some days only, and then anew
                moments = self.moments()
                moment = next(moments, None)
            waits = [self.attention(one) for one in self.waiting]
            now = min([*waits, *([] if moment is None else [moment])], default=None)
            if now is None or now >= until:
                return
            if self.changed:
                self.compare_definitions(now)
                moments = self.moments()
            self.evaluate(now, "timer")
            while moment is not None and moment <= now:
                moment = next(moments, None)

    def moments(self) -> Iterator[datetime]:
        """Return every instant after the clock at which anything could change. New definitions wait for a step."""
        assert self.clock is not None
        everything = {"all": [*self.segments.values(), *self.hidden()]}
        return iter(()) if self.changed else candidates(everything, self.world(self.clock))

    def look(self, at: datetime, cause: str, data: Data | None = None) -> None:
        self.timers(at)
        self.data = data or self.data
        now = self.later(at)
        self.compare_definitions(now)
        self.evaluate(now, cause)

    def define(self, segments: Mapping[str, Condition], triggers: Mapping[str, Mapping[str, Any]]) -> None:
        """From the next step on, these are the definitions."""
        self.segments, self.triggers, self.changed = segments, triggers, True

    # --- evaluation -------------------------------------------------------------------------------------------------

    def hidden(self) -> Iterator[Condition]:
        for trigger in self.triggers.values():
            yield from (trigger[key] for key in ("if", "cancel_if") if key in trigger)

    def later(self, at: datetime) -> datetime:
        return at if self.clock is None else max(at, self.clock)

    def world(self, now: datetime) -> World:
        data = self.data
        return make_world(now, data.features, {}, self.log, data.types, self.segments, data.updated_at, data.ttl)

    def is_true(self, condition: Condition, now: datetime) -> bool:
        return truth(condition, self.world(now)) is True

    def attention(self, one: Waiting) -> datetime:
        return one.begins if self.clock is None or one.begins > self.clock else one.due

    def compare_definitions(self, now: datetime) -> None:
        for name in sorted(set(self.segments) - self.known):
            self.known.add(name)
            if name not in self.members and self.is_true(self.segments[name], now):
                self.members.add(name)
                self.since[name] = now
                self.told.append(("baseline", name, now, "baseline", 0))
        if self.changed:
            self.changed = False
            self.members &= set(self.segments)
            self.known &= set(self.segments) | set(self.swept)
            for one in sorted(filter(self.is_orphan, self.waiting), key=Waiting.order):
                self.end(one, "cancelled", now, "removed")
            self.evaluate(now, "apply")

    def evaluate(self, now: datetime, cause: str, event: Event | None = None) -> None:
        if now != self.clock:
            self.clock, self.again = now, {}
        began: list[tuple[str, str, datetime]] = []
        for name in sorted(self.segments):
            is_member = self.is_true(self.segments[name], now)
            if is_member != (name in self.members):
                change = self.move(name, is_member, now)
                number = self.again.get(name, 0)
                self.told.append((change, name, now, cause, number))
                title = f"{change}:{name}:{micros(now)}" + (f":{number}" if number else "")
                on = (change, name)
                began += [(one, title, now) for one in sorted(self.triggers) if self.triggers[one]["on"] == on]
        if event is not None:
            began += self.started(event, now)
        for trigger, title, begins in began:
            due = begins + self.triggers[trigger].get("delay", timedelta())
            self.waiting.append(Waiting(trigger, title, begins, due, self.named(trigger, event)))
        self.settle(now)

    def is_orphan(self, one: Waiting) -> bool:
        return one.trigger not in self.triggers

    def move(self, name: str, is_member: bool, now: datetime) -> str:
        if is_member:
            self.members.add(name)
            self.since[name] = now
            return "enter"
        self.members.remove(name)
        if self.since[name] == now:
            self.again[name] = self.again.get(name, 0) + 1
        return "exit"

    def started(self, event: Event, now: datetime) -> list[tuple[str, str, datetime]]:
        listening = [one for one in sorted(self.triggers) if self.triggers[one]["on"][0] == "event"]
        listening = [one for one in listening if self.triggers[one]["on"][1]["did"] == event["event"]]
        name = (event["event"], event["event_id"])
        if not listening or name in self.seen:
            return []
        self.seen.add(name)
        title = f"event:{name[0]}:{name[1]}"
        meant = [one for one in listening if matches_where(event, self.triggers[one]["on"][1].get("where", {}), now)]
        return [(one, title, max(now, event["at"])) for one in meant]

    def named(self, trigger: str, event: Event | None) -> dict[str, Any]:
        """Return the texts among the properties of an event that a payload names."""
        specs = [what for form, what in self.triggers[trigger].get("payload", {}).values() if form == "property"]
        return {name: event[name] for name in specs if event is not None and isinstance(event.get(name), str)}

    def urgency(self, one: Waiting) -> tuple[datetime, int, tuple[datetime, datetime, str, str]]:
        return one.due, -self.triggers[one.trigger].get("priority", 0), one.order()

    def settle(self, now: datetime) -> None:
        for one in sorted(self.waiting, key=self.urgency):
            if one.begins > now:
                continue
            trigger = self.triggers[one.trigger]
            if "cancel_if" in trigger and self.is_true(trigger["cancel_if"], now):
                self.end(one, "cancelled", now)
            elif one.due <= now:
                self.judge(one, trigger, now)
            elif not one.is_told:
                one.is_told = True
                self.tell(one, "pending", now)

    def judge(self, one: Waiting, trigger: Mapping[str, Any], now: datetime) -> None:
        fired = self.fired.setdefault(one.trigger, [])
        quiet = self.quiet(trigger, now)
        if self.is_held_out(one.trigger, trigger):
            self.end(one, "suppressed", now, "holdout")
        elif "if" in trigger and not self.is_true(trigger["if"], now):
            self.end(one, "suppressed", now, "condition")
        elif "consent" in trigger and feature_value(trigger["consent"], self.world(now)) is not True:
            self.end(one, "suppressed", now, "consent")
        elif quiet is None:
            self.end(one, "suppressed", now, "timezone")
        elif quiet(now) and trigger["quiet"]["policy"] == "defer":
            one.due, one.is_told = self.morning(quiet, now), True
            self.tell(one, "pending", now, "quiet_hours")
        elif quiet(now):
            self.end(one, "suppressed", now, "quiet_hours")
        elif often := self.too_often(fired, trigger, now):
            self.end(one, "suppressed", now, often)
        else:
            fired.append(now)
            for tag in {tag for _, _, tag in self.limiting(trigger)}:
                self.counted.setdefault(tag, []).append(now)
            specs = trigger.get("payload", {}).items()
            payload = {
                name: one.properties.get(spec[1]) if spec[0] == "property" else self.value(spec, now)
                for name, spec in specs
            }
            self.end(one, "fired", now, None, payload)

    def too_often(self, fired: Sequence[datetime], trigger: Mapping[str, Any], now: datetime) -> str:
        if "cooldown" in trigger and latest(fired, now, trigger["cooldown"]):
            return "cooldown"
        if "cap" in trigger and latest(fired, now, trigger["cap"][1]) >= trigger["cap"][0]:
            return "cap"
        limits = self.limiting(trigger)
        too_often = any(latest(self.counted.get(tag, ()), now, per) >= most for most, per, tag in limits)
        return "frequency" if too_often else ""

    def limiting(self, trigger: Mapping[str, Any]) -> list[tuple[int, timedelta, str | None]]:
        return [limit for limit in self.limits if limit[2] is None or limit[2] in trigger.get("tags", ())]

    def is_held_out(self, name: str, trigger: Mapping[str, Any]) -> bool:
        return bucket_of(name, self.entity) < trigger.get("holdout", 0) * 100

    def quiet(self, trigger: Mapping[str, Any], now: datetime) -> Callable[[datetime], bool] | None:
        """Return what tells quiet instants, or None if the zone is not known."""
        if "quiet" not in trigger:
            return lambda _: False
        hours = trigger["quiet"]
        found = zone_of(hours, self.world(now))
        if found is None and isinstance(hours["timezone"], Mapping) and "default" in hours["timezone"]:
            found = ZoneInfo(hours["timezone"]["default"])
        if found is None:
            return None

        def is_quiet(at: datetime) -> bool:
            clock = at.astimezone(found).strftime("%H:%M:%S.%f")
            start, end = f"{hours['from']}:00.000000", f"{hours['to']}:00.000000"
            return start <= clock < end if start <= end else clock >= start or clock < end

        return is_quiet

    def morning(self, is_quiet: Callable[[datetime], bool], now: datetime) -> datetime:
        """Return the first whole minute after an instant that is not quiet."""
        moment = now.replace(second=0, microsecond=0) + MINUTE
        while is_quiet(moment):
            moment += MINUTE
        return moment

    def value(self, spec: Sequence[Any], now: datetime) -> Any:
        form, what = spec
        if form == "value":
            return what
        world = self.world(now)
        if form == "feature":
            return clean(feature_value(what, world))
        if form == "count":
            return len(in_window(what["count"]["event"], what, world))
        found = aggregate(form, what, world)
        return found if form != "last" or kind(found) == "string" else None

    def end(
        self,
        one: Waiting,
        state: str,
        now: datetime,
        reason: str | None = None,
        payload: Mapping[str, Any] | None = None,
    ) -> None:
        self.waiting.remove(one)
        self.tell(one, state, now, reason, payload)

    def tell(
        self,
        one: Waiting,
        state: str,
        now: datetime,
        reason: str | None = None,
        payload: Mapping[str, Any] | None = None,
    ) -> None:
        self.told.append((state, one.trigger, one.cause, now, one.due, reason, payload or {}))
