"""Every conformance case, on every target."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rules_engine.testing import Scenario
from tests.conformance.cases import Case, load_cases
from tests.reference import reference_changes_at, reference_evaluate
from tests.reference_values import COMPARE

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CASES = load_cases()
CHANGES = [case for case in CASES if case.judges_change]

Truth = bool | None


def moment(micros: int | None) -> datetime | None:
    return None if micros is None else EPOCH + timedelta(microseconds=micros)


#: How to ask each target for the answer to a case.
EVALUATE: dict[str, Callable[[Case], Truth]] = {
    "reference": lambda case: reference_evaluate(case.condition, **case.data()),
    "evaluator": lambda case: Scenario(case.condition, **case.data()).truth(),
}

#: How to ask each target that knows it for the next change of a case's answer.
CHANGES_AT: dict[str, Callable[[Case], datetime | None]] = {
    "reference": lambda case: reference_changes_at(case.condition, **case.data()),
    "evaluator": lambda case: moment(Scenario(case.condition, **case.data()).changes_at()),
}

OPERATORS = {*COMPARE, "exists"}
FORMS = {
    *("all", "any", "none", "not", "feature", "context", "clock", "did", "did_not", "sum", "avg", "min", "max"),
    *("distinct", "first", "last", "sequence", "in_segment", "not_in_segment"),
}
OPTIONS = {"where", "count", "or_missing", "ignore_case", "timezone", "default", "match_on", "anchor", "within"}


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("target", EVALUATE)
def test_answer(target: str, case: Case) -> None:
    assert EVALUATE[target](case) is case.expect


@pytest.mark.parametrize("case", CHANGES, ids=str)
@pytest.mark.parametrize("target", CHANGES_AT)
def test_changes_at(target: str, case: Case) -> None:
    assert CHANGES_AT[target](case) == case.changes_at


def test_there_are_many_cases_and_their_answers_are_spread() -> None:
    assert len(CASES) >= 450
    assert len(CHANGES) >= 120
    assert sum(case.changes_at is None for case in CHANGES) <= len(CHANGES) / 2
    counts = Counter(case.expect for case in CASES)
    for verdict in (True, False, None):
        assert counts[verdict] >= len(CASES) * 0.1, counts
        assert counts[verdict] <= len(CASES) * 0.6, counts


@pytest.mark.parametrize("word", sorted(OPERATORS | FORMS | OPTIONS))
def test_every_word_of_the_language_occurs_with_differing_answers(word: str) -> None:
    answers = WORDS[word]
    assert sum(answers.values()) >= 3
    assert len(answers) >= 2


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
