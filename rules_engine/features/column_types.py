"""Decide what a column of a source may be for a feature's declared type, and how it becomes values of that type.

One table, :data:`CONVERSIONS`, is read by everything that takes values out of a source: materialize, evaluate, plan,
parity, export, training sets and Spark. A pair that is not in the table is refused, except that a column in which every
value is missing is missing for everybody, whatever its type. ``column_values.py`` holds what each conversion does to an
Arrow column, ``batch/spark/conversions.py`` what it is in Spark's SQL.

No value is rounded, cut or guessed: a whole number comes out as it went in or is refused, a fraction is no whole
number, and the text of a number is a text. Times are kept in whole seconds, as Feast stores them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum

import pyarrow as pa

from rules_engine.errors import DataError, FeatureColumnError


class Family(Enum):
    """Kinds of column types that are treated alike. The value is how a message names them."""

    BOOLEAN = "truths"
    INTEGER = "whole numbers"
    FLOAT = "floats"
    DECIMAL = "decimals"
    TEXT = "texts"
    BINARY = "bytes"
    TIMESTAMP = "timestamps"
    DATE = "dates"
    LIST = "lists"
    NOTHING = "nulls"
    OTHER = "another type"


class Conversion(Enum):
    """Ways in which the values of a column become values of the declared type."""

    SAME = "the value as it is"
    WHOLE = "a whole number; fractions, and numbers that the declared type does not hold, are refused"
    REAL = "a float; whole numbers that a float does not hold exactly are refused"
    EPOCH_SECONDS = "the instant so many whole seconds after 1970"
    INSTANT = "the instant in whole seconds; without a time zone it is UTC, and a date is its midnight"


_NUMBERS = (Family.INTEGER, Family.FLOAT, Family.DECIMAL)
_WHOLE = dict.fromkeys(_NUMBERS, Conversion.WHOLE)
_REAL = dict.fromkeys(_NUMBERS, Conversion.REAL)

#: THE table: by declared type and by the family of the column's type. For ``Array(X)`` the elements go by the row of X.
CONVERSIONS: Mapping[str, Mapping[Family, Conversion]] = {
    "Bool": {Family.BOOLEAN: Conversion.SAME},
    "Int32": _WHOLE,
    "Int64": _WHOLE,
    "Float32": _REAL,
    "Float64": _REAL,
    "String": {Family.TEXT: Conversion.SAME},
    "Bytes": {Family.BINARY: Conversion.SAME},
    "UnixTimestamp": {
        **dict.fromkeys(_NUMBERS, Conversion.EPOCH_SECONDS),
        Family.TIMESTAMP: Conversion.INSTANT,
        Family.DATE: Conversion.INSTANT,
    },
}

#: The declared type that a family of columns fits best, for hints.
_FITTING = {
    Family.BOOLEAN: "Bool",
    Family.INTEGER: "Int64",
    Family.FLOAT: "Float64",
    Family.DECIMAL: "Float64",
    Family.TEXT: "String",
    Family.BINARY: "Bytes",
    Family.TIMESTAMP: "UnixTimestamp",
    Family.DATE: "UnixTimestamp",
}

_FAMILIES: tuple[tuple[Family, tuple[Callable[[pa.DataType], bool], ...]], ...] = (
    (Family.NOTHING, (pa.types.is_null,)),
    (Family.BOOLEAN, (pa.types.is_boolean,)),
    (Family.INTEGER, (pa.types.is_integer,)),
    (Family.FLOAT, (pa.types.is_floating,)),
    (Family.DECIMAL, (pa.types.is_decimal,)),
    (Family.TEXT, (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)),
    (
        Family.BINARY,
        (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view),
    ),
    (Family.TIMESTAMP, (pa.types.is_timestamp,)),
    (Family.DATE, (pa.types.is_date,)),
    (Family.LIST, (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)),
)


def family(kind: pa.DataType) -> Family:
    """Return the family of a column's type; that of a dictionary is that of its values.

    >>> family(pa.decimal128(5, 2)), family(pa.dictionary(pa.int32(), pa.string())), family(pa.duration("s"))
    (<Family.DECIMAL: 'decimals'>, <Family.TEXT: 'texts'>, <Family.OTHER: 'another type'>)
    """
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return next(
        (column_family for column_family, checks in _FAMILIES if any(check(kind) for check in checks)), Family.OTHER
    )


def element_type(declared: str) -> str | None:
    """Return the declared type of a list's elements; None for what is no list.

    >>> element_type("Array(Int64)"), element_type("Int64")
    ('Int64', None)
    """
    is_list = declared.startswith("Array(") and declared.endswith(")")
    return declared[len("Array(") : -1] if is_list else None


def is_in_table(declared: str) -> bool:
    """Tell whether the table knows a declared type. Rules cannot read others, which Feast converts by itself.

    >>> is_in_table("Array(String)"), is_in_table("Map")
    (True, False)
    """
    return (element_type(declared) or declared) in CONVERSIONS


def conversion(declared: str, column_family: Family) -> Conversion | None:
    """Return how a column that is no list becomes the declared type; None if it is refused."""
    return CONVERSIONS[declared].get(column_family)


def refusal(feature: str, declared: str, column_type: object, column_family: Family) -> FeatureColumnError:
    """Make the error that refuses a column by its type.

    Parameters
    ----------
    feature
        ``"view:name"``.
    declared
        the feature's type, as Feast names it.
    column_type
        the type of the source's column, as it is shown.
    column_family
        the family of that type, or of the elements of a list.
    """
    fitting = _FITTING.get(column_family)
    element = element_type(declared) or declared
    accepted = " or ".join(each.value for each in CONVERSIONS[element]) if element in CONVERSIONS else declared
    write = f"write the column as {'lists of ' if element_type(declared) else ''}{accepted}"
    hint = write if fitting is None or element_type(declared) else f"declare it {fitting}, or {write}"
    return FeatureColumnError(
        f"feature `{feature}` is declared {declared}, and its source holds {column_type}", feature, hint
    )


def is_accepted(kind: pa.DataType, declared: str) -> bool:
    """Tell whether a column's type can give values of a declared type; single values may still be refused.

    >>> is_accepted(pa.int64(), "Float64"), is_accepted(pa.string(), "Int64"), is_accepted(pa.list_(pa.int8()), "Int32")
    (True, False, False)
    """
    if not is_in_table(declared) or family(kind) is Family.NOTHING:
        return True
    inner = element_type(declared)
    if inner is None:
        return conversion(declared, family(kind)) is not None
    return family(kind) is Family.LIST and (
        family(kind.value_type) is Family.NOTHING or conversion(inner, family(kind.value_type)) is not None
    )


def refused_instants(kind: object, name: str) -> DataError:
    """Make the error that refuses a column of event timestamps by its type."""
    return DataError(
        f"the timestamp column `{name}` holds {kind}, and rows need timestamps",
        hint=f"write `{name}` as timestamps, e.g. with pandas.to_datetime(rows[{name!r}], utc=True)",
    )


def refused_key(kind: object, name: str) -> DataError:
    """Make the error that refuses a column of entity keys by its type."""
    return DataError(
        f"the join key `{name}` holds {kind}, and entity keys are strings or whole numbers",
        hint=f"write the column `{name}` as strings",
    )


__all__ = [
    "CONVERSIONS",
    "Conversion",
    "Family",
    "conversion",
    "element_type",
    "family",
    "is_accepted",
    "is_in_table",
    "refusal",
    "refused_instants",
    "refused_key",
]
