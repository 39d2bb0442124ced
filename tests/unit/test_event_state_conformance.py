"""Every conformance case, with its events through the event state."""

from __future__ import annotations

import pytest

from rules_engine.testing import Scenario
from tests.conformance.cases import Case, load_cases
from tests.state_target import change_through_state, truth_through_state

CASES = load_cases()
CHANGES = [case for case in CASES if case.judges_change]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_answer(case: Case) -> None:
    assert truth_through_state(Scenario(case.condition, **case.data())) is case.expect


@pytest.mark.parametrize("case", CHANGES, ids=str)
def test_changes_at(case: Case) -> None:
    scenario = Scenario(case.condition, **case.data())
    assert change_through_state(scenario) == scenario.changes_at()
