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
