"""Turn columns of a source into values of the declared type, as the table in ``column_types.py`` says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rules_engine.errors import DataError, FeatureColumnError
from rules_engine.features.column_types import (
    Conversion,
    Family,
    conversion,
    element_type,
    family,
    is_accepted,
    is_in_table,
    refusal,
    refused_instants,
    refused_key,
)

#: The type that a converted column has, by declared type.
_RESULTS = {
    "Bool": pa.bool_(),
    "Int32": pa.int32(),
    "Int64": pa.int64(),
    "Float32": pa.float32(),
    "Float64": pa.float64(),
    "String": pa.large_string(),
    "Bytes": pa.large_binary(),
    "UnixTimestamp": pa.timestamp("us", "UTC"),
}

#: Beyond it floats leave out whole numbers.
_EXACT = {"Float32": 2**24, "Float64": 2**53}

_FIRST_SECOND, _LAST_SECOND = (
    int(datetime(*day, tzinfo=UTC).timestamp()) for day in ((1, 1, 1, 0, 0, 0), (9999, 12, 31, 23, 59, 59))
)

_MICROS = 1_000_000

_NUMBERS = (Family.INTEGER, Family.FLOAT, Family.DECIMAL)


def as_declared(column: pa.Array, feature: str, declared: str) -> pa.Array:
    """Return a column as the online store holds it: of the declared type, and times in whole seconds.

    Parameters
    ----------
    column
        values of a source, null and NaN being missing.
    feature
        ``"view:name"``, for messages.
    declared
        the feature's type, as Feast names it.

    Returns
    -------
    pyarrow.Array
        of the Arrow type that belongs to the declared one; texts may stay codes of a dictionary. A column whose
        declared type rules cannot read stays as it is.

    Raises
    ------
    FeatureColumnError
        if the column, or one of its values, cannot be of that type.

    >>> as_declared(pa.array([1.0, None]), "v:x", "Int64").to_pylist()
    [1, None]
    """
    if not is_in_table(declared):
        return column
    inner = element_type(declared)
    try:
        if not is_accepted(column.type, declared):
            if not _is_missing(column):
                column_family = family(column.type)
                if inner and column_family is Family.LIST:
                    column_family = family(column.type.value_type)
                raise refusal(feature, declared, column.type, column_family)
            return pa.nulls(len(column), pa.large_list(_RESULTS[inner]) if inner else _RESULTS[declared])
        return _converted(column, declared) if inner is None else _list_of(column, inner)
    except (_ValueError, pa.ArrowException) as error:
        hint = getattr(error, "hint", None) or "mend the value in the source, or declare a type that holds it"
        raise FeatureColumnError(f"feature `{feature}` is declared {declared}: {error}", feature, hint) from error


def entity_keys(column: pa.Array, name: str) -> pa.Array:
    """Return a column of entity keys as texts; null where a row has no key.

    Whole numbers have one spelling, and a whole number that was read as a float (a gap in pandas does that) is that
    number again.

    Raises
    ------
    DataError
        if the column cannot be keys.

    >>> entity_keys(pa.array([42.0, float("nan")]), "user_id").to_pylist(), entity_keys(pa.array([7]), "id").to_pylist()
    (['42', None], ['7'])
    """
    column_family = family(column.type)
    if column_family is Family.TEXT:
        plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        return plain.cast(pa.large_string())
    if column_family in _NUMBERS:
        try:
            return _whole(_plain(column), pa.int64()).cast(pa.large_string())
        except (_ValueError, pa.ArrowException) as error:
            raise DataError(
                f"the join key `{name}` holds {column.type}: {error}",
                hint="write keys as strings or as whole numbers",
            ) from error
    if _is_missing(column):
        return pa.nulls(len(column), pa.large_string())
    raise refused_key(column.type, name)


def event_instants(column: pa.Array, name: str) -> pa.Array:
    """Return a column of event timestamps in microseconds since 1970; null where a row has none.

    Timestamps without a time zone are UTC, and a date is its midnight there.

    Raises
    ------
    DataError
        if the column holds anything else.

    >>> event_instants(pa.array([1, None], pa.timestamp("ms")), "at").to_pylist()
    [1000, None]
    """
    column_family = family(column.type)
    if column_family is Family.DATE:
        column = column.cast(pa.timestamp("s"))
    elif column_family is not Family.TIMESTAMP:
        if _is_missing(column):
            return pa.nulls(len(column), pa.int64())
        raise refused_instants(column.type, name)
    if column.type.unit != "ns":
        return column.cast(pa.timestamp("us")).cast(pa.int64())
    mask = column.is_null().to_numpy(zero_copy_only=False) if column.null_count else None
    nanos = column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    return pa.array(nanos // 1_000, mask=mask)


# --- one function for each conversion ---------------------------------------------------------------------------------


class _ValueError(Exception):
    """A value that the declared type does not hold."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def _converted(column: pa.Array, declared: str) -> pa.Array:
    if family(column.type) is Family.NOTHING:
        return pa.nulls(len(column), _RESULTS[declared])
    if pa.types.is_dictionary(column.type):
        if family(column.type) is Family.TEXT:  # codes are all that rules need
            return column
        column = column.dictionary_decode()
    how = conversion(declared, family(column.type))
    assert how is not None, declared
    return _FUNCTIONS[how](_plain(column), _RESULTS[declared])


def _plain(column: pa.Array) -> pa.Array:
    """Return the column in one of the types that Arrow computes with."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pa.float32()) if pa.types.is_float16(column.type) else column


def _same(column: pa.Array, target: pa.DataType) -> pa.Array:
    return column if column.type == target else column.cast(target)


def _whole(column: pa.Array, target: pa.DataType) -> pa.Array:
    if column.type == target:
        return column
    if pa.types.is_floating(column.type):
        column = _whole_floats(column)
    try:
        return column.cast(target)
    except pa.ArrowInvalid as error:
        if pa.types.is_decimal(column.type):
            raise _ValueError(_first_that(column, lambda value: value != int(value)) or str(error)) from error
        low, high = pc.min_max(column).values()
        limit = 2 ** (target.bit_width - 1)
        raise _ValueError(f"its values from {low} to {high} are outside of {-limit} to {limit - 1}") from error


def _whole_floats(column: pa.Array) -> pa.Array:
    values = column.cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False)
    is_known = ~np.isnan(values)
    refused = is_known & ((np.abs(values) >= 2**53) | (values != np.trunc(values)))
    if refused.any():
        value = float(values[int(np.argmax(refused))])
        if value == np.trunc(value) and not np.isinf(value):
            raise _ValueError(
                f"{value:.0f} was a float, which beyond 2**53 leaves out whole numbers",
                "write the column as whole numbers; with pandas, as `Int64`",
            )
        raise _ValueError(f"{value!r} is no whole number")
    return pa.array(np.where(is_known, values, 0).astype(np.int64), mask=~is_known)


def _real(column: pa.Array, target: pa.DataType) -> pa.Array:
    if column.type == target:
        return column
    if pa.types.is_floating(column.type):
        return column.cast(target, safe=False)
    exact = _EXACT["Float32" if target == pa.float32() else "Float64"]
    if pa.types.is_decimal(column.type):
        # By way of the text: Arrow's own cast is off by one in the last digit.
        converted = column.cast(pa.large_string()).cast(target)
        whole = pc.max(pc.abs(converted)).as_py()
    else:
        low, high = pc.min_max(column).values()
        converted, whole = None, max(abs(low.as_py()), abs(high.as_py())) if low.is_valid else None
    if whole is not None and whole > exact:
        raise _ValueError(
            f"{whole} is beyond {exact}, where floats leave out whole numbers", "declare the feature Int64"
        )
    return column.cast(target, safe=False) if converted is None else converted


def _epoch_seconds(column: pa.Array, target: pa.DataType) -> pa.Array:
    return _in_calendar(_whole(column, pa.int64())).cast(pa.timestamp("s", "UTC")).cast(target)


def _instant(column: pa.Array, target: pa.DataType) -> pa.Array:
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("s"))
    per_second = {"s": 1, "ms": 1_000, "us": _MICROS, "ns": 1_000 * _MICROS}[column.type.unit]
    ticks = column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    mask = None if not column.null_count else column.is_null().to_numpy(zero_copy_only=False)
    seconds = _in_calendar(pa.array(ticks // per_second, mask=mask))
    return seconds.cast(pa.timestamp("s", "UTC")).cast(target)


def _in_calendar(seconds: pa.Array) -> pa.Array:
    """Refuse instants that no calendar holds, which most often are milliseconds given as seconds."""
    for value in pc.min_max(seconds).values():
        if value.is_valid and not _FIRST_SECOND <= value.as_py() <= _LAST_SECOND:
            year = 1970 + int(value.as_py() / 31_556_952)
            raise _ValueError(
                f"{value} seconds after 1970 is the year {year}; are these milliseconds?",
                "write seconds, or a column of timestamps",
            )
    return seconds


def _list_of(column: pa.Array, inner: str) -> pa.Array:
    """Return a column of lists whose elements are as declared; a null in a list is no element of it."""
    target = _RESULTS[inner]
    if family(column.type) is Family.NOTHING:
        return pa.nulls(len(column), pa.large_list(target))
    lists = column.cast(pa.large_list(column.type.value_type))
    if lists.null_count:  # what lies under a null is no value
        lists = pc.if_else(lists.is_valid(), lists, pa.scalar([], lists.type))
    offsets = lists.offsets.to_numpy(zero_copy_only=False)
    elements = _converted(lists.values.slice(offsets[0], offsets[-1] - offsets[0]), inner)
    if pa.types.is_dictionary(elements.type):
        elements = elements.dictionary_decode()
    elements, ends = elements.cast(target), offsets - offsets[0]
    if elements.null_count:
        kept_before = np.concatenate([[0], np.cumsum(elements.is_valid().to_numpy(zero_copy_only=False))])
        elements, ends = elements.drop_null(), kept_before[ends]
    mask = column.is_null() if column.null_count else None
    return pa.LargeListArray.from_arrays(pa.array(ends, pa.int64()), elements, mask=mask)


def _first_that(column: pa.Array, is_refused: Callable[[Any], bool]) -> str | None:
    value = next((value for value in column.to_pylist() if value is not None and is_refused(value)), None)
    return None if value is None else f"{value} is no whole number"


def _is_missing(column: pa.Array) -> bool:
    """Tell whether no value is there: all are null, or NaN, which pandas writes for a column that nobody has."""
    if column.null_count == len(column):
        return True
    if not pa.types.is_floating(column.type):
        return False
    values = column.cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False)
    return bool(np.isnan(values).all())


_FUNCTIONS: Mapping[Conversion, Callable[[pa.Array, pa.DataType], pa.Array]] = {
    Conversion.SAME: _same,
    Conversion.WHOLE: _whole,
    Conversion.REAL: _real,
    Conversion.EPOCH_SECONDS: _epoch_seconds,
    Conversion.INSTANT: _instant,
}
if _FUNCTIONS.keys() != set(Conversion):
    raise TypeError(f"conversions without a function: {set(Conversion) - _FUNCTIONS.keys()}")

__all__ = ["as_declared", "entity_keys", "event_instants"]
