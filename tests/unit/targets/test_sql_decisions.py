"""The query of a decision, run on DuckDB, gives what choosing gives."""

from __future__ import annotations

import duckdb
import pyarrow as pa
import pytest

from rules_engine.errors import UnsupportedError
from rules_engine.rules.catalog import Catalog, Feature
from rules_engine.rules.decisions.choosing import Chooser
from rules_engine.rules.decisions.explaining import course_of
from rules_engine.rules.decisions.nodes import with_decisions
from rules_engine.rules.inputs import Inputs
from rules_engine.rules.load import load_text
from rules_engine.rules.types import INTEGER
from rules_engine.targets.sql.decide import decision_sql

CATALOG = Catalog({"user:age": Feature("user", "age", INTEGER, "Int64")})
TEXT = """\
segment: adult
when: {feature: user:age, at_least: 18}
---
experiment: offer
arms: {control: {serve: a}, other: {serve: b}}
coverage: 60
start: 1970-01-01T00:00:00Z
---
decision: d
variants: {a: {value: 1}, b: {value: 2}, c: {value: 3}}
rules:
  - {when: {in_segment: adult}, experiment: offer}
  - {when: {not: {in_segment: adult}}, serve: {a: 10, b: 90}}
  - {when: {feature: user:age, at_least: 30}, serve: b}
default: c
"""


def chooser_of(text: str) -> Chooser:
    loaded = load_text(text, CATALOG)
    return Chooser(loaded.decisions["d"], loaded.experiments, holdout=0.1)


def test_the_query_gives_what_choosing_gives() -> None:
    program, chooser = load_text(TEXT, CATALOG).program, chooser_of(TEXT)
    ages = {f"u{number}": None if number % 5 == 0 else number % 50 for number in range(400)}
    features = pa.table({"entity": list(ages), "user:age": pa.array(ages.values(), pa.int64())})
    with duckdb.connect() as connection:
        connection.register("features", features)
        rows = connection.execute(decision_sql(program, chooser, CATALOG, now=1)).fetchall()
    whole = with_decisions(program, [chooser.decision])
    for entity, variant in rows:
        course = course_of(whole, chooser, Inputs({"user:age": ages[entity]}, entity=entity))
        assert variant == chooser.choose(entity, course.at(1), 1).variant, entity
    assert {variant for _, variant in rows} == {"a", "b", "c"}
    assert len(rows) == len(ages)


def test_what_sql_cannot_say_is_refused() -> None:
    older = TEXT.replace("coverage: 60", "hash_version: 1")
    program = load_text(older, CATALOG).program
    with pytest.raises(UnsupportedError, match="`offer` divides by version 1 of the hash"):
        decision_sql(program, chooser_of(older), CATALOG, now=1)
    nobody = TEXT[: TEXT.index("rules:")] + "default: c\n"
    with pytest.raises(UnsupportedError, match="no rule of `d` serves anybody"):
        decision_sql(program, chooser_of(nobody), CATALOG, now=1)
