"""Columns of Feast's sources and of the event log as the SQL target wants them, in Spark's words."""

from __future__ import annotations

from collections.abc import Iterable

from rules_engine.errors import DataError, UnsupportedError
from rules_engine.rules.types import Kind, ValueType

_WHOLE = ("tinyint", "smallint", "int", "bigint")
_REAL = ("float", "double")
_TIMES = ("timestamp", "timestamp_ntz", "date")

#: By declared type which types a source may have.
_HELD_AS = {
    "Bool": ("boolean",),
    "Int32": (*_WHOLE, *_REAL),
    "Int64": (*_WHOLE, *_REAL),
    "Float32": (*_WHOLE, *_REAL),
    "Float64": (*_WHOLE, *_REAL),
    "String": ("string",),
    "Bytes": ("binary",),
    "UnixTimestamp": (*_TIMES, *_WHOLE),
}

_PROPERTY_TYPES = {
    Kind.BOOLEAN: "BOOLEAN",
    Kind.INTEGER: "BIGINT",
    Kind.FLOAT: "DOUBLE",
    Kind.STRING: "STRING",
    Kind.TIME: "BIGINT",
}


def quoted(name: str) -> str:
    """A name in SQL.

    >>> quoted("rfm:recency")
    '`rfm:recency`'
    """
    return "`" + name.replace("`", "``") + "`"


def text(value: str) -> str:
    r"""A text in SQL.

    >>> text("it's")
    "'it\\'s'"
    """
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def as_declared(column: str, held_as: str, name: str, feast_type: str) -> str:
    """A feature's column as the online store would hold it, with instants in microseconds.

    Raises
    ------
    DataError
        if its values cannot be of the declared type.

    >>> as_declared("seen", "timestamp", "facts:seen", "UnixTimestamp")
    "unix_micros(date_trunc('SECOND', CAST(`seen` AS TIMESTAMP)))"
    """
    value = quoted(column)
    if feast_type.startswith("Array(") and feast_type.endswith(")"):
        return _elements_as_declared(value, held_as, name, feast_type)
    if feast_type not in _HELD_AS:
        return value
    if held_as not in _HELD_AS[feast_type]:
        raise _refused(name, feast_type, held_as)
    return _declared(value, held_as, feast_type)


def _declared(value: str, held_as: str, feast_type: str) -> str:
    if feast_type == "UnixTimestamp":
        whole = f"CAST({value} AS BIGINT) * 1000000"
        return whole if held_as in _WHOLE else f"unix_micros(date_trunc('SECOND', CAST({value} AS TIMESTAMP)))"
    if feast_type in ("Int32", "Int64"):
        known = f"CASE WHEN NOT isnan({value}) THEN {value} END" if held_as in _REAL else value
        return f"CAST(CAST({known} AS {'INT' if feast_type == 'Int32' else 'BIGINT'}) AS BIGINT)"
    if feast_type in ("Float32", "Float64"):
        return f"CAST({value} AS {'FLOAT' if feast_type == 'Float32' else 'DOUBLE'})"
    return value


def _elements_as_declared(value: str, held_as: str, name: str, feast_type: str) -> str:
    inner, held_inner = feast_type[len("Array(") : -1], held_as[len("array<") : -1]
    if inner not in _HELD_AS:
        return value
    if not held_as.startswith("array<") or held_inner not in _HELD_AS[inner]:
        raise _refused(name, feast_type, held_as)
    return f"transform({value}, element -> {_declared('element', held_inner, inner)})"


def _refused(name: str, feast_type: str, held_as: str) -> DataError:
    return DataError(
        f"feature `{name}` is declared {feast_type}, and its source holds {held_as}",
        hint="declare the feature as its source holds it, or write the source as it is declared",
    )


def property_fields(event: str, properties: Iterable[tuple[str, ValueType]]) -> list[str]:
    """The columns of an event's properties with their types.

    >>> property_fields("cart", [("value", ValueType(Kind.FLOAT))])
    ['`cart:value` DOUBLE']
    """
    return [f"{quoted(f'{event}:{name}')} {_spark_type(value_type)}" for name, value_type in properties]


def property_columns(event: str, properties: Iterable[tuple[str, ValueType]]) -> tuple[list[str], list[str]]:
    """What reads properties out of the log's JSON: the columns of a first and of a second step over it.

    Raises
    ------
    UnsupportedError
        if a name is one that no path in Spark can have.

    >>> property_columns("cart", [("value", ValueType(Kind.FLOAT))])
    (["from_json(properties, '`value` DOUBLE') AS parsed"], ['parsed.`value` AS `cart:value`'])
    """
    wanted = list(properties)
    if not wanted:
        return [], []
    fields = ", ".join(f"{quoted(name)} {_spark_type(value_type)}" for name, value_type in wanted)
    values = [f"{_value(event, name, value_type)} AS {quoted(f'{event}:{name}')}" for name, value_type in wanted]
    return [f"from_json(properties, {text(fields)}) AS parsed"], values


def _spark_type(value_type: ValueType) -> str:
    kind = _PROPERTY_TYPES[value_type.kind]
    return f"ARRAY<{kind}>" if value_type.is_list else kind


def _value(event: str, name: str, value_type: ValueType) -> str:
    """A property; Spark makes a text of anything, so where a text is wanted it is asked whether there is one."""
    value = f"parsed.{quoted(name)}"
    if value_type.kind is not Kind.STRING:
        return value
    if '"' in name or "\\" in name:
        raise UnsupportedError(f"Spark has no path to the property `{name}` of `{event}`", hint="rename it")
    path = text(f'$["{name}"]')
    found = f"schema_of_variant(variant_get(parse_json(properties), {path}, 'variant'))"
    allowed = "IN ('ARRAY<STRING>', 'ARRAY<VOID>')" if value_type.is_list else "= 'STRING'"
    return f"CASE WHEN {found} {allowed} THEN {value} END"
