"""The types of the values that a rule can read, and the check whether a Python value is of a type."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from rules_engine.clock import SECOND

#: A value at evaluation: bool, int, float (never NaN), str, bytes, a time as int microseconds, or a tuple of these.
#: None stands for a missing value.
Value = Any


class Kind(Enum):
    """The kinds of single values. Integers and floats compare with each other; nothing else is ever converted."""

    BOOLEAN = "boolean"
    INTEGER = "integer"
    FLOAT = "float"
    STRING = "string"
    BYTES = "bytes"
    TIME = "time"
    TIME_OF_DAY = "time of day"
    DAY_OF_WEEK = "day of week"

    __hash__ = object.__hash__  # a member exists once; that of Enum is a call in Python, and compiling makes many

    @property
    def is_number(self) -> bool:
        return self in (Kind.INTEGER, Kind.FLOAT)


@dataclass(frozen=True, slots=True, repr=False)
class ValueType:
    """The type of a feature, a context value or an event property: a kind, or a list of one.

    A float with ``decimals`` is a decimal number of so many places: it is read as the float nearest to it.

    >>> str(ValueType(Kind.STRING, is_list=True)), str(ValueType(Kind.FLOAT, decimals=2))
    ('list of string', 'float with 2 decimals')
    """

    kind: Kind
    is_list: bool = False
    decimals: int | None = None

    def __repr__(self) -> str:
        # The fingerprints of stored states hold this text: it stays as it was where there are no decimals.
        decimals = "" if self.decimals is None else f", decimals={self.decimals}"
        return f"ValueType(kind={self.kind!r}, is_list={self.is_list!r}{decimals})"

    def __str__(self) -> str:
        if self.decimals is not None:
            return f"{self.kind.value} with {self.decimals} decimals"
        return f"list of {self.kind.value}" if self.is_list else self.kind.value


BOOLEAN = ValueType(Kind.BOOLEAN)
INTEGER = ValueType(Kind.INTEGER)
FLOAT = ValueType(Kind.FLOAT)
STRING = ValueType(Kind.STRING)
BYTES = ValueType(Kind.BYTES)
TIME = ValueType(Kind.TIME)

#: Whole numbers up to here are floats without loss.
EXACT = 2.0**53

_FEAST_KINDS = {
    "Int32": Kind.INTEGER,
    "Int64": Kind.INTEGER,
    "Float32": Kind.FLOAT,
    "Float64": Kind.FLOAT,
    "String": Kind.STRING,
    "Bytes": Kind.BYTES,
    "Bool": Kind.BOOLEAN,
    "UnixTimestamp": Kind.TIME,
}


def from_feast_name(name: str) -> ValueType | None:
    """Return the type of a Feast type name such as ``Int64`` or ``Array(String)``; None if rules cannot read it.

    >>> from_feast_name("Array(Int32)")
    ValueType(kind=<Kind.INTEGER: 'integer'>, is_list=True)
    >>> from_feast_name("Map") is None
    True
    """
    is_list = name.startswith("Array(") and name.endswith(")")
    kind = _FEAST_KINDS.get(name[len("Array(") : -1] if is_list else name)
    return ValueType(kind, is_list) if kind else None


def _is_integer(value: Value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Value) -> bool:
    return _is_integer(value) or (isinstance(value, float) and not math.isnan(value))


_HOLDS: dict[Kind, Callable[[Value], bool]] = {
    Kind.BOOLEAN: lambda value: isinstance(value, bool),
    Kind.INTEGER: _is_number,
    Kind.FLOAT: _is_number,
    Kind.STRING: lambda value: isinstance(value, str),
    Kind.BYTES: lambda value: isinstance(value, bytes),
    Kind.TIME: _is_integer,
    Kind.TIME_OF_DAY: _is_integer,
    Kind.DAY_OF_WEEK: lambda value: isinstance(value, str),
}


def conform(value: Value, value_type: ValueType | None) -> Value:
    """Return the value as rules read it: itself, or None (missing) if it is null, NaN or of another type.

    Nothing is converted. A list loses its null and NaN elements; a list with an element of a wrong type is missing.

    >>> conform("5", INTEGER) is None, conform(True, INTEGER) is None, conform(5, FLOAT)
    (True, True, 5)
    >>> conform(["a", None], ValueType(Kind.STRING, is_list=True))
    ('a',)
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if value_type is None:
        return tuple(value) if isinstance(value, list) else value
    holds = _HOLDS[value_type.kind]
    if not value_type.is_list:
        if not holds(value):
            return None
        return value if value_type.decimals is None else to_decimals(value, value_type.decimals)
    if not isinstance(value, list | tuple):
        return None
    elements = tuple(element for element in value if not _is_null(element))
    return elements if all(map(holds, elements)) else None


def to_decimals(value: int | float, decimals: int) -> int | float:
    """Return the float nearest to a number that is rounded to so many decimals; a whole number as it is.

    Every engine does these steps alike. Numbers of more than 2**53 units are left as they are.

    >>> to_decimals(0.7 + 0.1, 2), to_decimals(1.1 + 2.2, 2), to_decimals(5, 2)
    (0.8, 3.3, 5)
    """
    scale = 10.0**decimals
    if isinstance(value, int) or not abs(value * scale) < EXACT:
        return value
    return math.floor(value * scale + 0.5) / scale


def stored(value: Value, value_type: ValueType | None) -> Value:
    """Return a feature's value as a store returns it: of its type, with times in whole seconds, as Feast stores them.

    >>> stored(1_999_999, TIME), stored(-1, TIME), stored("5", INTEGER) is None
    (1000000, -1000000, True)
    """
    conforming = conform(value, value_type)
    if conforming is None or value_type is None or value_type.kind is not Kind.TIME:
        return conforming
    return tuple(_whole_second(each) for each in conforming) if value_type.is_list else _whole_second(conforming)


def _whole_second(at: int) -> int:
    return at - at % SECOND


def _is_null(element: Value) -> bool:
    return element is None or (isinstance(element, float) and math.isnan(element))
