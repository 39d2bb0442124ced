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
from collections.abc import Callable, Iterable, Iterator, Mapping
from struct import Struct
from typing import Any

from rules_engine.clock import SECOND
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
    """Return an unsigned whole number of variable length, and the offset behind it."""
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


def signed(value: int) -> int:
    """Return a whole number of 64 bits as protobuf means it: the upper half is negative."""
    return value - 2**64 if value >= 2**63 else value


def _content(raw: bytes, at: int) -> bytes:
    """Return the content of a field that fills the rest of the bytes."""
    length, start = _varint(raw, at)
    if start + length != len(raw):
        raise _DamagedError(f"expected {length} bytes of content, found {len(raw) - start}")
    return raw[start:]


def fields_of(message: bytes) -> Iterator[tuple[int, Any]]:
    """Return the fields of a message: number and content; whole numbers are not signed yet."""
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
    return signed(_varint(raw, at)[0])


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
    seconds = signed(unsigned)
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
    return _instant(dict(fields_of(_content(raw, at))).get(1, 0))


# --- lists
# -----------------------------------------------------------------------------------------------------------


def _list_of(element: Callable[[Any], Value]) -> Reader:
    """Return a reader of lists whose elements are one field each: strings, bytes, messages."""

    def read(raw: bytes, at: int) -> Value:
        values = (element(content) for _, content in fields_of(_content(raw, at)))
        return tuple(value for value in values if value is not None)

    return read


def _packed_numbers(element: Callable[[int], Value]) -> Reader:
    """Return a reader of lists of integers, which are packed into one field, or have a field each."""

    def read(raw: bytes, at: int) -> Value:
        values: list[Value] = []
        for _, content in fields_of(_content(raw, at)):
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
        for _, content in fields_of(_content(raw, at)):
            if len(content) % size:
                raise _DamagedError(f"{len(content)} bytes are no whole number of floats of {size} bytes")
            values += Struct(f"<{len(content) // size}{code}").unpack(content)
        return tuple(value for value in values if not math.isnan(value))

    return read


def _json_list(raw: bytes, at: int) -> Value:
    """Return a ``null`` in JSON is a value and stays."""
    return tuple(_parsed(content.decode()) for _, content in fields_of(_content(raw, at)))


# --- maps and nested values
# ------------------------------------------------------------------------------------------


def _map(message: bytes) -> Value:
    """Return a ``Map``: entries of a string and a value."""
    entries = (dict(fields_of(entry)) for _, entry in fields_of(message))
    return {entry.get(1, b"").decode(): decode(entry.get(2, b"")) for entry in entries}


def _scalar_map(message: bytes) -> Value:
    """Return a ``ScalarMap``: entries of a typed key and a value."""
    entries = (dict(fields_of(entry)) for _, entry in fields_of(message))
    return {_map_key(entry.get(1, b"")): decode(entry.get(2, b"")) for entry in entries}


def _map_key(message: bytes) -> Value:
    for number, content in fields_of(message):
        return _KEYS[number](content)
    return None


_KEYS: Mapping[int, Callable[[Any], Value]] = {
    1: signed,
    2: signed,
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
_INTEGERS = _packed_numbers(signed)
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


def by_tag(numbers: Iterable[int]) -> dict[int, tuple[Reader, int, str]]:
    """Return how some fields are read, by :func:`tag_key`: the function, where the content begins, and the name."""
    table = {}
    for number in numbers:
        name, wire, read = FIELDS[number]
        tag = number << 3 | wire
        key, offset = (tag, 1) if tag < 0x80 else (tag & 0x7F | 0x80 | tag >> 7 << 8, 2)
        table[key] = (read, offset, name)
    return table


def tag_key(raw: bytes) -> int:
    """Return the tag that a value begins with: its one or two bytes as they lie there, read little-endian."""
    return raw[0] if raw[0] < 0x80 else raw[0] | raw[1] << 8


BY_TAG = by_tag(FIELDS)


def decode(raw: bytes) -> Value:
    """Return the value of a stored ``Value`` message of any type; None for null. Damaged bytes raise what they like.

    >>> decode(bytes.fromhex("2007")), decode(bytes.fromhex("12026869")), decode(b"")
    (7, 'hi', None)
    """
    if not raw:
        return None
    read, offset, _ = BY_TAG[tag_key(raw)]
    return read(raw, offset)
