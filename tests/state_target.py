"""The event state as a target: the events of a scenario, delivered piecemeal, in disorder and again, then read."""

from __future__ import annotations

import random
from dataclasses import replace

from rules_engine.events.state.encoding import encode_piece, encode_state, named_pieces
from rules_engine.events.state.entity_state import EventState, empty_state, update
from rules_engine.events.state.kept_events import StateEvents
from rules_engine.events.state.outlook import read_outlook
from rules_engine.events.state.pruning import prune
from rules_engine.events.state.reading import StateLayout, StateReader
from rules_engine.events.state.requirements import DEFAULT_BOUND, DEFAULT_PIECE, StateRequirements, requirements_of
from rules_engine.events.state.waiting import decode_current, with_pieces
from rules_engine.rules.changes import changes_at
from rules_engine.rules.evaluate import Evaluation
from rules_engine.rules.inputs import Inputs
from rules_engine.rules.predicates import Truth
from rules_engine.rules.walk import mixes_events, walk
from rules_engine.targets.index.foreseen import Foreseen
from rules_engine.targets.index.rule_index import RuleIndex
from rules_engine.targets.stepwise.outlooks import Outlooks
from rules_engine.testing import CONDITION, Scenario

#: Later than any event of the tests may come.
ANY_LATENESS = 10**18


def encode_whole(state: EventState, requirements: StateRequirements) -> bytes:
    """Return a state with its pieces, as the store gives them together."""
    pieces = [encode_piece(*named) for named in named_pieces(state, requirements).values()]
    return with_pieces(encode_state(state, requirements), pieces)


def read_through_state(scenario: Scenario, seed: int = 0, bound: int = DEFAULT_BOUND) -> StateReader:
    """Keep the scenario's events as a worker would, in an order that the seed decides, and read them at its now.

    The seed decides too after how many events there are pieces.
    """
    piece = (1, 2, 3, DEFAULT_PIECE)[seed % 4]
    requirements = requirements_of(scenario.program, bound=bound, lateness=ANY_LATENESS, piece=piece)
    chance = random.Random(seed)
    state, waiting = empty_state(requirements), [*scenario.inputs.events, *scenario.inputs.events[:3]]
    chance.shuffle(waiting)
    while waiting:
        batch, waiting = waiting[:3], waiting[3:]
        state = update(state, batch, requirements)
        # Nobody reads before the scenario's now, so no instant up to it is too late to prune at.
        state = prune(state, requirements, scenario.now - chance.choice((0, 1, 10**9)))
        state = decode_current(encode_whole(state, requirements), requirements)
    settling = replace(requirements, lateness=chance.choice((0, 1, 10**9, ANY_LATENESS)))
    return StateReader(prune(state, settling, scenario.now), StateLayout(requirements))


def inputs_through_state(scenario: Scenario, seed: int = 0) -> Inputs:
    """The scenario's inputs with what the state kept in the place of the events."""
    return replace(scenario.inputs, events=StateEvents(read_through_state(scenario, seed)))


def outlook_through_state(scenario: Scenario, since: int, seed: int = 0) -> tuple[Outlooks, bytes]:
    """The outlook, from an instant on, of what the state kept of the scenario's events."""
    reader = read_through_state(scenario, seed)
    outlooks = Outlooks(scenario.program, StateLayout(reader.requirements))
    return outlooks, outlooks.of(reader.state, since)


def foreseen_through_state(scenario: Scenario) -> Foreseen | StateReader:
    """Return what the outlook of the scenario's events says; the state itself where an outlook cannot tell.

    It cannot where what events say is compared with something else.
    """
    conditions = [node for segment in scenario.program.segments.values() for node in walk(segment.when)]
    if any(map(mixes_events, conditions)):
        return read_through_state(scenario)
    outlooks, data = outlook_through_state(scenario, scenario.now)
    outlook = read_outlook(data, outlooks.stamp, len(outlooks.conditions))
    assert outlook is not None
    return Foreseen(outlooks.places, outlook.answers, outlook)


def truth_through_state(scenario: Scenario) -> Truth:
    """The plain evaluator's answer on the state, after checking that the index gives the same on it."""
    reader = read_through_state(scenario)
    inputs = replace(scenario.inputs, events=StateEvents(reader))
    truth = Evaluation(scenario.program, inputs, scenario.now).segment(CONDITION)
    matched = RuleIndex(scenario.program).match(replace(inputs, events=()), scenario.now, [CONDITION], events=reader)
    assert matched == ({CONDITION} if truth is True else frozenset()), matched
    return truth


def change_through_state(scenario: Scenario) -> int | None:
    """When the answer on the state changes by time alone."""
    when = scenario.program.segment(CONDITION).when
    return changes_at(scenario.program, when, inputs_through_state(scenario), scenario.now)
