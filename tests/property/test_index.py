"""The compiled index gives the answers of the plain evaluator: for one user, through time, and over columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice, pairwise
from typing import Any

import pyarrow as pa
from hypothesis import assume, given, settings

from rules_engine.errors import DefinitionError
from rules_engine.rules.changes import CLOCK_HORIZON, candidates, clocks_of, reachable
from rules_engine.rules.evaluate import Evaluation
from rules_engine.rules.inputs import Inputs
from rules_engine.rules.nodes import EventAggregate, Sequence
from rules_engine.rules.types import Value
from rules_engine.targets.columns.column_index import ColumnIndex
from rules_engine.targets.index.event_values import LoggedEvents
from rules_engine.targets.index.normal_form import never_false, never_true
from rules_engine.targets.index.rule_index import RuleIndex
from rules_engine.testing import Scenario
from tests.property.strategies import Example, examples

#: How many crossings of local time are looked at in a stretch in which nothing is said to change.
CROSSINGS = 60


def load(example: Example) -> Scenario:
    try:
        return Scenario(example.condition, **example.data())
    except DefinitionError:  # always or never true: refused on load, so no target sees it
        assume(False)
        raise


def members(scenario: Scenario, now: int, inputs: Inputs | None = None) -> frozenset[str]:
    """The segments that are true, by the plain evaluator."""
    evaluation = Evaluation(scenario.program, inputs or scenario.inputs, now)
    return frozenset(name for name in scenario.program.names if evaluation.segment(name) is True)


# --- one user -------------------------------------------------------------------------------------------------------


@given(examples())
def test_the_index_says_what_the_evaluator_says(example: Example) -> None:
    scenario = load(example)
    index, wanted = RuleIndex(scenario.program), members(scenario, scenario.now)
    assert index.match(scenario.inputs, scenario.now) == wanted
    for name in scenario.program.names:
        assert index.match(scenario.inputs, scenario.now, [name]) == wanted & {name}


@given(examples())
def test_what_is_said_to_be_never_true_or_never_false_is_not(example: Example) -> None:
    scenario = load(example)
    evaluation = Evaluation(scenario.program, scenario.inputs, scenario.now)
    assert not any(evaluation.segment(name) is True for name in never_true(scenario.program))
    assert not any(evaluation.segment(name) is False for name in never_false(scenario.program))


@given(examples(largest=6))
def test_the_set_changes_first_at_the_instant_that_is_named(example: Example) -> None:
    scenario = load(example)
    now = scenario.now
    found, until = RuleIndex(scenario.program).match_until(scenario.inputs, now)
    assert found == members(scenario, now)
    if until is not None:
        assert until > now
        assert members(scenario, until - 1) == found
        assert members(scenario, until) != found
    for instant in quiet_instants(scenario, until):
        assert members(scenario, instant) == found


def quiet_instants(scenario: Scenario, until: int | None) -> Iterator[int]:
    """Instants between now and ``until`` at which single conditions may change."""
    now = scenario.now
    conditions = reachable(scenario.program, [segment.when for segment in scenario.program.segments.values()])
    for instant in candidates(conditions, scenario.inputs, now):
        if until is None or instant < until:
            yield instant
    clocks = clocks_of(conditions, scenario.inputs)
    if clocks is not None:
        crossings = clocks(now, now + CLOCK_HORIZON if until is None else until - 1)
        yield from islice(crossings, CROSSINGS)


# --- columns --------------------------------------------------------------------------------------------------------

ARROW = {
    "Int32": pa.int32(),
    "Int64": pa.int64(),
    "Float32": pa.float32(),
    "Float64": pa.float64(),
    "String": pa.string(),
    "Bytes": pa.binary(),
    "Bool": pa.bool_(),
    "UnixTimestamp": pa.timestamp("us", tz="UTC"),
    "Array(String)": pa.list_(pa.string()),
    "Array(Int64)": pa.list_(pa.int64()),
    "Array(Float64)": pa.list_(pa.float64()),
}

Row = Mapping[str, Any]


def shuffled_rows(example: Example) -> list[Row]:
    """The example's user, and others made of its values: one of them missing, or two of a type exchanged."""
    rows = [dict(example.features), {}]
    rows += [{**example.features, key: None} for key in example.features]
    keys = sorted(example.features)
    for one, other in pairwise(keys):
        if example.types[one] == example.types[other]:
            rows.append({**example.features, one: example.features[other], other: example.features[one]})
    return rows


def batch_of(rows: list[Row], types: Mapping[str, str]) -> pa.RecordBatch:
    columns = {key: [row.get(key) for row in rows] for key in types}
    return pa.record_batch({key: pa.array(column, ARROW[types[key]]) for key, column in columns.items()})


def event_columns(index: ColumnIndex, inputs: Inputs, now: int, rows: int) -> dict[EventAggregate | Sequence, pa.Array]:
    logged = LoggedEvents(inputs.events)
    found: dict[EventAggregate | Sequence, pa.Array] = {}
    for source in index.event_sources:
        is_sequence = isinstance(source, Sequence)
        value: Value = logged.sequence(source, now) if is_sequence else logged.aggregate(source, now)
        found[source] = pa.array([value] * rows)
    return found


def fits_arrow(scenario: Scenario, index: ColumnIndex) -> bool:
    """Whether the values of the event conditions are of single types, and integers of 64 bits."""
    try:
        event_columns(index, scenario.inputs, scenario.now, 1)
    except (pa.ArrowInvalid, OverflowError):
        return False
    return True


@given(examples(largest=6))
def test_columns_say_what_one_user_at_a_time_hears(example: Example) -> None:
    scenario, rows = load(example), shuffled_rows(example)
    index = RuleIndex(scenario.program)
    columns = ColumnIndex(index)
    assume(fits_arrow(scenario, columns))
    scenarios = [Scenario(example.condition, **{**example.data(), "features": row}) for row in rows]
    expires_at = {
        view: pa.array([instant] * len(rows), pa.int64()) for view, instant in scenario.inputs.expires_at.items()
    }
    found = columns.match_many(
        batch_of(rows, example.types),
        scenario.now,
        context=scenario.inputs.context,
        expires_at=expires_at,
        events=event_columns(columns, scenario.inputs, scenario.now, len(rows)),
    )
    assert list(found.segments()) == [index.match(one.inputs, one.now) for one in scenarios]


# --- the examples themselves ----------------------------------------------------------------------------------------


def test_examples_are_of_every_kind() -> None:
    """A guard: agreement on examples that are all alike would show nothing.

    Which examples are drawn depends on the constants in the product's code, so the shares move a little with it; of
    more examples they move less.
    """
    answers: Counter[object] = Counter()
    changes: Counter[bool] = Counter()

    @settings(max_examples=max(300, settings.default.max_examples))
    @given(examples())
    def count(example: Example) -> None:
        try:
            scenario = Scenario(example.condition, **example.data())
        except DefinitionError:
            return
        answers[scenario.truth()] += 1
        changes[RuleIndex(scenario.program).match_until(scenario.inputs, scenario.now)[1] is None] += 1

    count()
    for counter in (answers, changes):
        assert min(counter.values()) >= sum(counter.values()) * 0.1, counter
    assert set(answers) == {True, False, None}
    assert set(changes) == {True, False}
