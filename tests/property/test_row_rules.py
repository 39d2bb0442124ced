"""The rules on undecoded rows say what the evaluator says of the decoded ones: for random rules, users and instants."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rules_engine.clock import DAY, HOUR, SECOND, from_micros, parse_duration
from rules_engine.errors import DefinitionError, StoreDataError
from rules_engine.events.state.outlook import FOREVER, longest, read_outlook
from rules_engine.features.online.row_layout import Row, RowLayout, RowLayouts
from rules_engine.read_plan import Connection, PlanFeature, PlanView, ReadPlan
from rules_engine.rules.evaluate import Evaluation
from rules_engine.rules.walk import dependencies
from rules_engine.sdk.row_rules import RowRules
from rules_engine.targets.index.rule_index import RuleIndex
from rules_engine.testing import Scenario
from tests.property.strategies import Example, examples
from tests.state_target import outlook_through_state

TAGS = {"String": 2, "Int32": 3, "Int64": 4, "Float64": 5, "Float32": 6, "Bool": 7, "UnixTimestamp": 8, "Bytes": 1}
LISTS = {"Bytes": 11, "String": 12, "Int32": 13, "Int64": 14, "Float64": 15, "Float32": 16, "Bool": 17}
LISTS["UnixTimestamp"] = 18


def varint(number: int) -> bytes:
    number &= 2**64 - 1
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def sized(content: bytes) -> bytes:
    return varint(len(content)) + content


def content_of(value: Any, feast_type: str) -> tuple[int, bytes]:
    """The wire type and the content of a value."""
    if feast_type in ("String", "Bytes"):
        return 2, sized(value.encode("utf-8", "replace") if isinstance(value, str) else value)
    if feast_type == "Float64":
        return 1, struct.pack("<d", value)
    if feast_type == "Float32":
        return 5, struct.pack("<f", value)
    return 0, varint(value // SECOND if feast_type == "UnixTimestamp" else value)


def stored(value: Any, feast_type: str) -> bytes:
    """What Feast stores. A contract test holds the decoder of it to Feast."""
    if value is None:
        return b""
    if not feast_type.startswith("Array("):
        wire, content = content_of(value, feast_type)
        return varint(TAGS[feast_type] << 3 | wire) + content
    element = feast_type[6:-1]
    contents = [content_of(item, element) for item in value]
    if element in ("String", "Bytes"):
        packed = b"".join(b"\x0a" + content for _, content in contents)
    else:
        packed = b"\x0a" + sized(b"".join(content for _, content in contents)) if contents else b""
    return varint(LISTS[element] << 3 | 2) + sized(packed)


def timestamp(micros: int) -> bytes:
    seconds, rest = divmod(micros, SECOND)
    return b"\x08" + varint(seconds) + (b"\x10" + varint(rest * 1000) if rest else b"")


def plan_of(example: Example) -> ReadPlan:
    views: dict[str, list[PlanFeature]] = {}
    for number, (key, feast_type) in enumerate(sorted(example.types.items())):
        view, _, name = key.partition(":")
        views.setdefault(view, []).append(PlanFeature(name, feast_type, number))
    ttls = {view: parse_duration(text) for view, text in example.ttl.items()}
    made = tuple(PlanView(view, view, tuple(features), ttls.get(view)) for view, features in sorted(views.items()))
    return ReadPlan("shop", "user", "user_id", 3, Connection("embedded"), made)


def row_of(layout: RowLayout, plan: ReadPlan, scenario: Scenario, types: Mapping[str, str]) -> Row:
    """The contents of the layout's fields. A view has a row if it has a value or was said to be updated."""
    contents: dict[bytes, bytes] = {}
    for view in plan.views:
        at = scenario.inputs.updated_at.get(view.name, scenario.now)
        contents[view.timestamp_field] = timestamp(at)
        for feature in view.features:
            key = f"{view.name}:{feature.name}"
            raw = stored(scenario.inputs.features.get(key), types[key])
            contents[struct.pack("<I", feature.field)] = raw
    return [contents[field] for field in layout.fields]


@given(examples(events=False))
def test_rows_are_judged_as_their_values_are(example: Example) -> None:
    try:
        scenario = Scenario(example.condition, **example.data())
    except DefinitionError:
        assume(False)
    plan = plan_of(example)
    index = RuleIndex(scenario.program)
    names = {name for segment in scenario.program.segments.values() for name in dependencies(segment.when).features}
    layout = RowLayouts(plan).of(sorted(names) or None)
    row = row_of(layout, plan, scenario, example.types)
    nothing: Row = [None] * len(row)
    empty: Row = [
        raw if raw and field.startswith(b"_ts") else b"" for field, raw in zip(layout.fields, row, strict=True)
    ]
    rules = RowRules(index, None, layout)
    for _ in range(2):  # what it remembers of the first round is what it says in the second
        for contents in (row, nothing, empty):
            inputs = rules.inputs("someone", contents, scenario.inputs.context)
            evaluation = Evaluation(scenario.program, inputs, scenario.now)
            wanted = {name for name in scenario.program.names if evaluation.segment(name) is True}
            assert rules.match(contents, scenario.inputs.context, scenario.now) == wanted
            for name in scenario.program.names:
                one = RowRules(index, frozenset([name]), layout)
                assert one.match(contents, scenario.inputs.context, scenario.now) == wanted & {name}


@given(examples(largest=12), st.integers(0, 2**32), st.sampled_from([0, 1, SECOND, HOUR, 3 * DAY]))
def test_rows_with_an_outlook_are_judged_as_features_and_events_are(example: Example, seed: int, later: int) -> None:
    """At the instant of the outlook and at later ones: the segments, and the instant at which they change."""
    try:
        scenario = Scenario(example.condition, **example.data())
    except DefinitionError:
        assume(False)
    outlooks, data = outlook_through_state(scenario, scenario.now, seed)
    plan = plan_of(example)
    names = {name for segment in scenario.program.segments.values() for name in dependencies(segment.when).features}
    layout = RowLayouts(plan).of(sorted(names) or None, b"events", longest(len(outlooks.conditions)))
    row: Row = [*row_of(layout, plan, scenario, example.types), data]
    now = scenario.now + later
    rules = RowRules(RuleIndex(scenario.program, by_answers=True), None, layout, outlooks)
    inputs = replace(rules.inputs("someone", row, scenario.inputs.context), events=scenario.inputs.events)
    evaluation = Evaluation(scenario.program, inputs, now)
    wanted = {name for name in scenario.program.names if evaluation.segment(name) is True}
    found = rules.membership("someone", row, scenario.inputs.context, now, from_micros(now))
    if found is None:  # the outlook does not reach so far, and says so
        outlook = read_outlook(data, outlooks.stamp, len(outlooks.conditions))
        assert outlook is not None
        assert outlook.ends_at < FOREVER
        return
    assert found.segments == wanted
    change = RuleIndex(scenario.program).match_until(inputs, now)[1]
    assert found.changes_at == (None if change is None else from_micros(change))


def test_more_values_than_are_remembered_and_a_damaged_one() -> None:
    scenario = Scenario(
        {"all": [{"feature": "u:n", "at_least": 500}, {"feature": "u:s", "equals": "s700"}]},
        types={"u:n": "Int64", "u:s": "String"},
    )
    features = (PlanFeature("n", "Int64", 1), PlanFeature("s", "String", 2))
    plan = ReadPlan("shop", "user", "user_id", 3, Connection("embedded"), (PlanView("u", "u", features),))
    layout = RowLayouts(plan).of(["u:n", "u:s"])
    rules = RowRules(RuleIndex(scenario.program), None, layout)
    seen = timestamp(0)
    for _ in range(2):
        for number in range(1500):
            row = [seen, stored(number, "Int64"), stored(f"s{number}", "String")]
            assert bool(rules.match(row, {}, 0)) is (number == 700)
    for damaged in (b"\xff\xff", stored("text", "String")):
        with pytest.raises(StoreDataError, match="u:n"):
            rules.match([seen, damaged, None], {}, 0)
