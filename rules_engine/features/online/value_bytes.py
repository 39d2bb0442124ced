"""From values to the bytes of Feast's ``Value`` message, for single rows that arrive with a request.

No value is rounded, cut or guessed: what is not of the feature's declared type is refused. Many rows at once are made
of Arrow columns instead (``features/writing/arrow_values.py``); contract tests compare both with Feast.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from typing import Any

from rules_engine.clock import SECOND, parse_instant
from rules_engine.features.online.decode import field_of_type

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def varint(value: int) -> bytes:
    r"""Return a whole number of 64 bits as protobuf writes it.

    >>> varint(300), len(varint(-1))
    (b'\xac\x02', 10)
    """
    rest, written = value & (2**64 - 1), bytearray()
    while rest > 0x7F:
        written.append(rest & 0x7F | 0x80)
        rest >>= 7
    written.append(rest)
    return bytes(written)


def _tagged(number: int, wire: int, content: bytes) -> bytes:
    return varint(number << 3 | wire) + content


def _text(value: Any) -> bytes:
    if not isinstance(value, str):
        raise TypeError
    raw = value.encode()
    return varint(len(raw)) + raw


def _whole(bits: int) -> Callable[[Any], bytes]:
    def write(value: Any) -> bytes:
        if isinstance(value, bool) or not isinstance(value, int) or not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
            raise TypeError
        return varint(value)

    return write


def _real(code: str) -> Callable[[Any], bytes]:
    def write(value: Any) -> bytes:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise TypeError
        if isinstance(value, int) and int(float(value)) != value:
            raise TypeError
        return struct.pack(code, value)

    return write


def _truth(value: Any) -> bytes:
    if not isinstance(value, bool):
        raise TypeError
    return varint(value)


def _instant(value: Any) -> bytes:
    if not isinstance(value, str):
        raise TypeError
    return varint(parse_instant(value) // SECOND)


#: By the name of a Feast type: the wire type of its values, and what writes one; a value that does not fit raises.
_WRITERS: Mapping[str, tuple[int, Callable[[Any], bytes]]] = {
    "String": (_LENGTH, _text),
    "Int32": (_VARINT, _whole(32)),
    "Int64": (_VARINT, _whole(64)),
    "Float64": (_FIXED64, _real("<d")),
    "Float32": (_FIXED32, _real("<f")),
    "Bool": (_VARINT, _truth),
    "UnixTimestamp": (_VARINT, _instant),
}


def encode(value: Any, feast_type: str) -> bytes:
    r"""Return a value as Feast's Redis store keeps it; None is kept as null.

    Parameters
    ----------
    value
        as JSON has it; an instant is text with an offset, of which whole seconds are kept.
    feast_type
        the name of the feature's type, e.g. ``Int64`` or ``Array(String)``.

    Raises
    ------
    ValueError
        if the value is not of that type, or values of that type cannot be written this way.

    >>> encode(7, "Int64"), encode("hi", "String"), encode(None, "Bool")
    (b' \x07', b'\x12\x02hi', b'')
    """
    if value is None:
        return b""
    base = feast_type.removeprefix("Array(").removesuffix(")") if feast_type.startswith("Array(") else feast_type
    if base not in _WRITERS:
        raise ValueError(f"values of the type {feast_type} cannot be sent as traits")
    wire, write = _WRITERS[base]
    number = field_of_type(feast_type)
    try:
        if base == feast_type:
            return _tagged(number, wire, write(value))
        if not isinstance(value, list):
            raise TypeError
        return _tagged(number, _LENGTH, _list(value, wire, write))
    except (TypeError, ValueError, OverflowError, struct.error):
        raise ValueError(f"{_shown(value)} is not of the type {feast_type}") from None


def _list(values: list[Any], wire: int, write: Callable[[Any], bytes]) -> bytes:
    elements = [write(value) for value in values]
    if wire == _LENGTH:
        content = b"".join(_tagged(1, _LENGTH, element) for element in elements)
    else:
        packed = b"".join(elements)
        content = _tagged(1, _LENGTH, varint(len(packed)) + packed) if packed else b""
    return varint(len(content)) + content


def timestamp(micros: int) -> bytes:
    r"""Return an instant as a ``google.protobuf.Timestamp``.

    >>> timestamp(1_500_000)
    b'\x08\x01\x10\x80\xca\xb5\xee\x01'
    """
    seconds, rest = divmod(micros, SECOND)
    whole = _tagged(1, _VARINT, varint(seconds)) if seconds else b""
    return whole + (_tagged(2, _VARINT, varint(rest * 1_000)) if rest else b"")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
