"""Every conformance case through the SQL target, on DuckDB: one by one, and together in columns of several types."""

from __future__ import annotations

from collections import defaultdict

import pytest

from rules_engine.rules.evaluate import Evaluation
from rules_engine.targets.sql import evaluate_duckdb
from rules_engine.testing import CONDITION, Scenario
from tests.conformance.cases import Case, load_cases
from tests.sql_engines import Question, merge

CASES = load_cases()
TOGETHER = 60


def scenario(case: Case) -> Scenario:
    return Scenario(case.condition, **case.data())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_answer(case: Case) -> None:
    asked = scenario(case)
    answers = evaluate_duckdb(asked.program, [("someone", asked.inputs)], asked.now, [CONDITION])
    assert answers["someone"][CONDITION] is case.expect


def together() -> list[Question]:
    by_instant: dict[object, list[Scenario]] = defaultdict(list)
    for case in CASES:
        by_instant[case.now].append(scenario(case))
    return [
        merge(scenarios[start : start + TOGETHER])
        for scenarios in by_instant.values()
        for start in range(0, len(scenarios), TOGETHER)
    ]


@pytest.mark.parametrize("question", together(), ids=lambda question: f"{len(question.users)} users")
def test_every_condition_for_every_user(question: Question) -> None:
    users = [(str(position), inputs) for position, inputs in enumerate(question.users)]
    answers = evaluate_duckdb(question.program, users, question.now, question.segments)
    for entity, inputs in users:
        plain = Evaluation(question.program, inputs, question.now)
        expected = {name: plain.segment(name) for name in question.segments}
        assert answers[entity] == expected
