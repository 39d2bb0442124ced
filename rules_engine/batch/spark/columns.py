"""Write columns of the event log as the SQL target wants them, in Spark's words."""

from __future__ import annotations

from collections.abc import Iterable

from rules_engine.errors import UnsupportedError
from rules_engine.rules.types import Kind, ValueType

_PROPERTY_TYPES = {
    Kind.BOOLEAN: "BOOLEAN",
    Kind.INTEGER: "BIGINT",
    Kind.FLOAT: "DOUBLE",
    Kind.STRING: "STRING",
    Kind.TIME: "BIGINT",
}


def quoted(name: str) -> str:
    """Return a name in SQL.

    >>> quoted("rfm:recency")
    '`rfm:recency`'
    """
    return "`" + name.replace("`", "``") + "`"


def text(value: str) -> str:
    r"""Return a text in SQL.

    >>> text("it's")
    "'it\\'s'"
    """
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def property_fields(event: str, properties: Iterable[tuple[str, ValueType]]) -> list[str]:
    """Return the columns of an event's properties with their types.

    >>> property_fields("cart", [("value", ValueType(Kind.FLOAT))])
    ['`cart:value` DOUBLE']
    """
    return [f"{quoted(f'{event}:{name}')} {_spark_type(value_type)}" for name, value_type in properties]


def property_columns(event: str, properties: Iterable[tuple[str, ValueType]]) -> tuple[list[str], list[str]]:
    """Write what reads properties out of the log's JSON: the columns of a first and of a second step over it.

    Raises
    ------
    UnsupportedError
        if a name is one that no path in Spark can have.

    >>> property_columns("cart", [("value", ValueType(Kind.FLOAT))])
    (["from_json(properties, '`value` DOUBLE') AS parsed"], ['parsed.`value` AS `cart:value`'])
    """
    typed = list(properties)
    if not typed:
        return [], []
    fields = ", ".join(f"{quoted(name)} {_spark_type(value_type)}" for name, value_type in typed)
    values = [f"{_value(event, name, value_type)} AS {quoted(f'{event}:{name}')}" for name, value_type in typed]
    return [f"from_json(properties, {text(fields)}) AS parsed"], values


def _spark_type(value_type: ValueType) -> str:
    kind = _PROPERTY_TYPES[value_type.kind]
    return f"ARRAY<{kind}>" if value_type.is_list else kind


def _value(event: str, name: str, value_type: ValueType) -> str:
    """Return the SQL of a property. Spark turns any value into a text, so a text's own type is checked."""
    value = f"parsed.{quoted(name)}"
    if value_type.kind is not Kind.STRING:
        return value
    if '"' in name or "\\" in name:
        raise UnsupportedError(f"Spark has no path to the property `{name}` of `{event}`", hint="rename it")
    path = text(f'$["{name}"]')
    stored_type = f"schema_of_variant(variant_get(parse_json(properties), {path}, 'variant'))"
    allowed = "IN ('ARRAY<STRING>', 'ARRAY<VOID>')" if value_type.is_list else "= 'STRING'"
    return f"CASE WHEN {stored_type} {allowed} THEN {value} END"
