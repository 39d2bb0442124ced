"""What an event can do to an answer, on random definitions and logs: never more than is said."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rules_engine.errors import DefinitionError
from rules_engine.rules.evaluate import Evaluation
from rules_engine.testing import CONDITION, Scenario
from rules_engine.triggers.growth import Effect, effect

Data = dict[str, Any]

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
SEEN: Counter[tuple[Effect, bool, bool]] = Counter()

names = st.sampled_from("ab")
windows = st.sampled_from(["2m", "5m", "1h", "ever"])
waits = st.sampled_from(["1m", "3m"])
operators = st.sampled_from(["at_least", "greater_than", "at_most", "less_than", "equals", "not_equals"])
counts = st.dictionaries(operators, st.integers(0, 4), min_size=1, max_size=1)
counted = st.builds(lambda name, within, count: {"did": name, "within": within, "count": count}, names, windows, counts)
absent = st.builds(lambda name, within: {"did_not": name, "within": within}, names, windows)
distinct = st.builds(
    lambda name, within, count: {"distinct": {"event": name, "of": "x"}, "within": within, **count},
    names,
    windows,
    counts,
)
summed = st.builds(
    lambda name, within: {"sum": {"event": name, "of": "x"}, "within": within, "at_least": 2}, names, windows
)


@st.composite
def sequences(draw: st.DrawFn) -> Data:
    """Draw two or three steps."""
    steps: list[Data] = [{"did": draw(names)}]
    steps += draw(
        st.lists(st.builds(lambda form, name: {form: name}, st.sampled_from(["did", "did_not"]), names), max_size=1)
    )
    steps.append({draw(st.sampled_from(["did", "did_not"])): draw(names), "within": draw(waits)})
    anchor = draw(st.sampled_from([{}, {"anchor": "any"}, {"anchor": "latest"}]))
    return {"sequence": steps, **anchor}


leaves = counted | absent | distinct | summed | sequences()
pairs = st.builds(
    lambda form, parts: {form: parts}, st.sampled_from(["all", "any", "none"]), st.lists(leaves, min_size=2, max_size=2)
)
conditions = leaves | leaves.map(lambda leaf: {"not": leaf}) | pairs
logs = st.lists(
    st.builds(
        lambda name, ago, x: {"event": name, "at": NOW - timedelta(minutes=ago), "x": x},
        names,
        st.integers(-2, 6),
        st.sampled_from([-1, 1, 2]),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=settings().max_examples * 15)
@given(conditions, logs, st.integers(0, 5), st.integers(-2, 8))
def test_an_event_does_no_more_than_is_said(condition: Data, log: list[Data], place: int, later: int) -> None:
    try:
        scenario = Scenario(condition, events=log, now=NOW)
    except DefinitionError:  # always or never true: refused on load
        assume(False)
        raise
    events = scenario.inputs.events
    event = events[place % len(events)]
    fewer = replace(scenario.inputs, events=tuple(other for other in events if other is not event))
    now = scenario.now + later * 60_000_000
    before = Evaluation(scenario.program, fewer, now).segment(CONDITION) is True
    after = Evaluation(scenario.program, scenario.inputs, now).segment(CONDITION) is True
    does = effect(scenario.program, scenario.program.segment(CONDITION).when, event.name)
    SEEN[does, before, after] += 1
    if after and not before:
        assert Effect.RISES in does
    if before and not after:
        assert Effect.FALLS in does


def test_the_examples_are_telling() -> None:
    assert SEEN[Effect.RISES, False, True] >= 10
    assert SEEN[Effect.FALLS, True, False] >= 10
    assert SEEN[Effect.EITHER, False, True] >= 3
    assert SEEN[Effect.EITHER, True, False] >= 3


COUNTED = {"did": "a", "within": "1h"}
FUNNEL = {"sequence": [{"did": "a"}, {"did": "b", "within": "1h"}]}
OPEN = {"sequence": [{"did": "a"}, {"did_not": "b", "within": "1h"}]}


@pytest.mark.parametrize(
    ("condition", "on_a", "on_b"),
    [
        (COUNTED, Effect.RISES, Effect.NONE),
        ({"did_not": "a", "within": "1h"}, Effect.FALLS, Effect.NONE),
        ({"did": "a", "within": "1h", "count": {"at_most": 2}}, Effect.FALLS, Effect.NONE),
        ({"did": "a", "within": "1h", "count": {"equals": 2}}, Effect.EITHER, Effect.NONE),
        ({"sum": {"event": "a", "of": "x"}, "within": "1h", "at_least": 1}, Effect.EITHER, Effect.NONE),
        ({"not": COUNTED}, Effect.FALLS, Effect.NONE),
        ({"none": [COUNTED, {"did_not": "b", "within": "1h"}]}, Effect.FALLS, Effect.RISES),
        (FUNNEL, Effect.RISES, Effect.RISES),
        ({**FUNNEL, "anchor": "latest"}, Effect.EITHER, Effect.RISES),
        (OPEN, Effect.EITHER, Effect.FALLS),
        ({**OPEN, "anchor": "any"}, Effect.RISES, Effect.FALLS),
    ],
)
def test_what_is_said(condition: Data, on_a: Effect, on_b: Effect) -> None:
    program = Scenario(condition).program
    when = program.segment(CONDITION).when
    assert (effect(program, when, "a"), effect(program, when, "b")) == (on_a, on_b)
