"""Checked rules as JSON and back: nothing is lost on the way to the request path."""

from __future__ import annotations

import json
from dataclasses import replace
from enum import Enum
from typing import Any

import pytest

from rules_engine.diagnostics import NO_SPAN
from rules_engine.rules import codec
from rules_engine.rules.codec import decode, encode
from rules_engine.rules.evaluate import Evaluation
from rules_engine.rules.load import load_text
from rules_engine.rules.nodes import FeatureRef, Predicate, Segment
from rules_engine.rules.program import Program
from rules_engine.rules.segments.codec import decode_program, encode_program
from rules_engine.testing import CONDITION, Scenario
from tests.conformance.cases import Case, load_cases
from tests.docs_pages import shop

CASES = load_cases()


def through_json(program: Program) -> Program:
    return decode_program(json.loads(json.dumps(encode_program(program), allow_nan=False)))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_conformance_case_survives(case: Case) -> None:
    scenario = Scenario(case.condition, **case.data())
    restored = through_json(scenario.program)
    assert restored == scenario.program
    for name in restored.names:
        assert repr(restored.segment(name)) == repr(scenario.program.segment(name))  # == takes 1 for 1.0 and for true
    assert Evaluation(restored, scenario.inputs, scenario.now).segment(CONDITION) is case.expect


def test_the_cases_have_nodes_of_every_kind() -> None:
    text = "".join(json.dumps(encode_program(Scenario(case.condition, **case.data()).program)) for case in CASES)
    assert [name for name in codec.CLASSES if f'"node": "{name}"' not in text] == []
    used = [name for name in codec.ENUMS if f'"enum": "{name}"' in text]
    assert used == list(codec.ENUMS)


def test_a_program_keeps_what_people_wrote_and_loses_its_places() -> None:
    text = "segment: a\ndescription: Of age\nowner: ada\ntags: [x]\nwhen: {feature: user:age, at_least: 18}\n"
    program = load_text(text, shop(), "a.yaml")
    segment = program.program.segment("a")
    restored = through_json(program.program).segment("a")
    assert (restored.description, restored.owner, restored.tags) == ("Of age", "ada", ("x",))
    assert restored == replace(segment, span=NO_SPAN)
    assert restored.span is NO_SPAN


def test_the_order_is_that_of_the_names() -> None:
    predicate = Predicate(FeatureRef("user", "age"), "at_least", 18)
    program = Program({name: Segment(name, predicate) for name in ("b", "c", "a")})
    assert list(encode_program(program)) == ["a", "b", "c"]


def test_numbers_stay_what_they_are() -> None:
    for number in (2**62 + 1, -0.0, 1e-320, 0.1, 1, 1.0, True):
        restored = decode(json.loads(json.dumps(encode(Predicate(FeatureRef("a", "b"), "equals", number)))))
        assert (type(restored.argument), str(restored.argument)) == (type(number), str(number))


class Colour(Enum):
    RED = "red"


@pytest.mark.parametrize("value", [object(), b"bytes", {1, 2}, {"a": 1}])
def test_what_has_no_place_in_a_rule_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="has no place in a rule"):
        encode(Predicate(FeatureRef("a", "b"), "equals", value))


@pytest.mark.parametrize(
    "data",
    [
        {"a": {"node": "Segment"}},
        {"a": {"node": "Nothing", "x": 1}},
        {"a": {"enum": "Colour", "value": "red"}},
        {"a": {"no": "node"}},
    ],
)
def test_what_was_not_written_by_us_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not encoded segments"):
        decode_program(data)
