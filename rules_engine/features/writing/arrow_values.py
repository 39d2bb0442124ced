"""Turn Arrow columns into the bytes that Feast stores for their values, a column at a time.

Numbers, truths, strings, bytes, times and lists of them are done with numpy, once the table of types
(``column_types.py``) has made them what the feature declares. All other types (maps, JSON, structs, UUIDs, decimals,
sets, lists of lists) go through Feast's own conversion, value by value, so that they are Feast's bytes by construction.

Where Feast's way through pandas damages values (a whole number beside a null passes through a float and loses its last
digits), these are right; everything else that the table accepts is the same, byte for byte.
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

from rules_engine.errors import FeatureColumnError
from rules_engine.features.column_values import as_declared
from rules_engine.features.writing.ragged import Ints, Part, Ragged, Truths, constant, fixed, join, optional, varint

#: What Feast stores in place of a missing time.
_NO_TIME = np.iinfo(np.int64).min

_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}

#: The tag of the one value in a list's message, and of the values' bytes together if they have a fixed or packed form.
_ELEMENT = b"\x0a"

_Array = Any  # pyarrow ships no types
_Type = Any


def value_parts(column: _Array, feast_type: FeastType, feature: str) -> list[Part]:
    r"""Make the parts of the stored values of a column, one row for each value; a null is no bytes at all.

    Parameters
    ----------
    column
        a ``pyarrow.Array``.
    feast_type
        what the feature is declared as.
    feature
        ``"view:name"``, for messages.

    Raises
    ------
    FeatureColumnError
        if the column, or one of its values, cannot be of the declared type.

    Examples
    --------
    >>> from feast.types import Array, Int64, String
    >>> parts = value_parts(pa.array(["a", None]), String, "v:x")
    >>> join(parts).row(0), join(parts).row(1)
    (b'\x12\x01a', b'')
    >>> join(value_parts(pa.array([[300, 1]]), Array(Int64), "v:x")).row(0).hex()
    '72050a03ac0201'
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    column = as_declared(column, feature, str(feast_type))
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = feast_type.to_value_type()
    if kind in _SCALARS:
        return _SCALARS[kind].parts(column)
    if kind in _LISTS:
        return _list_parts(column, *_LISTS[kind])
    try:
        return [feasts_values(column, kind)]
    except (ValueError, TypeError, AssertionError) as error:
        raise FeatureColumnError(f"feature `{feature}` cannot be stored as {feast_type}: {error}", feature) from error


def feasts_values(column: _Array, kind: ValueType) -> Ragged:
    """Return the stored values by Feast's own conversion."""
    messages = python_values_to_proto_values(column.to_numpy(zero_copy_only=False), kind)
    return Ragged.of([message.SerializeToString() for message in messages])


def strings(column: _Array) -> Ragged:
    """Return the bytes of a column of strings or byte strings; none for a null."""
    wide = pa.large_binary()
    column = column.cast(pa.large_string()).cast(wide) if _is_text(column.type) else column.cast(wide)
    if column.null_count:  # what lies under a null is not ours to write
        column = pc.fill_null(column, b"")
    _, offsets, data = column.buffers()
    if data is None or not len(column):
        return Ragged(np.empty(0, np.uint8), np.zeros(len(column) + 1, np.int64))
    ends = np.frombuffer(offsets, np.int64, len(column) + 1, column.offset * 8)
    return Ragged(np.frombuffer(data, np.uint8), ends)


def timestamp_parts(instants: Ints) -> list[Part]:
    """Return a ``google.protobuf.Timestamp`` for each instant in microseconds."""
    seconds, rest = np.divmod(instants, 1_000_000)
    return [
        optional(b"\x08", seconds != 0),
        varint(seconds, seconds != 0),
        optional(b"\x10", rest != 0),
        varint(rest * 1_000, rest != 0),
    ]


@dataclass(frozen=True, slots=True)
class _Kind:
    """Writes the values of one type: a tag, and the bytes that follow it."""

    tag: bytes
    values: Callable[[_Array, Truths], list[Part]]

    def parts(self, column: _Array) -> list[Part]:
        present = _present(column)
        if _is_float(column.type):  # not a number is stored as null
            present = present & ~np.isnan(column.to_numpy(zero_copy_only=False))
        elif pa.types.is_timestamp(column.type):  # Feast stores a value for a missing time
            present = np.ones(len(column), np.bool_)
        tag = constant(self.tag, len(column)) if present.all() else optional(self.tag, present)
        return [tag, *self.values(column, present)]


def _list_parts(column: _Array, list_tag: bytes, kind: _Kind) -> list[Part]:
    """Return a message with the elements: packed together if they are numbers, one by one if they are strings."""
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


def _integers(column: _Array, present: Truths) -> list[Part]:
    filled = pc.fill_null(column, 0) if column.null_count else column
    return [varint(filled.cast(pa.int64()).to_numpy(zero_copy_only=False), present)]


def _floats(column: _Array, present: Truths) -> list[Part]:
    values = column.to_numpy(zero_copy_only=False)
    return [fixed(values.astype(values.dtype.newbyteorder("<")), None if present.all() else present)]


def _truths(column: _Array, present: Truths) -> list[Part]:
    filled = pc.fill_null(column, fill_value=False) if column.null_count else column
    values = filled.to_numpy(zero_copy_only=False).astype(np.uint8)
    return [fixed(values, None if present.all() else present)]


def _times(column: _Array, present: Truths) -> list[Part]:
    values = column.cast(pa.int64())
    seconds = pc.fill_null(values, 0).to_numpy(zero_copy_only=False).astype(np.int64) // _PER_SECOND[column.type.unit]
    return [varint(np.where(_present(column), seconds, _NO_TIME), present)]


def _text(column: _Array, present: Truths) -> list[Part]:
    """Return a string with its length; in a list each with its tag."""
    rows = strings(column)
    return [varint(rows.sizes, present), rows]


def _present(column: _Array) -> Truths:
    if not column.null_count:
        return np.ones(len(column), np.bool_)
    valid: Truths = column.is_valid().to_numpy(zero_copy_only=False)
    return valid


def _is_text(kind: _Type) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_float(kind: _Type) -> bool:
    return bool(pa.types.is_floating(kind))


_SCALARS = {
    ValueType.INT32: _Kind(b"\x18", _integers),
    ValueType.INT64: _Kind(b"\x20", _integers),
    ValueType.DOUBLE: _Kind(b"\x29", _floats),
    ValueType.FLOAT: _Kind(b"\x35", _floats),
    ValueType.BOOL: _Kind(b"\x38", _truths),
    ValueType.UNIX_TIMESTAMP: _Kind(b"\x40", _times),
    ValueType.BYTES: _Kind(b"\x0a", _text),
    ValueType.STRING: _Kind(b"\x12", _text),
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
    """Return the named columns of a record batch.

    Raises
    ------
    ValueError
        if one is not there.
    """
    missing = [name for name in names if name not in batch.schema.names]
    if missing:
        raise ValueError(f"Column {missing[0]} not found in table")  # Feast's own words
    return [batch.column(name) for name in names]
