"""The rule index over columns: Arrow's types, shapes of batches, and what is refused."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rules_engine.clock import DAY, HOUR, to_micros
from rules_engine.errors import DataError, UnknownNameError, UnsupportedError
from rules_engine.rules.aggregates import Aggregate
from rules_engine.rules.inputs import Inputs
from rules_engine.rules.nodes import (
    AllOf,
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
    Segment,
    Sequence,
    SequenceStep,
)
from rules_engine.rules.program import Program
from rules_engine.rules.types import BOOLEAN, BYTES, FLOAT, INTEGER, STRING, TIME, Kind, Value, ValueType
from rules_engine.targets.columns.column_index import ColumnIndex
from rules_engine.targets.index.rule_index import RuleIndex

NOW = to_micros(datetime(2024, 1, 1, 12, tzinfo=UTC))
VALUE = FeatureRef("user", "value")


def columns(**conditions: Condition) -> ColumnIndex:
    return ColumnIndex(RuleIndex(Program({name: Segment(name, condition) for name, condition in conditions.items()})))


def ask(operator: str, argument: Any, value_type: ValueType, feature: FeatureRef = VALUE, **options: bool) -> Predicate:
    return Predicate(feature, operator, argument, value_type, **options)


def rows_in(condition: Condition, column: pa.Array) -> list[int]:
    """The rows that fulfil a condition on ``user:value``."""
    found = columns(it=condition).match_many(pa.record_batch({"user:value": column}), NOW)
    return np.flatnonzero(found.members("it")).tolist()


# --- Arrow types ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint64()])
def test_integers_of_any_width(kind: pa.DataType) -> None:
    column = pa.array([0, 5, None, 100], kind)
    assert rows_in(ask("at_least", 5, INTEGER), column) == [1, 3]
    assert rows_in(ask("at_least", 4.5, INTEGER), column) == [1, 3]
    assert rows_in(ask("greater_than", -(10**30), INTEGER), column) == [0, 1, 3]
    assert rows_in(ask("less_than", 10**30, INTEGER), column) == [0, 1, 3]
    assert rows_in(ask("not_in", (5, 10**30), INTEGER), column) == [0, 3]


def test_the_ends_of_64_bits() -> None:
    column = pa.array([-(2**63), 2**53, 2**53 + 1, 2**63 - 1])
    assert rows_in(ask("equals", 2**53 + 1, INTEGER), column) == [2]
    assert rows_in(ask("at_least", float(2**63), INTEGER), column) == []
    assert rows_in(ask("at_most", -(2**63), INTEGER), column) == [0]
    assert rows_in(ask("equals", 2**64 - 1, INTEGER), pa.array([2**64 - 1, 0], pa.uint64())) == [0]


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()])
def test_floats(kind: pa.DataType) -> None:
    column = pa.array([0.5, -0.0, float("nan"), float("inf"), None, 0.1], kind)
    assert rows_in(ask("greater_than", 0, FLOAT), column) == [0, 3, 5]
    assert rows_in(ask("equals", 0, FLOAT), column) == [1]
    assert rows_in(ask("exists", False, FLOAT), column) == [2, 4]
    assert rows_in(ask("equals", 0.1, FLOAT), column) == ([5] if kind == pa.float64() else [])


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())],
)
def test_strings_of_any_layout(kind: pa.DataType) -> None:
    column = pa.array(["a", "B", None, "", "aB", "a", "é\U0001f600"], pa.string()).cast(kind)
    assert rows_in(ask("equals", "a", STRING), column) == [0, 5]
    assert rows_in(ask("not_in", ("a", "", "\ud800"), STRING), column) == [1, 4, 6]
    assert rows_in(ask("starts_with", "a", STRING), column) == [0, 4, 5]
    assert rows_in(ask("ends_with", "b", STRING, ignore_case=True), column) == [1, 4]
    assert rows_in(ask("matches", "^.$", STRING), column) == [0, 1, 5]
    assert rows_in(ask("exists", True, STRING), column) == [0, 1, 3, 4, 5, 6]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_times_of_any_unit(unit: str, zone: str | None) -> None:
    seconds = pa.array([NOW // 10**6 - 3600, NOW // 10**6, None, -1, NOW // 10**6 + 3600])
    column = seconds.cast(pa.timestamp("s")).cast(pa.timestamp(unit)).cast(pa.int64()).cast(pa.timestamp(unit, zone))
    assert rows_in(ask("in_last", HOUR + 1, TIME), column) == [0, 1]
    assert rows_in(ask("in_last", HOUR, TIME), column) == [1]
    assert rows_in(ask("in_next", HOUR, TIME), column) == [4]
    assert rows_in(ask("not_in_last", HOUR, TIME), column) == [0, 3, 4]
    assert rows_in(ask("before", 0, TIME), column) == [3]
    assert rows_in(ask("equals", NOW, TIME), column) == [1]


def test_nanoseconds_round_down_also_before_1970() -> None:
    column = pa.array([-1, 999, -1000], pa.timestamp("ns"))
    assert rows_in(ask("equals", -1, TIME), column) == [0, 2]
    assert rows_in(ask("equals", 0, TIME), column) == [1]


def test_dates_and_bare_microseconds_are_times() -> None:
    assert rows_in(ask("in_last", DAY, TIME), pa.array([date(2024, 1, 1), date(2023, 12, 31), None])) == [0]
    assert rows_in(ask("in_last", DAY, TIME), pa.array([NOW, NOW - DAY, -(2**63), 2**63 - 1])) == [0]
    assert rows_in(ask("not_in_last", DAY, TIME), pa.array([NOW, NOW - DAY, -(2**63), 2**63 - 1])) == [1, 2, 3]


@pytest.mark.parametrize("make", [pa.list_, pa.large_list, lambda item: pa.list_(item, 2)])
def test_lists_of_any_layout(make: Any) -> None:
    column = pa.array([["a", "b"], None, ["c", None], [None, None], ["b", "b"]], make(pa.string()))
    tags = ValueType(Kind.STRING, is_list=True)
    assert rows_in(ask("includes", "b", tags), column) == [0, 4]
    assert rows_in(ask("includes_all", ("a", "b"), tags), column) == [0]
    assert rows_in(ask("includes_any", ("a", "c"), tags), column) == [0, 2]
    assert rows_in(ask("includes_none", ("b",), tags), column) == [2, 3]
    assert rows_in(ask("exists", False, tags), column) == [1]
    assert rows_in(AllOf((ask("includes", "b", tags), Not(ask("includes", "a", tags)))), column) == [4]


def test_lists_of_numbers_and_times() -> None:
    numbers = pa.array([[1.0, float("nan")], [2.5], [], None])
    assert rows_in(ask("includes", 1, ValueType(Kind.FLOAT, is_list=True)), numbers) == [0]
    times = pa.array([[datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)], []], pa.list_(pa.timestamp("ms", "UTC")))
    assert rows_in(ask("includes", 10**6, ValueType(Kind.TIME, is_list=True)), times) == [0]


@pytest.mark.parametrize(
    ("value_type", "operator", "argument", "column"),
    [
        (INTEGER, "not_equals", 5, pa.array(["5", "6"])),
        (INTEGER, "not_equals", 5, pa.array([True, False])),
        (BOOLEAN, "not_equals", True, pa.array([0, 1])),
        (STRING, "not_equals", "a", pa.array([1, 2])),
        (STRING, "not_equals", "a", pa.array([b"b", b"c"])),
        (TIME, "before", NOW, pa.array([1.0, 2.0])),
        (TIME, "in_last", DAY, pa.array([float(NOW), 2.0])),
        (ValueType(Kind.STRING, is_list=True), "includes_none", ("a",), pa.array(["b", "c"])),
        (ValueType(Kind.STRING, is_list=True), "includes_none", ("a",), pa.array([[1], [2, None]])),
        (ValueType(Kind.FLOAT, is_list=True), "includes_none", (1,), pa.array([[True], [False]])),
        (INTEGER, "exists", True, pa.array([[1], [2]])),
        (BYTES, "exists", True, pa.array(["a", "b"])),
    ],
)
def test_a_column_of_another_type_is_missing(value_type: ValueType, operator: str, argument: Any, column: Any) -> None:
    predicate = ask(operator, argument, value_type)
    assert rows_in(predicate, column) == []
    assert rows_in(Not(predicate), column) == ([0, 1] if operator == "exists" else [])
    assert rows_in(ask("exists", False, value_type), column) == [0, 1]


def test_lists_without_elements_are_of_every_type() -> None:
    column = pa.array([[], [None], [1], None], pa.list_(pa.int64()))
    assert rows_in(ask("includes_none", ("a",), ValueType(Kind.STRING, is_list=True)), column) == [0, 1]


def test_bytes_can_exist() -> None:
    assert rows_in(ask("exists", True, BYTES), pa.array([b"", None, b"a"])) == [0, 2]


# --- batches --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_rows_beyond_one_chunk_and_masks_beyond_one_word() -> None:
    conditions: dict[str, Condition] = {f"above{limit:03d}": ask("at_least", limit, INTEGER) for limit in range(300)}
    conditions["odd"] = ask("matches", "[13579]$", STRING, FeatureRef("user", "text"))
    conditions["grid"] = AnyOf(
        tuple(
            AllOf((ask("equals", limit, INTEGER), ask("equals", str(limit), STRING, FeatureRef("user", "text"))))
            for limit in range(0, 300, 10)
        )
    )
    index = columns(**conditions)
    values: list[int | None] = [position % 307 if position % 11 else None for position in range(70_000)]
    batch = pa.record_batch({"user:value": values, "user:text": [str(value) for value in values]})
    found = index.match_many(batch, NOW)
    assert len(found) == 70_000
    assert found.counts()["above000"] == sum(value is not None for value in values)
    assert found.counts()["grid"] == sum(value is not None and value < 300 and value % 10 == 0 for value in values)
    one = RuleIndex(Program({name: Segment(name, condition) for name, condition in conditions.items()}))
    for row, segments in enumerate(found.segments()):
        if row % 997 == 0:
            features: dict[str, Value] = {"user:value": values[row], "user:text": str(values[row])}
            assert segments == one.match(Inputs(features), NOW)


def test_slices_of_larger_batches() -> None:
    tags = ValueType(Kind.STRING, is_list=True)
    index = columns(
        number=ask("at_least", 3, INTEGER, FeatureRef("user", "number")),
        tagged=ask("includes", "x", tags, FeatureRef("user", "tags")),
    )
    batch = pa.record_batch({"user:number": [1, 3, None, 5, 2], "user:tags": [["x"], [], None, ["y", "x"], ["x"]]})
    whole = list(index.match_many(batch, NOW).segments())
    assert [
        segment for start in range(5) for segment in index.match_many(batch.slice(start, 1), NOW).segments()
    ] == whole
    assert whole == [{"tagged"}, {"number"}, frozenset(), {"number", "tagged"}, {"tagged"}]


@pytest.mark.parametrize("start", [0, 1, 9, 64])
def test_codes_of_texts_and_missing_values_at_any_place_of_a_batch(start: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In chunks of few rows, of which each finds what the one before has looked up; and bits of validity off a byte."""
    monkeypatch.setattr("rules_engine.targets.columns.column_index._CHUNK_BYTES", 8 * 7)
    texts = [None if row % 5 == 2 else f"item {row % 4}" for row in range(120)]
    numbers = [None if row % 3 == 0 else row for row in range(120)]
    index = columns(
        third=ask("contains", "m 3", STRING, FeatureRef("user", "text")),
        named=ask("in", ("item 1", "item 3"), STRING, FeatureRef("user", "text")),
        large=ask("at_least", 60, INTEGER, FeatureRef("user", "number")),
    )
    batch = pa.record_batch({"user:text": pa.array(texts).dictionary_encode(), "user:number": numbers}).slice(start)
    want = [
        {
            *(["third"] if text == "item 3" else []),
            *(["named"] if text in ("item 1", "item 3") else []),
            *(["large"] if number is not None and number >= 60 else []),
        }
        for text, number in zip(texts[start:], numbers[start:], strict=True)
    ]
    assert list(index.match_many(batch, NOW).segments()) == want


def test_what_comes_back() -> None:
    never = AllOf((ask("at_least", 3, INTEGER), ask("less_than", 2, INTEGER)))
    found = columns(big=ask("at_least", 3, INTEGER), small=ask("less_than", 3, INTEGER), never=never).match_many(
        pa.record_batch({"user:value": [1, None, 3]}), NOW
    )
    assert found.lists().to_pylist() == [["small"], [], ["big"]]
    assert found.counts() == {"big": 1, "small": 1}
    assert found.members("never").tolist() == [False] * 3
    assert found.members("small").tolist() == [True, False, False]


def test_no_rows_and_no_segments() -> None:
    batch = pa.record_batch({"user:value": pa.array([], pa.int64())})
    assert list(columns(big=ask("at_least", 3, INTEGER)).match_many(batch, NOW).segments()) == []
    assert list(columns().match_many(pa.record_batch({"x": [1, 2]}), NOW).segments()) == [frozenset()] * 2


def test_only_some_segments() -> None:
    program = Program(
        {
            "big": Segment("big", ask("at_least", 3, INTEGER)),
            "named": Segment("named", ask("exists", True, STRING, FeatureRef("user", "name"))),
        }
    )
    index = ColumnIndex(RuleIndex(program), ["big"])
    assert index.features == ("user:value",)
    assert list(index.match_many(pa.record_batch({"user:value": [5]}), NOW).segments()) == [{"big"}]
    with pytest.raises(UnknownNameError, match="there is no segment `bigg`"):
        ColumnIndex(RuleIndex(program), ["bigg"])


def test_values_expire_row_by_row() -> None:
    index = columns(known=ask("exists", True, INTEGER), unknown=ask("exists", False, INTEGER))
    batch = pa.record_batch({"user:value": [1, 2, 3, None]})
    for expires_at in (
        pa.array([NOW, NOW + 1, None, NOW + 1], pa.int64()),
        pa.array([NOW, NOW + 1, None, NOW + 1], pa.timestamp("us", "UTC")),
    ):
        found = index.match_many(batch, NOW, expires_at={"user": expires_at, "other": expires_at})
        assert [next(iter(row)) for row in found.segments()] == ["unknown", "known", "known", "unknown"]


def test_context_and_clock_are_the_same_for_all_rows() -> None:
    midday = Predicate(ClockRef(ClockField.TIME_OF_DAY), "at_least", 12 * HOUR, ValueType(Kind.TIME_OF_DAY))
    zone = ClockRef(ClockField.DAY_OF_WEEK, FeatureRef("user", "zone"))
    monday = Predicate(zone, "equals", "monday", ValueType(Kind.DAY_OF_WEEK))
    mobile = Predicate(ContextRef("device"), "equals", "mobile", STRING)
    index = columns(midday=AllOf((midday, ask("at_least", 2, INTEGER))), monday=monday, mobile=mobile)
    zones = pa.array(["UTC", "Pacific/Kiritimati", None, "Mars/Olympus"])
    batch = pa.record_batch({"user:value": [1, 2, 3, None], "user:zone": zones})
    found = list(index.match_many(batch, NOW, context={"device": "mobile"}).segments())
    assert found == [{"mobile", "monday"}, {"mobile", "midday"}, {"mobile", "midday"}, {"mobile"}]
    expires_at = {"user": pa.array([NOW] * 4, pa.int64())}
    assert set(index.match_many(batch, NOW, expires_at=expires_at).segments()) == {frozenset()}


# --- events ---------------------------------------------------------------------------------------------------------

VIEWS = EventAggregate(Aggregate.COUNT, EventMatch("view"), DAY)
FUNNEL = Sequence((SequenceStep(EventMatch("view")), SequenceStep(EventMatch("buy"))))


def test_values_of_event_conditions_are_given_as_columns() -> None:
    index = columns(busy=Predicate(VIEWS, "at_least", 2, INTEGER), bought=FUNNEL, not_bought=Not(FUNNEL))
    assert set(index.event_sources) == {VIEWS, FUNNEL}
    batch = pa.record_batch({"x": [0, 0, 0]})
    for views in (pa.array([1, 2, 3]), pa.array([1.0, 2.0, 3.0])):
        found = index.match_many(batch, NOW, events={VIEWS: views, FUNNEL: pa.array([True, False, True])})
        assert list(found.segments()) == [{"bought"}, {"busy", "not_bought"}, {"busy", "bought"}]


def test_event_conditions_without_values_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="count view in 1d") as caught:
        columns(busy=Predicate(VIEWS, "at_least", 2, INTEGER)).match_many(pa.record_batch({"x": [0]}), NOW)
    assert "entity by entity or in SQL" in str(caught.value.hint)


def test_a_batch_without_a_column_is_refused() -> None:
    with pytest.raises(DataError, match="no column for `user:value`") as caught:
        columns(big=ask("at_least", 3, INTEGER)).match_many(pa.record_batch({"user:valu": [1]}), NOW)
    assert "a column of nulls" in str(caught.value.hint)


def test_a_column_of_nulls_is_missing() -> None:
    assert rows_in(ask("at_least", 3, INTEGER), pa.nulls(3)) == []
    assert rows_in(ask("exists", False, STRING), pa.nulls(3)) == [0, 1, 2]
    assert rows_in(ask("starts_with", "a", STRING), pa.nulls(3)) == []
    assert rows_in(ask("exists", False, ValueType(Kind.STRING, is_list=True)), pa.nulls(3)) == [0, 1, 2]


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_a_text_that_nobody_has_beside_one_of_as_many_values_as_a_byte_tells_apart(names: tuple[str, str]) -> None:
    def has(name: str) -> Predicate:
        return Predicate(FeatureRef("u", name), "contains", "7", STRING)

    index = RuleIndex(Program({"s": Segment("s", AnyOf((has("a"), has("b"))))}))
    words = [f"w{number}" for number in range(255)]
    places = pa.array(range(255), pa.int32())
    nobody = pa.DictionaryArray.from_arrays(pa.nulls(255, pa.int32()), pa.array([], pa.large_string()))
    many = pa.DictionaryArray.from_arrays(places, pa.array(words, pa.large_string()))
    batch = pa.record_batch({f"u:{names[0]}": nobody, f"u:{names[1]}": many})
    assert ColumnIndex(index).match_many(batch, 0).members("s").tolist() == ["7" in word for word in words]
