"""The SQL target on tables of real types: edges that every engine has its own idea of, and what is refused."""

from __future__ import annotations

import math
import random
import string
from collections.abc import Iterator, Sequence
from typing import Any
from zoneinfo import available_timezones

import duckdb
import pyarrow as pa
import pytest
from sqlglot import exp

from rules_engine.clock import DAY, HOUR, parse_instant
from rules_engine.errors import DataError, UnknownNameError, UnsupportedError
from rules_engine.rules.aggregates import Aggregate, exact_sum, mean
from rules_engine.rules.catalog import Catalog, EventType, Feature
from rules_engine.rules.evaluate import Evaluation
from rules_engine.rules.forms import WEEKDAYS
from rules_engine.rules.inputs import Event, Inputs
from rules_engine.rules.local_time import local_time
from rules_engine.rules.nodes import (
    AnyOf,
    ClockField,
    ClockRef,
    Condition,
    ContextRef,
    EventAggregate,
    EventMatch,
    FeatureRef,
    Not,
    Predicate,
    PropertyRef,
    Segment,
    SegmentRef,
    SequenceStep,
)
from rules_engine.rules.nodes import Sequence as SequenceNode
from rules_engine.rules.operators import OPERATORS
from rules_engine.rules.program import Program
from rules_engine.rules.text import fold_case
from rules_engine.rules.types import FLOAT, INTEGER, STRING, TIME, Kind, ValueType
from rules_engine.targets.sql import DIALECTS, evaluate_duckdb, tables_of, to_sql
from rules_engine.targets.sql.compile import Compiler
from rules_engine.targets.sql.engines import ENGINES
from rules_engine.targets.sql.lowering import LOWERINGS
from tests.unit.targets.test_sql_golden import CATALOG, NOW
from tests.unit.targets.test_sql_golden import program as golden_program

Truth = bool | None
AGE = FeatureRef("user", "age")
ADULT = Predicate(AGE, "at_least", 18, INTEGER)


def program(**conditions: Condition) -> Program:
    return Program({name: Segment(name, condition) for name, condition in conditions.items()})


def catalog(value_type: ValueType, **ttl: int) -> Catalog:
    return Catalog({"user:x": Feature("user", "x", value_type, "")}, ttl)


X = FeatureRef("user", "x")


def run(query: str, features: str, events: str = "", time_zone: str = "UTC") -> list[tuple[Any, ...]]:
    """The rows of a query on tables that are given as SELECT statements."""
    with duckdb.connect(":memory:") as connection:
        connection.execute(f"set timezone = '{time_zone}'")
        connection.execute(f"create table features as {features}")
        if events:
            connection.execute(f"create table events as {events}")
        return connection.execute(query).fetchall()


def plain(conditions: Program, users: Sequence[tuple[str, Inputs]], now: int) -> dict[str, dict[str, Truth]]:
    answers = {}
    for entity, inputs in users:
        evaluation = Evaluation(conditions, inputs, now)
        answers[entity] = {name: evaluation.segment(name) for name in conditions.names}
    return answers


# --- values ---------------------------------------------------------------------------------------------------------

NUMBERS = (
    *(0, 1, -1, 2, 3, 0.0, -0.0, 0.5, 2.5, -2.5, 1e308, -1e308, 5e-324, math.inf, -math.inf, math.nan),
    *(
        2**53,
        2**53 + 1,
        2**53 + 2,
        -(2**53) - 1,
        2.0**53,
        2.0**53 + 2,
        2**63 - 1,
        -(2**63),
        2.0**63,
        -(2.0**63),
        2**62 + 1,
    ),
)
LITERALS = tuple(number for number in NUMBERS if math.isfinite(number))


def test_every_operator_has_a_lowering() -> None:
    assert set(LOWERINGS) == set(OPERATORS)


@pytest.mark.parametrize("value_type", [INTEGER, FLOAT], ids=str)
def test_numbers_compare_as_exactly_as_in_python(value_type: ValueType) -> None:
    tests: list[Predicate] = [
        Predicate(X, operator, literal, value_type)
        for operator in ("equals", "not_equals", "greater_than", "at_least", "less_than", "at_most")
        for literal in LITERALS
    ]
    tests += [Predicate(X, "in", (low, high), value_type) for low in LITERALS for high in LITERALS]
    tests += [Predicate(X, "between", (low, high), value_type) for low in LITERALS for high in LITERALS if low <= high]
    conditions = program(**{f"t{number}": test for number, test in enumerate(tests)})
    kind = int if value_type is INTEGER else float
    users = [(str(number), Inputs({"user:x": value})) for number, value in enumerate(NUMBERS) if type(value) is kind]
    users.append(("nobody", Inputs()))
    assert len(users) > 8
    assert evaluate_duckdb(conditions, users, 0) == plain(conditions, users, 0)


def test_integers_and_floats_in_one_feature() -> None:
    tests = [Predicate(X, "at_least", literal, FLOAT) for literal in LITERALS]
    tests += [Predicate(X, "in", (literal, 1), FLOAT, or_missing=True) for literal in LITERALS]
    conditions = program(**{f"t{number}": test for number, test in enumerate(tests)})
    values = [*NUMBERS, "5", True, [5], None]
    users = [(str(number), Inputs({"user:x": value})) for number, value in enumerate(values)]
    assert evaluate_duckdb(conditions, users, 0) == plain(conditions, users, 0)


def test_a_float32_is_widened_before_it_is_compared() -> None:
    widened = 0.10000000149011612
    conditions = program(
        a=Predicate(X, "equals", 0.1, FLOAT), b=Predicate(X, "equals", widened, FLOAT), c=Predicate(X, "exists", True)
    )
    query = to_sql(conditions, None, catalog(FLOAT), 0)
    rows = run(query, "select * from (values ('1', 0.1::real), ('2', 'nan'::real)) t(entity, \"user:x\")")
    assert sorted(rows) == [("1", False, True, True), ("2", None, None, False)]


@pytest.mark.slow
def test_lower_case_is_the_simple_one_for_every_code_point() -> None:
    letters = [chr(code) for code in range(1, 0x110000) if not 0xD800 <= code < 0xE000]
    table = pa.table({"letter": letters})
    with duckdb.connect(":memory:") as connection:
        connection.register("letters", table)
        lowered = ENGINES["duckdb"].folded(exp.column("letter")).sql("duckdb")
        found = connection.execute(f"select letter, {lowered} as low from letters").fetchall()
    assert len(found) == len(letters)
    assert [row for row in found if row[1] != fold_case(row[0])] == []


def test_a_zero_character_in_a_literal() -> None:
    conditions = program(
        a=Predicate(X, "equals", "a\0b", STRING),
        b=Predicate(X, "contains", "\0", STRING),
        c=Predicate(X, "equals", "a", STRING),
    )
    users = [("1", Inputs({"user:x": "a\0b"})), ("2", Inputs({"user:x": "a"}))]
    assert evaluate_duckdb(conditions, users, 0) == plain(conditions, users, 0)
    for dialect in set(DIALECTS) - {"duckdb"}:
        with pytest.raises(UnsupportedError, match="zero character"):
            to_sql(conditions, ["a"], catalog(STRING), 0, dialect)


def test_lists_of_both_numbers_nulls_and_nothing() -> None:
    numbers, texts = ValueType(Kind.FLOAT, is_list=True), ValueType(Kind.STRING, is_list=True)
    tests = [
        Predicate(X, operator, argument, kind)
        for kind, arguments in ((numbers, (1, 2.5, 2**53 + 1, 2.0**53)), (texts, ("a", "")))
        for operator in ("includes", "includes_any", "includes_all", "includes_none")
        for argument in (arguments if operator == "includes" else [arguments, arguments[:1]])
    ]
    conditions = program(**{f"t{number}": test for number, test in enumerate(tests)})
    lists: list[Any] = [
        *(
            [],
            [None],
            [math.nan],
            [1],
            [1.0],
            [1, 2.5],
            [None, 2.5],
            [2**53 + 1],
            [2.0**53],
            ["a"],
            ["", None],
            ["a", 1],
        ),
        *(None, "a", 1, {"a": 1}),
    ]
    users = [(str(number), Inputs({"user:x": value})) for number, value in enumerate(lists)]
    assert evaluate_duckdb(conditions, users, 0) == plain(conditions, users, 0)


def test_keys_that_differ_in_case_only() -> None:
    conditions = program(
        a=Predicate(FeatureRef("u", "x"), "equals", 1, INTEGER), b=Predicate(FeatureRef("u", "X"), "equals", 1, INTEGER)
    )
    assert evaluate_duckdb(conditions, [("1", Inputs({"u:x": 1, "u:X": 2}))], 0) == {"1": {"a": True, "b": False}}


# --- time -----------------------------------------------------------------------------------------------------------

ZONES = ("UTC", "Pacific/Auckland", "America/St_Johns")


@pytest.mark.parametrize("column", ["timestamp", "timestamptz"])
@pytest.mark.parametrize("time_zone", ZONES)
def test_timestamps_mean_the_same_in_every_session(time_zone: str, column: str) -> None:
    now = parse_instant("2024-03-10T12:00:00Z")
    recent = Predicate(X, "in_last", HOUR, TIME)
    seen = Predicate(EventAggregate(Aggregate.COUNT, EventMatch("view"), HOUR), "at_least", 1, INTEGER)
    known = Catalog({"user:x": Feature("user", "x", TIME, "")}, {"user": DAY}, {"view": EventType("view")})
    query = to_sql(program(recent=recent, seen=seen), None, known, now, tables=tables_of(known, timestamps=True))

    def instants(*texts: str) -> Iterator[str]:
        return (f"make_timestamptz({parse_instant(text)}) at time zone 'UTC'" for text in texts)

    rows = [
        ("edge", "2024-03-10T11:00:00Z", "2024-03-09T12:00:00Z"),
        ("inside", "2024-03-10T11:00:00.000001Z", "2024-03-09T12:00:00Z"),
        ("expired", "2024-03-10T11:00:00.000001Z", "2024-03-09T11:59:59.999999Z"),
    ]
    zoned = "at time zone 'UTC'" if column == "timestamptz" else ""
    features = " union all ".join(
        f'select \'{name}\' as entity, ({x}) {zoned} as "user:x", ({seen_at}) {zoned} as "user:__updated_at"'
        for name, at, updated in rows
        for x, seen_at in [tuple(instants(at, updated))]
    )
    events = " union all ".join(
        f"select '{name}' as entity, 'view' as event, ({at}) {zoned} as \"at\", '1' as event_id, 1 as seq"
        for name, text, _ in rows
        for at in instants(text)
    )
    assert sorted(run(query, features, events, time_zone)) == [
        ("edge", False, False),
        ("expired", None, True),
        ("inside", True, True),
    ]


def test_a_value_lives_until_its_ttl_and_not_a_microsecond_longer() -> None:
    query = to_sql(program(a=Predicate(X, "exists", True)), None, catalog(INTEGER, user=100), 1000)
    rows = "values ('1', 5, 900), ('2', 5, 899), ('3', 5, null)"
    features = f'select * from ({rows}) t(entity, "user:x", "user:__updated_at")'
    assert sorted(run(query, features)) == [("1", True), ("2", False), ("3", True)]


def test_local_time_in_every_zone_that_a_feature_can_name() -> None:
    now = parse_instant("2024-03-31T00:59:59.999999Z")
    tests: list[Condition] = [
        Predicate(ClockRef(ClockField.DAY_OF_WEEK, X), "equals", day, ValueType(Kind.DAY_OF_WEEK)) for day in WEEKDAYS
    ]
    tests += [
        Predicate(ClockRef(ClockField.TIME_OF_DAY, X), "less_than", hours * HOUR, ValueType(Kind.TIME_OF_DAY))
        for hours in range(1, 24)
    ]
    conditions = program(**{f"t{number}": test for number, test in enumerate(tests)})
    zones = [*sorted(available_timezones()), "Mars/Olympus", "", "europe/oslo", "../etc/passwd", None, 5]
    users = [(str(number), Inputs({"user:x": zone})) for number, zone in enumerate(zones)]
    answers = evaluate_duckdb(conditions, users, now)
    assert answers == plain(conditions, users, now)
    assert local_time(now, "Europe/Oslo") == (2 * HOUR - 1, "sunday")
    assert answers[str(zones.index("Mars/Olympus"))]["t0"] is None


# --- events ---------------------------------------------------------------------------------------------------------


def aggregate(function: Aggregate, of_type: ValueType | None = FLOAT) -> EventAggregate:
    return EventAggregate(function, EventMatch("buy"), None, "amount", of_type)


def amounts(*values: Any) -> Inputs:
    return Inputs(events=tuple(Event("buy", at, f"{at:03d}", {"amount": value}) for at, value in enumerate(values)))


def test_of_several_events_with_one_id_the_first_stored_counts() -> None:
    count = EventAggregate(Aggregate.COUNT, EventMatch("buy"), 10)
    conditions = program(
        one=Predicate(count, "equals", 1, INTEGER),
        last=Predicate(aggregate(Aggregate.LAST), "equals", 1, FLOAT),
    )
    users = [
        ("again", [Event("buy", 100, "a", {"amount": 1}), Event("buy", 99, "a", {"amount": 2})]),
        ("other name", [Event("view", 100, "a"), Event("buy", 99, "a", {"amount": 1})]),
        ("future", [Event("buy", 101, "a", {"amount": 1}), Event("buy", 99, "a", {"amount": 1})]),
        ("out of order", [Event("buy", 100, "b", {"amount": 1}), Event("buy", 80, "a", {"amount": 2})]),
        ("one instant", [Event("buy", 100, "a", {"amount": 2}), Event("buy", 100, "b", {"amount": 1})]),
    ]
    answers = evaluate_duckdb(conditions, [(name, Inputs(events=tuple(events))) for name, events in users], 100)
    assert answers == {
        "again": {"one": True, "last": True},
        "other name": {"one": False, "last": None},
        "future": {"one": False, "last": None},
        "out of order": {"one": True, "last": True},
        "one instant": {"one": False, "last": True},
    }


def test_sums_and_means_of_everyday_numbers_are_correctly_rounded() -> None:
    """Every sum is compared with itself and its neighbours, so that one wrong digit shows."""
    draw = random.Random(7)
    pools = (
        lambda: round(draw.uniform(0, 300), 2),
        lambda: draw.uniform(-1000, 1000),
        lambda: draw.choice([0.1, 0.2, 0.3, -0.1, 0.0, -0.0]),
        lambda: draw.choice([1, 2, 19.99, 2**29, 1e9, 1.5e-7]),
        lambda: draw.randint(-(2**46), 2**46),
    )
    users = []
    tests: dict[str, Condition] = {}
    for number in range(80):
        values = [pools[number % len(pools)]() for _ in range(draw.randint(1, 40))]
        users.append((str(number), amounts(*values)))
        for function, right in ((Aggregate.SUM, exact_sum(values)), (Aggregate.AVG, mean(values))):
            tests[f"{function.value}{number}"] = Predicate(aggregate(function), "equals", right, FLOAT)
    conditions = program(**tests)
    answers = evaluate_duckdb(conditions, users, 10**6)
    assert all(answers[name][f"{word}{name}"] for name, _ in users for word in ("sum", "avg"))
    assert answers == plain(conditions, users, 10**6)


def test_sums_out_of_the_ordinary() -> None:
    """Not all of these: huge beside tiny numbers, of which compensation loses some, as the docs say."""
    values: list[list[Any]] = [
        *(
            [],
            [math.nan],
            [None, "5", True],
            [1e308, 1e308],
            [1e308, 1e308, -1e308],
            [-1e308, -1e308],
            [5e-324, 5e-324],
        ),
        *(
            [math.inf, 1.0],
            [-math.inf],
            [math.inf, -math.inf],
            [2**62, 2**62, 2**62],
            [2**62, 0.5],
            [-(2**63), -(2**63)],
        ),
        *([0.0], [-0.0], [2**53 + 1], [2.0**40, 2.0**-30]),
    ]
    tests = [
        Predicate(aggregate(function), operator, literal, FLOAT)
        for function in (Aggregate.SUM, Aggregate.AVG, Aggregate.MIN, Aggregate.MAX)
        for operator in ("equals", "greater_than", "exists")
        for literal in ((True,) if operator == "exists" else (0, 1, 0.5, 1e308, 5e-324, 2**53, 2.0**40))
    ]
    conditions = program(**{f"t{number}": test for number, test in enumerate(tests)})
    users = [(str(number), amounts(*each)) for number, each in enumerate(values)]
    assert evaluate_duckdb(conditions, users, 10**6) == plain(conditions, users, 10**6)


def test_integers_and_floats_in_one_property() -> None:
    values: list[list[Any]] = [
        *([1, 1.0], [1, True], [2**53, 2.0**53], [2**53 + 1, 2.0**53], [2.0**63, 2**63 - 1], [-(2.0**63), -(2**63)]),
        *([1e300, 5], [5, -1e300], [math.inf, 5], [0.5, 1, 2.5, 2], ["1", 1, 1.0], [0, -0.0], [math.nan, 1]),
    ]
    tests = [Predicate(aggregate(Aggregate.DISTINCT, None), "equals", count, INTEGER) for count in (1, 2, 3, 4)] + [
        Predicate(aggregate(function), operator, literal, FLOAT)
        for function in (Aggregate.MIN, Aggregate.MAX, Aggregate.FIRST, Aggregate.LAST, Aggregate.SUM, Aggregate.AVG)
        for operator in ("equals", "at_most")
        for literal in (1, 2.0**53, 2**53 + 1, 5, 0.5, 2**63 - 1)
    ]
    conditions = program(**{f"t{number}": test for number, test in enumerate(tests)})
    users = [(str(number), amounts(*each)) for number, each in enumerate(values)]
    assert evaluate_duckdb(conditions, users, 10**6) == plain(conditions, users, 10**6)


def test_a_window_that_starts_before_all_time() -> None:
    count = EventAggregate(Aggregate.COUNT, EventMatch("buy"), 999_999_999 * 7 * DAY)
    steps = (SequenceStep(EventMatch("buy")), SequenceStep(EventMatch("view"), False, 999_999_999 * 7 * DAY))
    waiting = (SequenceStep(EventMatch("buy")), SequenceStep(EventMatch("view"), True, 999_999_999 * 7 * DAY))
    conditions = program(
        count=Predicate(count, "equals", 1, INTEGER), funnel=SequenceNode(steps), waiting=SequenceNode(waiting)
    )
    users = [("1", Inputs(events=(Event("buy", 5, "a"), Event("view", 6, "b")))), ("2", Inputs())]
    assert evaluate_duckdb(conditions, users, 10) == plain(conditions, users, 10)


# --- the query ------------------------------------------------------------------------------------------------------


def test_columns_come_in_the_order_asked_for() -> None:
    query = to_sql(golden_program(), ["vip", "adults", "vip"], CATALOG, NOW)
    (final,) = (line for line in query.splitlines() if 'AS "vip"' in line)
    assert query.rstrip().splitlines()[-3:-1] == [final, '  "adults"']


def test_context_values_are_written_into_the_query() -> None:
    conditions = program(a=Predicate(ContextRef("device", "web"), "equals", "mobile", STRING))
    features = "select '1' as entity"
    known = Catalog()
    for context, answer in (
        ({}, False),
        ({"device": "mobile"}, True),
        ({"device": 5}, None),
        ({"other": "mobile"}, False),
    ):
        assert run(to_sql(conditions, None, known, 0, context=context), features) == [("1", answer)]


def test_a_context_value_per_user() -> None:
    conditions = program(
        a=Predicate(ContextRef("device", "web"), "equals", "web", STRING),
        b=Predicate(ContextRef("device"), "exists", True),
        c=Predicate(ContextRef("device"), "equals", 1, INTEGER, or_missing=True),
    )
    given: list[Any] = ["web", "mobile", None, 1, math.nan, ["web"], {"a": 1}]
    users = [(str(number), Inputs(context={"device": value})) for number, value in enumerate(given)]
    assert evaluate_duckdb(conditions, users, 0) == plain(conditions, users, 0)


def test_no_part_of_the_tree_is_in_two_places() -> None:
    """The tree is printed without a copy, so a part in two places could be changed in both."""
    known = golden_program()
    for dialect, engine in ENGINES.items():
        tree = Compiler(engine, known, known.names, tables_of(CATALOG), NOW, {}).query()
        nodes = [id(node) for node in tree.walk()]
        assert len(nodes) == len(set(nodes)), dialect


def test_long_and_deep_definitions() -> None:
    many = AnyOf(tuple(Predicate(AGE, "equals", number, INTEGER) for number in range(1500)))
    deep: Condition = ADULT
    for _ in range(150):
        deep = Not(deep)
    chain: dict[str, Condition] = {"s0": ADULT}
    chain |= {f"s{number}": Not(SegmentRef(f"s{number - 1}")) for number in range(1, 40)}
    conditions = program(many=many, deep=deep, **chain)
    users = [("1", Inputs({"user:age": 1499})), ("2", Inputs({"user:age": 1500})), ("3", Inputs())]
    answers = evaluate_duckdb(conditions, users, 0)
    assert answers == plain(conditions, users, 0)
    assert [answers[entity]["many"] for entity in "123"] == [True, False, None]


# --- refused --------------------------------------------------------------------------------------------------------


def test_unknown_names() -> None:
    with pytest.raises(UnknownNameError, match="there is no segment `adult`"):
        to_sql(golden_program(), ["adult"], CATALOG, NOW)
    with pytest.raises(UnsupportedError, match="no SQL dialect `mysql`") as refused:
        to_sql(golden_program(), ["adults"], CATALOG, NOW, "mysql")
    assert refused.value.hint == "the dialects are duckdb, spark, bigquery, snowflake, postgres"
    with pytest.raises(UnsupportedError, match="not told in which column the feature `user:age` is"):
        to_sql(golden_program(), ["adults"], Catalog(), NOW)
    with pytest.raises(UnsupportedError, match="not told in which column the property `sku` of `view` is"):
        to_sql(golden_program(), ["browsers"], Catalog(), NOW)


@pytest.mark.parametrize("dialect", ["duckdb", "spark", "bigquery"])
def test_columns_that_would_be_the_same(dialect: str) -> None:
    known = Catalog({"user:age": Feature("user", "age", INTEGER, "")})
    with pytest.raises(UnsupportedError, match="`Adult` and `adult` would be the same column"):
        to_sql(program(adult=ADULT, Adult=ADULT), None, known, NOW, dialect)
    with pytest.raises(UnsupportedError, match="`entity` and `Entity` would be the same column"):
        to_sql(program(Entity=ADULT), None, known, NOW, dialect)


def test_what_postgres_would_cut_off() -> None:
    known = Catalog({"user:age": Feature("user", "age", INTEGER, "")})
    with pytest.raises(UnsupportedError, match="longer than 63 bytes"):
        to_sql(program(**{"ä" * 32: ADULT}), None, known, NOW, "postgres")
    assert to_sql(program(**{"ä" * 31: ADULT}), None, known, NOW, "postgres")
    with pytest.raises(UnsupportedError, match="at most 1600 columns"):
        to_sql(program(**{f"s{number}": ADULT for number in range(1600)}), None, known, NOW, "postgres")


@pytest.mark.parametrize(
    ("pattern", "dialect", "reason"),
    [
        ("^*a", "spark", "repeats an anchor"),
        (r"\b+", "postgres", "repeats an anchor"),
        ("a{256}", "postgres", "more than 255 times"),
        (r"[^\D1]", "snowflake", "negated class"),
    ],
)
def test_patterns_that_cannot_be_written(pattern: str, dialect: str, reason: str) -> None:
    conditions = program(a=Predicate(X, "matches", pattern, STRING))
    assert to_sql(conditions, None, catalog(STRING), 0)
    with pytest.raises(UnsupportedError, match=reason):
        to_sql(conditions, None, catalog(STRING), 0, dialect)


def test_only_single_values_agree() -> None:
    lists = Inputs(events=(Event("buy", 1, "a", {"amount": (1,)}), Event("view", 2, "b", {"amount": (1,)})))
    strange = Inputs(events=(Event("buy", 1, "a", {"amount": {"a": 1}}), Event("view", 2, "b", {"amount": {"a": 1}})))
    single = Inputs(events=(Event("buy", 1, "a", {"amount": 1}), Event("view", 2, "b", {"amount": 1.0})))
    steps = (SequenceStep(EventMatch("buy")), SequenceStep(EventMatch("view")))
    users = [("lists", lists), ("strange", strange), ("single", single)]
    checked = program(a=SequenceNode(steps, match_on="amount"))
    found = {user: answers["a"] for user, answers in evaluate_duckdb(checked, users, 10).items()}
    assert found == {user: Evaluation(checked, inputs, 10).segment("a") for user, inputs in users}
    assert found == {"lists": False, "strange": False, "single": True}


def test_values_that_cannot_be_told_apart() -> None:
    strange = Inputs(events=(Event("buy", 1, "a", {"amount": {"a": 1}}), Event("view", 2, "b", {"amount": 1})))
    distinct = Predicate(aggregate(Aggregate.DISTINCT, None), "equals", 1, INTEGER)
    with pytest.raises(UnsupportedError, match="distinct amount of buy"):
        evaluate_duckdb(program(a=distinct), [("1", strange)], 10)


def test_lists_of_timestamps() -> None:
    times = catalog(ValueType(Kind.TIME, is_list=True))
    conditions = program(a=Predicate(X, "includes", 5, ValueType(Kind.TIME, is_list=True)))
    assert to_sql(conditions, None, times, 0)
    with pytest.raises(UnsupportedError, match="list of timestamps"):
        to_sql(conditions, None, times, 0, tables=tables_of(times, timestamps=True))


def test_data_that_cannot_be_stored() -> None:
    with pytest.raises(DataError, match="more than once"):
        evaluate_duckdb(program(a=ADULT), [("1", Inputs()), ("1", Inputs())], 0)
    with pytest.raises(DataError, match="`user:age` holds a value"):
        evaluate_duckdb(program(a=ADULT), [("1", Inputs({"user:age": 2**63}))], 0)
    assert evaluate_duckdb(program(a=ADULT), [], 0) == {}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_printable_string_survives(dialect: str) -> None:
    """Quotes, backslashes and line ends, as a literal and as a pattern, read back by the dialect's own grammar."""
    import sqlglot

    text = string.printable + "\\'\"`${}\n\\n--/* */ é\u2028\U0001f600"
    conditions = program(a=Predicate(X, "equals", text, STRING), b=Predicate(PropertyRef("x"), "exists", True))
    query = to_sql(conditions, ["a"], catalog(STRING), 0, dialect)
    tree = sqlglot.parse_one(query, dialect=dialect)
    assert text in [literal.this for literal in tree.find_all(exp.Literal) if literal.is_string]
