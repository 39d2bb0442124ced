"""List what columns of sources may hold: by declared type the types of columns, their values, and how each is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa

from tests.property import pools

_SECOND = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
_OLD = datetime(1969, 12, 31, 23, 59, 58, tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAN = float("nan")

Convert = Callable[[Any], Any]


def same(value: Any) -> Any:
    return value


def floored(value: Any) -> Any:
    """Return an instant in whole seconds; without a zone it is UTC."""
    return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC).replace(microsecond=0)


def after_1970(value: Any) -> Any:
    return _EPOCH + timedelta(seconds=int(value))


def midnight(value: Any) -> Any:
    return datetime(value.year, value.month, value.day, tzinfo=UTC)


def single(value: Any) -> Any:
    return pa.scalar(value, pa.float32()).as_py()


def floats(value: Any) -> Any:
    return [float(each) for each in value]


def seconds(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(seconds=1)


@dataclass(frozen=True)
class Column:
    """One type that a column may have.

    Attributes
    ----------
    values
        values at the edges, and those that literals of conditions have.
    convert
        returns what a value is read as, whoever reads it.
    of_instant
        for times: returns the value that says an instant, as far as the type can say it.
    """

    kind: pa.DataType
    values: Sequence[Any]
    convert: Convert = same
    of_instant: Convert | None = None

    def read(self, value: Any) -> Any:
        """Return what a value of the column is read as: null and NaN are missing."""
        return None if value is None or (isinstance(value, float) and math.isnan(value)) else self.convert(value)

    def array(self, values: Sequence[Any]) -> pa.Array:
        """Return values as a column of this type."""
        if pa.types.is_dictionary(self.kind):
            return pa.array(values, self.kind.value_type).dictionary_encode()
        return pa.array(values, self.kind)


def _whole(low: int, high: int) -> list[int]:
    return [number for number in pools.INTEGERS if low <= number <= high]


def _times(kind: pa.DataType, of_instant: Convert = same, convert: Convert = floored) -> Column:
    return Column(kind, [of_instant(at) for at in (_SECOND, _OLD, _SECOND + 999 * _MILLI)], convert, of_instant)


_MILLI = timedelta(milliseconds=1)
_SMALL = pools.SMALL_INTEGERS
_INT32 = _whole(-(2**31), 2**31 - 1)
_HALVES = [Decimal(number) / 2 for number in (0, 1, 2, 4, 5, 10, -2)]

COLUMNS: Mapping[str, Sequence[Column]] = {
    "Bool": (Column(pa.bool_(), [True, False]),),
    "Int32": (
        Column(pa.int32(), _INT32),
        Column(pa.int64(), _INT32),
        Column(pa.int8(), _SMALL),
        Column(pa.uint8(), [0, 1, 2, 3, 5, 255]),
        Column(pa.float32(), [0.0, 1.0, 2.0, -3.0, _NAN], int),
    ),
    "Int64": (
        Column(pa.int64(), pools.INTEGERS),
        Column(pa.int32(), _INT32),
        Column(pa.uint64(), _whole(0, 2**63 - 1)),
        Column(pa.float64(), [_NAN, 2.0**53 - 1, -7.0, 1.0, 2.0, 5.0], int),
        Column(pa.decimal128(20, 2), [Decimal(number) for number in (3, -(2**53) - 1, *_SMALL)], int),
    ),
    "Float32": (
        Column(pa.float32(), [*pools.FLOATS32, *pools.ENDLESS, _NAN], single),
        Column(pa.float64(), [*pools.HALVES, 0.1, 1e300, _NAN], single),
        Column(pa.int8(), [-3, *_SMALL], float),
    ),
    "Float64": (
        Column(pa.float64(), [*pools.FLOATS, *pools.ENDLESS, _NAN]),
        Column(pa.float32(), [*pools.FLOATS32, _NAN]),
        Column(pa.int64(), [2**53, -(2**53), *_SMALL], float),
        Column(pa.decimal128(38, 20), [Decimal("0.1"), Decimal("-1.50"), *_HALVES], float),
        Column(pa.decimal128(9, 1), _HALVES, float),
    ),
    "String": (
        Column(pa.string(), pools.STRINGS),
        Column(pa.large_string(), ["a" * 300, *pools.STRINGS]),
        Column(pa.dictionary(pa.int32(), pa.string()), pools.STRINGS),
    ),
    "Bytes": (
        Column(pa.binary(), [b"", b"\x00\xff", b"a"]),
        Column(pa.large_binary(), [b"", b"a"]),
        Column(pa.binary(2), [b"ab", b"\x00\xff"]),
    ),
    "UnixTimestamp": (
        _times(pa.timestamp("us", "UTC")),
        _times(pa.timestamp("ns", "UTC")),
        _times(pa.timestamp("ms", "UTC"), lambda at: at.replace(microsecond=at.microsecond // 1_000 * 1_000)),
        _times(pa.timestamp("us", "Asia/Kolkata")),
        _times(pa.timestamp("us"), lambda at: at.replace(tzinfo=None)),
        _times(pa.int64(), seconds, after_1970),
        _times(pa.float64(), lambda at: float(seconds(at)), after_1970),
        _times(pa.decimal128(20, 2), lambda at: Decimal(seconds(at)), after_1970),
        _times(pa.date32(), lambda at: at.date(), midnight),
    ),
    "Array(String)": (
        Column(pa.list_(pa.string()), [[], ["a"], ["b", "", "é"], ["a", "ab", "A"]]),
        Column(pa.large_list(pa.large_string()), [[], ["b", "a"], ["Ab"]]),
        Column(pa.list_(pa.string(), 2), [["a", "b"], ["", "ab"]]),
    ),
    "Array(Int64)": (
        Column(pa.list_(pa.int64()), [[], [2**53 + 1, 0], [1, 2], [3, -1, 5]]),
        Column(pa.large_list(pa.int32()), [[], [10], [1, 2]]),
        Column(pa.list_(pa.float64()), [[1.0], [2.0, 5.0]], lambda value: [int(each) for each in value]),
    ),
    "Array(Float64)": (
        Column(pa.list_(pa.float64()), [[], [0.5, 2.5], [-0.0, 1.0, 5.0]]),
        Column(pa.list_(pa.int32()), [[], [1, 2], [5, -1]], floats),
    ),
}

#: By declared type a column that every path refuses.
REFUSED: Sequence[tuple[str, pa.DataType, Any]] = (
    ("Int64", pa.string(), "3"),
    ("Int64", pa.float64(), 1.5),
    ("Int32", pa.int64(), 2**31),
    ("String", pa.int64(), 150),
    ("Float64", pa.int64(), 2**53 + 1),
    ("Bool", pa.int64(), 1),
    ("UnixTimestamp", pa.int64(), 1_795_046_400_000),
    ("Array(String)", pa.string(), "a"),
)
