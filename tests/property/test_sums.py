"""Sums by blocks are those of all values, and the next change of an answer on them is the first that there is."""

from __future__ import annotations

from itertools import pairwise
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from rules_engine.events.state import sums as module
from rules_engine.events.state.sums import Sums, blocks_of
from rules_engine.rules.aggregates import AGGREGATES, Aggregate
from rules_engine.rules.types import Value

NUMBERS = st.sampled_from([0, 1, -1, 3, 2**53 + 1, 0.1, -0.1, 0.3, 1e16, -1e16, 5e-324, 1e308, 7.5, None])
FEW = st.sampled_from([1, -1, 2, None, 0.1, -0.1])
VALUES = st.lists(NUMBERS, max_size=40) | st.lists(FEW, max_size=40) | st.lists(st.integers(-3, 3), max_size=40)


@given(VALUES, st.integers(0, 40), st.integers(1, 9), st.sampled_from([Aggregate.SUM, Aggregate.AVG]))
def test_a_sum_by_blocks_is_that_of_all_values(values: list[Value], split: int, size: int, function: Aggregate) -> None:
    with patch.object(module, "BLOCK", size):
        sums = Sums(values, blocks_of(values[:split]) + blocks_of(values[split:]))
    if not sums.is_known:
        return
    for start in range(len(values) + 1):
        found, expected = sums.value(function, start), AGGREGATES[function].reduce(values[start:])
        assert (found, type(found)) == (expected, type(expected)), start


@given(
    VALUES,
    st.lists(st.booleans(), min_size=41, max_size=41),
    st.integers(1, 9),
    st.sampled_from([Aggregate.SUM, Aggregate.AVG]),
    st.sampled_from([-2, 0, 0.1, 1, 3, 1e16]),
    st.integers(0, 2),
)
def test_the_next_change_is_the_first_one(
    values: list[Value], together: list[bool], size: int, function: Aggregate, compared: float, kind: int
) -> None:
    with patch.object(module, "BLOCK", size):
        sums = Sums(values, blocks_of(values))
    if not sums.is_known:
        return

    def answer_of(value: Value) -> object:
        assert not isinstance(value, str | bytes | tuple)
        return None if value is None else (value == compared, value > compared, value >= compared)[kind]

    def is_turn(place: int) -> bool:
        return place == len(values) or not together[place]

    for start in range(len(values) + 1):
        expected = None
        here = answer_of(AGGREGATES[function].reduce(values[start:]))
        for place in range(start + 1, len(values) + 1):
            if is_turn(place) and answer_of(AGGREGATES[function].reduce(values[place:])) != here:
                expected = place
                break
        assert sums.next_change(function, start, is_turn, answer_of, [compared]) == expected, start


def test_most_values_are_not_looked_at() -> None:
    looked: list[Value] = []

    def answer_of(value: Value) -> bool:
        looked.append(value)
        assert isinstance(value, int)
        return value >= 100

    values = [1] * 10_000
    sums = Sums(values, blocks_of(values))
    assert sums.next_change(Aggregate.SUM, 7, lambda _: True, answer_of, [100]) == 10_000 - 99
    assert len(looked) < 10
    assert all(one.number == module.BLOCK for one, _ in pairwise(blocks_of(values)))
