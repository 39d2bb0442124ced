"""Random definitions, users and logs, as for every other target: the event state answers as the log does."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from rules_engine.errors import DefinitionError
from rules_engine.rules.changes import changes_at
from rules_engine.rules.evaluate import Evaluation
from rules_engine.targets.index.rule_index import RuleIndex
from rules_engine.testing import CONDITION, Scenario
from tests.property.strategies import Example, examples
from tests.state_target import inputs_through_state, read_through_state


def load(example: Example) -> Scenario:
    try:
        return Scenario(example.condition, **example.data())
    except DefinitionError:  # always or never true: refused on load, so no target sees it
        assume(False)
        raise


@given(examples(largest=20), st.integers(0, 2**32))
def test_answers_and_changes(example: Example, seed: int) -> None:
    scenario = load(example)
    inputs = inputs_through_state(scenario, seed)
    on_log, on_state = (Evaluation(scenario.program, one, scenario.now) for one in (scenario.inputs, inputs))
    for name in scenario.program.names:
        assert on_state.segment(name) is on_log.segment(name)
    when = scenario.program.segment(CONDITION).when
    assert changes_at(scenario.program, when, inputs, scenario.now) == scenario.changes_at()


@given(examples(largest=20), st.integers(0, 2**32))
def test_the_index_on_the_state(example: Example, seed: int) -> None:
    scenario = load(example)
    index, reader = RuleIndex(scenario.program), read_through_state(scenario, seed)
    matched = index.match(scenario.inputs, scenario.now, events=reader)
    assert matched == index.match(scenario.inputs, scenario.now)
