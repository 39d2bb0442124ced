"""Turns the columns of a file into the parts of an event, and makes an id for rows that have none."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson

from rules_engine.clock import FIRST_INSTANT, LAST_INSTANT, format_instant, from_micros, to_micros
from rules_engine.diagnostics import listing, nearest
from rules_engine.errors import DataError
from rules_engine.events.declarations.events_yaml import EventDeclaration
from rules_engine.events.declarations.schemas import parse_event_instant
from rules_engine.events.declarations.validation import Rejection
from rules_engine.events.joins import JOIN
from rules_engine.events.log.event_log import COLUMNS as LOG_COLUMNS
from rules_engine.events.refused import as_bytes
from rules_engine.rules.types import Kind, ValueType
from rules_engine.stream.files.parquet import TextMap
from rules_engine.stream.files.rows import BadRow, Rows, open_rows, other_separator

#: The units of numbers in the column ``at``, in microseconds.
UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1}

_WHOLE = re.compile(r"[+-]?[0-9]{1,25}\Z", re.ASCII)
_NUMBER = re.compile(r"[+-]?([0-9]{1,330}(\.[0-9]{0,330})?|\.[0-9]{1,330})([eE][+-]?[0-9]{1,3})?\Z", re.ASCII)
#: A number as programs write it: without a leading plus or zero, which texts such as telephone numbers have.
_PLAIN_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,330})(\.[0-9]{1,330})?([eE][+-]?[0-9]{1,3})?\Z", re.ASCII)
_INSTANT_START = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]", re.ASCII)
_FOLDER = re.compile(r"event=(\$?[a-z][a-z0-9_]*)\Z")

#: Whole numbers up to here are exact as floats.
_EXACT = 2**53


@dataclass(frozen=True, slots=True)
class Mapped:
    """The places of the parts of an event in a row.

    Attributes
    ----------
    entity, event, at, event_id
        the columns. A row without an id gets one from its content: the same row is the same event.
    properties
        the column that holds all properties, as an object, a map, or the JSON text of one; where a row has none of that
        name, its other columns are the properties.
    name
        the event that every row is, if no column names it.
    names
        the event for each value of the column ``event`` that is not the event's name.
    renamed
        the property for each column that is not called like its property.
    at_unit
        the unit of numbers in the column ``at``.
    id_columns
        the columns that together identify a row, where no column holds an id.
    separator
        the separator of columns in a CSV file; None: a comma, or a tab in ``.tsv``.
    """

    entity: str = "entity"
    event: str = "event"
    at: str = "at"
    event_id: str = "event_id"
    properties: str = "properties"
    name: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    at_unit: str = "us"
    id_columns: tuple[str, ...] = ()
    separator: str | None = None


@dataclass(frozen=True, slots=True)
class FileEvent:
    """A row in the form in which a sender gives an event, unchecked; ``had_id`` is false if the id was made here."""

    raw: dict[str, Any]
    had_id: bool


def file_events(path: Path, mapped: Mapped, declared: Mapping[str, EventDeclaration]) -> Iterator[FileEvent | BadRow]:
    """Yield the rows of a file in the form in which senders give events, unchecked.

    Parameters
    ----------
    declared
        the declared events, by name.

    Raises
    ------
    DataError
        if the file cannot be read; before the first row if it lacks a column.
    """
    with open_rows(path, mapped.separator) as rows:
        mapped = _for_log_files(path, rows, mapped)
        _check_columns(path, rows, mapped)
        make = _Maker(rows, mapped, declared)
        for row in rows.rows:
            yield row if isinstance(row, BadRow) else make(row)


def _check_columns(path: Path, rows: Rows, mapped: Mapped) -> None:
    """Refuse a file that lacks a column. Otherwise every single row would be refused."""
    if not rows.columns:
        if rows.is_text:
            raise DataError(f"{path.name} is empty", hint="the first line names the columns")
        return
    needed = {"entity": mapped.entity, "at": mapped.at} | ({"event": mapped.event} if mapped.name is None else {})
    missing = [column for column in _given_columns(mapped, rows) if column not in rows.columns]
    if missing:
        raise DataError(
            f"{path.name} has no column `{missing[0]}`; {_columns_of(rows)}",
            hint=nearest(missing[0], rows.columns) or "look at the options --map and --id",
        )
    for part, column in needed.items():
        if column not in rows.columns:
            raise DataError(
                f"{path.name} has no column `{column}`; {_columns_of(rows)}", hint=_hint(part, column, rows, needed)
            )


def _given_columns(mapped: Mapped, rows: Rows) -> list[str]:
    """Return the columns that only options name. JSON lines need not have them in the first rows."""
    if not rows.has_header:
        return []
    defaults = Mapped()
    optional = [(mapped.event_id, defaults.event_id), (mapped.properties, defaults.properties)]
    return [*mapped.id_columns, *mapped.renamed, *(column for column, default in optional if column != default)]


def _columns_of(rows: Rows) -> str:
    return f"its columns are {listing(rows.columns)}" if len(rows.columns) > 1 else f"it has only `{rows.columns[0]}`"


def _hint(part: str, column: str, rows: Rows, needed: Mapping[str, str]) -> str:
    separator = other_separator(rows.columns[0], list(needed.values())) if len(rows.columns) == 1 else None
    if separator is not None:
        shown = "TAB" if separator == "\t" else f"'{separator}'"
        return f"are its columns separated by {shown}? then give --separator {shown}"
    similar = next((name for name in rows.columns if name.strip().lower() == column.lower()), "COLUMN")
    shown = f"'{similar}'" if similar != similar.strip() else similar
    hint = f"say which column it is: --map {part}={shown}"
    return f"{hint}, or --event NAME if every row is one event" if part == "event" else hint


def _for_log_files(path: Path, rows: Rows, mapped: Mapped) -> Mapped:
    """Return the mapping for a file of an event log, whose folder names the event."""
    if rows.columns != LOG_COLUMNS or mapped.name is not None:
        return mapped
    names = [match[1] for part in path.resolve().parts if (match := _FOLDER.match(part))]
    if not names:
        return mapped
    return replace(mapped, name=names[-1])


class _Maker:
    """Makes events of rows."""

    def __init__(self, rows: Rows, mapped: Mapped, declared: Mapping[str, EventDeclaration]) -> None:
        self._mapped = mapped
        self._is_text = rows.is_text
        self._is_log = rows.columns == LOG_COLUMNS
        self._types = {name: event.type.properties for name, event in declared.items()}
        self._own_ids = {JOIN, *(name for name, event in declared.items() if event.id_property is not None)}
        self._parts = {mapped.entity, mapped.at, mapped.event_id} | ({mapped.event} if mapped.name is None else set())

    def __call__(self, row: dict[str, Any]) -> FileEvent | BadRow:
        mapped = self._mapped
        name = mapped.name or self._cell(row.get(mapped.event))
        name = mapped.names.get(str(name), name) if isinstance(name, str | int) else name
        entity, at = _entity(self._cell(row.get(mapped.entity))), _at(self._cell(row.get(mapped.at)), mapped.at_unit)
        if isinstance(entity, Rejection):
            return BadRow(as_bytes(row), entity)
        properties, are_texts = self._properties(row)
        if isinstance(properties, Rejection):
            return BadRow(as_bytes(row), properties)
        types: Mapping[str, ValueType] = self._types.get(name, {}) if isinstance(name, str) else {}
        event = {"entity": entity, "event": name, "at": at}
        identity = self._identity(row, name)
        event["event_id"] = _content_id(event, properties) if identity is None else identity
        event["properties"] = self._typed(properties, types, are_texts=are_texts)
        return FileEvent(event, identity is not None or str(name) in self._own_ids)

    def _cell(self, value: Any) -> Any:
        """Return the value of a cell without the blanks around texts in CSV."""
        return value.strip() if self._is_text and isinstance(value, str) else value

    def _properties(self, row: Mapping[str, Any]) -> tuple[Mapping[str, Any] | Rejection, bool]:
        """Return the properties, and whether their values are texts because the file has no other type."""
        mapped = self._mapped
        if mapped.properties not in row:
            renamed = mapped.renamed
            return {renamed.get(key, key): value for key, value in row.items() if key not in self._parts}, self._is_text
        content = row[mapped.properties]
        if isinstance(content, str):
            try:
                content = orjson.loads(content)
            except ValueError as error:
                return Rejection("invalid-event", f"`{mapped.properties}` is no JSON: {error}"), False
        if content is None or isinstance(content, dict):
            return content or {}, isinstance(content, TextMap)
        return Rejection("invalid-event", f"`{mapped.properties}` holds no object of JSON"), False

    def _identity(self, row: Mapping[str, Any], name: object) -> Any:
        """Return the id of the row; None if only its whole content identifies it."""
        mapped = self._mapped
        identity = self._cell(row.get(mapped.event_id))
        if mapped.id_columns:
            values = [_canonical(row.get(column)) for column in mapped.id_columns]
            if None in values:
                return ""  # refused: an id is missing
            return values[0] if len(values) == 1 else _digest([values])
        if self._is_log and isinstance(identity, str):
            return identity.removeprefix(f"{name}:")
        if isinstance(identity, float):
            identity = None if math.isnan(identity) else _whole(identity)
        return None if identity in (None, "") else identity

    def _typed(
        self, properties: Mapping[str, Any], types: Mapping[str, ValueType], *, are_texts: bool
    ) -> Mapping[str, Any]:
        """Return properties as their declared types, where a file has only texts or a log has instants as numbers."""
        if not are_texts and not self._is_log:
            return properties
        convert = _as_type if are_texts else _from_log
        return {name: convert(value, types.get(name)) for name, value in properties.items()}


def _entity(value: Any) -> Any:
    """Return an entity's key. Whole numbers have one spelling, also those that a file stores as floats."""
    if isinstance(value, str):
        whole = value.removesuffix(".0") if value.endswith(".0") else ""
        return whole if whole and _PLAIN_NUMBER.match(whole) and "." not in whole else value
    if isinstance(value, float) and not math.isnan(value):
        number = _whole(value)
        if isinstance(number, float):
            return Rejection("invalid-entity", f"{value!r} is no whole number that a float holds exactly")
        return str(number)
    if isinstance(value, int) and not isinstance(value, bool):
        return _integer_text(value)
    return value


def _whole(value: float) -> int | float:
    return int(value) if value.is_integer() and abs(value) <= _EXACT else value


def _integer_text(value: int) -> str | Rejection:
    if value.bit_length() > 64:
        return Rejection("invalid-entity", "a whole number as key has at most 64 bits")
    return str(value)


def _at(value: Any, unit: str) -> Any:
    """Return an instant in a form that the check of events accepts: a datetime, a text, or a number of microseconds."""
    number = _decimal(value)
    if number is None:
        return value
    micros = number * UNITS[unit]
    if not FIRST_INSTANT <= micros <= LAST_INSTANT:
        return f"{number:.6g}"  # not an instant, so the check refuses it with this text
    return int(micros) if unit == "us" else from_micros(int(micros))


def _decimal(value: Any) -> Decimal | None:
    """Return a number, or a text of one, exactly as it is written; None for anything else."""
    if isinstance(value, str):
        return Decimal(value) if _NUMBER.match(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float):
        return Decimal(repr(value)) if math.isfinite(value) else None
    return Decimal(value)


# --- ids ------------------------------------------------------------------------------------------------------------


def _content_id(event: Mapping[str, Any], properties: Mapping[str, Any]) -> str:
    """Make an id from the content of a row, independent of its spelling and of which properties are declared.

    1 and 1.0 are the same, and so are two ways to write an instant; empty values are left out.
    """
    pairs = sorted((name, value) for name, raw in properties.items() if (value := _canonical(raw)) is not None)
    at = event["at"]
    instant = format_instant(at) if isinstance(at, int) else _canonical(at)
    return _digest([event["entity"], _canonical(event["event"]), instant, pairs])


def _digest(content: Any) -> str:
    data = orjson.dumps(content, default=str, option=orjson.OPT_NON_STR_KEYS)
    return blake2b(data, digest_size=12).hexdigest()


def _canonical(value: Any) -> str | None:
    """Return the canonical spelling of a value; None for an empty one.

    >>> [_canonical(value) for value in ("12.50", 12.5, "1.0", 1, "007", "2026-01-31T10:00:00+01:00", None, "")]
    ['12.5', '12.5', '1', '1', '007', '2026-01-31T09:00:00Z', None, None]
    """
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return _canonical_text(value.strip())
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if value.bit_length() < 1_000 else hex(value)
    if isinstance(value, float):
        return None if math.isnan(value) else str(_whole(value))
    if isinstance(value, datetime):
        return format_instant(to_micros(value)) if value.tzinfo is not None else value.isoformat()
    if isinstance(value, Mapping):
        pairs = sorted((str(name), text) for name, raw in value.items() if (text := _canonical(raw)) is not None)
        return _nested(pairs)
    return _nested([_canonical(element) for element in value]) if isinstance(value, Sequence) else str(value)


def _nested(value: Any) -> str:
    return orjson.dumps(value).decode()


def _canonical_text(text: str) -> str:
    if _PLAIN_NUMBER.match(text):
        if _WHOLE.match(text):
            return "0" if text == "-0" else text
        number = float(text)
        return text if math.isinf(number) else str(_whole(number))
    if _INSTANT_START.match(text):
        try:
            return format_instant(parse_event_instant(text))
        except ValueError:
            return text
    return text


# --- values ---------------------------------------------------------------------------------------------------------


def _as_type(value: Any, value_type: ValueType | None) -> Any:
    """Return a text as its declared type, if it is one."""
    if value_type is None or not isinstance(value, str):
        return value
    text = value.strip()
    if value_type.is_list or value_type.kind is Kind.BOOLEAN:
        try:
            return orjson.loads(text.lower() if value_type.kind is Kind.BOOLEAN else text)
        except ValueError:
            return value
    if value_type.kind.is_number:
        if _WHOLE.match(text):
            number = int(text)
            return number if number.bit_length() < 64 else float(text)
        if _NUMBER.match(text) or text.lower() in ("nan", "inf", "-inf"):
            return float(text)
    return value


def _from_log(value: Any, value_type: ValueType | None) -> Any:
    """Return a value of a log in the form in which senders give it: an instant is a text."""
    if value_type is None or value_type.kind is not Kind.TIME:
        return value
    if isinstance(value, list):
        return [_from_log(element, ValueType(value_type.kind)) for element in value]
    return format_instant(value) if isinstance(value, int) else value
