"""About twenty generated queries, kept as files to be read: what people get from `segments sql`.

After a change that is meant to change them, write them anew and read the diff:
``UPDATE_GOLDEN=1 python -m pytest tests/unit/targets/test_sql_golden.py``
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import sqlglot
from sqlglot.errors import ErrorLevel

from rules_engine.clock import parse_instant
from rules_engine.definitions.source import read_documents
from rules_engine.rules.catalog import Catalog, EventType, Feature
from rules_engine.rules.nodes import Segment
from rules_engine.rules.parsing.conditions import ConditionParser
from rules_engine.rules.program import Program
from rules_engine.rules.types import BOOLEAN, FLOAT, INTEGER, STRING, TIME, Kind, ValueType
from rules_engine.targets.sql import DIALECTS, Tables, tables_of, to_sql

GOLDEN = Path(__file__).parents[2] / "golden" / "sql"
NOW = parse_instant("1998-07-01T00:00:00Z")
DAY = 86_400_000_000

_TYPES = {
    "user:country": (STRING, "String"),
    "user:email": (STRING, "String"),
    "user:age": (INTEGER, "Int64"),
    "user:vip": (BOOLEAN, "Bool"),
    "user:signup": (TIME, "UnixTimestamp"),
    "user:timezone": (STRING, "String"),
    "user:tags": (ValueType(Kind.STRING, is_list=True), "Array(String)"),
    "model:score": (FLOAT, "Float32"),
}
_PROPERTIES = {
    "view": {"sku": STRING, "seconds": INTEGER},
    "cart": {"sku": STRING, "amount": FLOAT},
    "purchase": {"sku": STRING, "amount": FLOAT, "gift": BOOLEAN},
}
CATALOG = Catalog(
    features={key: Feature(*key.split(":"), value_type, feast) for key, (value_type, feast) in _TYPES.items()},
    ttl={"model": 30 * DAY},
    events={name: EventType(name, properties) for name, properties in _PROPERTIES.items()},
)

SEGMENTS = {
    "adults": "{feature: user:age, at_least: 18}",
    "likely_buyers": "{feature: model:score, greater_than: 0.8}",
    "nordics": "all: [{feature: user:country, in: ['NO', SE, DK]}, "
    "{feature: user:vip, equals: true, or_missing: true}]",
    "students": r"any: [{feature: user:email, ends_with: .EDU, ignore_case: true}, "
    r"{feature: user:email, matches: '^s\d+@.*\bcampus\.example$'}]",
    "newcomers": "all: [{feature: user:signup, in_last: 30d}, {feature: user:tags, includes_none: [staff, test]}]",
    "office_hours": "all: [{clock: time_of_day, timezone: Europe/Oslo, between: ['09:00', '17:00']}, "
    "{clock: day_of_week, not_in: [saturday, sunday]}]",
    "mobile": "{context: device, equals: mobile, default: web}",
    "active": "{did: view, within: 7d, count: {at_least: 3}}",
    "lapsed": "all: [{did: purchase, within: ever}, {did_not: purchase, within: 90d}]",
    "big_spenders": "{sum: {event: purchase, of: amount, where: {gift: false}}, within: 30d, at_least: 200}",
    "long_viewers": "{avg: {event: view, of: seconds}, within: 1d, greater_than: 60}",
    "browsers": "{distinct: {event: view, of: sku}, within: 1h, at_least: 3}",
    "last_bought_gift": "{last: {event: purchase, of: gift}, within: 30d, equals: true}",
    "abandoned_cart": "sequence: [{did: cart}, {did_not: purchase, within: 30m}]\nwithin: 24h",
    "funnel": "sequence: [{did: view}, {did: cart, within: 1h}, {did_not: view}, {did: purchase, within: 1d}]\n"
    "match_on: sku\nwithin: 30d",
    "vip": "all: [{in_segment: adults}, {in_segment: big_spenders}, {not_in_segment: lapsed}]",
}

#: File name -> segments, dialect.
QUERIES = {name: ([name], "duckdb") for name in SEGMENTS} | {
    "several": (["nordics", "newcomers", "vip", "active"], "duckdb"),
    **{f"funnel_{dialect}": (["students", "big_spenders", "funnel"], dialect) for dialect in DIALECTS[1:]},
}


def program() -> Program:
    segments = {}
    for name, text in SEGMENTS.items():
        documents, problems = read_documents(text, name)
        parser = ConditionParser(CATALOG, set(SEGMENTS))
        condition = parser.condition(documents[0])
        assert condition is not None, (problems, parser.problems)
        segments[name] = Segment(name, condition, description=f"Recipe: {name.replace('_', ' ')}")
    return Program(segments)


@pytest.mark.parametrize("name", QUERIES)
def test_query_is_the_one_on_file(name: str) -> None:
    segments, dialect = QUERIES[name]
    query = to_sql(program(), segments, CATALOG, NOW, dialect) + ";\n"
    file = GOLDEN / f"{name}.sql"
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(query, encoding="utf-8")
    assert query == file.read_text(encoding="utf-8")


def test_there_is_no_other_file() -> None:
    assert {file.stem for file in GOLDEN.glob("*.sql")} == set(QUERIES)


@pytest.mark.parametrize("timestamps", [False, True])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_all_rules_parse_in_every_dialect(dialect: str, timestamps: bool) -> None:
    tables: Tables = tables_of(CATALOG, timestamps=timestamps)
    query = to_sql(program(), None, CATALOG, NOW, dialect, tables=tables)
    (tree,) = sqlglot.parse(query, dialect=dialect, error_level=ErrorLevel.RAISE)
    assert tree is not None
    assert [each.alias_or_name for each in tree.selects] == ["entity", *sorted(SEGMENTS)]
