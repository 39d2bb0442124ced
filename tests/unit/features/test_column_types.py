"""The table of types: every declared type against every type of a column, and single values at the edges."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from rules_engine.errors import DataError, FeatureColumnError
from rules_engine.features.column_types import CONVERSIONS, Family, family, is_accepted
from rules_engine.features.column_values import as_declared, entity_keys, event_instants

NAN = float("nan")
MOMENT = datetime(2026, 1, 1, 0, 0, 0, 999_999, tzinfo=UTC)
SECOND = MOMENT.replace(microsecond=0)

#: For each family a column with a value and a null.
COLUMNS: dict[Family, list[pa.Array]] = {
    Family.BOOLEAN: [pa.array([True, None])],
    Family.INTEGER: [pa.array([3, None], kind) for kind in (pa.int8(), pa.uint64(), pa.int64())],
    Family.FLOAT: [pa.array([3, None], kind) for kind in (pa.float16(), pa.float32(), pa.float64())],
    Family.DECIMAL: [pa.array([Decimal(3), None], kind) for kind in (pa.decimal128(9, 2), pa.decimal256(50, 3))],
    Family.TEXT: [
        *(pa.array(["3", None], kind) for kind in (pa.string(), pa.large_string(), pa.string_view())),
        pa.array(["3", None]).dictionary_encode(),
    ],
    Family.BINARY: [pa.array([b"abc", None], kind) for kind in (pa.binary(), pa.large_binary(), pa.binary(3))],
    Family.TIMESTAMP: [pa.array([SECOND, None], pa.timestamp(unit, "UTC")) for unit in ("s", "ms", "us", "ns")],
    Family.DATE: [pa.array([SECOND.date(), None], kind) for kind in (pa.date32(), pa.date64())],
    Family.LIST: [pa.array([[3], None]), pa.array([["a"], None], pa.large_list(pa.string()))],
    Family.NOTHING: [pa.nulls(2)],
    Family.OTHER: [
        pa.array([3, None], pa.duration("s")),
        pa.array([3, None], pa.time64("us")),
        pa.array([{"a": 1}, None]),
    ],
}

#: By declared type the value that each of the columns above gives.
VALUES: dict[str, dict[Family, Any]] = {
    "Bool": {Family.BOOLEAN: True},
    "Int32": dict.fromkeys((Family.INTEGER, Family.FLOAT, Family.DECIMAL), 3),
    "Int64": dict.fromkeys((Family.INTEGER, Family.FLOAT, Family.DECIMAL), 3),
    "Float32": dict.fromkeys((Family.INTEGER, Family.FLOAT, Family.DECIMAL), 3.0),
    "Float64": dict.fromkeys((Family.INTEGER, Family.FLOAT, Family.DECIMAL), 3.0),
    "String": {Family.TEXT: "3"},
    "Bytes": {Family.BINARY: b"abc"},
    "UnixTimestamp": {
        Family.TIMESTAMP: SECOND,
        Family.DATE: SECOND,
        **dict.fromkeys((Family.INTEGER, Family.FLOAT, Family.DECIMAL), datetime(1970, 1, 1, 0, 0, 3, tzinfo=UTC)),
    },
}


def test_the_columns_of_this_test_are_of_their_families_and_all_are_there() -> None:
    assert COLUMNS.keys() == set(Family)
    assert VALUES.keys() == CONVERSIONS.keys()
    assert all(family(column.type) is named for named, columns in COLUMNS.items() for column in columns)


@pytest.mark.parametrize("declared", VALUES)
@pytest.mark.parametrize("named", Family)
def test_a_column_gives_the_value_of_the_table_or_is_refused(declared: str, named: Family) -> None:
    for column in COLUMNS[named]:
        if named is Family.NOTHING or named in VALUES[declared]:
            assert is_accepted(column.type, declared)
            expected = None if named is Family.NOTHING else VALUES[declared][named]
            found = as_declared(column, "v:x", declared).to_pylist()
            assert found == [expected, None]
            assert type(found[0]) is type(expected)
        else:
            assert not is_accepted(column.type, declared)
            with pytest.raises(
                FeatureColumnError, match=f"`v:x` is declared {declared}, and its source holds"
            ) as raised:
                as_declared(column, "v:x", declared)
            assert raised.value.feature == "v:x"
            assert "write the column as" in str(raised.value.hint)
        assert as_declared(column.slice(1), "v:x", declared).to_pylist() == [None], "all of it is missing"


@pytest.mark.parametrize("declared", VALUES)
def test_lists_go_by_the_rows_of_their_elements(declared: str) -> None:
    for named, columns in COLUMNS.items():
        if named in (Family.NOTHING, Family.LIST):
            continue
        for column in columns:
            if pa.types.is_dictionary(column.type) or pa.types.is_string_view(column.type):
                continue  # Arrow makes no list of these here
            offsets = pa.array([0, 0, 1, None, 2], pa.int32())
            lists = pa.ListArray.from_arrays(offsets, column)  # [], [value], [null], null
            if named in VALUES[declared]:
                found = as_declared(lists, "v:x", f"Array({declared})").to_pylist()
                assert found == [[], [VALUES[declared][named]], [], None]
                assert as_declared(lists.slice(1, 2), "v:x", f"Array({declared})").to_pylist() == found[1:3]
            else:
                with pytest.raises(FeatureColumnError, match="and its source holds"):
                    as_declared(lists, "v:x", f"Array({declared})")


@pytest.mark.parametrize(
    ("values", "kind", "declared", "expected"),
    [
        ([1.0, NAN, None, -2.0], pa.float64(), "Int64", [1, None, None, -2]),
        ([2**53 + 1, None, -(2**63)], pa.int64(), "Int64", [2**53 + 1, None, -(2**63)]),
        ([2**53, -(2**53)], pa.int64(), "Float64", [2.0**53, -(2.0**53)]),
        ([Decimal("0.10"), Decimal("123456789012345.67")], pa.decimal128(38, 4), "Float64", [0.1, 123456789012345.67]),
        ([1e300], pa.float64(), "Float32", [float("inf")]),
        ([MOMENT, None], pa.timestamp("us", "UTC"), "UnixTimestamp", [SECOND, None]),
        (
            [datetime(1969, 12, 31, 23, 59, 59, 1, tzinfo=UTC)],
            pa.timestamp("us"),
            "UnixTimestamp",
            [datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)],
        ),
        (
            [date(1, 1, 1), date(9999, 12, 31)],
            pa.date32(),
            "UnixTimestamp",
            [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)],
        ),
        ([NAN, None], pa.float64(), "UnixTimestamp", [None, None]),
        ([NAN, NAN], pa.float64(), "Array(String)", [None, None]),
        ([NAN], pa.float32(), "Bool", [None]),
    ],
)
def test_edges_that_are_taken(values: list[Any], kind: pa.DataType, declared: str, expected: list[Any]) -> None:
    assert as_declared(pa.array(values, kind), "v:x", declared).to_pylist() == expected


def test_float32_is_the_stored_value() -> None:
    (found,) = as_declared(pa.array([0.1]), "v:x", "Float32").to_pylist()
    assert found == pytest.approx(0.1, rel=1e-6)
    assert found != 0.1


@pytest.mark.parametrize(
    ("values", "kind", "declared", "words"),
    [
        ([1, 1.5], pa.float64(), "Int64", "1.5 is no whole number"),
        ([float("inf")], pa.float64(), "Int64", "inf is no whole number"),
        ([Decimal("1.50")], pa.decimal128(5, 2), "Int64", "1.50 is no whole number"),
        ([2.0**53], pa.float64(), "Int64", "9007199254740992 was a float"),
        ([2**40], pa.int64(), "Int32", "from 1099511627776 to 1099511627776 are outside of -2147483648 to 2147483647"),
        ([2**63], pa.uint64(), "Int64", "are outside of"),
        ([Decimal(10**30)], pa.decimal128(38, 0), "Int64", "is declared Int64"),
        ([-(2**53) - 1], pa.int64(), "Float64", "9007199254740993 is beyond 9007199254740992"),
        ([2**24 + 1], pa.int64(), "Float32", "16777217 is beyond 16777216"),
        ([Decimal(2**60)], pa.decimal128(38, 0), "Float64", "where floats leave out whole numbers"),
        ([1795046400000], pa.int64(), "UnixTimestamp", "is the year 58852; are these milliseconds?"),
        ([-1795046400000], pa.int64(), "UnixTimestamp", "are these milliseconds?"),
        ([2**62], pa.timestamp("us"), "UnixTimestamp", "is the year 148108"),
        ([0.5], pa.float64(), "UnixTimestamp", "0.5 is no whole number"),
        ([[2**40]], pa.list_(pa.int64()), "Array(Int32)", "are outside of"),
    ],
)
def test_values_that_would_be_rounded_cut_or_guessed_are_refused(
    values: list[Any], kind: pa.DataType, declared: str, words: str
) -> None:
    with pytest.raises(FeatureColumnError, match=words.replace("?", r"\?")) as raised:
        as_declared(pa.array(values, kind), "v:x", declared)
    assert raised.value.hint


def test_types_that_rules_cannot_read_stay_as_they_are() -> None:
    column = pa.array(["{}"])
    assert as_declared(column, "v:x", "Json") is column


def test_keys_are_texts_and_whole_numbers_have_one_spelling() -> None:
    for column in (
        pa.array([42, None]),
        pa.array([42.0, NAN]),
        pa.array([Decimal("42.00"), None]),
        pa.array(["42", None]),
    ):
        assert entity_keys(column, "id").to_pylist() == ["42", None]
    assert entity_keys(pa.array(["b", None, "b"]).dictionary_encode(), "id").to_pylist() == ["b", None, "b"]
    assert entity_keys(pa.array([2**63], pa.uint64()).slice(1), "id").to_pylist() == []
    for column, words in (
        (pa.array([42.5]), "42.5 is no whole number"),
        (pa.array([2.0**60]), "was a float"),
        (pa.array([b"a"]), "holds binary, and entity keys are strings or whole numbers"),
        (pa.array([True]), "holds bool"),
    ):
        with pytest.raises(DataError, match=words) as raised:
            entity_keys(column, "id")
        assert raised.value.hint


def test_rows_have_timestamps_or_dates_and_no_texts() -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    micros = int(at.timestamp()) * 10**6
    for unit in ("s", "ms", "us", "ns"):
        for zone in (None, "UTC", "Europe/Berlin"):
            column = pa.array([micros, None]).cast(pa.timestamp("us")).cast(pa.timestamp(unit)).cast(pa.int64())
            assert event_instants(column.cast(pa.timestamp(unit, zone)), "at").to_pylist() == [micros, None]
    assert event_instants(pa.array([at.date(), None]), "at").to_pylist() == [micros, None]
    assert event_instants(pa.array([-1], pa.timestamp("ns")), "at").to_pylist() == [-1]
    for column in (pa.array(["2026-01-02T00:00:00Z"]), pa.array([micros])):
        with pytest.raises(DataError, match="the timestamp column `at` holds"):
            event_instants(column, "at")
