"""From stored bytes to a feature's value, by the feature's declared type."""

from __future__ import annotations

import re
import struct

from rules_engine.clock import SECOND
from rules_engine.errors import StoreDataError
from rules_engine.features.online.value_message import BY_TAG, by_tag, fields_of, signed, tag_key
from rules_engine.rules.types import Value

#: By the name of a Feast type: the fields of the ``Value`` message that hold it alone, in a list, and in a set.
_TYPES = {
    "Bytes": (1, 11, 22),
    "PdfBytes": (1, 11, 22),
    "ImageBytes": (1, 11, 22),
    "String": (2, 12, 23),
    "Int32": (3, 13, 24),
    "Int64": (4, 14, 25),
    "Float64": (5, 15, 26),
    "Float32": (6, 16, 27),
    "Bool": (7, 17, 28),
    "UnixTimestamp": (8, 18, 29),
    "Map": (20, 21, 43),
    "Json": (32, 33, 43),
    "Struct": (34, 35, 43),
    "Uuid": (36, 38, 40),
    "TimeUuid": (37, 39, 41),
    "Decimal": (44, 45, 46),
    "ScalarMap": (47, 42, 43),
    "ZonedTimestamp": (48, 42, 43),
}
#: Lists and sets of lists and sets.
_NESTED = (0, 42, 43)

_NULL = 19

#: A value may be of the other type of its pair: the wider or narrower number reads the same.
_PAIRS = (frozenset({3, 4}), frozenset({5, 6}), frozenset({13, 14}), frozenset({15, 16}))

#: What reading damaged bytes may raise.
_DAMAGE = (LookupError, ValueError, TypeError, AttributeError, OverflowError, struct.error)


def field_of_type(feast_type: str) -> int:
    """Return the field of the ``Value`` message that holds values of a Feast type, by the type's name.

    >>> field_of_type("Array(Int64)")
    14
    """
    shape = next((i for i, prefix in ((1, "Array("), (2, "Set(")) if feast_type.startswith(prefix)), 0)
    base = feast_type.partition("(")[2][:-1] if shape else feast_type
    return _TYPES.get("Struct" if base.startswith("Struct(") else base, _NESTED)[shape]


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
        self._readers = by_tag({number, _NULL}.union(*(pair for pair in _PAIRS if number in pair)))

    def __call__(self, raw: bytes, feature: str) -> Value:
        """Return the value, or None for null.

        Raises
        ------
        StoreDataError
            if the bytes are no value, or one of another type.
        """
        if not raw:
            return None
        try:
            read, offset, _ = self._readers[raw[0] if raw[0] < 0x80 else raw[0] | raw[1] << 8]  # tag_key, in place
            return read(raw, offset)
        except _DAMAGE as error:
            raise self._mismatch(raw, feature, error) from error

    def _mismatch(self, raw: bytes, feature: str, error: Exception) -> StoreDataError:
        key = tag_key(raw + b"\0")
        if key in BY_TAG and key not in self._readers:
            what = f"a value of another type ({BY_TAG[key][2].removesuffix('_val')})"
        else:
            what = f"bytes that are no value ({error})"
        return StoreDataError(
            f"the store holds {what} for the feature {feature}, which is declared as {self.feast_type}",
            hint="was its type changed? run `segments apply`, then `segments materialize --full`",
        )


#: A timestamp from 2004 to 3058: its seconds take five bytes, and it may have nanoseconds.
_USUAL_TIMESTAMP = re.compile(
    rb"\x08([\x80-\xff]{4}[\0-\x7f])(?:\x10([\x80-\xff]{0,4}[\0-\x7f]))?", re.DOTALL
).fullmatch


def _number(raw: bytes) -> int:
    """Return a whole number of at most five bytes, without a loop."""
    packed = int.from_bytes(raw, "little")
    low = packed & 0x7F | packed >> 1 & 0x3F80 | packed >> 2 & 0x1FC000
    return low | packed >> 3 & 0xFE00000 | packed >> 4 & 0x7F0000000


def decode_timestamp(raw: bytes) -> int:
    """Return the event timestamp of a row, a ``google.protobuf.Timestamp``, in microseconds.

    >>> decode_timestamp(bytes.fromhex("0801 1080ade204"))
    1010000
    """
    match = _USUAL_TIMESTAMP(raw)
    if match is not None:
        seconds, nanoseconds = match.groups(b"")
        return _number(seconds) * SECOND + _number(nanoseconds) // 1000
    try:
        fields = dict(fields_of(raw))
        return signed(fields.get(1, 0)) * SECOND + signed(fields.get(2, 0)) // 1000
    except _DAMAGE as error:
        raise StoreDataError(f"the store holds a row timestamp that is none ({error})") from error
