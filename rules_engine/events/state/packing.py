"""Values as JSON, exactly: also those that JSON has no place for."""

from __future__ import annotations

import base64
import math
from fractions import Fraction
from typing import Any

from rules_engine.events.state.totals import Total
from rules_engine.rules.types import Value

_INT64 = range(-(2**63), 2**63)


def pack_value(value: Value) -> Any:
    """Return a value as data that JSON holds. What it cannot hold becomes a mapping, which no value is.

    >>> pack_value(1.5), pack_value(2**70), pack_value((1, b"a"))
    (1.5, {'int': '1180591620717411303424'}, [1, {'bytes': 'YQ=='}])
    """
    match value:
        case float() if math.isinf(value):
            return {"float": str(value)}
        case bool() | float() | None:
            return value
        case int():
            return value if value in _INT64 else {"int": str(value)}
        case str():
            return value if _is_unicode(value) else {"text": _base64(value.encode("utf-8", "surrogatepass"))}
        case bytes():
            return {"bytes": _base64(value)}
        case tuple():
            return [pack_value(element) for element in value]
    raise TypeError(f"an event property is a {type(value).__name__}, which is no value")


def unpack_value(packed: Any) -> Value:
    """Decode what :func:`pack_value` made.

    >>> unpack_value(pack_value((1, b"a"))), unpack_value({"float": "-inf"})
    ((1, b'a'), -inf)
    """
    if isinstance(packed, list):
        return tuple(map(unpack_value, packed))
    if not isinstance(packed, dict):
        return packed
    ((kind, text),) = packed.items()
    match kind:
        case "float":
            return float(text)
        case "int":
            return int(text)
        case "text":
            return base64.b64decode(text).decode("utf-8", "surrogatepass")
        case "bytes":
            return base64.b64decode(text)
    raise ValueError(f"there is no kind of value {kind!r}")


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def pack_total(total: Total) -> Any:
    """Return a total as data that JSON holds; 0 for one of nothing.

    >>> unpack_total(pack_total(Total().plus([1, 0.1]))) == Total().plus([1, 0.1])
    True
    """
    if not total.events:
        return 0
    exact = total.exact
    sums = (total.integers, exact.numerator, exact.denominator.bit_length() - 1)
    endless = [pack_value(value) for value in total.endless]
    return [total.events, total.values, total.floats, *map(pack_value, sums), endless]


def unpack_total(packed: Any) -> Total:
    """Decode what :func:`pack_total` made."""
    if not packed:
        return Total()
    events, values, floats, integers, numerator, exponent, endless = map(unpack_value, packed)
    return Total(events, values, integers, floats, Fraction(numerator, 2**exponent), endless)
