"""Samples: every target draws the same people, whatever their keys, the seeds and what else is asked."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from rules_engine.events.state.entity_state import empty_state
from rules_engine.events.state.reading import StateLayout, StateReader
from rules_engine.events.state.requirements import requirements_of
from rules_engine.features.online.selection import EntityFeatures
from rules_engine.rules.evaluate import Evaluation
from rules_engine.targets.columns.column_index import ColumnIndex
from rules_engine.targets.index.rule_index import RuleIndex
from rules_engine.targets.sql import evaluate_duckdb
from rules_engine.targets.stepwise.compile import Checks
from rules_engine.targets.stepwise.view import View
from rules_engine.testing import CONDITION, Scenario
from tests.reference import reference_evaluate

KEYS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
SHARES = st.fixed_dictionaries(
    {"percent": st.integers(1, 9_999).map(lambda hundredths: hundredths / 100), "seed": st.sampled_from(["s", "é😀"])}
)
SAMPLES = SHARES.map(lambda share: {"sample": share})
LEAVES = st.one_of(SAMPLES, st.just({"feature": "user:age", "at_least": 18}))
CONDITIONS = st.one_of(
    SAMPLES,
    SAMPLES.map(lambda sample: {"not": sample}),
    LEAVES.map(lambda leaf: {"all": [leaf, {"feature": "user:country", "equals": "NO"}]}),
    LEAVES.map(lambda leaf: {"none": [leaf, {"feature": "user:country", "equals": "NO"}]}),
)
PEOPLE = st.lists(
    st.tuples(st.none() | KEYS, st.sampled_from([{}, {"user:age": 30}, {"user:age": 3, "user:country": "NO"}])),
    min_size=1,
    max_size=8,
)
NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
TYPES = {"user:age": "Int64", "user:country": "String"}


@given(CONDITIONS, PEOPLE)
def test_every_target_draws_the_same(
    condition: dict[str, Any], people: list[tuple[str | None, dict[str, Any]]]
) -> None:
    scenarios = [Scenario(condition, features, now=NOW, types=TYPES, entity=entity) for entity, features in people]
    program, now = scenarios[0].program, scenarios[0].now
    answers = [Evaluation(program, each.inputs, now).segment(CONDITION) for each in scenarios]
    needed = requirements_of(program)
    layout = StateLayout(needed)
    for (entity, features), each, answer in zip(people, scenarios, answers, strict=True):
        assert reference_evaluate(condition, now=NOW, features=features, entity=entity) is answer
        assert RuleIndex(program).match_until(each.inputs, now)[0] == ({CONDITION} if answer else set())
        view = View(EntityFeatures(entity or "", each.inputs.features), StateReader(empty_state(needed), layout))
        for wanted in (True, False):
            assert Checks(program, layout).segment(CONDITION, wanted)(view, now)[0] is (answer is wanted)
    sql = evaluate_duckdb(program, [(str(place), each.inputs) for place, each in enumerate(scenarios)], now)
    assert [sql[str(place)][CONDITION] for place in range(len(people))] == answers
    columns = {key: pa.array([features.get(key) for _, features in people]) for key in TYPES}
    batch = pa.record_batch({"key": pa.array([entity for entity, _ in people], pa.string()), **columns})
    members = ColumnIndex(RuleIndex(program)).match_many(batch, now, key="key").members(CONDITION)
    assert members.tolist() == [answer is True for answer in answers]
