"""What an event can do to an answer, on random definitions, users and logs: never more than is said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rules_engine.errors import DefinitionError
from rules_engine.rules.evaluate import Evaluation
from rules_engine.testing import CONDITION, Scenario
from rules_engine.triggers.growth import Effect, effect
from tests.property.strategies import Example, examples

SEEN: set[tuple[Effect, bool, bool]] = set()


@settings(max_examples=settings().max_examples * 3)
@given(examples(largest=8), st.data())
def test_an_event_does_no_more_than_is_said(example: Example, data: st.DataObject) -> None:
    try:
        scenario = Scenario(example.condition, **example.data())
    except DefinitionError:  # always or never true: refused on load
        assume(False)
        raise
    inputs = scenario.inputs
    assume(inputs.events)
    place = data.draw(st.integers(0, len(inputs.events) - 1))
    event = inputs.events[place]
    fewer = replace(inputs, events=(*inputs.events[:place], *inputs.events[place + 1 :]))
    now = data.draw(st.sampled_from([scenario.now, event.at, event.at + 1, *(other.at for other in inputs.events)]))
    before = Evaluation(scenario.program, fewer, now).segment(CONDITION) is True
    after = Evaluation(scenario.program, inputs, now).segment(CONDITION) is True
    does = effect(scenario.program, scenario.program.segment(CONDITION).when, event.name)
    SEEN.add((does, before, after))
    if after and not before:
        assert Effect.RISES in does
    if before and not after:
        assert Effect.FALLS in does


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
def test_what_is_said(condition: dict[str, Any], on_a: Effect, on_b: Effect) -> None:
    program = Scenario(condition).program
    when = program.segment(CONDITION).when
    assert (effect(program, when, "a"), effect(program, when, "b")) == (on_a, on_b)


def test_the_examples_are_telling() -> None:
    assert (Effect.EITHER, False, True) in SEEN or (Effect.RISES, False, True) in SEEN
    assert any(does in (Effect.RISES, Effect.FALLS) for does, _, _ in SEEN)
    assert any(before != after for _, before, after in SEEN)
