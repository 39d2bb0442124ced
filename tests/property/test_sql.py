"""The SQL target on DuckDB answers as the plain evaluator does: many random users and definitions in one query."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from rules_engine.clock import to_micros
from rules_engine.errors import UnsupportedError
from rules_engine.rules.evaluate import Evaluation
from rules_engine.rules.inputs import Inputs
from rules_engine.rules.program import Program
from rules_engine.targets.sql import evaluate_duckdb
from rules_engine.testing import CONDITION, Scenario
from tests.property import pools
from tests.property.leaves import Condition, Draw, Vocabulary, maybe, one_of
from tests.property.strategies import draw_any, draw_condition, draw_events, draw_features, draw_vocabulary

USERS, CONDITIONS = 6, 5
COUNTS: Counter[bool | None] = Counter()


@dataclass(frozen=True)
class Batch:
    """Several conditions and several users, of the same types."""

    conditions: Mapping[str, Condition]
    users: Sequence[Mapping[str, Any]]
    words: Vocabulary

    def program(self) -> Program:
        """All conditions, parsed against the events of all users."""
        events = [event for user in self.users for event in user["events"]]
        anything = {"feature": "u:zone", "exists": True}
        return Scenario(
            anything, now=self.words.now, events=events, types=self.words.types, segments=self.conditions
        ).program

    def inputs(self) -> list[tuple[str, Inputs]]:
        return [(f"user {number}", self._inputs(user)) for number, user in enumerate(self.users)]

    def _inputs(self, user: Mapping[str, Any]) -> Inputs:
        anything = {"feature": "u:zone", "exists": True}
        return Scenario(anything, now=self.words.now, types=self.words.types, **user).inputs


@st.composite
def batches(draw: Draw) -> Batch:
    words = draw_vocabulary(draw, events=True, exact=True)
    conditions: dict[str, Condition] = {}
    for number in range(CONDITIONS):
        conditions[f"s{number}"] = draw_condition(draw, words, sorted(conditions), 3)
    return Batch(conditions, [draw_user(draw, words) for _ in range(USERS)], words)


def draw_user(draw: Draw, words: Vocabulary) -> dict[str, Any]:
    views = [view for view in ("u", "v") if maybe(draw, 40)]
    return {
        "features": draw_features(draw, words),
        "context": {name: draw_any(draw, kind, words) for name, kind in pools.CONTEXT.items() if maybe(draw, 70)},
        "events": draw_events(draw, words, 8),
        "updated_at": {view: draw(words.instants(future=False)) for view in views},
        "ttl": {view: one_of(draw, words.durations) for view in views if maybe(draw, 80)},
    }


@settings(suppress_health_check=list(HealthCheck))
@given(batches())
def test_sql_is_the_plain_evaluator(batch: Batch) -> None:
    program, users, now = batch.program(), batch.inputs(), to_micros(batch.words.now)
    try:
        answers = evaluate_duckdb(program, users, now)
    except UnsupportedError as error:
        note(str(error))
        return
    for entity, inputs in users:
        plain = Evaluation(program, inputs, now)
        for name in program.names:
            expected = plain.segment(name)
            if name != CONDITION:
                COUNTS[expected] += 1
            assert answers[entity][name] is expected, (entity, name)


def test_the_generated_answers_are_spread() -> None:
    if not COUNTS:
        pytest.skip("runs after the test above")
    total = sum(COUNTS.values())
    assert total >= 0.8 * settings.default.max_examples * USERS * CONDITIONS, COUNTS
    for verdict in (True, False, None):
        assert total * 0.08 <= COUNTS[verdict] <= total * 0.75, COUNTS
