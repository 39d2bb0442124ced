"""The hash of samples in SQL, for engines that fold a list: the same bucket as :mod:`rules_engine.rules.buckets`."""

from __future__ import annotations

from sqlglot import exp

from rules_engine.rules.buckets import BUCKETS, PRIME, START, fnv1a
from rules_engine.targets.sql.expressions import Sql, call, case, cast, compare, integer, is_not_null, own

#: Code points from here on are two UTF-16 code units, of which these are the first values.
_TWO_UNITS, _HIGH, _LOW, _UNITS = 0x10000, 0xD800, 0xDC00, 1024


def bucket(unit: Sql, seed: str) -> Sql:
    """Return the bucket of a text by a seed, as DuckDB works it out; NULL of NULL.

    >>> import duckdb
    >>> tree = bucket(exp.Literal.string("a"), "seed")
    >>> duckdb.sql("SELECT " + tree.sql(dialect="duckdb")).fetchone()
    (505,)
    """
    first = _fnv1a(_code_units(unit), fnv1a(seed))
    second = _fnv1a(_code_units(cast(first, "VARCHAR")), START)
    return case((is_not_null(unit.copy()), exp.Mod(this=second, expression=integer(BUCKETS[2]))))


def _fnv1a(units: Sql, state: int) -> Sql:
    """Fold a list of code units; states stay below 2**32, so that a product fits into 64 bits."""
    mixed = exp.Mul(this=call("XOR", own("state"), own("unit")), expression=integer(PRIME))
    step = exp.Mod(this=exp.Paren(this=mixed), expression=integer(2**32))
    return call(
        "LIST_REDUCE", call("LIST_PREPEND", cast(integer(state), "BIGINT"), units), _function(step, "state", "unit")
    )


def _code_units(text: Sql) -> Sql:
    # STRING_SPLIT would not do: it splits into graphemes.
    characters = call("REGEXP_EXTRACT_ALL", text, exp.Literal.string("(?s)."))
    point = cast(call("ORD", own("letter")), "BIGINT")
    beyond = exp.Paren(this=exp.Sub(this=point.copy(), expression=integer(_TWO_UNITS)))
    high = exp.Add(this=integer(_HIGH), expression=exp.IntDiv(this=beyond, expression=integer(_UNITS)))
    low = exp.Add(this=integer(_LOW), expression=exp.Mod(this=beyond.copy(), expression=integer(_UNITS)))
    is_one = compare(exp.LT, point.copy(), integer(_TWO_UNITS))
    units = case((is_one, call("LIST_VALUE", point)), default=call("LIST_VALUE", high, low))
    return call("FLATTEN", call("LIST_TRANSFORM", characters, _function(units, "letter")))


def _function(body: Sql, *names: str) -> Sql:
    return exp.Lambda(this=body, expressions=[exp.to_identifier(name) for name in names])
