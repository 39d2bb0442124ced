"""Write the table of types (``features/column_types.py``) in Spark's SQL: columns as the online store holds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rules_engine.batch.spark.columns import quoted, text
from rules_engine.features.column_types import Conversion, Family, conversion, element_type, is_in_table, refusal

_FAMILIES = {
    "boolean": Family.BOOLEAN,
    "tinyint": Family.INTEGER,
    "smallint": Family.INTEGER,
    "int": Family.INTEGER,
    "bigint": Family.INTEGER,
    "float": Family.FLOAT,
    "double": Family.FLOAT,
    "string": Family.TEXT,
    "binary": Family.BINARY,
    "timestamp": Family.TIMESTAMP,
    "timestamp_ntz": Family.TIMESTAMP,
    "date": Family.DATE,
    "void": Family.NOTHING,
}

#: Spark's type for each declared type, times being microseconds.
_TYPES = {
    "Bool": "BOOLEAN",
    "Int32": "INT",
    "Int64": "BIGINT",
    "Float32": "FLOAT",
    "Float64": "DOUBLE",
    "String": "STRING",
    "Bytes": "BINARY",
    "UnixTimestamp": "BIGINT",
}

#: The largest whole numbers that a type holds, or holds exactly.
_LIMITS = {"Int32": 2**31 - 1, "Int64": 2**63 - 1, "Float32": 2**24, "Float64": 2**53}

_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799


def family(column_type: str) -> Family:
    """Return the family of a type as Spark names it.

    >>> family("decimal(10,2)"), family("array<int>"), family("map<string,int>")
    (<Family.DECIMAL: 'decimals'>, <Family.LIST: 'lists'>, <Family.OTHER: 'another type'>)
    """
    if column_type.startswith("decimal"):
        return Family.DECIMAL
    if column_type.startswith("array<"):
        return Family.LIST
    return _FAMILIES.get(column_type, Family.OTHER)


def as_declared(column: str, column_type: str, feature: str, declared: str) -> str:
    """Write a feature's column as the online store holds it, with instants in microseconds.

    A value that the declared type does not hold ends the query with an error that says so.

    Raises
    ------
    FeatureColumnError
        if the column's type cannot give values of the declared type.

    >>> as_declared("seen", "timestamp", "facts:seen", "UnixTimestamp")
    "unix_micros(date_trunc('SECOND', CAST(`seen` AS TIMESTAMP)))"
    """
    value, column_family = quoted(column), family(column_type)
    if not is_in_table(declared):
        return value
    if column_family is Family.NOTHING:
        return nothing(declared)
    inner = element_type(declared)
    if inner is None:
        return _converted(value, column_family, feature, declared, declared, column_type)
    if column_family is not Family.LIST:
        raise refusal(feature, declared, column_type, column_family)
    of_elements = family(column_type[len("array<") : -1])
    if of_elements is Family.NOTHING:
        return nothing(declared)
    element = _converted("element", of_elements, feature, inner, declared, column_type)
    return f"transform(array_compact({value}), element -> {element})"


def whole_key(value: str, column_family: Family, name: str) -> str:
    """Write a key that is a float or a decimal as the whole number that it is."""
    return _whole(value, column_family, f"the join key `{name}` has to be whole numbers or strings", "Int64")


def nothing(declared: str) -> str:
    """Write a column in which every value is missing.

    >>> nothing("Array(Int64)")
    'CAST(NULL AS ARRAY<BIGINT>)'
    """
    inner = element_type(declared)
    return f"CAST(NULL AS {_TYPES[declared] if inner is None else f'ARRAY<{_TYPES[inner]}>'})"


def _converted(value: str, column_family: Family, feature: str, target: str, declared: str, column_type: str) -> str:
    how = conversion(target, column_family)
    if how is None:
        raise refusal(feature, declared, column_type, column_family)
    return _WRITERS[how](value, column_family, f"feature `{feature}` is declared {declared}", target)


def _same(value: str, _family: Family, _problem: str, _target: str) -> str:
    return value


def _whole(value: str, column_family: Family, problem: str, target: str) -> str:
    limit = _LIMITS[target]
    if column_family is Family.INTEGER:
        holds = f"{value} BETWEEN {-limit - 1} AND {limit}"
    elif column_family is Family.DECIMAL:
        holds = f"{value} = floor({value}) AND {value} BETWEEN {-limit - 1} AND {limit}"
    else:  # beyond 2**53 floats leave out whole numbers
        bound = min(limit, 2**53 - 1)
        holds = f"{value} = floor({value}) AND {value} BETWEEN {-bound - 1} AND {bound} AND abs({value}) < {2**53}"
    refused = _raise(f"{problem}: its source holds values that are no whole numbers, or outside of its range")
    is_missing = f"{value} IS NULL" if column_family is not Family.FLOAT else f"{value} IS NULL OR isnan({value})"
    return f"CASE WHEN {is_missing} THEN NULL WHEN {holds} THEN CAST({value} AS BIGINT) ELSE {refused} END"


def _real(value: str, column_family: Family, problem: str, target: str) -> str:
    converted = f"CAST({value} AS {_TYPES[target]})"
    if column_family is Family.FLOAT:
        return converted
    limit = _LIMITS[target]
    refused = _raise(f"{problem}: its source holds numbers beyond {limit}, where floats leave out whole numbers")
    return f"CASE WHEN {value} IS NULL THEN NULL WHEN abs({value}) <= {limit} THEN {converted} ELSE {refused} END"


def _epoch_seconds(value: str, column_family: Family, problem: str, _target: str) -> str:
    seconds = _whole(value, column_family, problem, "Int64")
    refused = _raise(f"{problem}: its source holds seconds after 1970 that no calendar has; are these milliseconds?")
    holds = f"{value} BETWEEN {_FIRST_SECOND} AND {_LAST_SECOND}"
    missing = f"{value} IS NULL" if column_family is not Family.FLOAT else f"{value} IS NULL OR isnan({value})"
    return f"CASE WHEN {missing} THEN NULL WHEN {holds} THEN {seconds} * 1000000 ELSE {refused} END"


def _instant(value: str, _family: Family, _problem: str, _target: str) -> str:
    return f"unix_micros(date_trunc('SECOND', CAST({value} AS TIMESTAMP)))"


def _raise(message: str) -> str:
    return f"CAST(raise_error({text(message)}) AS BIGINT)"


_WRITERS: Mapping[Conversion, Callable[[str, Family, str, str], str]] = {
    Conversion.SAME: _same,
    Conversion.WHOLE: _whole,
    Conversion.REAL: _real,
    Conversion.EPOCH_SECONDS: _epoch_seconds,
    Conversion.INSTANT: _instant,
}
if _WRITERS.keys() != set(Conversion):
    raise TypeError(f"conversions that Spark has no SQL for: {set(Conversion) - _WRITERS.keys()}")
