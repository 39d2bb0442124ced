"""From the bytes of Feast's ``Value`` message to the values that rules read.

A stored value is one field of that message: a tag, then the content. So a value says itself what it is; a table by
tag, made once, holds how each is read, and no protobuf runtime is needed. A contract test checks every tag against
the installed Feast.

What comes out, by Feast's type: numbers, booleans, strings and bytes as themselves (a float32 widened);
``UnixTimestamp`` and ``ZonedTimestamp`` as microseconds; ``Json`` parsed; ``Uuid`` and ``Decimal`` as their text;
maps and structs as dictionaries; lists and sets as tuples in stored order. Null, NaN and Feast's null timestamp are
None, and are left out of a list.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from struct import Struct
from typing import Any

from rules_engine.clock import SECOND
from rules_engine.errors import StoreDataError
from rules_engine.rules.types import Value

#: Reads the content of a stored value, from the bytes and the offset behind the tag.
Reader = Callable[[bytes, int], Value]

_DOUBLE = Struct("<d").unpack_from
_FLOAT = Struct("<f").unpack_from
_NULL_TIMESTAMP = -(2**63)

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


class _DamagedError(ValueError):
    """The bytes are not what the tag promises."""


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """An unsigned whole number of variable length, and the offset behind it."""
    byte = raw[at]
    if byte < 0x80:
        return byte, at + 1
    value, shift = byte & 0x7F, 7
    while True:
        at += 1
        byte = raw[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + 1
        shift += 7
        if shift > 63:
            raise _DamagedError("a number has more than ten bytes")


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _content(raw: bytes, at: int) -> bytes:
    """The content of a field that fills the rest of the bytes."""
    length, start = _varint(raw, at)
    if start + length != len(raw):
        raise _DamagedError(f"expected {length} bytes of content, found {len(raw) - start}")
    return raw[start:]


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a message: number and content; whole numbers are not signed yet."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        size, at = _varint(message, at) if wire == _LENGTH else ({_FIXED64: 8, _FIXED32: 4}[wire], at)
        if at + size > len(message):
            raise _DamagedError(f"expected {size} bytes of content, found {len(message) - at}")
        yield number, message[at : at + size]
        at += size


# --- single values
# ---------------------------------------------------------------------------------------------------


def _integer(raw: bytes, at: int) -> Value:
    return _signed(_varint(raw, at)[0])


def _boolean(raw: bytes, at: int) -> Value:
    return _varint(raw, at)[0] != 0


def _double(raw: bytes, at: int) -> Value:
    value: float = _DOUBLE(raw, at)[0]
    return None if math.isnan(value) else value


def _float(raw: bytes, at: int) -> Value:
    value: float = _FLOAT(raw, at)[0]
    return None if math.isnan(value) else value


def _time(raw: bytes, at: int) -> Value:
    return _instant(_varint(raw, at)[0])


def _instant(unsigned: int) -> Value:
    seconds = _signed(unsigned)
    return None if seconds == _NULL_TIMESTAMP else seconds * SECOND


def _string(raw: bytes, at: int) -> Value:
    return _content(raw, at).decode()


def _json(raw: bytes, at: int) -> Value:
    return _parsed(_content(raw, at).decode())


def _parsed(text: str) -> Value:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _null(_raw: bytes, _at: int) -> Value:
    return None


def _zoned_time(raw: bytes, at: int) -> Value:
    return _instant(dict(_fields(_content(raw, at))).get(1, 0))


# --- lists
# -----------------------------------------------------------------------------------------------------------


def _list_of(element: Callable[[Any], Value]) -> Reader:
    """Lists whose elements are one field each: strings, bytes, messages."""

    def read(raw: bytes, at: int) -> Value:
        values = (element(content) for _, content in _fields(_content(raw, at)))
        return tuple(value for value in values if value is not None)

    return read


def _packed_numbers(element: Callable[[int], Value]) -> Reader:
    """Lists of whole numbers, which are packed into one field; a writer may also give each a field of its own."""

    def read(raw: bytes, at: int) -> Value:
        values: list[Value] = []
        for _, content in _fields(_content(raw, at)):
            if isinstance(content, int):
                values.append(element(content))
                continue
            offset = 0
            while offset < len(content):
                number, offset = _varint(content, offset)
                values.append(element(number))
        return tuple(value for value in values if value is not None)

    return read


def _packed_floats(code: str, size: int) -> Reader:
    def read(raw: bytes, at: int) -> Value:
        values: list[float] = []
        for _, content in _fields(_content(raw, at)):
            if len(content) % size:
                raise _DamagedError(f"{len(content)} bytes are no whole number of floats of {size} bytes")
            values += Struct(f"<{len(content) // size}{code}").unpack(content)
        return tuple(value for value in values if not math.isnan(value))

    return read


def _json_list(raw: bytes, at: int) -> Value:
    """A ``null`` in JSON is a value and stays."""
    return tuple(_parsed(content.decode()) for _, content in _fields(_content(raw, at)))


# --- maps and nested values
# ------------------------------------------------------------------------------------------


def _map(message: bytes) -> Value:
    """A ``Map``: entries of a string and a value."""
    entries = (dict(_fields(entry)) for _, entry in _fields(message))
    return {entry.get(1, b"").decode(): decode(entry.get(2, b"")) for entry in entries}


def _scalar_map(message: bytes) -> Value:
    """A ``ScalarMap``: entries of a typed key and a value."""
    entries = (dict(_fields(entry)) for _, entry in _fields(message))
    return {_map_key(entry.get(1, b"")): decode(entry.get(2, b"")) for entry in entries}


def _map_key(message: bytes) -> Value:
    for number, content in _fields(message):
        return _KEYS[number](content)
    return None


_KEYS: Mapping[int, Callable[[Any], Value]] = {
    1: _signed,
    2: _signed,
    3: lambda content: _FLOAT(content)[0],
    4: lambda content: _DOUBLE(content)[0],
    5: bool,
    6: _instant,
    7: bytes,
    8: bytes.decode,
    9: bytes.decode,
    10: bytes.decode,
}


def _whole(read: Callable[[bytes], Value]) -> Reader:
    return lambda raw, at: read(_content(raw, at))


_STRINGS = _list_of(bytes.decode)
_BYTES = _list_of(bytes)
_INTEGERS = _packed_numbers(_signed)
_BOOLEANS = _packed_numbers(bool)
_TIMES = _packed_numbers(_instant)
_DOUBLES = _packed_floats("d", 8)
_FLOATS = _packed_floats("f", 4)
_MAPS = _list_of(_map)
_NESTED = _list_of(lambda content: decode(content))  # noqa: PLW0108 (defined below)

#: By the field's number in Feast's ``Value`` message: its name there, its wire type, and how it is read.
FIELDS: Mapping[int, tuple[str, int, Reader]] = {
    1: ("bytes_val", _LENGTH, _content),
    2: ("string_val", _LENGTH, _string),
    3: ("int32_val", _VARINT, _integer),
    4: ("int64_val", _VARINT, _integer),
    5: ("double_val", _FIXED64, _double),
    6: ("float_val", _FIXED32, _float),
    7: ("bool_val", _VARINT, _boolean),
    8: ("unix_timestamp_val", _VARINT, _time),
    11: ("bytes_list_val", _LENGTH, _BYTES),
    12: ("string_list_val", _LENGTH, _STRINGS),
    13: ("int32_list_val", _LENGTH, _INTEGERS),
    14: ("int64_list_val", _LENGTH, _INTEGERS),
    15: ("double_list_val", _LENGTH, _DOUBLES),
    16: ("float_list_val", _LENGTH, _FLOATS),
    17: ("bool_list_val", _LENGTH, _BOOLEANS),
    18: ("unix_timestamp_list_val", _LENGTH, _TIMES),
    19: ("null_val", _VARINT, _null),
    20: ("map_val", _LENGTH, _whole(_map)),
    21: ("map_list_val", _LENGTH, _MAPS),
    22: ("bytes_set_val", _LENGTH, _BYTES),
    23: ("string_set_val", _LENGTH, _STRINGS),
    24: ("int32_set_val", _LENGTH, _INTEGERS),
    25: ("int64_set_val", _LENGTH, _INTEGERS),
    26: ("double_set_val", _LENGTH, _DOUBLES),
    27: ("float_set_val", _LENGTH, _FLOATS),
    28: ("bool_set_val", _LENGTH, _BOOLEANS),
    29: ("unix_timestamp_set_val", _LENGTH, _TIMES),
    32: ("json_val", _LENGTH, _json),
    33: ("json_list_val", _LENGTH, _json_list),
    34: ("struct_val", _LENGTH, _whole(_map)),
    35: ("struct_list_val", _LENGTH, _MAPS),
    36: ("uuid_val", _LENGTH, _string),
    37: ("time_uuid_val", _LENGTH, _string),
    38: ("uuid_list_val", _LENGTH, _STRINGS),
    39: ("time_uuid_list_val", _LENGTH, _STRINGS),
    40: ("uuid_set_val", _LENGTH, _STRINGS),
    41: ("time_uuid_set_val", _LENGTH, _STRINGS),
    42: ("list_val", _LENGTH, _NESTED),
    43: ("set_val", _LENGTH, _NESTED),
    44: ("decimal_val", _LENGTH, _string),
    45: ("decimal_list_val", _LENGTH, _STRINGS),
    46: ("decimal_set_val", _LENGTH, _STRINGS),
    47: ("scalar_map_val", _LENGTH, _whole(_scalar_map)),
    48: ("zoned_timestamp_val", _LENGTH, _zoned_time),
}


def _tag_key(number: int, wire: int) -> tuple[int, int]:
    """A tag as its one or two bytes read little-endian, and how many bytes it has."""
    tag = number << 3 | wire
    return (tag, 1) if tag < 0x80 else (tag & 0x7F | 0x80 | tag >> 7 << 8, 2)


def _table(numbers: Mapping[int, tuple[str, int, Reader]]) -> dict[int, tuple[Reader, int, str]]:
    table = {}
    for number, (name, wire, read) in numbers.items():
        key, offset = _tag_key(number, wire)
        table[key] = (read, offset, name)
    return table


_ALL = _table(FIELDS)

#: Types that a value may have instead of the declared one: the wider or narrower number reads the same.
_FAMILIES = (frozenset({3, 4}), frozenset({5, 6}), frozenset({13, 14}), frozenset({15, 16}))

_SCALARS = {
    "Bytes": 1,
    "PdfBytes": 1,
    "ImageBytes": 1,
    "String": 2,
    "Int32": 3,
    "Int64": 4,
    "Float64": 5,
    "Float32": 6,
    "Bool": 7,
    "UnixTimestamp": 8,
    "Map": 20,
    "Json": 32,
    "Uuid": 36,
    "TimeUuid": 37,
    "Decimal": 44,
    "ScalarMap": 47,
    "ZonedTimestamp": 48,
}
_ARRAYS = {
    "Bytes": 11,
    "PdfBytes": 11,
    "ImageBytes": 11,
    "String": 12,
    "Int32": 13,
    "Int64": 14,
    "Float64": 15,
    "Float32": 16,
    "Bool": 17,
    "UnixTimestamp": 18,
    "Map": 21,
    "Json": 33,
    "Uuid": 38,
    "TimeUuid": 39,
    "Decimal": 45,
}
_SETS = {
    "Bytes": 22,
    "PdfBytes": 22,
    "ImageBytes": 22,
    "String": 23,
    "Int32": 24,
    "Int64": 25,
    "Float64": 26,
    "Float32": 27,
    "Bool": 28,
    "UnixTimestamp": 29,
    "Uuid": 40,
    "TimeUuid": 41,
    "Decimal": 46,
}


def field_of_type(feast_type: str) -> int:
    """The field of the ``Value`` message that holds values of a Feast type, by the type's name.

    >>> FIELDS[field_of_type("Array(Int64)")][0]
    'int64_list_val'
    """
    for prefix, simple, nested in (("Array(", _ARRAYS, 42), ("Set(", _SETS, 43)):
        if feast_type.startswith(prefix):
            return simple.get(feast_type[len(prefix) : -1], 35 if feast_type.startswith("Array(Struct") else nested)
    return _SCALARS.get(feast_type, 34)


def decode(raw: bytes) -> Value:
    """The value of a stored ``Value`` message; None for null.

    >>> decode(bytes.fromhex("2007")), decode(bytes.fromhex("12026869")), decode(b"")
    (7, 'hi', None)
    """
    if not raw:
        return None
    key = raw[0] if raw[0] < 0x80 else raw[0] | raw[1] << 8
    read, offset, _ = _ALL[key]
    return read(raw, offset)


class Decoder:
    """Decodes the stored values of one declared type. One object serves all features of the type.

    Parameters
    ----------
    feast_type
        the name of the type, such as ``Int64`` or ``Array(String)``.

    Examples
    --------
    >>> Decoder("Int64")(bytes.fromhex("2007"), "profile:age")
    7
    """

    __slots__ = ("_readers", "feast_type")

    def __init__(self, feast_type: str) -> None:
        self.feast_type = feast_type
        number = field_of_type(feast_type)
        accepted = next((family for family in _FAMILIES if number in family), {number})
        self._readers = _table({known: FIELDS[known] for known in {*accepted, 19}})

    def __call__(self, raw: bytes, feature: str) -> Value:
        """The value, or None for null.

        Raises
        ------
        StoreDataError
            if the bytes are no value, or one of another type.
        """
        if not raw:
            return None
        try:
            read, offset, _ = self._readers[raw[0] if raw[0] < 0x80 else raw[0] | raw[1] << 8]
            return read(raw, offset)
        except (LookupError, ValueError, TypeError, AttributeError, OverflowError, struct.error) as error:
            raise self._mismatch(raw, feature, error) from error

    def _mismatch(self, raw: bytes, feature: str, error: Exception) -> StoreDataError:
        key = raw[0] if raw[0] < 0x80 or len(raw) == 1 else raw[0] | raw[1] << 8
        if key in _ALL and key not in self._readers:
            what = f"a value of another type ({_ALL[key][2].removesuffix('_val')})"
        else:
            what = f"bytes that are no value ({error})"
        return StoreDataError(
            f"the store holds {what} for the feature {feature}, which is declared as {self.feast_type}",
            hint="was its type changed? run `segments apply`, then `segments materialize --full`",
        )


def decode_timestamp(raw: bytes) -> int:
    """The event timestamp of a row, a ``google.protobuf.Timestamp``, in microseconds.

    >>> decode_timestamp(bytes.fromhex("0801 1080ade204"))
    1010000
    """
    try:
        fields = dict(_fields(raw))
        return _signed(fields.get(1, 0)) * SECOND + _signed(fields.get(2, 0)) // 1000
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise StoreDataError(f"the store holds a row timestamp that is none ({error})") from error
