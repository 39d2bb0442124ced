"""Answers with how long they last, on random definitions, users and logs: true, and never later than they may be."""

from __future__ import annotations

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rules_engine.clock import LAST_INSTANT
from rules_engine.errors import DefinitionError
from rules_engine.events.state.reading import StateLayout
from rules_engine.features.online.selection import EntityFeatures
from rules_engine.rules.changes import candidates, clocks_of, first_change, reachable
from rules_engine.rules.evaluate import Evaluation
from rules_engine.rules.predicates import Truth
from rules_engine.targets.stepwise.compile import Checks
from rules_engine.targets.stepwise.indexed import IndexedLooks
from rules_engine.targets.stepwise.view import View
from rules_engine.testing import CONDITION, Scenario
from tests.property.strategies import Example, examples
from tests.state_target import read_through_state

#: Looks that are allowed until an answer has really changed.
LOOKS = 60


def load(example: Example) -> Scenario:
    try:
        return Scenario(example.condition, **(example.data() | {"context": {}}))
    except DefinitionError:  # always or never true: refused on load
        assume(False)
        raise


def change_of(scenario: Scenario, wanted: bool) -> int | None:
    """When it first changes whether the answer is the wanted one."""
    conditions = reachable(scenario.program, [scenario.program.segment(CONDITION).when])

    def answer(at: int) -> Truth:
        return Evaluation(scenario.program, scenario.inputs, at).segment(CONDITION) is wanted

    instants = candidates(conditions, scenario.inputs, scenario.now)
    return first_change(answer, instants, scenario.now, clocks_of(conditions, scenario.inputs))


@settings(max_examples=settings().max_examples * 3)
@given(examples(largest=12), st.integers(0, 2**32), st.booleans())
def test_an_answer_lasts_as_long_as_it_says(example: Example, seed: int, wanted: bool) -> None:
    scenario = load(example)
    reader = read_through_state(scenario, seed)
    inputs = scenario.inputs
    view = View(EntityFeatures("somebody", inputs.features, inputs.updated_at, inputs.expires_at), reader)
    check = Checks(scenario.program, StateLayout(reader.requirements)).segment(CONDITION, wanted)
    truth = Evaluation(scenario.program, inputs, scenario.now).segment(CONDITION) is wanted
    change = change_of(scenario, wanted)
    at = scenario.now
    for _ in range(LOOKS):  # look again whenever it says so
        holds, until = check(view, at)
        assert holds is truth
        assert until > at
        if until > LAST_INSTANT:
            assert change is None
            return
        if until == change:
            assert check(view, until)[0] is not truth
            return
        assert change is None or until < change
        at = until


@settings(max_examples=settings().max_examples * 3)
@given(examples(largest=12), st.integers(0, 2**32))
def test_many_segments_last_as_long_as_the_index_says(example: Example, seed: int) -> None:
    scenario = load(example)
    program, inputs = scenario.program, scenario.inputs
    reader = read_through_state(scenario, seed)
    assume(reader.is_whole)
    view = View(EntityFeatures("somebody", inputs.features, inputs.updated_at, inputs.expires_at), reader)
    look = IndexedLooks(program, StateLayout(reader.requirements)).of(program.names, worth=0)
    assert look is not None
    at = scenario.now
    truth = true_at(scenario, at)
    conditions = reachable(program, [segment.when for segment in program.segments.values()])
    instants = candidates(conditions, inputs, at)
    change = first_change(lambda now: true_at(scenario, now), instants, at, clocks_of(conditions, inputs))
    for _ in range(LOOKS):
        found, until = look(view, at)
        assert set(found) == truth
        assert until > at
        if until > LAST_INSTANT:
            assert change is None
            return
        if until == change:
            return
        assert change is None or until < change
        at = until


def true_at(scenario: Scenario, at: int) -> set[str]:
    evaluation = Evaluation(scenario.program, scenario.inputs, at)
    return {name for name in scenario.program.names if evaluation.segment(name) is True}
