"""Random definitions on random users: every target says what the brute-force reference says, at every instant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import event as note
from hypothesis import given, settings

from rules_engine.testing import Scenario
from tests.property.strategies import Example, examples
from tests.reference import reference_changes_at, reference_evaluate

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TICK = timedelta(microseconds=1)

Truth = bool | None


def moment(micros: int | None) -> datetime | None:
    return None if micros is None else EPOCH + timedelta(microseconds=micros)


#: How to ask each target for the answer to an example.
EVALUATE: dict[str, Callable[[Example], Truth]] = {
    "evaluator": lambda example: Scenario(example.condition, **example.data()).truth(),
}

#: How to ask each target that knows it for the next change of an example's answer.
CHANGES_AT: dict[str, Callable[[Example], datetime | None]] = {
    "evaluator": lambda example: moment(Scenario(example.condition, **example.data()).changes_at()),
}


@pytest.mark.parametrize("target", EVALUATE)
@given(example=examples())
def test_answer(target: str, example: Example) -> None:
    expected = reference_evaluate(example.condition, **example.data())
    note(f"answer {expected}")
    assert EVALUATE[target](example) is expected


@pytest.mark.parametrize("target", CHANGES_AT)
@given(example=examples(depth=3))
def test_changes_at(target: str, example: Example) -> None:
    expected = reference_changes_at(example.condition, **example.data())
    note("never" if expected is None else "changes")
    assert CHANGES_AT[target](example) == expected


@pytest.mark.parametrize("target", CHANGES_AT)
@given(example=examples(depth=2))
def test_the_answer_holds_until_it_changes(target: str, example: Example) -> None:
    """Without the reference: the same just before, another at the instant."""
    due = CHANGES_AT[target](example)
    if due is None:
        return
    data = {**example.data(), "now": due}
    before = Scenario(example.condition, **{**data, "now": due - TICK}).truth()
    assert before is EVALUATE[target](example)
    assert Scenario(example.condition, **data).truth() is not before


def test_examples_are_not_degenerate() -> None:
    """Answers are spread, and many change: else the tests above would prove little."""
    answers: Counter[Truth] = Counter()
    changes: Counter[bool] = Counter()

    @settings(max_examples=300)
    @given(example=examples())
    def collect(example: Example) -> None:
        answers[reference_evaluate(example.condition, **example.data())] += 1
        changes[reference_changes_at(example.condition, **example.data()) is not None] += 1

    collect()
    drawn = sum(answers.values())
    assert drawn >= 250
    for verdict in (True, False, None):
        assert drawn * 0.1 <= answers[verdict] <= drawn * 0.8, answers
    assert changes[True] >= drawn * 0.05, changes
