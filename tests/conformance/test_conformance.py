"""Every conformance case, on every target."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from rules_engine.events.state.reading import StateLayout
from rules_engine.features.online.selection import EntityFeatures
from rules_engine.rules.forms import FORMS
from rules_engine.rules.nodes import EventAggregate, Sequence
from rules_engine.rules.operators import OPERATORS
from rules_engine.targets.columns.column_index import ColumnIndex
from rules_engine.targets.index.event_values import LoggedEvents
from rules_engine.targets.index.rule_index import RuleIndex
from rules_engine.targets.sql import evaluate_duckdb
from rules_engine.targets.stepwise.compile import Checks
from rules_engine.targets.stepwise.view import View
from rules_engine.testing import CONDITION, Scenario
from tests.conformance.cases import Case, load_cases
from tests.reference import reference_changes_at, reference_evaluate
from tests.reference_values import COMPARE
from tests.state_target import change_through_state, foreseen_through_state, read_through_state, truth_through_state

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CASES = load_cases()
CHANGES = [case for case in CASES if case.judges_change]

#: The stream has no request, so no context.
STREAMED = [case for case in CASES if not case.context]

Truth = bool | None


def moment(micros: int | None) -> datetime | None:
    return None if micros is None else EPOCH + timedelta(microseconds=micros)


def scenario(case: Case) -> Scenario:
    return Scenario(case.condition, **case.data())


def truth_in_sql(case: Case) -> Truth:
    asked = scenario(case)
    return evaluate_duckdb(asked.program, [("someone", asked.inputs)], asked.now, [CONDITION])["someone"][CONDITION]


def in_index(case: Case) -> bool:
    asked = scenario(case)
    return CONDITION in RuleIndex(asked.program).match(asked.inputs, asked.now)


def said_by(events: LoggedEvents, source: EventAggregate | Sequence, now: int) -> Any:
    return events.sequence(source, now) if isinstance(source, Sequence) else events.aggregate(source, now)


def in_columns(case: Case) -> bool:
    """The case as a batch of one row; what its events say comes as columns, as it does in batch evaluation."""
    asked = scenario(case)
    index = ColumnIndex(RuleIndex(asked.program), [CONDITION])
    logged = LoggedEvents(asked.inputs.events)
    features = {key: pa.array([asked.inputs.features.get(key)]) for key in index.features}
    found = index.match_many(
        pa.record_batch({"entity": pa.array([asked.inputs.entity], pa.string()), **features}),
        asked.now,
        context=asked.inputs.context,
        expires_at={view: pa.array([instant], pa.int64()) for view, instant in asked.inputs.expires_at.items()},
        events={source: pa.array([said_by(logged, source, asked.now)]) for source in index.event_sources},
        key="entity",
    )
    return bool(found.members(CONDITION)[0])


def in_outlook(case: Case) -> bool:
    """Say whether the case is true by answers that were worked out ahead."""
    asked = scenario(case)
    index = RuleIndex(asked.program, by_answers=True)
    return CONDITION in index.match(asked.inputs, asked.now, events=foreseen_through_state(asked))


def change_in_outlook(case: Case) -> int | None:
    """When the members change, by answers that were worked out ahead."""
    asked = scenario(case)
    index = RuleIndex(asked.program, by_answers=True)
    return index.match_until(asked.inputs, asked.now, [CONDITION], events=foreseen_through_state(asked))[1]


def change_in_index(case: Case) -> int | None:
    asked = scenario(case)
    return RuleIndex(asked.program).match_until(asked.inputs, asked.now, [CONDITION])[1]


def in_stream(case: Case, wanted: bool) -> bool:
    """Whether the worker finds the case true (false, if that is wanted), on what it keeps of the events."""
    asked = scenario(case)
    reader = read_through_state(asked)
    inputs = asked.inputs
    view = View(EntityFeatures(inputs.entity or "", inputs.features, inputs.updated_at, inputs.expires_at), reader)
    return Checks(asked.program, StateLayout(reader.requirements)).segment(CONDITION, wanted)(view, asked.now)[0]


#: How to ask each target for the answer to a case.
EVALUATE: dict[str, Callable[[Case], Truth]] = {
    "reference": lambda case: reference_evaluate(case.condition, **case.data()),
    "evaluator": lambda case: scenario(case).truth(),
    "event state": lambda case: truth_through_state(scenario(case)),
    "sql": truth_in_sql,
}

#: How to ask the targets that only tell members from all others.
IS_MEMBER: dict[str, Callable[[Case], bool]] = {"index": in_index, "columns": in_columns, "outlook": in_outlook}

#: How to ask each target that knows it for the next change of a case's answer.
CHANGES_AT: dict[str, Callable[[Case], datetime | None]] = {
    "reference": lambda case: reference_changes_at(case.condition, **case.data()),
    "evaluator": lambda case: moment(scenario(case).changes_at()),
    "event state": lambda case: moment(change_through_state(scenario(case))),
}

OPTIONS = {key for form in FORMS.values() for key in (*form.required, *form.optional)}


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("target", EVALUATE)
def test_answer(target: str, case: Case) -> None:
    assert EVALUATE[target](case) is case.expect


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("target", IS_MEMBER)
def test_membership(target: str, case: Case) -> None:
    assert IS_MEMBER[target](case) is (case.expect is True)


@pytest.mark.parametrize("case", STREAMED, ids=str)
def test_stream(case: Case) -> None:
    assert in_stream(case, wanted=True) is (case.expect is True)
    assert in_stream(case, wanted=False) is (case.expect is False)


@pytest.mark.parametrize("case", CHANGES, ids=str)
@pytest.mark.parametrize("target", CHANGES_AT)
def test_changes_at(target: str, case: Case) -> None:
    assert CHANGES_AT[target](case) == case.changes_at


@pytest.mark.parametrize("case", CHANGES, ids=str)
def test_members_change_by_outlooks_as_by_the_events(case: Case) -> None:
    assert change_in_outlook(case) == change_in_index(case)


def test_there_are_many_cases_and_their_answers_are_spread() -> None:
    assert len(CASES) >= 450
    assert len(CHANGES) >= 120
    assert len(STREAMED) >= 400
    assert sum(case.changes_at is None for case in CHANGES) <= len(CHANGES) / 2
    counts = Counter(case.expect for case in CASES)
    for verdict in (True, False, None):
        assert counts[verdict] >= len(CASES) * 0.1, counts
        assert counts[verdict] <= len(CASES) * 0.6, counts


@pytest.mark.parametrize("word", sorted({*OPERATORS, *FORMS, *OPTIONS}))
def test_every_word_of_the_language_occurs_with_differing_answers(word: str) -> None:
    answers = WORDS[word]
    assert sum(answers.values()) >= 3, f"write conformance cases that use `{word}:`"
    assert len(answers) >= 2, f"write conformance cases in which `{word}:` gives another answer than {list(answers)}"


def test_the_reference_compares_by_every_operator() -> None:
    assert {*COMPARE, "exists"} == OPERATORS.keys()


def words(data: Any) -> Iterator[str]:
    """Yield every key in a condition."""
    if isinstance(data, Mapping):
        for key, value in data.items():
            yield key
            yield from words(value)
    elif isinstance(data, list):
        for value in data:
            yield from words(value)


def count_words() -> Mapping[str, Counter[Truth]]:
    found: defaultdict[str, Counter[Truth]] = defaultdict(Counter)
    for case in CASES:
        for word in set(words([case.condition, list(case.segments.values())])):
            found[word][case.expect] += 1
    return found


WORDS = count_words()
