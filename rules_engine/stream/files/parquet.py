"""Reads the rows of Parquet files with values as JSON has them: exact where possible, refused where not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from rules_engine.clock import format_duration, from_micros
from rules_engine.errors import DataError
from rules_engine.events.declarations.validation import Rejection

_ROWS = 5_000


def parquet_columns(path: Path) -> tuple[str, ...]:
    """Return the names of the columns.

    Raises
    ------
    DataError
        if it is no Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return tuple(pq.read_schema(path).names)
    except (pa.ArrowException, ValueError) as error:  # names of columns may be no UTF-8
        raise DataError(f"cannot read {path}: {error}", hint="is it a Parquet file, and whole?") from error


def parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows; a value that cannot be read is a :class:`Rejection`.

    Raises
    ------
    DataError
        if the file cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_ROWS):
                columns = [_values(column) for column in batch.columns]
                for values in zip(*columns, strict=True):
                    yield dict(zip(batch.schema.names, values, strict=True))
    except (pa.ArrowException, ValueError) as error:  # names of columns may be no UTF-8
        raise DataError(f"cannot read {path}: {error}", hint="is it a Parquet file, and whole?") from error


def _values(column: Any) -> list[Any]:
    """Return the values of a column. Instants are read as numbers, because Arrow's range of years exceeds Python's."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        size = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": 1}[kind.unit]
        part = 1_000 if kind.unit == "ns" else 1
        return [None if at is None else _instant(at * size // part) for at in column.cast(pa.int64()).to_pylist()]
    if pa.types.is_map(kind) and pa.types.is_string(kind.item_type):
        return [None if value is None else TextMap(value) for value in _pylist(column)]
    plain: Callable[[Any], Any] = _identity if _is_plain(kind) else _as_json
    return [plain(value) for value in _pylist(column)]


class TextMap(dict[str, Any]):
    """A map of texts, whose values are read as their declared types, like those of CSV."""


def _is_plain(kind: Any) -> bool:
    import pyarrow as pa

    types = pa.types
    checks = types.is_string, types.is_large_string, types.is_integer, types.is_floating, types.is_boolean
    return any(check(kind) for check in checks)


def _identity(value: Any) -> Any:
    return value


def _pylist(column: Any) -> list[Any]:
    """Return the values as Python objects. Those that Python cannot hold become rejections."""
    import pyarrow as pa

    problems = (ValueError, OverflowError, pa.ArrowException)
    try:
        values: list[Any] = column.to_pylist()
    except problems:
        values = []
        for value in column:
            try:
                values.append(value.as_py())
            except problems as error:
                values.append(Rejection("invalid-row", f"a value of type {column.type} cannot be read: {error}"))
    return values


def _instant(micros: int) -> datetime | Rejection:
    try:
        return from_micros(micros)
    except OverflowError:
        return Rejection("invalid-instant", "an instant is outside the years 1 to 9999")


def _as_json(value: Any) -> Any:
    """Return a value as JSON has it: decimals become numbers, durations texts such as ``5s``."""
    convert = _CONVERTED.get(type(value))
    if convert is None:
        return value.isoformat() if isinstance(value, datetime) else value  # pandas' instants of nanoseconds
    return convert(value)


def decimal_number(value: Decimal) -> int | float | None:
    """Return a decimal as an integer if it is whole, else as the nearest float.

    >>> decimal_number(Decimal("2.00")), decimal_number(Decimal("12.50"))
    (2, 12.5)
    """
    if not value.is_finite():
        return None if value.is_nan() else math.copysign(math.inf, value)
    return int(value) if value == value.to_integral_value() else float(value)


def _duration(value: timedelta) -> str:
    return format_duration(value // timedelta(microseconds=1))


def _text(value: bytes) -> str | Rejection:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return Rejection("invalid-text", "a value holds bytes that are no UTF-8")


def _list(values: list[Any]) -> Any:
    if values and all(isinstance(value, tuple) and len(value) == 2 for value in values):
        return _mapping(dict(values))
    return _first_rejection([_as_json(value) for value in values])


def _mapping(values: Mapping[Any, Any]) -> Any:
    converted = {str(key): _as_json(value) for key, value in values.items()}
    rejection = _first_rejection(list(converted.values()))
    return rejection if isinstance(rejection, Rejection) else converted


def _first_rejection(values: list[Any]) -> Any:
    return next((value for value in values if isinstance(value, Rejection)), values)


_CONVERTED: Mapping[type, Callable[[Any], Any]] = {
    Decimal: decimal_number,
    timedelta: _duration,
    date: date.isoformat,
    time: time.isoformat,
    datetime: datetime.isoformat,
    bytes: _text,
    list: _list,
    dict: _mapping,
}
