"""events.yaml: what it declares, and every problem in it at its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from rules_engine.clock import DAY
from rules_engine.errors import DefinitionError
from rules_engine.events.declarations.events_yaml import EVENTS_SCHEMA, EventDeclarations, parse_events, read_events
from rules_engine.events.declarations.validation import EventValidator, Rejection
from rules_engine.folders import Project
from rules_engine.project.catalog import project_catalog
from rules_engine.rules.aggregates import Aggregate
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.inputs import Event
from rules_engine.rules.load import load_text
from rules_engine.rules.nodes import EventAggregate, EventMatch, Predicate, PropertyRef
from rules_engine.rules.types import BOOLEAN, FLOAT, INTEGER, STRING, TIME, Kind, ValueType

SHOP = """\
events:
  purchase:
    description: An order was paid for
    properties:
      order: {type: string}
      amount: {type: number, minimum: 0}
      items: {type: integer}
      at_store: {type: boolean}
      coupon: {type: [string, "null"]}
      paid: {type: string, format: date-time}
      skus: {type: array, items: {type: string}}
    required: [amount]
    retention: 400d
    id: order
    features:
      spend_30d: {sum: amount, within: 30d}
      purchases_7d: {count, within: 7d}
      dear_purchases_7d: {count: true, within: 7d, where: {amount: {at_least: 100}}}
  visit:
    retention: ever
    features:
      visits: {count, within: ever}
"""


def problems(text: str) -> list[tuple[str, str]]:
    with pytest.raises(DefinitionError) as refused:
        parse_events(text, "e.yaml")
    return [(problem.code, f"{problem.span.line}:{problem.span.column}") for problem in refused.value.diagnostics]


def test_types_retention_and_id() -> None:
    declared = parse_events(SHOP)
    purchase = declared.events["purchase"]
    assert purchase.type.properties == {
        "order": STRING,
        "amount": FLOAT,
        "items": INTEGER,
        "at_store": BOOLEAN,
        "coupon": STRING,
        "paid": TIME,
        "skus": ValueType(Kind.STRING, is_list=True),
    }
    assert (purchase.type.retention, purchase.required, purchase.id_property) == (
        400 * DAY,
        ("amount", "order"),
        "order",
    )
    assert declared.events["visit"].type.retention is None


def test_features_are_the_aggregates_of_conditions() -> None:
    dear = Predicate(PropertyRef("amount", FLOAT), "at_least", 100, FLOAT)
    assert parse_events(SHOP).features == {
        "spend_30d": EventAggregate(Aggregate.SUM, EventMatch("purchase"), 30 * DAY, "amount", FLOAT),
        "purchases_7d": EventAggregate(Aggregate.COUNT, EventMatch("purchase"), 7 * DAY),
        "dear_purchases_7d": EventAggregate(Aggregate.COUNT, EventMatch("purchase", (dear,)), 7 * DAY),
        "visits": EventAggregate(Aggregate.COUNT, EventMatch("visit"), None),
    }


def test_rules_read_them() -> None:
    declared = parse_events(SHOP)
    catalog = Catalog(events=declared.types, event_features=declared.features)
    text = "segment: buyers\nwhen: {all: [{feature: events:spend_30d, at_least: 10}, {did: purchase, within: 400d}]}"
    assert load_text(text, catalog).program.names == ("buyers",)
    with pytest.raises(DefinitionError, match="window-beyond-retention"):
        load_text("segment: buyers\nwhen: {did: purchase, within: 401d}", catalog)


def test_the_schema_for_editors_takes_what_is_accepted() -> None:
    import yaml

    Draft202012Validator.check_schema(EVENTS_SCHEMA)
    assert list(Draft202012Validator(EVENTS_SCHEMA).iter_errors(yaml.safe_load(SHOP))) == []


def test_no_file_and_no_events(tmp_path: Path) -> None:
    assert read_events(tmp_path / "events.yaml") == EventDeclarations()
    (tmp_path / "events.yaml").write_text("# nothing yet\n", encoding="utf-8")
    assert read_events(tmp_path / "events.yaml") == EventDeclarations()


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "events.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DefinitionError, match="unreadable-file"):
        read_events(tmp_path / "events.yaml")


@pytest.mark.parametrize(
    ("retention", "code"),
    [
        ("30", "invalid-duration"),
        ("[1d]", "invalid-duration"),
        ("forever", "invalid-duration"),
        ("0d", "zero-duration"),
        ("1y", "calendar-duration"),
    ],
)
def test_a_retention_that_cannot_be_used(retention: str, code: str) -> None:
    assert problems(f"events:\n  buy:\n    retention: {retention}\n") == [(code, "3:16")]


@pytest.mark.parametrize(
    ("schema", "code", "column"),
    [
        ("{}", "missing-key", 10),
        ("string", "wrong-shape", 10),
        ("{type: text}", "property-type", 17),
        ("{type: object}", "property-type", 17),
        ('{type: [string, "null", integer]}', "property-type", 17),
        ("{type: 3}", "property-type", 17),
        ("{type: number, minimum: low}", "invalid-schema", 34),
        ("{type: string, minLength: -1}", "invalid-schema", 36),
        ("{type: string, minimum: 3}", "invalid-schema", 25),
        ("{type: number, pattern: a}", "invalid-schema", 25),
        ("{type: string, minLenght: 3}", "unknown-key", 25),
        ("{type: string, $ref: 'http://example.com/schema'}", "unknown-key", 25),
        ("{type: string, pattern: '(?=a)'}", "unsupported-regex", 34),
        ("{type: string, pattern: '(a'}", "invalid-regex", 34),
        ("{type: string, format: phone}", "invalid-choice", 33),
        ("{type: string, enum: [a, 1]}", "literal-type", 35),
        ("{type: integer, const: 1.5}", "literal-type", 33),
        ("{type: array}", "missing-key", 10),
        ("{type: array, items: {type: array, items: {type: string}}}", "property-type", 31),
        ("{type: array, items: {type: strin}}", "property-type", 38),
    ],
)
def test_a_property_that_cannot_be_used(schema: str, code: str, column: int) -> None:
    text = f"events:\n  buy:\n    properties:\n      p: {schema}\n    retention: 30d\n"
    assert problems(text) == [(code, f"4:{column}")]


@pytest.mark.parametrize("name", ["at", "event", "event_id", "a b", "1a", "x" * 64, "é"])
def test_a_property_whose_name_cannot_be_used(name: str) -> None:
    text = f"events:\n  buy:\n    properties:\n      {name}: {{type: string}}\n    retention: 30d\n"
    assert problems(text) == [("invalid-name", "4:7")]


@pytest.mark.parametrize(
    ("feature", "code", "column"),
    [
        ("{}", "missing-key", 10),
        ("{count}", "missing-key", 10),
        ("{sum: amount}", "missing-key", 10),
        ("{count, witin: 1d}", "unknown-key", 18),
        ("{count, within: 1d, of: sku}", "unknown-key", 30),
        ("{count: 3, within: 1d}", "wrong-shape", 18),
        ("{count, sum: amount, within: 1d}", "several-forms", 18),
        ("{sum: sku, within: 1d}", "operator-type", 16),
        ("{max: sku, within: 1d}", "operator-type", 16),
        ("{sum: amuont, within: 1d}", "unknown-property", 16),
        ("{sum: [amount], within: 1d}", "wrong-shape", 16),
        ("{count, within: 31d}", "window-beyond-retention", 26),
        ("{count, within: ever}", "window-beyond-retention", 26),
        ("{count, within: 1mo}", "calendar-duration", 26),
        ("{count, within: 1d, where: {skuu: a}}", "unknown-property", 38),
        ("{count, within: 1d, where: {sku: 5}}", "literal-type", 43),
        ("{count, within: 1d, where: {sku: {contain: a}}}", "unknown-operator", 44),
        ("{last: sku, within: 1d, where: {}}", "empty-list", 41),
    ],
)
def test_a_feature_that_cannot_be_used(feature: str, code: str, column: int) -> None:
    text = (
        "events:\n  buy:\n    properties: {amount: {type: number}, sku: {type: string}}\n    retention: 30d\n"
        f"    features:\n      f: {feature}\n"
    )
    assert problems(text) == [(code, f"6:{column}")]


def test_all_problems_are_found_and_each_once() -> None:
    text = """\
events:
  Buy:
    descripton: x
    properties: {a: {type: strin}, b: {type: number}, c: {type: number}}
    required: [bb]
    id: c
    retention: 30d
    features:
      f: {sum: a, within: 1d}
      g: {sum: b, within: 1d}
  view:
    features: {g: {count, within: 1d}}
---
events: {}
"""
    assert sorted(problems(text), key=lambda found: [int(part) for part in found[1].split(":")]) == [
        ("invalid-name", "2:3"),
        ("unknown-key", "3:5"),
        ("property-type", "4:28"),
        ("unknown-property", "5:16"),
        ("operator-type", "6:9"),
        ("missing-key", "12:5"),
        ("duplicate-feature", "12:16"),
        ("wrong-shape", "14:1"),
    ]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("events: [a]", "wrong-shape"),
        ("- events", "wrong-shape"),
        ("evnts: {}", "unknown-key"),
        ("events: {buy: 3}", "wrong-shape"),
        ("events: {buy: {retention: 1d, required: amount}}", "wrong-shape"),
        ("events: {buy: {retention: 1d, features: {f: 3}}}", "wrong-shape"),
        ("events: {buy: {retention: 1d}, buy: {retention: 2d}}", "duplicate-key"),
        ("events: {buy: !!map {}}", "yaml-tag"),
        ("events: {", "yaml-syntax"),
    ],
)
def test_other_shapes(text: str, code: str) -> None:
    assert code in [found for found, _ in problems(text)]


ALIASES = """\
events:
  purchase: {retention: 30d, aliases: [Order Completed, order_paid], properties: {sku: {type: string}}}
  visit: {retention: 30d, aliases: [page]}
traits: profile
"""


def test_aliases_are_other_names_of_an_event() -> None:
    validator = EventValidator(parse_events(ALIASES))
    for name in ("purchase", "Order Completed", "order_completed", "order_paid"):
        found = validator.check(name, 1_800_000_000_000_000, "a1", {}, received=1_800_000_000_000_000)
        assert isinstance(found, Event)
        assert (found.name, found.id) == ("purchase", "purchase:a1")
    refused = validator.check("Order Paid", 1_800_000_000_000_000, "a1", {}, received=1_800_000_000_000_000)
    assert isinstance(refused, Rejection)
    assert refused.code == "unknown-event"


def test_an_alias_names_one_event_only() -> None:
    visit, view = "visit: {retention: 1d, aliases: [page, seen]}", "view: {retention: 1d, aliases: [seen]}"
    text = f"events:\n  {visit}\n  page: {{retention: 1d}}\n  {view}\n"
    assert problems(text) == [("duplicate-name", "2:36"), ("duplicate-name", "4:35")]
    assert parse_events("events: {visit: {retention: 1d, aliases: [visit, Visit]}}").events["visit"].aliases == (
        "visit",
        "Visit",
    )


def test_traits_name_a_view_of_the_project(make_project: Callable[..., Project]) -> None:
    assert parse_events(ALIASES).traits == "profile"
    project = make_project({"feature_repo/events.yaml": "events: {}\ntraits: profle\n", "feature_repo/d.py": PROFILE})
    with pytest.raises(DefinitionError) as refused:
        project_catalog(project)
    (problem,) = refused.value.diagnostics
    assert (problem.code, problem.span.line, problem.hint) == ("unknown-view", 2, "did you mean `profile`?")


PROFILE = """\
from datetime import timedelta
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import String

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
source = FileSource(name="file", path="profile.parquet", timestamp_field="event_timestamp")
profile = FeatureView(
    name="profile", entities=[user], ttl=timedelta(0), source=source, schema=[Field(name="plan", dtype=String)]
)
"""
