"""Arrow columns as numpy arrays and as the values that rules read: kinds of values, times, nulls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rules_engine.rules.types import Kind, Value

Codes = npt.NDArray[np.integer[Any]]
Flags = npt.NDArray[np.bool_]

_CHECKS: dict[Kind, tuple[Callable[[pa.DataType], bool], ...]] = {
    Kind.FLOAT: (pa.types.is_integer, pa.types.is_floating),
    Kind.BOOLEAN: (pa.types.is_boolean,),
    Kind.BYTES: (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary),
    Kind.STRING: (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
}


def holds_kind(column: pa.DataType, kind: Kind) -> bool:
    """Say whether values of an Arrow type are of a kind, as :func:`rules_engine.rules.types.conform` judges them."""
    if kind is Kind.TIME:
        return is_time(column) or bool(pa.types.is_integer(column))
    if kind is Kind.STRING:
        return is_string(column)
    return any(check(column) for check in _CHECKS[Kind.FLOAT if kind.is_number else kind])


def is_time(kind: pa.DataType) -> bool:
    """Say whether an Arrow type holds times or dates."""
    return any(check(kind) for check in (pa.types.is_timestamp, pa.types.is_date))


def is_string(kind: pa.DataType) -> bool:
    """Say whether an Arrow type holds strings, also as a dictionary."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return any(check(kind) for check in _CHECKS[Kind.STRING])


def is_list(kind: pa.DataType) -> bool:
    """Say whether an Arrow type holds lists."""
    return any(check(kind) for check in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list))


def micros(column: pa.Array) -> npt.NDArray[np.int64]:
    """Return times as microseconds since the epoch, whatever their unit; zero where null."""
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("us"))
    unit = column.type.unit
    ticks = to_numpy(column.cast(pa.int64()))
    scaled = ticks // 1000 if unit == "ns" else ticks * {"s": 1_000_000, "ms": 1000, "us": 1}[unit]
    return scaled.astype(np.int64, copy=False)


def python_values(column: pa.Array) -> list[Value]:
    """Return the values as rules read them: times are microseconds.

    >>> python_values(pa.array(["a", None]))
    ['a', None]
    """
    values: list[Value] = micros(column).tolist() if is_time(column.type) else column.to_pylist()
    return [value if valid else None for value, valid in zip(values, column.is_valid().to_pylist(), strict=True)]


def python_value(scalar: pa.Scalar) -> Value:
    """Return the value as rules read it: times are microseconds.

    >>> import datetime
    >>> python_value(pa.scalar(datetime.datetime(1970, 1, 1, 0, 0, 1)))
    1000000
    """
    if not scalar.is_valid:
        return None
    if is_time(scalar.type):
        return int(micros(pa.array([scalar]))[0])
    return scalar.as_py()


def to_numpy(column: pa.Array, null: Any = 0) -> npt.NDArray[Any]:
    """Return the values, with ``null`` in place of nulls."""
    filled = column.fill_null(null) if column.null_count else column
    array: npt.NDArray[Any] = filled.to_numpy(zero_copy_only=False)
    return array


def raw_values(column: pa.Array) -> npt.NDArray[Any]:
    """Return numbers or flags as they lie in memory. Where the column is null the value is arbitrary."""
    if column.null_count:
        column = pa.Array.from_buffers(column.type, len(column), [None, column.buffers()[1]], offset=column.offset)
    array: npt.NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return array


def null_flags(column: pa.Array) -> Flags | None:
    """Return flags of the rows that are null or NaN; None if there are none."""
    if column.null_count == 0 and not pa.types.is_floating(column.type):
        return None
    flags: Flags = column.is_null(nan_is_null=True).to_numpy(zero_copy_only=False)
    return flags


def zero_where_null(codes: Codes, column: pa.Array) -> Codes:
    """Return the codes, changed to 0 where the column is null."""
    if column.null_count == 0:
        return codes
    if column.buffers()[0] is None:
        codes *= column.is_valid().to_numpy(zero_copy_only=False)
        return codes
    first, end = column.offset, column.offset + len(column)
    bits = np.frombuffer(column.buffers()[0], dtype=np.uint8)[first // 8 : (end + 7) // 8]
    codes *= np.unpackbits(bits, bitorder="little")[first % 8 :][: len(column)]
    return codes
