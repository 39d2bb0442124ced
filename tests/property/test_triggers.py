"""The machine of triggers says what brute force over the whole log says, however its steps are cut and repeated."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rules_engine.clock import from_micros, parse_duration, parse_time_of_day, to_micros
from rules_engine.errors import DefinitionError
from rules_engine.events.state.encoding import decode_state, encode_state
from rules_engine.events.state.entity_state import empty_state, update
from rules_engine.events.state.pruning import prune
from rules_engine.features.online.selection import EntityFeatures
from rules_engine.rules.aggregates import Aggregate
from rules_engine.rules.inputs import Event
from rules_engine.rules.load import Definitions
from rules_engine.rules.nodes import EventAggregate, EventMatch, FeatureRef, Predicate
from rules_engine.rules.settings.nodes import Consent, Frequency, Settings, SinkRef
from rules_engine.rules.triggers.nodes import (
    EVER,
    Cap,
    Cause,
    Constant,
    EventProperty,
    OnEnter,
    OnEvent,
    OnExit,
    PayloadValue,
    QuietHours,
    QuietPolicy,
    Trigger,
)
from rules_engine.rules.types import FLOAT, STRING
from rules_engine.sdk.rules import encode_definitions
from rules_engine.targets.stepwise.indexed import WORTH
from rules_engine.testing import Scenario
from rules_engine.triggers.encoding import decode_record, encode_record
from rules_engine.triggers.machine import Machine
from rules_engine.triggers.record import Outgoing, Record, Transition
from rules_engine.triggers.rules import TriggerRules
from tests.property.leaves import Draw, Vocabulary, maybe, one_of
from tests.property.strategies import draw_condition, draw_event, draw_features, draw_vocabulary
from tests.property.triggers import CONSENT, LENGTHS, draw_limits, draw_trigger
from tests.reference_triggers import Data, Reference
from tests.reference_values import length

ENTITY = "somebody"
SINK = SinkRef("stream", "actions")


# --- drawing --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plot:
    """Definitions, a user, and steps.

    `("event", event, arrival)`, `("timers", until)`, `("look", at, features)`, `("define", at, segments, triggers)`.
    """

    segments: Mapping[str, Any]
    triggers: Mapping[str, Any]
    data: Data
    steps: Sequence[tuple[Any, ...]]
    swept: frozenset[str]
    now: datetime
    limits: Sequence[tuple[int, timedelta, str | None]] = ()


def instant_of(step: tuple[Any, ...]) -> datetime:
    return step[2] if step[0] == "event" else step[1]


def whole_seconds(value: Any) -> Any:
    """Return a feature's value as Feast keeps it."""
    return value.replace(microsecond=0) if isinstance(value, datetime) else value


def draw_arrivals(draw: Draw, words: Vocabulary) -> list[tuple[Any, ...]]:
    """Draw events with the instants at which they arrive: late, early, at equal instants, again."""
    arrivals: list[tuple[Any, ...]] = []
    for place in range(draw(st.integers(2, 9))):
        happened = {**draw_event(draw, words), "event_id": f"e{place}"}
        if not isinstance(happened.get("due"), datetime | None):
            del happened["due"]  # brute force knows no declared types: to it, what is no time is there as well
        for _ in range(2 if maybe(draw, 20) else 1):
            delay = length(one_of(draw, LENGTHS)) * one_of(draw, (0, 0, 0, 0, 1, 1, 0.5, -1, -0.5))
            arrivals.append(("event", happened, happened["at"] + delay))
    arrivals.sort(key=lambda step: step[2])
    return arrivals


def draw_definitions(draw: Draw, words: Vocabulary) -> tuple[dict[str, Any], dict[str, Any]]:
    segments: dict[str, Any] = {}
    names = ("first", "second", "third")
    for name in names[draw(st.integers(0, 1)) :][: draw(st.integers(1, 3))]:
        segments[name] = draw_condition(draw, words, sorted(segments), 2)
    triggers = ("a", "b", "c")[: draw(st.integers(1, 3))]
    return segments, {name: draw_trigger(draw, words, sorted(segments)) for name in triggers}


@st.composite
def plots(draw: Draw) -> Plot:
    words = draw_vocabulary(draw, events=True, exact=True)
    segments, triggers = draw_definitions(draw, words)

    def draw_data() -> Data:
        drawn = {**draw_features(draw, words), CONSENT: one_of(draw, (True, True, False, None))}
        features = {name: whole_seconds(value) for name, value in drawn.items()}
        views = [view for view in ("u", "v") if maybe(draw, 40)]
        observed = {view: draw(words.instants(future=False)) for view in views}
        ttl = {view: one_of(draw, words.durations) for view in views if maybe(draw, 80)}
        return Data(features, {**words.types, CONSENT: "Bool"}, observed, ttl)

    data = draw_data()
    steps = draw_arrivals(draw, words)
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(1, len(steps)))
        at = instant_of(steps[place - 1]) + length(one_of(draw, LENGTHS)) * one_of(draw, (0, 0, 1))
        if maybe(draw, 40):  # timers wait for what arrived before them
            following = steps[place:] or [("timers", at)]
            steps.insert(place, ("timers", min([at, *map(instant_of, following)])))
            continue
        # The ttl of a view is a definition, and does not change under way.
        changed = replace(draw_data(), ttl=data.ttl) if maybe(draw, 70) else None
        steps.insert(place, ("look", at, changed))
    if maybe(draw, 30):
        place = draw(st.integers(1, len(steps)))
        steps.insert(place, ("define", instant_of(steps[place - 1]), *draw_definitions(draw, words)))
    last = max(map(instant_of, steps))
    steps.append(("timers", last + length(one_of(draw, LENGTHS)) * 2))
    swept = [name for name in segments if maybe(draw, 70)]
    return Plot(segments, triggers, data, steps, frozenset(swept), words.now, draw_limits(draw))


# --- definitions ----------------------------------------------------------------------------------------------------


def scenario(plot: Plot, segments: Mapping[str, Any], triggers: Mapping[str, Any], data: Data) -> Scenario:
    """Everything that is a condition, parsed in one go."""
    conditions = dict(segments)
    for name, trigger in triggers.items():
        conditions |= {f"{name}_{key}": trigger[key] for key in ("if", "cancel_if") if key in trigger}
        if trigger["on"][0] == "event":
            conditions[f"{name}_on"] = {**trigger["on"][1], "within": "ever"}
    events = [step[1] for step in plot.steps if step[0] == "event"]
    first, *_ = conditions.values()
    types = {"types": data.types, "updated_at": data.updated_at, "ttl": data.ttl}
    try:
        return Scenario(first, data.features, {}, events, plot.now, segments=conditions, **types)
    except DefinitionError:  # always or never true: refused on load
        assume(False)
        raise


def rules_of(plot: Plot, segments: Mapping[str, Any], triggers: Mapping[str, Any]) -> TriggerRules:
    parsed = scenario(plot, segments, triggers, plot.data).program.segments
    nodes = {
        name: trigger_of(name, trigger, {key: one.when for key, one in parsed.items()})
        for name, trigger in triggers.items()
    }
    chosen = {name: parsed[name] for name in segments}
    worth = 0 if len(plot.steps) % 2 else WORTH  # half of the plots look through the index at everything
    limits = tuple(Frequency(most, micros(per), tag) for most, per, tag in plot.limits)
    named = {"segment": chosen, "trigger": nodes, "project": {"": Settings(frequency=limits)}}
    return TriggerRules(encode_definitions(Definitions(named)), worth=worth)


def trigger_of(name: str, trigger: Mapping[str, Any], parsed: Mapping[str, Any]) -> Trigger:
    hours = trigger.get("quiet")
    return Trigger(
        name=name,
        on=cause_of(name, trigger["on"], parsed),
        send=(SINK,),
        if_=parsed.get(f"{name}_if"),
        delay=micros(trigger.get("delay", timedelta())),
        cancel_if=parsed.get(f"{name}_cancel_if"),
        cooldown=micros(trigger["cooldown"]) if "cooldown" in trigger else None,
        cap=Cap(trigger["cap"][0], micros(trigger["cap"][1])) if "cap" in trigger else None,
        priority=trigger.get("priority", 0),
        tags=tuple(trigger.get("tags", ())),
        quiet_hours=None if hours is None else quiet_of(hours),
        consent=Consent("mail", FeatureRef("u", "consent")) if "consent" in trigger else None,
        holdout=round(trigger.get("holdout", 0) * 100),
        holdout_seed=name,
        payload=tuple((key, payload_value(spec)) for key, spec in trigger.get("payload", {}).items()),
    )


def cause_of(name: str, on: tuple[str, Any], parsed: Mapping[str, Any]) -> Cause:
    if on[0] == "event":
        counted = parsed[f"{name}_on"]
        assert isinstance(counted, Predicate)
        assert isinstance(counted.operand, EventAggregate)
        return OnEvent(counted.operand.match)
    return OnEnter(on[1]) if on[0] == "enter" else OnExit(on[1])


def quiet_of(hours: Mapping[str, Any]) -> QuietHours:
    zone = hours["timezone"]
    timezone = zone if isinstance(zone, str) else FeatureRef(*zone["feature"].split(":"))
    times = parse_time_of_day(hours["from"]), parse_time_of_day(hours["to"])
    default = None if isinstance(zone, str) else zone.get("default")
    return QuietHours(*times, timezone, QuietPolicy(hours["policy"]), default)


def payload_value(spec: tuple[str, Any]) -> PayloadValue:
    form, what = spec
    if form == "value":
        return Constant(what)
    if form == "property":
        return EventProperty(what, STRING)
    if form == "feature":
        return FeatureRef(*what.split(":"))
    source = what[form]
    of_type = {"price": FLOAT, "sku": STRING, None: None}[source.get("of")]
    within = None if what["within"] == "ever" else parse_duration(what["within"])
    return EventAggregate(Aggregate(form), EventMatch(source["event"]), within, source.get("of"), of_type)


def micros(long: timedelta | None) -> int:
    return EVER if long is None else long // timedelta(microseconds=1)


# --- running --------------------------------------------------------------------------------------------------------


class Runner:
    """The machine over steps, as a worker would run it: in batches, stored in between, some of them twice."""

    def __init__(self, plot: Plot, rules: TriggerRules, seed: int) -> None:
        self.plot, self.rules = plot, rules
        self.chance = random.Random(seed)
        self.parsed = scenario(plot, plot.segments, plot.triggers, plot.data)
        self.log: list[Event] = []
        self.record, self.state = Record(), empty_state(rules.events.requirements)
        self.features = self.features_of(plot.data)
        self.told: list[Outgoing] = []

    def features_of(self, data: Data) -> EntityFeatures:
        inputs = scenario(self.plot, self.plot.segments, self.plot.triggers, data).inputs
        return EntityFeatures(ENTITY, inputs.features, inputs.updated_at, inputs.expires_at)

    def event_of(self, raw: Mapping[str, Any]) -> Event:
        return self.parsed._event(raw, 0)

    def run(self) -> None:
        waiting = list(enumerate(self.plot.steps))
        while waiting:
            size = self.chance.choice((1, 1, 2, 3, len(waiting)))
            batch, waiting = waiting[:size], waiting[size:]
            self.batch(batch)
            if self.chance.random() < 0.3:  # killed before it was acknowledged
                self.batch([step for step in batch if step[1][0] in ("event", "timers")])

    def batch(self, batch: Sequence[tuple[int, tuple[Any, ...]]]) -> None:
        machine, coming = self.machine(), list[Event]()
        for place, (number, step) in enumerate(batch):
            if step[0] == "event":
                if not coming:
                    coming = self.coming(batch[place:])
                    machine.expect(coming)
                self.log.append(coming.pop(0))
                machine.event(self.log[-1], to_micros(step[2]), (number, 0))
            elif step[0] == "define":
                self.commit(machine)
                self.rules = rules_of(self.plot, step[2], step[3])
                needs = self.rules.events.requirements
                self.state = update(empty_state(needs), self.log, needs)  # as `segments apply` builds it
                machine = self.machine()
            elif step[0] == "timers":
                machine.timers(to_micros(step[1]))
            else:
                if step[2] is not None:
                    machine.timers(to_micros(step[1]))
                    self.features = self.features_of(step[2])
                    self.commit(machine)
                    machine = self.machine()
                machine.look(to_micros(step[1]), "materialize")
            if machine.record.rules == self.rules.fingerprint:
                assert machine.record.next_due == machine.next_due
        self.commit(machine)

    def coming(self, batch: Sequence[tuple[int, tuple[Any, ...]]]) -> list[Event]:
        """Some of the events that come next in a batch, one at least, as a worker knows them."""
        steps = takewhile(lambda step: step[0] in ("event", "timers"), (step for _, step in batch))
        events = [self.event_of(step[1]) for step in steps if step[0] == "event"]
        return events[: self.chance.choice((1, 2, len(events)))]

    def machine(self) -> Machine:
        return Machine(self.rules, self.record, self.features, self.state, swept=self.plot.swept)

    def commit(self, machine: Machine) -> None:
        needs = self.rules.events.requirements
        self.told += machine.record.outbox
        self.record = decode_record(encode_record(machine.record)).published()
        assert self.record == machine.record.published()
        state = machine.state
        if self.record.at is not None and self.chance.random() < 0.5:
            state = prune(state, needs, self.record.at - self.chance.choice((0, 1, 60_000_000)))
        self.state = decode_state(encode_state(state, needs), needs)


def plain(one: Outgoing) -> tuple[Any, ...]:
    if isinstance(one, Transition):
        return one.change.value, one.segment, from_micros(one.at), one.cause, one.number
    reason = None if one.reason is None else one.reason.value
    payload = dict(one.payload)
    return one.state.value, one.trigger, one.cause, from_micros(one.at), from_micros(one.due), reason, payload


@settings(max_examples=200 if settings().max_examples == 100 else settings().max_examples)
@given(plots(), st.integers(0, 2**32))
def test_the_machine_does_what_brute_force_does(plot: Plot, seed: int) -> None:
    runner = Runner(plot, rules_of(plot, plot.segments, plot.triggers), seed)
    reference = Reference(ENTITY, plot.segments, plot.triggers, plot.data, plot.swept, plot.limits)
    for step in plot.steps:
        match step:
            case ("event", happened, arrival):
                reference.event(happened, arrival)
            case ("timers", until):
                reference.timers(until)
            case ("define", _, segments, triggers):
                reference.define(segments, triggers)
            case ("look", at, changed):
                reference.look(at, "materialize", changed)
    runner.run()
    assert [plain(one) for one in runner.told] == reference.told
    assert set(runner.record.members) == reference.members
