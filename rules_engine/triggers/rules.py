"""Compiles what the machine of triggers needs of the definitions: which answers can change, and by what."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import orjson

from rules_engine.features.online.selection import EntityFeatures
from rules_engine.rules.nodes import Segment
from rules_engine.rules.program import Program
from rules_engine.rules.segments.codec import decode_program
from rules_engine.rules.triggers.codec import decode_triggers
from rules_engine.rules.triggers.nodes import OnEnter, OnEvent, OnExit, Trigger, hidden_segments, payload_features
from rules_engine.rules.types import ValueType, from_feast_name
from rules_engine.rules.walk import dependencies
from rules_engine.sdk.event_rules import EventRules
from rules_engine.targets.stepwise.compile import Checks
from rules_engine.targets.stepwise.view import FOREVER, View
from rules_engine.triggers.growth import Effect, effect
from rules_engine.triggers.record import MembershipChange

if TYPE_CHECKING:
    from rules_engine.events.state.entity_state import EventState
    from rules_engine.sdk.rules import Rules

#: The group of the segments that read no events.
NO_EVENT = ""


class TriggerRules:
    """Segments and triggers, ready for :class:`~rules_engine.triggers.machine.Machine`. Immutable; may be shared.

    Parameters
    ----------
    definitions
        as the read plan carries them.
    types
        by ``VIEW:NAME``: the types of the features.
    version
        of the definitions, for what is reported.

    Attributes
    ----------
    fingerprint
        tells these definitions from others.
    names
        the segments.
    triggers
        by name.
    features
        the features (``VIEW:NAME``) that segments and triggers read: what has to be there of an entity.
    events
        what is kept of events for them.
    groups
        the segments that can change when an event comes, by its name; under :data:`NO_EVENT` those that read none. Each
        group is looked at as a whole.
    cancellable
        the triggers with ``cancel_if``.
    """

    def __init__(
        self,
        definitions: Mapping[str, Any],
        types: Mapping[str, ValueType | None] | None = None,
        version: str = "",
    ) -> None:
        self.version = version
        self.types = types or {}
        program = decode_program(definitions["segments"])
        self.triggers: Mapping[str, Trigger] = decode_triggers(definitions)
        self.events = EventRules(program, definitions)
        self.names = frozenset(program.names)
        hidden = hidden_segments(self.triggers.values())
        self._program = Program({**program.segments, **hidden})
        self._reads = _reads(self._program)
        self.groups = _groups(program, self._reads)
        self._checks = Checks(self._program, self.events.layout)
        self._checks_of = {
            group: tuple(
                (name, self._checks.segment(name), effect(program, program.segment(name).when, group))
                for name in sorted(names)
            )
            for group, names in self.groups.items()
        }
        self.features = tuple(sorted(self._features()))
        self.fingerprint = _fingerprint(definitions)
        self._on: dict[str, dict[str, list[Trigger]]] = {"enter": {}, "exit": {}}
        self._on_event: dict[str, list[Trigger]] = {}
        for name in sorted(self.triggers):
            self._listen(self.triggers[name])
        self.cancellable = tuple(
            self.triggers[name] for name in sorted(self.triggers) if self.triggers[name].cancel_if is not None
        )

    @classmethod
    def of(cls, rules: Rules) -> TriggerRules:
        """Return the trigger rules of an applied read plan."""
        types = {
            f"{view.name}:{feature.name}": from_feast_name(feature.type)
            for view in rules.plan.views
            for feature in view.features
        }
        return cls(rules.plan.definitions, types, rules.plan.definitions_version)

    def _listen(self, trigger: Trigger) -> None:
        match trigger.on:
            case OnEnter(segment):
                self._on["enter"].setdefault(segment, []).append(trigger)
            case OnExit(segment):
                self._on["exit"].setdefault(segment, []).append(trigger)
            case OnEvent(event):
                self._on_event.setdefault(event.event, []).append(trigger)

    def _features(self) -> set[str]:
        """Return the features that anything here reads."""
        read = {feature for segment in self._program.segments.values() for feature in _features_of(segment)}
        return read | payload_features(self.triggers.values())

    def on(self, change: MembershipChange, segment: str) -> Iterable[Trigger]:
        """Return the triggers that a transition starts, by name."""
        return self._on[change.value].get(segment, ())

    def on_event(self, name: str) -> Iterable[Trigger]:
        """Return the triggers that listen to an event, by name; their `where` is not looked at."""
        return self._on_event.get(name, ())

    def reads_event(self, name: str, event: str) -> bool:
        """Return whether the answer of a segment, hidden or not, can change when such an event comes."""
        return event in self._reads[name][1]

    def groups_of_views(self, views: Iterable[str]) -> tuple[str, ...]:
        """Return the groups with a segment that reads one of the feature views."""
        wanted = set(views)
        return tuple(
            group for group, names in self.groups.items() if any(self._reads[name][0] & wanted for name in names)
        )

    def view(self, features: EntityFeatures, state: EventState) -> View:
        """Return what the features and events of an entity say."""
        return View(features, self.events.read(state))

    def look(self, group: str, view: View, at: int) -> tuple[list[str], int]:
        """Return which segments of a group are true at an instant, and until when at least all of them stay so."""
        until, found = FOREVER, []
        for name, check, _ in self._checks_of[group]:
            holds, lasts = check(view, at)
            if holds:
                found.append(name)
            if lasts < until:
                until = lasts
        return found, until

    def look_after(self, event: str, members: Collection[str], due: int, view: View, at: int) -> tuple[list[str], int]:
        """Return the same after one more event of a name, where ``members`` are those of before, until ``due``.

        Whoever is a member of what the event can only begin stays one, and for no shorter a time; and the other way
        round. These are not evaluated; so the instant may come early.
        """
        until, found = due, []
        for name, check, does in self._checks_of[event]:
            if name in members:
                if does is Effect.RISES:
                    found.append(name)
                    continue
            elif does is Effect.FALLS:
                continue
            holds, lasts = check(view, at)
            if holds:
                found.append(name)
            if lasts < until:
                until = lasts
        return found, until

    def check(self, name: str, view: View, at: int) -> tuple[bool, int]:
        """Return whether a segment, hidden or not, is true at an instant, and until when at least it stays so."""
        return self._checks.segment(name)(view, at)


def _reads(program: Program) -> dict[str, tuple[frozenset[str], frozenset[str]]]:
    """Return by segment the feature views and the events that it reads, itself or through other segments."""
    found: dict[str, tuple[frozenset[str], frozenset[str]]] = {}
    for name in program.order:
        read = dependencies(program.segments[name].when)
        views: frozenset[str] = frozenset(feature.partition(":")[0] for feature in read.features).union(
            *(found[one][0] for one in read.segments)
        )
        events = read.events.union(*(found[one][1] for one in read.segments))
        found[name] = views, events
    return found


def _groups(program: Program, reads: Mapping[str, tuple[frozenset[str], frozenset[str]]]) -> dict[str, frozenset[str]]:
    groups: dict[str, set[str]] = {}
    for name in program.names:
        for event in reads[name][1] or (NO_EVENT,):
            groups.setdefault(event, set()).add(name)
    return {group: frozenset(groups[group]) for group in sorted(groups)}


def _features_of(segment: Segment) -> frozenset[str]:
    return dependencies(segment.when).features


def _fingerprint(definitions: Mapping[str, Any]) -> int:
    content = [definitions["segments"], definitions.get("triggers")]
    return int.from_bytes(blake2b(orjson.dumps(content, option=orjson.OPT_SORT_KEYS), digest_size=7).digest(), "big")
