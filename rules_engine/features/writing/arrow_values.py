"""Arrow columns to the bytes that Feast stores for their values, a column at a time.

Numbers, truths, strings, bytes, times and lists of them are done with numpy. All other types (maps, JSON, structs,
UUIDs, decimals, sets, lists of lists, and columns whose Arrow type is not the declared one) go through Feast's own
conversion, value by value, so that they are Feast's bytes by construction.

Where Feast's way through pandas damages values (a whole number beside a null passes through a float and loses its last
digits), these are right; everything else is the same, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feast.type_map import python_values_to_proto_values
from feast.types import FeastType
from feast.value_type import ValueType

from rules_engine.features.writing.ragged import Ints, Part, Ragged, Truths, constant, fixed, join, optional, varint

#: What Feast stores in place of a missing time.
_NO_TIME = np.iinfo(np.int64).min

_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}

#: The tag of the one value in a list's message, and of the values' bytes together if they have a fixed or packed form.
_ELEMENT = b"\x0a"

_Array = Any  # pyarrow ships no types
_Type = Any


def value_parts(column: _Array, feast_type: FeastType) -> list[Part]:
    r"""The parts of the stored values of a column, one row for each value; a null is no bytes at all.

    Parameters
    ----------
    column
        a ``pyarrow.Array``.
    feast_type
        what the feature is declared as.

    Raises
    ------
    ValueError, TypeError, AssertionError
        if a value cannot be of the declared type; the kinds are those of Arrow and Feast.

    Examples
    --------
    >>> from feast.types import Array, Int64, String
    >>> parts = value_parts(pa.array(["a", None]), String)
    >>> join(parts).row(0), join(parts).row(1)
    (b'\x12\x01a', b'')
    >>> join(value_parts(pa.array([[300, 1]]), Array(Int64))).row(0).hex()
    '72050a03ac0201'
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = feast_type.to_value_type()
    scalar = _SCALARS.get(kind)
    if scalar is not None and scalar.takes(column.type):
        return scalar.parts(column)
    listed = _LISTS.get(kind)
    if listed is not None and _is_list(column.type) and _taken_in_lists(column, listed[1]):
        return _list_parts(column, *listed)
    return [feasts_values(column, kind)]


def feasts_values(column: _Array, kind: ValueType) -> Ragged:
    """The stored values by Feast's own conversion."""
    messages = python_values_to_proto_values(column.to_numpy(zero_copy_only=False), kind)
    return Ragged.of([message.SerializeToString() for message in messages])


def strings(column: _Array) -> Ragged:
    """The bytes of a column of strings or byte strings; none for a null."""
    if pa.types.is_integer(column.type):
        column = column.cast(pa.string())
    wide = pa.large_binary()
    column = column.cast(pa.large_string()).cast(wide) if _is_text(column.type) else column.cast(wide)
    if column.null_count:  # what lies under a null is not ours to write
        column = pc.fill_null(column, b"")
    _, offsets, data = column.buffers()
    if data is None or not len(column):
        return Ragged(np.empty(0, np.uint8), np.zeros(len(column) + 1, np.int64))
    ends = np.frombuffer(offsets, np.int64, len(column) + 1, column.offset * 8)
    return Ragged(np.frombuffer(data, np.uint8), ends)


def micros(column: _Array) -> Ints:
    """A column of timestamps as microseconds since the epoch; a time without a zone is UTC, as for Feast.

    Raises
    ------
    ValueError
        if a value is missing or is no time.
    """
    if not pa.types.is_timestamp(column.type):  # dates and texts: as Feast reads them
        import pandas as pd

        column = pa.array(pd.to_datetime(column.to_pandas(), utc=True))
    if column.null_count:
        raise ValueError(f"row {int(np.argmin(_present(column)))} has no event timestamp")
    values = column.cast(pa.int64()).to_numpy(zero_copy_only=False).astype(np.int64)
    per_second = _PER_SECOND[column.type.unit]
    scaled: Ints = values // (per_second // 1_000_000) if per_second > 1_000_000 else values * (1_000_000 // per_second)
    return scaled


def timestamp_parts(instants: Ints) -> list[Part]:
    """A ``google.protobuf.Timestamp`` for each instant in microseconds."""
    seconds, rest = np.divmod(instants, 1_000_000)
    return [
        optional(b"\x08", seconds != 0),
        varint(seconds, seconds != 0),
        optional(b"\x10", rest != 0),
        varint(rest * 1_000, rest != 0),
    ]


@dataclass(frozen=True, slots=True)
class _Kind:
    """How values of one type are written: the tag before them, the Arrow types that are read, what follows the tag."""

    tag: bytes
    takes: Callable[[_Type], bool]
    values: Callable[[_Array, Truths], list[Part]]

    def parts(self, column: _Array) -> list[Part]:
        present = _present(column)
        if _is_float(column.type):  # not a number is stored as null
            present = present & ~np.isnan(column.to_numpy(zero_copy_only=False))
        elif pa.types.is_timestamp(column.type):  # Feast stores a value for a missing time
            present = np.ones(len(column), np.bool_)
        tag = constant(self.tag, len(column)) if present.all() else optional(self.tag, present)
        return [tag, *self.values(column, present)]


def _taken_in_lists(column: _Array, kind: _Kind) -> bool:
    """A null among whole numbers has no bytes of its own: Feast refuses it, and may say so."""
    element = column.type.value_type
    return kind.takes(element) and not (pa.types.is_integer(element) and column.flatten().null_count)


def _list_parts(column: _Array, list_tag: bytes, kind: _Kind) -> list[Part]:
    """A message with the elements: packed together if they are numbers, one by one if they are strings."""
    present = _present(column)
    column = column.cast(pa.large_list(column.type.value_type))
    if column.null_count:  # what lies under a null is not ours to write
        column = pc.if_else(pa.array(present), column, pa.scalar([], column.type))
    offsets = column.offsets.to_numpy(zero_copy_only=False)
    elements = column.values.slice(offsets[0], offsets[-1] - offsets[0])
    parts = kind.values(elements, np.ones(len(elements), np.bool_))
    one_by_one = kind.values is _text
    values = join([constant(_ELEMENT, len(elements)), *parts] if one_by_one else parts)
    rows = values.grouped(offsets - offsets[0])
    if one_by_one:
        return [optional(list_tag, present), varint(rows.sizes, present), rows]
    filled = rows.sizes > 0
    length = varint(rows.sizes, filled)
    whole = varint((1 + length.sizes + rows.sizes) * filled, present)
    return [optional(list_tag, present), whole, optional(_ELEMENT, filled), length, rows]


# --- one function for each way of writing values: what follows the tag ------------------------------------------------


def _integers(low: int, high: int) -> Callable[[_Array, Truths], list[Part]]:
    def parts(column: _Array, present: Truths) -> list[Part]:
        filled = pc.fill_null(column, 0) if column.null_count else column
        values = filled.cast(pa.int64()).to_numpy(zero_copy_only=False)
        if len(values) and not low <= int(values.min()) <= int(values.max()) <= high:
            raise ValueError(f"the column holds {values.min()} to {values.max()}, outside of {low} to {high}")
        return [varint(values, present)]

    return parts


def _floats(dtype: str) -> Callable[[_Array, Truths], list[Part]]:
    def parts(column: _Array, present: Truths) -> list[Part]:
        with np.errstate(over="ignore"):  # too large for a float is infinite, as in protobuf
            values = column.to_numpy(zero_copy_only=False).astype(dtype)
        return [fixed(values, None if present.all() else present)]

    return parts


def _truths(column: _Array, present: Truths) -> list[Part]:
    filled = pc.fill_null(column, fill_value=False) if column.null_count else column
    values = filled.to_numpy(zero_copy_only=False).astype(np.uint8)
    return [fixed(values, None if present.all() else present)]


def _times(column: _Array, present: Truths) -> list[Part]:
    values = column.cast(pa.int64())
    seconds = pc.fill_null(values, 0).to_numpy(zero_copy_only=False).astype(np.int64) // _PER_SECOND[column.type.unit]
    return [varint(np.where(_present(column), seconds, _NO_TIME), present)]


def _text(column: _Array, present: Truths) -> list[Part]:
    """A string with its length; in a list each with its tag. A null in a list is an empty string, as for Feast."""
    rows = strings(column)
    return [varint(rows.sizes, present), rows]


def _present(column: _Array) -> Truths:
    if not column.null_count:
        return np.ones(len(column), np.bool_)
    valid: Truths = column.is_valid().to_numpy(zero_copy_only=False)
    return valid


def _is_text(kind: _Type) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_text_or_integer(kind: _Type) -> bool:
    return _is_text(kind) or bool(pa.types.is_integer(kind))


def _is_binary(kind: _Type) -> bool:
    types = pa.types
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))


def _is_float(kind: _Type) -> bool:
    return bool(pa.types.is_floating(kind))


def _is_list(kind: _Type) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


_SCALARS = {
    ValueType.INT32: _Kind(b"\x18", pa.types.is_integer, _integers(-(2**31), 2**31 - 1)),
    ValueType.INT64: _Kind(b"\x20", pa.types.is_integer, _integers(-(2**63), 2**63 - 1)),
    ValueType.DOUBLE: _Kind(b"\x29", _is_float, _floats("<f8")),
    ValueType.FLOAT: _Kind(b"\x35", _is_float, _floats("<f4")),
    ValueType.BOOL: _Kind(b"\x38", pa.types.is_boolean, _truths),
    ValueType.UNIX_TIMESTAMP: _Kind(b"\x40", pa.types.is_timestamp, _times),
    ValueType.BYTES: _Kind(b"\x0a", _is_binary, _text),
    ValueType.STRING: _Kind(b"\x12", _is_text_or_integer, _text),
}
_LISTS = {
    ValueType.INT32_LIST: (b"\x6a", _SCALARS[ValueType.INT32]),
    ValueType.INT64_LIST: (b"\x72", _SCALARS[ValueType.INT64]),
    ValueType.DOUBLE_LIST: (b"\x7a", _SCALARS[ValueType.DOUBLE]),
    ValueType.FLOAT_LIST: (b"\x82\x01", _SCALARS[ValueType.FLOAT]),
    ValueType.BOOL_LIST: (b"\x8a\x01", _SCALARS[ValueType.BOOL]),
    ValueType.UNIX_TIMESTAMP_LIST: (b"\x92\x01", _SCALARS[ValueType.UNIX_TIMESTAMP]),
    ValueType.BYTES_LIST: (b"\x5a", _SCALARS[ValueType.BYTES]),
    ValueType.STRING_LIST: (b"\x62", _SCALARS[ValueType.STRING]),
}


def columns_for(names: Sequence[str], batch: Any) -> list[_Array]:
    """The named columns of a record batch.

    Raises
    ------
    ValueError
        if one is not there.
    """
    missing = [name for name in names if name not in batch.schema.names]
    if missing:
        raise ValueError(f"Column {missing[0]} not found in table")  # Feast's own words
    return [batch.column(name) for name in names]
