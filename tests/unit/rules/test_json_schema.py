"""The schema for editors: it takes what the parser takes, refuses wrong structure, and offers the real names."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft7Validator

from rules_engine.definitions.source import read_documents, to_plain
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.forms import FORMS, WHERE_WORDS
from rules_engine.rules.json_schema import build_schema
from rules_engine.rules.kinds import KINDS
from rules_engine.rules.operators import OPERATORS
from rules_engine.rules.schema_parts import Names
from tests.conformance.cases import Case, load_cases
from tests.conformance.test_refusals import ACCEPTED, CATALOG, MARK, marked, name_of
from tests.docs_pages import examples, pages, shop

OPEN = Catalog(closed=False)
FEATURED = shop()
EXAMPLES = [example for page in pages() for example in examples(page) if example.refusal is None]


def validator(catalog: Catalog, segments: tuple[str, ...] = ()) -> Draft7Validator:
    # Through JSON, as it is written: a schema that holds a tuple or a set would be another one on disk.
    return Draft7Validator(json.loads(json.dumps(build_schema(catalog, segments))))


CONFORMANCE_VALIDATOR = validator(CATALOG)
OPEN_VALIDATOR, SHOP_VALIDATOR = validator(OPEN), validator(FEATURED, ("vip", "employees"))


def document(when: Any, schema_of: Draft7Validator = SHOP_VALIDATOR) -> bool:
    if isinstance(when, str):
        [node], problems = read_documents(when, "a.yaml")
        assert not problems
        when = to_plain(node)
    return bool(schema_of.is_valid({"segment": "s", "when": when}))


# --- it takes what the parser takes ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("catalog", [Catalog(), OPEN, FEATURED, CATALOG], ids=["empty", "open", "shop", "conformance"])
def test_it_is_a_schema_of_draft_7(catalog: Catalog) -> None:
    schema = build_schema(catalog)
    Draft7Validator.check_schema(schema)
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    for reference in references(schema):
        assert reference.removeprefix("#/definitions/") in schema["definitions"]


def references(schema: Any) -> list[str]:
    if isinstance(schema, dict):
        inner = [found for value in schema.values() for found in references(value)]
        return [*inner, schema["$ref"]] if "$ref" in schema else inner
    return [found for value in schema for found in references(value)] if isinstance(schema, list) else []


@pytest.mark.parametrize("case", load_cases(), ids=str)
def test_every_conformance_case_is_taken(case: Case) -> None:
    assert document(case.condition, OPEN_VALIDATOR)
    assert all(document(condition, OPEN_VALIDATOR) for condition in case.segments.values())


@pytest.mark.parametrize("case", ACCEPTED, ids=name_of)
def test_every_accepted_definition_is_taken(case: dict[str, Any]) -> None:
    documents, _ = read_documents(marked(case).replace(MARK, ""), "a.yaml")
    assert all(CONFORMANCE_VALIDATOR.is_valid(to_plain(one)) for one in documents)


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_every_example_of_the_documentation_is_taken(example: Any) -> None:
    for node in (*example.documents, *example.tests):
        errors = list(SHOP_VALIDATOR.iter_errors(to_plain(node)))
        assert not errors, errors[0].message[:300]


@pytest.mark.parametrize("one", [*OPERATORS.values(), *FORMS.values()], ids=lambda one: one.example[:40])
def test_every_example_of_the_tables_is_taken(one: Any) -> None:
    assert document(one.example)


# --- it refuses wrong structure -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "when",
    [
        "[]",
        "{}",
        "all: []",
        "all: {in_segment: vip}",
        "{all: [{in_segment: vip}], any: [{in_segment: vip}]}",
        "not: [{in_segment: vip}]",
        "{feature: user:age}",
        "{feature: user:age, at_least: 18, less_than: 65}",
        "{feature: user:age, atleast: 18}",
        "{feature: user:age, at_least: '18'}",
        "{feature: user:age, contains: x}",
        "{feature: user:age, at_least: 18, ignore_case: true}",
        "{feature: user:age, at_least: 18, or_missing: maybe}",
        "{feature: user:country, at_least: A}",
        "{feature: user:country, in: []}",
        "{feature: user:country, in: NO}",
        "{feature: user:country, equals: null}",
        "{feature: user:tags, equals: x}",
        "{feature: user:signup, in_last: 1mo}",
        "{feature: user:signup, in_last: 0d}",
        "{feature: user:signup, in_last: ever}",
        "{feature: user:age, between: [1, 2, 3]}",
        "{feature: user:age, exists: yes}",
        "{feature: user:height, at_least: 180}",
        "{context: x}",
        "{context: x, equals: 1, timezone: UTC}",
        "{clock: weekday, equals: monday}",
        "{clock: day_of_week, equals: Monday}",
        "{clock: time_of_day, at_least: '9:00'}",
        "{clock: time_of_day, exists: true}",
        "{clock: time_of_day, at_least: '09:00', or_missing: true}",
        "{did: view}",
        "{did: view, within: 10}",
        "{did: view, within: 10m, count: 3}",
        "{did: view, within: 10m, count: {at_least: 1, less_than: 5}}",
        "{did: view, within: 10m, count: {exists: true}}",
        "{did: view, within: 10m, where: {}}",
        "{did: view, within: 10m, where: {colour: red}}",
        "{did: view, within: 10m, where: {sku: 5}}",
        "{did: view, within: 10m, where: {sku: {equals: A, contains: B}}}",
        "{did: view, within: 10m, where: {sku: {or_missing: true}}}",
        "{did: view, within: 10m, where: {price: {in_last: 5d}}}",
        "{did: look, within: 10m}",
        "{did_not: view, within: 10m, count: {at_least: 2}}",
        "{sum: {event: purchase}, within: 1d, at_least: 5}",
        "{sum: {event: purchase, of: amount}, within: 1d}",
        "{sum: {event: purchase, of: amount}, at_least: 5}",
        "{sum: {event: purchase, of: sum}, within: 1d, at_least: 5}",
        "{sum: {event: purchase, of: amount}, within: 1d, at_least: 5, or_missing: true}",
        "{sequence: [{did: view}]}",
        "{sequence: [{did: view}, {did: view, did_not: purchase}]}",
        "{sequence: [{did: view}, {did: view, within: ever}]}",
        "{sequence: [{did: view}, {did: view, count: {at_least: 2}}]}",
        "{sequence: [{did: view}, {did: view}], anchor: first}",
        "{in_segment: [vip]}",
        "{in_segment: vip, or_missing: true}",
    ],
)
def test_wrong_structure_is_refused(when: str) -> None:
    assert not document(when)


@pytest.mark.parametrize(
    "data",
    [
        {"segment": "s"},
        {"when": {"in_segment": "vip"}},
        {"segment": "Not A Name", "when": {"in_segment": "vip"}},
        {"segment": "s", "when": {"in_segment": "vip"}, "tags": "a"},
        {"segment": "s", "when": {"in_segment": "vip"}, "colour": "red"},
        {"project": 5},
        {"project": "p", "sinks": {"crm": {"timeout": "5s"}}},
        {"project": "p", "sinks": {"crm": {"webhook": "https://a.example", "secret": "hunter2"}}},
        {"project": "p", "sinks": {"orders": {"kafka": "a:1"}}},
        {"project": "p", "consent": {"marketing": "user:age"}},
        {"test": {"trigger": "t"}, "cases": [{"name": "x", "expect": True}]},
        {"test": {"trigger": "t"}, "cases": [{"name": "x", "features": {"user:height": 1}}]},
        {"trigger": "t", "on_enter": "vip"},
        {"trigger": "t", "send": [{"stream": "a"}]},
        {"trigger": "t", "on_enter": "vip", "on_exit": "vip", "send": [{"stream": "a"}]},
        {"trigger": "t", "on_enter": "vip", "send": []},
        {"trigger": "t", "on_enter": "vip", "send": [{"mail": "a"}]},
        {"trigger": "t", "on_enter": "vip", "send": [{"stream": "a", "file": "b"}]},
        {"trigger": "t", "on_event": {"did": "look"}, "send": [{"stream": "a"}]},
        {"trigger": "t", "on_event": {"did": "view", "within": "1d"}, "send": [{"stream": "a"}]},
        {"trigger": "t", "on_enter": "vip", "delay": "1mo", "send": [{"stream": "a"}]},
        {"trigger": "t", "on_enter": "vip", "cap": {"max": 0, "per": "1d"}, "send": [{"stream": "a"}]},
        {"trigger": "t", "on_enter": "vip", "holdout": {"percent": 100}, "send": [{"stream": "a"}]},
        {"trigger": "t", "on_enter": "vip", "payload": {"a": "x"}, "send": [{"stream": "a"}]},
        {"trigger": "t", "on_enter": "vip", "payload": {"a": {"feature": "user:height"}}, "send": [{"stream": "a"}]},
        {"trigger": "t", "on_enter": "vip", "if": {"feature": "user:age"}, "send": [{"stream": "a"}]},
        {"test": "s", "cases": []},
        {"test": "s", "cases": [{"name": "x"}]},
        {"test": "s", "cases": [{"name": "x", "expect": "maybe"}]},
        {"test": "s", "cases": [{"name": "x", "expect": True, "features": {"user:height": 1}}]},
        {"test": "s", "cases": [{"name": "x", "expect": True, "then": [{"after": "1d"}]}]},
        {"test": "s", "cases": [{"name": "x", "expect": True, "enters": [{"at": "a", "after": "b"}]}]},
    ],
)
def test_wrong_documents_are_refused(data: Any) -> None:
    assert not SHOP_VALIDATOR.is_valid(data)


# --- it offers the real names ---------------------------------------------------------------------------------------


def alternatives(head: str) -> list[dict[str, Any]]:
    forms = build_schema(FEATURED, ["vip"])["definitions"]["condition"]["anyOf"]
    return [form for form in forms if form["required"][0] == head]


def test_features_are_offered_with_the_operators_of_their_type() -> None:
    offered = {}
    for form in alternatives("feature"):
        for key in form["properties"]["feature"]["enum"]:
            offered[key] = form["properties"].keys() & OPERATORS.keys()
    assert offered.keys() == FEATURED.features.keys() | {f"events:{name}" for name in FEATURED.event_features}
    assert "contains" in offered["user:country"]
    assert "at_least" not in offered["user:country"]
    assert "at_least" in offered["events:cart_adds_24h"]
    assert offered["user:tags"] == {"exists", "includes", "includes_any", "includes_all", "includes_none"}
    assert "in_last" in offered["user:signup"]


def test_each_event_is_offered_with_its_properties() -> None:
    offered = {form["properties"]["did"]["const"]: form["properties"]["where"] for form in alternatives("did")}
    definitions = build_schema(FEATURED)["definitions"]
    described = {name: definitions[where["$ref"].rpartition("/")[2]] for name, where in offered.items()}
    assert {name: set(where["properties"]) - set(WHERE_WORDS) for name, where in described.items()} == {
        name: set(event.properties) for name, event in FEATURED.events.items()
    }
    assert all(set(where["properties"]) >= set(WHERE_WORDS) for where in described.values())
    sums = {form["properties"]["sum"]["properties"]["event"]["const"]: form for form in alternatives("sum")}
    assert sums["purchase"]["properties"]["sum"]["properties"]["of"]["anyOf"][0] == {
        "enum": ["amount", "coupon", "quantity", "sku"]
    }
    [sequence] = alternatives("sequence")
    steps = sequence["properties"]["sequence"]["items"]["anyOf"]
    assert len(steps) == 2 * len(FEATURED.events)


def test_without_events_no_event_condition_is_offered() -> None:
    forms = build_schema(Catalog())["definitions"]["condition"]["anyOf"]
    assert {form["required"][0] for form in forms} == {
        *("all", "any", "none", "not", "context", "clock", "sample", "in_segment", "not_in_segment"),
        *("total", "difference", "product", "ratio"),  # of features and what a request brings
    }


def test_segments_and_zones_are_offered() -> None:
    schema = build_schema(FEATURED, ["vip", "employees"])
    assert schema["definitions"]["segment_name"]["examples"] == ["employees", "vip"]
    for clock in alternatives("clock"):
        [_, held] = clock["properties"]["timezone"]["anyOf"]
        assert "user:timezone" in held["properties"]["feature"]["enum"]
        assert "user:age" not in held["properties"]["feature"]["enum"]


def test_what_an_editor_shows_comes_from_the_tables() -> None:
    text = json.dumps(build_schema(FEATURED))
    for one in (*OPERATORS.values(), *FORMS.values()):
        assert json.dumps(one.summary)[2:-1] in text
    for kind in KINDS.values():
        assert json.dumps(kind.envelope["description"]) in text, kind.name
    assert '"x-kind"' not in text


def test_sinks_consents_and_zones_are_offered_to_triggers() -> None:
    sinks = {"crm": "webhook", "audit": "file", "broken": None}
    names = Names({"segment": ["vip"], "trigger": ["welcome"]}, sinks, ["marketing"])
    defined = build_schema(FEATURED, names=names)["definitions"]
    [stream, file, _, webhook] = defined["send"]["items"]["anyOf"]
    assert stream["properties"]["stream"]["examples"] == []
    assert webhook["properties"]["webhook"]["examples"] == ["crm"]
    assert file["properties"]["file"]["examples"] == ["audit"]
    assert defined["consent"]["examples"] == ["marketing"]
    tested = defined["trigger_test_document"]["properties"]["test"]["properties"]["trigger"]
    assert tested["examples"] == ["welcome"]
    assert defined["consents"]["additionalProperties"]["enum"] == ["user:newsletter"]
    [_, held] = defined["quiet_hours"]["properties"]["timezone"]["anyOf"]
    assert "user:timezone" in held["properties"]["feature"]["enum"]
