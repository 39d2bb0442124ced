"""Load features, context and events of entities into the two Arrow tables that the query reads."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa

from rules_engine.clock import to_micros
from rules_engine.errors import DataError
from rules_engine.rules.inputs import Inputs
from rules_engine.rules.nodes import (
    ClockRef,
    Condition,
    ContextRef,
    EventAggregate,
    EventMatch,
    FeatureRef,
    Operand,
    Predicate,
    PropertyRef,
)
from rules_engine.rules.nodes import Sequence as SequenceNode
from rules_engine.rules.one_event import properties_of
from rules_engine.rules.types import STRING, Kind, Value, ValueType
from rules_engine.rules.walk import event_matches, typed_parts, walk, where_predicates
from rules_engine.targets.sql.tables import (
    AT,
    ENTITY,
    EVENT,
    EVENT_ID,
    SEQUENCE_NUMBER,
    Column,
    Tables,
    updated_at_column,
)

_ARROW = {
    Kind.BOOLEAN: pa.bool_(),
    Kind.INTEGER: pa.int64(),
    Kind.FLOAT: pa.float64(),
    Kind.STRING: pa.string(),
    Kind.BYTES: pa.binary(),
    Kind.TIME: pa.int64(),
}
_PYTHON_KINDS = (
    (bool, Kind.BOOLEAN),
    (int, Kind.INTEGER),
    (float, Kind.FLOAT),
    (str, Kind.STRING),
    (bytes, Kind.BYTES),
    (datetime, Kind.TIME),
)

#: The column of the entities' keys: the table names entities by their position.
UNIT = "unit"

#: The type as which a value is stored; None for a value that no rule can compare.
Storage = ValueType | None


@dataclass
class Reads:
    """The names that a program reads, with the types of list that it expects: an empty list counts as each of them."""

    features: dict[str, set[ValueType]] = field(default_factory=dict)
    context: dict[str, set[ValueType]] = field(default_factory=dict)
    properties: dict[tuple[str, str], set[ValueType]] = field(default_factory=dict)


def reads_of(conditions: Iterable[Condition]) -> Reads:
    """Return the names that some conditions read."""
    reads = Reads()
    for condition in conditions:
        for node in walk(condition):
            if isinstance(node, Predicate):
                for operand, value_type in typed_parts(node):
                    _add_operand(reads, operand, value_type)
            elif isinstance(node, SequenceNode) and node.match_on is not None:
                for step in node.steps:
                    reads.properties.setdefault((step.match.event, node.match_on), set())
        for match in event_matches(condition):
            _add_where(reads, match)
    return reads


def _add_operand(reads: Reads, operand: Operand, value_type: ValueType | None) -> None:
    types = _list_types(value_type)
    if isinstance(operand, FeatureRef):
        reads.features.setdefault(operand.key, set()).update(types)
    elif isinstance(operand, ContextRef):
        reads.context.setdefault(operand.name, set()).update(types)
    elif isinstance(operand, ClockRef) and isinstance(operand.timezone, FeatureRef):
        reads.features.setdefault(operand.timezone.key, set())
    elif isinstance(operand, EventAggregate) and operand.of is not None:
        for name in properties_of(operand.of):
            reads.properties.setdefault((operand.match.event, name), set()).update(types, _list_types(operand.of_type))


def _add_where(reads: Reads, match: EventMatch) -> None:
    for operand, value_type in (part for predicate in where_predicates(match) for part in typed_parts(predicate)):
        if isinstance(operand, PropertyRef):
            types = reads.properties.setdefault((match.event, operand.name), set())
            types.update(_list_types(value_type))


def _list_types(value_type: ValueType | None) -> set[ValueType]:
    if value_type is None or not value_type.is_list:
        return set()
    kind = Kind.INTEGER if value_type.kind is Kind.TIME else value_type.kind
    return {ValueType(kind, is_list=True)}


# --- one key's values as columns ------------------------------------------------------------------------------------


def _storage(value: Value) -> Storage:
    """Return the type as which a value is stored. An empty list, or one of only nulls, counts as a list of strings."""
    if isinstance(value, list | tuple):
        kinds = {_kind(element) for element in value if not _is_null(element)}
        if kinds <= {Kind.INTEGER, Kind.FLOAT} and kinds:
            return ValueType(Kind.FLOAT if Kind.FLOAT in kinds else Kind.INTEGER, is_list=True)
        kind = next(iter(kinds), Kind.STRING)
        return ValueType(kind, is_list=True) if len(kinds) < 2 and kind is not None else None
    kind = _kind(value)
    return None if kind is None else ValueType(kind)


def _kind(value: Value) -> Kind | None:
    return next((kind for python_type, kind in _PYTHON_KINDS if isinstance(value, python_type)), None)


def _is_null(element: Value) -> bool:
    return element is None or (isinstance(element, float) and math.isnan(element))


def _is_empty(value: Value) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_null, value))


def _columns(
    key: str, values: Sequence[Value], list_types: set[ValueType], taken: set[str]
) -> list[tuple[Column, pa.Array]]:
    """Return the columns that hold the values of a key: one per type that occurs. Names differ in more than case."""
    while key.lower() in taken:
        key += "'"
    taken.add(key.lower())
    present = [value for value in values if value is not None]
    types: dict[Storage, None] = dict.fromkeys(_storage(value) for value in present if not _is_empty(value))
    if any(map(_is_empty, present)):
        types.update(dict.fromkeys(list_types or {ValueType(STRING.kind, is_list=True)}))
    if ValueType(Kind.FLOAT, is_list=True) in types:
        types[ValueType(Kind.INTEGER, is_list=True)] = None  # a list of floats may hold integers as well
    ordered = sorted(types, key=str)
    columns = [Column(key if len(ordered) == 1 else f"{key} ({each or 'other'})", each) for each in ordered]
    return [(column, _array(column.type, values, key)) for column in columns]


def _array(storage: Storage, values: Sequence[Value], key: str) -> pa.Array:
    try:
        if storage is None:
            return pa.array(
                [True if value is not None and _storage(value) is None else None for value in values], pa.bool_()
            )
        if storage.is_list:
            return pa.array([_elements(value, storage.kind) for value in values], pa.list_(_ARROW[storage.kind]))
        mine = (value if value is not None and _storage(value) == storage else None for value in values)
        return pa.array(map(_plain, mine), _ARROW[storage.kind])
    except (ValueError, OverflowError, pa.ArrowInvalid) as error:
        raise DataError(f"`{key}` holds a value that no SQL engine can store: {error}") from error


def _elements(value: Value, kind: Kind) -> list[Value] | None:
    """Return the elements of a list that the column of a kind holds: numbers are in two columns, empty lists in all."""
    if not isinstance(value, list | tuple):
        return None
    storage = _storage(value)
    if _is_empty(value):
        return list(value) if kind is Kind.FLOAT else [None] * len(value)
    numbers = (Kind.INTEGER, Kind.FLOAT)
    if storage is None or (storage.kind is not kind and not {storage.kind, kind} <= set(numbers)):
        return None
    return [_plain(element) for element in value if element is None or _kind(element) is kind]


def _plain(value: Value) -> Value:
    """Return a value, in microseconds if it is a datetime, as only context values are."""
    return to_micros(value) if isinstance(value, datetime) else value


# --- tables ---------------------------------------------------------------------------------------------------------


def load(users: Sequence[Inputs], conditions: Sequence[Condition]) -> tuple[Tables, pa.Table, pa.Table]:
    """Return the description and the contents of the tables for some entities, which are named by their position.

    Raises
    ------
    DataError
        if a value cannot be stored, e.g. an integer of more than 64 bits.
    """
    reads = reads_of(conditions)
    features: dict[str, pa.Array] = {
        ENTITY: pa.array([str(position) for position in range(len(users))], pa.string()),
        UNIT: pa.array([user.entity for user in users], pa.string()),
    }
    feature_columns, context_columns = {}, {}
    taken: set[str] = {UNIT}
    for key, types in reads.features.items():
        columns = _columns(key, [user.features.get(key) for user in users], types, taken)
        feature_columns[key] = tuple(column for column, _ in columns)
        features.update({column.name: array for column, array in columns})
    for name, types in reads.context.items():
        columns = _columns(f"context {name}", [_context_value(user.context.get(name)) for user in users], types, taken)
        context_columns[name] = tuple(column for column, _ in columns)
        features.update({column.name: array for column, array in columns})
    views = sorted({view for user in users for view in user.expires_at})
    for view in views:
        last_fresh = [user.expires_at[view] - 1 if view in user.expires_at else None for user in users]
        features[updated_at_column(view)] = pa.array(last_fresh, pa.int64())
    property_columns, events = _events(users, reads)
    tables = Tables(
        feature_columns=feature_columns,
        context_columns=context_columns,
        property_columns=property_columns,
        updated_at={view: updated_at_column(view) for view in views},
        ttl=dict.fromkeys(views, 0),
        unit=UNIT,
    )
    return tables, pa.table(features), events


def _context_value(value: Any) -> Value:
    return list(value) if isinstance(value, set | frozenset) else value


def _events(users: Sequence[Inputs], reads: Reads) -> tuple[dict[tuple[str, str], tuple[Column, ...]], pa.Table]:
    rows = list(_rows(users))
    columns = {
        ENTITY: pa.array([entity for entity, _, _ in rows], pa.string()),
        EVENT: pa.array([event.name for _, _, event in rows], pa.string()),
        AT: pa.array([event.at for _, _, event in rows], pa.int64()),
        EVENT_ID: pa.array([event.id for _, _, event in rows], pa.string()),
        SEQUENCE_NUMBER: pa.array([number for _, number, _ in rows], pa.int64()),
    }
    described = {}
    taken: set[str] = set()
    for (name, of), types in reads.properties.items():
        values = [event.properties.get(of) if event.name == name else None for _, _, event in rows]
        forms = _columns(f"{name}:{of}", values, types, taken)
        described[name, of] = tuple(column for column, _ in forms)
        columns.update({column.name: array for column, array in forms})
    return described, pa.table(columns)


def _rows(users: Sequence[Inputs]) -> Iterator[tuple[str, int, Any]]:
    for position, user in enumerate(users):
        for number, event in enumerate(user.events):
            yield str(position), number, event
