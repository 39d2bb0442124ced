"""Thousands of events of one user, late and repeated ones among them: what is kept answers as the whole log does."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice

import pytest

from rules_engine.clock import DAY, HOUR, MINUTE, SECOND
from rules_engine.events.state.entity_state import EventState, empty_state, update
from rules_engine.events.state.kept_events import StateEvents
from rules_engine.events.state.outlook import FALSE, FOREVER, TRUE, UNKNOWN, read_outlook, unpacked
from rules_engine.events.state.pruning import prune
from rules_engine.events.state.reading import StateLayout, StateReader
from rules_engine.events.state.requirements import StateRequirements, requirements_of
from rules_engine.events.state.waiting import decode_current
from rules_engine.rules.catalog import Catalog, EventType
from rules_engine.rules.evaluate import Evaluation
from rules_engine.rules.inputs import Event, Inputs, in_order
from rules_engine.rules.load import load_text
from rules_engine.rules.types import FLOAT, INTEGER, STRING
from rules_engine.targets.index.rule_index import RuleIndex
from rules_engine.targets.stepwise.outlooks import Outlooks
from tests.state_target import encode_whole

START = 1_700_000_000 * SECOND
NAMES = ("view", "view", "view", "buy", "cart")
PROPERTIES = {"price": FLOAT, "step": INTEGER, "sku": STRING}
CATALOG = Catalog(events={name: EventType(name, PROPERTIES) for name in NAMES})
CONDITIONS = [
    "{did: view, within: 6d, count: {at_least: %(half)d}}",
    "{did: view, within: 6d, count: {between: [%(tenth)d, %(half)d]}}",
    "{did: view, within: 6d, where: {sku: a}, count: {less_than: 400}}",
    "{did_not: cart, within: 6h}",
    "{sum: {event: buy, of: price}, within: 5d, at_least: %(tenth)d}",
    "{sum: {event: view, of: step, where: {sku: {in: [a, b]}}}, within: 6d, less_than: 0}",
    "{avg: {event: view, of: price}, within: 6d, greater_than: 0.55}",
    "{min: {event: view, of: price}, within: 1d, at_most: 0.01}",
    "{max: {event: buy, of: step}, within: 6d, equals: 50}",
    "{distinct: {event: view, of: price}, within: 6d, at_least: %(tenth)d}",
    "{distinct: {event: cart, of: sku}, within: 6h, at_least: 3}",
    "{first: {event: view, of: sku}, within: 6d, equals: b}",
    "{last: {event: buy, of: sku}, within: 6d, equals: a}",
    "{sum: {event: buy, of: price}, within: ever, at_least: %(tenth)d}",
    "{sequence: [{did: view}, {did: cart, within: 10m}, {did: buy, within: 1m, where: {sku: a}}], within: 6d}",
    "{sequence: [{did: cart}, {did_not: buy, within: 3h}], within: 6d}",
    "{sequence: [{did: cart}, {did: buy, within: 2m}, {did_not: view, within: 20m}], match_on: sku, within: 4d}",
    "{sequence: [{did: buy}, {did_not: cart, within: 2h}], within: 6d, anchor: latest}",
]


def drawn(chance: random.Random, number: int) -> list[Event]:
    """Return the events of six days in the order in which they come: some late, some twice."""
    span, events = 6 * DAY, []
    at = START
    for place in range(number):
        at += chance.randrange(2 * span // number)
        sku, step = chance.choice("abcd"), chance.choice((-50, -1, 0, 1, 50))
        event = Event(chance.choice(NAMES), at, f"e{place}", {"price": chance.random(), "step": step, "sku": sku})
        events.append(event if chance.random() < 0.9 else Event(event.name, at, event.id, {"sku": sku}))
    late = [events.pop(chance.randrange(len(events))) for _ in range(number // 50)]
    for event in [*late, *chance.sample(events, number // 50)]:
        place = next((place for place, other in enumerate(events) if other.at > event.at + HOUR), len(events))
        events.insert(place, event)
    return events


def kept_of(events: list[Event], requirements: StateRequirements, chance: random.Random) -> EventState:
    """Return the state after events that came some at a time; now and then it is pruned, and stored and read."""
    state, waiting = empty_state(requirements), iter(events)
    while some := list(islice(waiting, chance.randrange(1, 300))):
        state = update(state, some, requirements)
        if chance.random() < 0.6:
            state = prune(state, requirements, max(event.at for event in some))
        if chance.random() < 0.3:
            state = decode_current(encode_whole(state, requirements), requirements)
    return state


def later(chance: random.Random, now: int) -> Iterator[int]:
    yield from (now, now + 1, now + MINUTE, now + HOUR)
    yield from (now + chance.randrange(7 * DAY) for _ in range(6))


@pytest.mark.parametrize(("number", "piece"), [(900, 32), (3_000, 100), (6_000, 512)])
def test_many_events_are_answered_as_the_whole_log(number: int, piece: int) -> None:
    chance = random.Random(number)
    sizes = {"half": number // 3, "tenth": number // 10}
    text = "---\n".join(f"segment: s{place:02d}\nwhen: {when % sizes}\n" for place, when in enumerate(CONDITIONS))
    program = load_text(text, CATALOG).program
    requirements = requirements_of(program, piece=piece, lateness=2 * DAY)
    events = drawn(chance, number)
    now = max(event.at for event in events)
    state = kept_of(events, requirements, chance)
    assert sum(len(kept.older.pieces) for kept in state.kept) > 3
    assert all(len(kept.ats) < 4 * piece + 300 for kept in state.kept)

    layout, log = StateLayout(requirements), in_order(events)
    reader, outlooks, index = StateReader(state, layout), Outlooks(program, layout), RuleIndex(program)
    outlook = read_outlook(outlooks.of(state, now), outlooks.stamp, len(outlooks.conditions))
    assert outlook is not None
    assert outlook.ends_at == FOREVER or len(outlook.changes(now)) >= 4, "it tells at least the next changes"
    answers = {True: TRUE, False: FALSE, None: UNKNOWN}
    places = {program.segment(name).when: name for name in program.names}
    seen = set()
    for at in later(chance, now):
        whole = Evaluation(program, Inputs(events=log), at)
        kept = Evaluation(program, Inputs(events=StateEvents(reader)), at)
        truths = {name: whole.segment(name) for name in program.names}
        assert {name: kept.segment(name) for name in program.names} == truths, at
        members = {name for name, truth in truths.items() if truth}
        assert index.match(Inputs(), at, events=reader) == members, at
        if at < outlook.ends_at:
            foreseen = zip(outlooks.conditions, unpacked(outlook.at(at)), strict=False)
            assert {places[when]: answer for when, answer in foreseen if when in places} == {
                name: answers[truth] for name, truth in truths.items()
            }, at
        seen |= set(truths.items())
    assert len(seen) > 1.4 * len(CONDITIONS), "most answers change"
