"""The value of an operand as SQL, in each type in which it may be stored."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlglot import exp

from rules_engine.clock import format_instant, to_micros
from rules_engine.errors import UnsupportedError
from rules_engine.rules.types import EXACT, Kind, ValueType
from rules_engine.targets.sql.engines import Engine
from rules_engine.targets.sql.expressions import Sql, all_of, call, case, cast, compare, if_present

#: Kinds that are stored as BIGINT.
INTEGERS = frozenset({Kind.INTEGER, Kind.TIME, Kind.TIME_OF_DAY})

_NUMBERS = frozenset({Kind.INTEGER, Kind.FLOAT, Kind.TIME})
_READ_AS: dict[Kind, frozenset[Kind]] = {
    Kind.INTEGER: _NUMBERS,
    Kind.FLOAT: _NUMBERS,
    Kind.TIME: frozenset({Kind.INTEGER, Kind.TIME}),
    Kind.TIME_OF_DAY: frozenset({Kind.TIME_OF_DAY}),
    Kind.BOOLEAN: frozenset({Kind.BOOLEAN}),
    Kind.STRING: frozenset({Kind.STRING}),
    Kind.DAY_OF_WEEK: frozenset({Kind.STRING, Kind.DAY_OF_WEEK}),
    Kind.BYTES: frozenset({Kind.BYTES}),
}

_SMALLEST, _LARGEST = -(2**63), 2**63 - 1
#: Larger than any sum of 64-bit integers over a log; of larger literals only the sign matters.
_WIDE = 10**30
#: The instants that have a date.
_EARLIEST, _LATEST = to_micros(datetime(1, 1, 1, tzinfo=UTC)), to_micros(datetime(9999, 12, 31, tzinfo=UTC))


@dataclass(frozen=True)
class Stored:
    """One form in which an operand may be stored: NULL where it is missing or stored in another form.

    ``type`` None is a flag (see :class:`rules_engine.targets.sql.tables.Column`). ``wide`` marks integers of more than
    64 bits. ``time_is_integer`` False: a bare integer is no time, nor the other way round, as in context values.
    """

    type: ValueType | None
    sql: Sql
    folded: Sql | None = None
    wide: bool = False
    time_is_integer: bool = True

    def reads_as(self, value_type: ValueType) -> bool:
        """Say whether a value of this type may be in this form."""
        if self.type is None or self.type.is_list != value_type.is_list:
            return False
        if self.type.kind not in _READ_AS[value_type.kind]:
            return False
        return self.time_is_integer or (self.type.kind is Kind.TIME) == (value_type.kind is Kind.TIME)

    def is_scalar(self, kinds: Collection[Kind]) -> bool:
        """Say whether it is a single value of one of these kinds."""
        return self.type is not None and not self.type.is_list and self.type.kind in kinds

    def read(self) -> Sql:
        """Return the value, to be put into a tree."""
        return self.sql.copy()

    def read_folded(self, engine: Engine) -> Sql:
        """Return the value in lower case."""
        return self.folded.copy() if self.folded is not None else engine.folded(self.read())


def readable(values: Iterable[Stored], value_type: ValueType | None) -> list[Stored]:
    """Return the forms that may hold a value of a type (None: any), as :func:`~rules_engine.rules.types.conform` says.

    >>> from rules_engine.rules.types import FLOAT, INTEGER, STRING
    >>> [str(value.type) for value in readable([Stored(INTEGER, exp.Null()), Stored(STRING, exp.Null())], FLOAT)]
    ['integer']
    """
    if value_type is None:
        return list(values)
    return [value for value in values if value.reads_as(value_type)]


def read_as(engine: Engine, values: Iterable[Stored], value_type: ValueType | None) -> list[Stored]:
    """Return the forms that may hold a value of a type, as the type reads them: decimal numbers are rounded."""
    forms = readable(values, value_type)
    if value_type is None or value_type.decimals is None:
        return forms
    scale = 10.0**value_type.decimals
    return [_rounded(engine, form, scale) if form.is_scalar({Kind.FLOAT}) else form for form in forms]


def _rounded(engine: Engine, form: Stored, scale: float) -> Stored:
    """Return a float as :func:`rules_engine.rules.types.to_decimals` does."""
    scaled = exp.Mul(this=form.read(), expression=engine.double(scale))
    whole = call("FLOOR", exp.Add(this=scaled, expression=engine.double(0.5)))
    rounded = exp.Div(this=cast(whole, "DOUBLE"), expression=engine.double(scale), typed=True, safe=False)
    is_exact = compare(exp.LT, call("ABS", scaled.copy()), engine.double(EXACT))
    return replace(form, sql=case((is_exact, rounded), default=form.read()))


def require_scalars(values: Iterable[Stored], what: str) -> None:
    """Refuse values that SQL cannot compare with each other. Lists of one type count as scalars.

    Raises
    ------
    UnsupportedError
        if there are such values.
    """
    types = [value.type for value in values]
    if None in types or sum(each is not None and each.is_list for each in types) > 1:
        raise UnsupportedError(f"{what}: SQL cannot tell apart lists of several types, or values that are no scalar")


def literal(engine: Engine, kind: Kind, value: Any) -> Sql | None:
    """Return a literal to be compared for equality with values of a kind; None if no value of that kind is equal to it.

    >>> literal(Engine(), Kind.INTEGER, 2.0).sql(), literal(Engine(), Kind.INTEGER, 2.5)
    ('2', None)
    """
    if kind in INTEGERS:
        exact = as_integer(value)
        return _whole(engine, kind, exact) if exact is not None else None
    if kind is Kind.FLOAT:
        number = as_float(value)
        return engine.double(number) if number is not None else None
    if kind is Kind.BOOLEAN:
        return exp.Boolean(this=value)
    return engine.text(value)


def literals(engine: Engine, stored: Stored, values: Sequence[Any]) -> list[Sql]:
    """Return the literals among ``values`` to which a stored value can be equal."""
    assert stored.type is not None
    candidates = (literal(engine, stored.type.kind, value) for value in values if _fits(stored, value))
    return [each for each in candidates if each is not None]


def _fits(stored: Stored, value: Any) -> bool:
    if stored.type is not None and stored.type.kind in INTEGERS:
        low, high = _range(stored)
        return bool(low <= value <= high)
    return True


def _range(stored: Stored) -> tuple[int, int]:
    return (-_WIDE, _WIDE) if stored.wide else (_SMALLEST, _LARGEST)


def as_integer(value: float) -> int | None:
    """Return the integer that is equal to a number, or None."""
    return int(value) if value == math.floor(value) else None


def as_float(value: float) -> float | None:
    """Return the float that is equal to a number, or None.

    >>> as_float(2**53), as_float(2**53 + 1)
    (9007199254740992.0, None)
    """
    return float(value) if float(value) == value else None


# --- order ----------------------------------------------------------------------------------------------------------


def at_least(engine: Engine, stored: Stored, bound: float, *, strict: bool = False) -> Sql:
    """Say whether value >= bound, or > if strict, as exactly as Python compares integers with floats.

    >>> from rules_engine.rules.types import INTEGER
    >>> [at_least(Engine(), Stored(INTEGER, exp.column("a")), bound, strict=True).sql() for bound in (2, 2.5, 2**70)]
    ['a > 2', 'a >= 3', 'CASE WHEN a IS NOT NULL THEN FALSE END']
    """
    if _kind(stored) in INTEGERS:
        whole = math.ceil(bound)
        strict = strict and whole == bound
        low, high = _range(stored)
        if low <= whole <= high:
            return compare(exp.GT if strict else exp.GTE, stored.read(), _whole(engine, _kind(stored), whole))
        return if_present(stored.read(), whole < low)
    number = float(bound)
    if number != bound:
        strict = number < bound
    return compare(exp.GT if strict else exp.GTE, stored.read(), engine.double(number))


def at_most(engine: Engine, stored: Stored, bound: float, *, strict: bool = False) -> Sql:
    """Say whether value <= bound, or < if strict."""
    if _kind(stored) in INTEGERS:
        whole = math.floor(bound)
        strict = strict and whole == bound
        low, high = _range(stored)
        if low <= whole <= high:
            return compare(exp.LT if strict else exp.LTE, stored.read(), _whole(engine, _kind(stored), whole))
        return if_present(stored.read(), whole > high)
    number = float(bound)
    if number != bound:
        strict = number > bound
    return compare(exp.LT if strict else exp.LTE, stored.read(), engine.double(number))


def between(engine: Engine, stored: Stored, low: float, high: float) -> Sql:
    """Say whether low <= value <= high."""
    return all_of([at_least(engine, stored, low), at_most(engine, stored, high)])


# --- integers beside floats -----------------------------------------------------------------------------------------


def integral_part(engine: Engine, number: Stored) -> Sql:
    """Return a float as the BIGINT that is equal to it, or NULL."""
    return case((_is_whole(engine, number), cast(number.read(), "BIGINT")))


def fractional_part(engine: Engine, number: Stored) -> Sql:
    """Return a float to which no BIGINT is equal, or NULL."""
    return case((_is_whole(engine, number), exp.Null()), default=number.read())


def _is_whole(engine: Engine, number: Stored) -> Sql:
    return all_of(
        [
            compare(exp.EQ, number.read(), call("FLOOR", number.read())),
            compare(exp.GTE, number.read(), engine.double(-(2.0**63))),
            compare(exp.LT, number.read(), engine.double(2.0**63)),
        ]
    )


def not_above(engine: Engine, whole: Stored, number: Stored) -> Sql:
    """Say whether whole <= number, exactly: a BIGINT made a double would be rounded."""
    return _compare_exactly(engine, exp.LTE, whole, number, "FLOOR", when_above=True)


def not_below(engine: Engine, whole: Stored, number: Stored) -> Sql:
    """Say whether whole >= number, exactly."""
    return _compare_exactly(engine, exp.GTE, whole, number, "CEIL", when_above=False)


def _compare_exactly(
    engine: Engine, node: type[exp.Binary], whole: Stored, number: Stored, rounding: str, *, when_above: bool
) -> Sql:
    rounded = cast(call(rounding, number.read()), "BIGINT")
    return case(
        (compare(exp.GTE, number.read(), engine.double(2.0**63)), exp.Boolean(this=when_above)),
        (compare(exp.LT, number.read(), engine.double(-(2.0**63))), exp.Boolean(this=not when_above)),
        default=compare(node, whole.read(), rounded),
    )


def _kind(stored: Stored) -> Kind:
    assert stored.type is not None
    return stored.type.kind


def _whole(engine: Engine, kind: Kind, value: int) -> Sql:
    """Return an integer; an instant is also written out in a comment."""
    written = engine.integer(value)
    if kind is Kind.TIME and _EARLIEST <= value <= _LATEST:
        written.add_comments([f" {format_instant(value)} "])
    return written
