"""Test what a change is tried with: thresholds in a text, and what a sample says of everybody."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules_engine.service.console.trying import estimate, move, thresholds

TEXT = """\
segment: first
when:
  all:
    - {feature: u:age, at_least: 18}
    - {did: view, within: 1h, count: {at_least: 2}}
    - {feature: u:name, equals: "18"}
    - {feature: u:seen, not_in_last: 90d}  # 90d
---
segment: second
when: {feature: u:spent, between: [1, 2.5]}
"""


def test_thresholds_are_the_numbers_and_durations_that_conditions_compare_with() -> None:
    of_first = [(each.text, each.line, each.label) for each in thresholds(TEXT, "first")]
    assert of_first == [
        ("18", 4, "u:age at_least"),
        ("1h", 5, "did view within"),
        ("2", 5, "did view at_least"),
        ("90d", 7, "u:seen not_in_last"),
    ]
    assert {each.line for each in thresholds(TEXT)} >= {4, 5, 7}


@given(st.integers(0, 3), st.from_regex(r"-?[0-9]{1,6}[smhdw]?", fullmatch=True))
def test_a_moved_threshold_stands_where_it_stood(place: int, value: str) -> None:
    chosen = thresholds(TEXT, "first")[place]
    before, after = TEXT.splitlines(), move(TEXT, chosen, value).splitlines()
    line, start = chosen.line - 1, chosen.column - 1
    assert before[:line] + before[line + 1 :] == after[:line] + after[line + 1 :]
    assert after[line] == before[line][:start] + value + before[line][start + len(chosen.text) :]


@pytest.mark.parametrize("part", [0.0, 0.001, 0.02, 0.5, 1.0])
def test_the_interval_of_a_sample_holds_what_is_so(part: float) -> None:
    entropy = random.Random(7)
    users, asked = 100_000, 5_000
    members = round(part * users)
    held = 0
    for _ in range(200):
        counted = sum(place < members for place in entropy.sample(range(users), asked))
        about, error = estimate(counted, asked, users)
        held += abs(about - members) <= error
    assert held >= 180  # 95% of 200, and what chance takes of it
