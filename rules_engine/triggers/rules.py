"""The definitions, compiled for the machine of triggers: which answers can change, and because of what."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import orjson

from rules_engine.features.online.selection import EntityFeatures
from rules_engine.rules.nodes import Segment
from rules_engine.rules.program import Program
from rules_engine.rules.segments.codec import decode_program
from rules_engine.rules.settings.codec import decode_frequency
from rules_engine.rules.settings.nodes import Frequency
from rules_engine.rules.triggers.codec import decode_triggers
from rules_engine.rules.triggers.nodes import OnEnter, OnEvent, OnExit, Trigger, hidden_segments, payload_features
from rules_engine.rules.types import ValueType, from_feast_name
from rules_engine.rules.walk import dependencies
from rules_engine.sdk.event_rules import EventRules
from rules_engine.targets.stepwise.compile import Checks
from rules_engine.targets.stepwise.indexed import WORTH, looks_at
from rules_engine.targets.stepwise.view import FOREVER, View
from rules_engine.triggers.growth import Bounds
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
        the definitions in the form of the read plan.
    types
        the types of the features, by ``VIEW:NAME``.
    version
        of the definitions, for transitions and steps.
    worth
        how many conditions there have to be for each operand before a group is looked at through the index.

    Attributes
    ----------
    fingerprint
        differs for different definitions.
    names
        the segments.
    triggers
        by name.
    features
        the features (``VIEW:NAME``) that segments and triggers read.
    events
        the requirements of event states, and the way to read them.
    groups
        the segments that can change when an event comes, by its name; under :data:`NO_EVENT` those that read no events.
        Each group is evaluated as a whole.
    frequency
        the limits on how often triggers fire together.
    cancellable
        the triggers with ``cancel_if``.
    """

    def __init__(
        self,
        definitions: Mapping[str, Any],
        types: Mapping[str, ValueType | None] | None = None,
        version: str = "",
        *,
        worth: float = WORTH,
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
            group: {name: self._checks.segment(name) for name in sorted(names)} for group, names in self.groups.items()
        }
        self._bounds = Bounds(program, self.groups)
        self._looks = looks_at(program, self.events.layout, self.groups, worth)
        self.features = tuple(sorted(self._features()))
        self.fingerprint = _fingerprint(definitions)
        self._beyond: tuple[Collection[str], frozenset[str]] = ((), self.names)
        self.frequency = decode_frequency(definitions)
        self._limits = {
            name: tuple(limit for limit in self.frequency if limit.concerns(trigger.tags))
            for name, trigger in self.triggers.items()
        }
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
        """Return all features that segments and triggers read."""
        read = {feature for segment in self._program.segments.values() for feature in _features_of(segment)}
        return read | payload_features(self.triggers.values())

    def names_beyond(self, swept: Collection[str]) -> frozenset[str]:
        """Return the segments that are not among some; those of the last question are remembered."""
        previous, beyond = self._beyond
        if previous is not swept:
            beyond = self.names.difference(swept)
            self._beyond = swept, beyond
        return beyond

    def limits_of(self, trigger: Trigger) -> tuple[Frequency, ...]:
        """Return the limits by which the firings of a trigger are counted."""
        return self._limits[trigger.name]

    def on(self, change: MembershipChange, segment: str) -> Iterable[Trigger]:
        """Return the triggers that a transition starts, by name."""
        return self._on[change.value].get(segment, ())

    def on_event(self, name: str) -> Iterable[Trigger]:
        """Return the triggers that listen to an event of this name, whatever their `where` says."""
        return self._on_event.get(name, ())

    def reads_event(self, name: str, event: str) -> bool:
        """Return whether the answer of a segment, hidden or not, can change when such an event comes."""
        return event in self._reads[name][1]

    def groups_of_views(self, views: Iterable[str]) -> tuple[str, ...]:
        """Return the groups with a segment that reads one of the feature views."""
        changed = set(views)
        return tuple(
            group for group, names in self.groups.items() if any(self._reads[name][0] & changed for name in names)
        )

    def view(self, features: EntityFeatures, state: EventState) -> View:
        """Return the features and events of an entity, for evaluation."""
        return View(features, self.events.read(state))

    def look(
        self, group: str, view: View, at: int, names: Collection[str] | None = None
    ) -> tuple[Collection[str], int]:
        """Return the true segments of a group at an instant, and an instant until which no segment of it changes.

        With ``names`` only these segments of the group are looked at.
        """
        checks, indexed = self._checks_of[group], self._looks.get(group)
        if indexed is not None and names is None and view.reader.is_whole:
            return indexed(view, at)
        until, holding = FOREVER, []
        for name in checks if names is None else names:
            holds, lasts = checks[name](view, at)
            if holds:
                holding.append(name)
            if lasts < until:
                until = lasts
        return holding, until

    def is_indexed(self, group: str) -> bool:
        """Say whether a group has so many segments that looks at it go through the rule index."""
        return group in self._looks

    def open_names(
        self, group: str, events: Collection[str], members: Collection[str], holding: Collection[str]
    ) -> Collection[str]:
        """Return the segments of a group whose answers some events may have changed in between.

        Parameters
        ----------
        group
            the name of the event after which is asked.
        events
            the names of all events that come.
        members
            the segments that were true before the event.
        holding
            the segments that are true after all events.
        """
        rise, fall = self._bounds.of(group, (group,))
        all_rise, all_fall = self._bounds.of(group, events)
        inside = self.groups[group].intersection(members)
        stay_true = rise | all_fall.intersection(holding)
        stay_false = fall | all_rise.difference(holding)
        return (inside - stay_true) | (self.groups[group] - inside - stay_false)

    def check(self, name: str, view: View, at: int) -> tuple[bool, int]:
        """Say whether a segment, hidden or not, is true at an instant, and until which instant at least it stays so."""
        return self._checks.segment(name)(view, at)


def _reads(program: Program) -> dict[str, tuple[frozenset[str], frozenset[str]]]:
    """Return the feature views and the events that each segment reads, itself or through other segments."""
    reads: dict[str, tuple[frozenset[str], frozenset[str]]] = {}
    for name in program.order:
        read = dependencies(program.segments[name].when)
        views: frozenset[str] = frozenset(feature.partition(":")[0] for feature in read.features).union(
            *(reads[segment][0] for segment in read.segments)
        )
        events = read.events.union(*(reads[segment][1] for segment in read.segments))
        reads[name] = views, events
    return reads


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
    content += [definitions["frequency"]] if "frequency" in definitions else []
    return int.from_bytes(blake2b(orjson.dumps(content, option=orjson.OPT_SORT_KEYS), digest_size=7).digest(), "big")
