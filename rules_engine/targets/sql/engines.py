"""Writes what SQL engines do differently, one small class per dialect. Everything else comes from one tree."""

from __future__ import annotations

import math
from collections.abc import Callable

from sqlglot import exp

from rules_engine.errors import UnsupportedError
from rules_engine.targets.sql.buckets import bucket
from rules_engine.targets.sql.expressions import (
    Sql,
    all_of,
    call,
    case,
    cast,
    coalesce,
    compare,
    integer,
    is_not_null,
)
from rules_engine.targets.sql.patterns import JAVA, POSTGRES, SNOWFLAKE, Flavor, rewrite

_INT64 = 2**63


class Engine:
    """DuckDB's way; the other dialects say only what they do differently."""

    name = "duckdb"
    #: Whether two columns whose names differ in case only are the same.
    ignores_identifier_case = True
    max_identifier_bytes: int | None = None
    max_columns: int | None = None
    #: Gives the bucket of a text by a seed; None if the engine cannot work out the hash.
    bucket: Callable[[Sql, str], Sql] | None = None
    #: How regular expressions are written; None runs RE2 itself.
    flavor: Flavor | None = None

    def claim_name(self, name: str, claimed: dict[str, str]) -> None:
        """Note the name of a column; refuse one that the engine would cut off, or confuse with one noted before.

        Raises
        ------
        UnsupportedError
            if it would.
        """
        limit = self.max_identifier_bytes
        if limit is not None and len(name.encode()) > limit:
            message = f"{self.name}: `{name}` is longer than {limit} bytes, the longest name of a column"
            raise UnsupportedError(message, hint="shorten it")
        known_as = name.lower() if self.ignores_identifier_case else name
        if known_as in claimed:
            message = f"{self.name}: `{claimed[known_as]}` and `{name}` would be the same column"
            raise UnsupportedError(message, hint="rename one of them")
        claimed[known_as] = name

    # --- literals ---------------------------------------------------------------------------------------------------

    def integer(self, value: int) -> Sql:
        """Return a whole number of any size."""
        return integer(value)

    def double(self, value: float) -> Sql:
        """Return a float, exactly, and as a double rather than a decimal.

        >>> Engine().double(0.1).sql("duckdb"), Engine().double(-math.inf).sql("duckdb")
        ('0.1e0', "CAST('-Infinity' AS DOUBLE)")
        """
        if not math.isfinite(value):
            return cast(exp.Literal.string("NaN" if math.isnan(value) else f"{'-' * (value < 0)}Infinity"), "DOUBLE")
        text = repr(abs(value))
        literal = exp.Literal.number(text if "e" in text else text + "e0")
        return exp.Neg(this=literal) if value < 0 else literal

    def text(self, value: str) -> Sql:
        """Return a string."""
        _require_encodable(value)
        return exp.Literal.string(value)

    # --- values -----------------------------------------------------------------------------------------------------

    def without_nan(self, value: Sql) -> Sql:
        """Return the value, or NULL for NaN."""
        return exp.Nullif(this=value, expression=self.double(math.nan))

    def micros(self, timestamp: Sql) -> Sql:
        """Return a TIMESTAMP in UTC as microseconds since the epoch, whatever the session's time zone."""
        return call("EPOCH_US", timestamp)

    def list_of_doubles(self, value: Sql) -> Sql:
        """Return a list of floats of any width, widened."""
        return cast(value, "DOUBLE[]")

    # --- strings ----------------------------------------------------------------------------------------------------

    def folded(self, value: Sql) -> Sql:
        """Lower case one code point at a time (see :func:`rules_engine.rules.text.fold_case`)."""
        return exp.Lower(this=value)

    def contains(self, value: Sql, text: str) -> Sql:
        return call("CONTAINS", value, self.text(text))

    def starts_with(self, value: Sql, text: str) -> Sql:
        return call("STARTS_WITH", value, self.text(text))

    def ends_with(self, value: Sql, text: str) -> Sql:
        return call("ENDS_WITH", value, self.text(text))

    def matches(self, value: Sql, pattern: str) -> Sql:
        """Say whether a part of the value matches the RE2 pattern."""
        return call("REGEXP_MATCHES", value, self._pattern(pattern))

    def _pattern(self, pattern: str) -> Sql:
        return self.text(rewrite(pattern, self.flavor) if self.flavor else pattern)

    # --- lists ------------------------------------------------------------------------------------------------------

    def includes(self, values: Sql, element: Sql) -> Sql:
        """Say whether a list has an element; NULL for no list, and NULL elements do not matter."""
        return case((is_not_null(values), coalesce(self._includes(values.copy(), element), exp.false())))

    def _includes(self, values: Sql, element: Sql) -> Sql:
        return call("LIST_CONTAINS", values, element)

    # --- aggregates -------------------------------------------------------------------------------------------------

    def integer_sum(self, value: Sql) -> Sql:
        """Return a sum of BIGINT that does not overflow."""
        return exp.Sum(this=value)

    def integer_as_double(self, total: Sql) -> Sql:
        """Return a sum of integers as a double, rounded once: a cast from text does so, one from 128 bits does not."""
        return cast(cast(total, "VARCHAR"), "DOUBLE")

    def double_sum(self, value: Callable[[], Sql]) -> list[tuple[Sql, Sql]]:
        """Return a sum of doubles as branches of CASE: correctly rounded where that can be done, infinite out of range.

        Numbers of everyday size (zero, or from 1.2e-7 to 1.1e9) are summed exactly, as whole multiples of 2**-76, and
        the sum is rounded once. Others take the engine's own sum.
        """
        size = call("ABS", value())
        large, small = self.double(2.0**30), self.double(2.0**-23)
        smallest = exp.Min(this=exp.Nullif(this=size.copy(), expression=self.double(0.0)))
        everyday = [
            compare(exp.LT, exp.Max(this=size.copy()), large),
            compare(exp.GTE, coalesce(smallest, large.copy()), small),
        ]
        fits = compare(exp.LT, size, large.copy())
        exact = self.integer_as_double(self._sum_of_units(value, fits))
        scaled = exp.Mul(this=exact, expression=self.double(2.0**-76))
        return [(all_of(everyday), scaled), *self._infinite(value), *self._other_sum(value)]

    def _sum_of_units(self, value: Callable[[], Sql], fits: Sql) -> Sql:
        """Return the sum of the values that fit, in units of 2**-76."""
        units = cast(exp.Mul(this=value(), expression=self.double(2.0**76)), "HUGEINT")
        return exp.Sum(this=case((fits, units)))

    def _other_sum(self, value: Callable[[], Sql]) -> list[tuple[Sql, Sql]]:
        """Return a compensated sum, and one at another scale if the first left the range."""
        compensated = call("FSUM", value())
        scaled = call("FSUM", exp.Mul(this=value(), expression=self.double(2.0**-64)))
        return [
            (call("ISFINITE", compensated), compensated.copy()),
            (exp.true(), exp.Mul(this=scaled, expression=self.double(2.0**64))),
        ]

    def _infinite(self, value: Callable[[], Sql]) -> list[tuple[Sql, Sql]]:
        """Return what a sum is if there are infinities among the values; of both signs there is no sum."""
        high, low = (self.double(sign * math.inf) for sign in (1, -1))
        rises = compare(exp.EQ, exp.Max(this=value()), high)
        falls = compare(exp.EQ, exp.Min(this=value()), low)
        both = all_of([rises, falls])
        return [(both, cast(exp.Null(), "DOUBLE")), (rises.copy(), high.copy()), (falls.copy(), low.copy())]

    def ordered_text(self, value: Sql) -> Sql:
        """Return a string to order by code point."""
        return value


def _require_encodable(value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UnsupportedError(f"the string {value!r} holds a lone surrogate, which no SQL engine can store") from error


class DuckDB(Engine):
    """The engine that the tests run."""

    bucket = staticmethod(bucket)

    def text(self, value: str) -> Sql:
        """Return a string; its parser ends at a zero character, so that one is written as CHR(0)."""
        _require_encodable(value)
        parts = value.split("\0")
        built: Sql = exp.Literal.string(parts[0])
        for part in parts[1:]:
            built = exp.DPipe(this=built, expression=call("CHR", integer(0)))
            built = exp.DPipe(this=built, expression=exp.Literal.string(part)) if part else built
        return exp.Paren(this=built) if len(parts) > 1 else built


class _WithoutZero(Engine):
    """An engine whose strings are not written with a zero character in them."""

    def text(self, value: str) -> Sql:
        _require_encodable(value)
        if "\0" in value:
            raise UnsupportedError(
                f"{self.name}: the string {value!r} holds a zero character", hint="use DuckDB for this rule"
            )
        return exp.Literal.string(value)

    def folded(self, value: Sql) -> Sql:
        """Lower a string without the special cases of whole-string lowering: a final sigma, and a dotted capital I."""
        return exp.Lower(this=call("TRANSLATE", value, self.text("Σİ"), self.text("σi")))

    def integer_as_double(self, total: Sql) -> Sql:
        return cast(total, "DOUBLE")

    def _sum_of_units(self, value: Callable[[], Sql], fits: Sql) -> Sql:
        """Sum in two parts of 64 bits, units of 2**-32 and the rest, as no cast makes an exact decimal of a double."""
        upper = exp.Mul(this=value(), expression=self.double(2.0**32))
        whole = call("FLOOR", upper)
        rest = exp.Mul(
            this=exp.Paren(this=exp.Sub(this=upper.copy(), expression=whole.copy())), expression=self.double(2.0**44)
        )
        highs = self.integer_sum(case((fits, cast(whole, "BIGINT"))))
        lows = self.integer_sum(case((fits.copy(), cast(rest, "BIGINT"))))
        return exp.Add(this=exp.Mul(this=highs, expression=integer(2**44)), expression=lows)

    def _other_sum(self, value: Callable[[], Sql]) -> list[tuple[Sql, Sql]]:
        return [(exp.true(), exp.Sum(this=value()))]


class Spark(_WithoutZero):
    """Spark SQL 3.4 and later; patterns are Java's."""

    name = "spark"
    flavor = JAVA

    def micros(self, timestamp: Sql) -> Sql:
        return call("UNIX_MICROS", timestamp)

    def list_of_doubles(self, value: Sql) -> Sql:
        return cast(value, "DOUBLE[]")

    def starts_with(self, value: Sql, text: str) -> Sql:
        return call("STARTSWITH", value, self.text(text))

    def ends_with(self, value: Sql, text: str) -> Sql:
        return call("ENDSWITH", value, self.text(text))

    def matches(self, value: Sql, pattern: str) -> Sql:
        return call("REGEXP_LIKE", value, self._pattern(pattern))

    def _includes(self, values: Sql, element: Sql) -> Sql:
        return call("ARRAY_CONTAINS", values, element)

    def integer_sum(self, value: Sql) -> Sql:
        return exp.Sum(this=cast(value, "DECIMAL(38, 0)"))


class BigQuery(_WithoutZero):
    """BigQuery; patterns are RE2's."""

    name = "bigquery"

    def integer(self, value: int) -> Sql:
        if -_INT64 <= value < _INT64:
            return integer(value)
        return exp.Cast(this=exp.Literal.string(str(value)), to=exp.DataType.build("BIGNUMERIC", dialect="bigquery"))

    def without_nan(self, value: Sql) -> Sql:
        return case((call("IS_NAN", value.copy()), exp.Null()), default=value)

    def micros(self, timestamp: Sql) -> Sql:
        return call("UNIX_MICROS", timestamp)

    def list_of_doubles(self, value: Sql) -> Sql:
        return value  # there is only one width of float

    def contains(self, value: Sql, text: str) -> Sql:
        return compare(exp.GT, call("STRPOS", value, self.text(text)), integer(0))

    def matches(self, value: Sql, pattern: str) -> Sql:
        return call("REGEXP_CONTAINS", value, self._pattern(pattern))

    def _includes(self, values: Sql, element: Sql) -> Sql:
        return exp.In(this=element, unnest=exp.Unnest(expressions=[values]))

    def integer_sum(self, value: Sql) -> Sql:
        return exp.Sum(this=exp.Cast(this=value, to=exp.DataType.build("BIGNUMERIC", dialect="bigquery")))


class Snowflake(_WithoutZero):
    """Snowflake; names are quoted, so they are as exact as they are written."""

    name = "snowflake"
    ignores_identifier_case = False
    flavor = SNOWFLAKE

    def double(self, value: float) -> Sql:
        text = {math.inf: "inf", -math.inf: "-inf"}.get(value, repr(value))  # nan prints as nan
        return cast(exp.Literal.string(text), "DOUBLE")

    def micros(self, timestamp: Sql) -> Sql:
        return call("DATE_PART", exp.Literal.string("epoch_microsecond"), timestamp)

    def list_of_doubles(self, value: Sql) -> Sql:
        return value  # elements are variants

    def starts_with(self, value: Sql, text: str) -> Sql:
        return call("STARTSWITH", value, self.text(text))

    def ends_with(self, value: Sql, text: str) -> Sql:
        return call("ENDSWITH", value, self.text(text))

    def matches(self, value: Sql, pattern: str) -> Sql:
        """Match a pattern anywhere in a string, which REGEXP_LIKE cannot: it matches the whole string."""
        return compare(exp.GT, call("REGEXP_INSTR", value, self._pattern(pattern)), integer(0))

    def _includes(self, values: Sql, element: Sql) -> Sql:
        return call("ARRAY_CONTAINS", cast(element, "VARIANT"), values)


class Postgres(_WithoutZero):
    """PostgreSQL 14 and later; strings are compared in the C collation, by code point."""

    name = "postgres"
    ignores_identifier_case = False
    max_identifier_bytes = 63
    max_columns = 1600
    flavor = POSTGRES

    def micros(self, timestamp: Sql) -> Sql:
        """Return microseconds, through the exact decimal epoch."""
        epoch = exp.Extract(this=exp.var("EPOCH"), expression=timestamp)
        return cast(exp.Mul(this=epoch, expression=integer(1_000_000)), "BIGINT")

    def folded(self, value: Sql) -> Sql:
        """Fold case by Unicode's rules whatever the locale of the database; needs a server with ICU, as packaged."""
        translated = call("TRANSLATE", value, self.text("Σİ"), self.text("σi"))
        return exp.Lower(this=_collated(translated, "und-x-icu"))

    def contains(self, value: Sql, text: str) -> Sql:
        return compare(exp.GT, call("STRPOS", _binary(value), self.text(text)), integer(0))

    def starts_with(self, value: Sql, text: str) -> Sql:
        return call("STARTS_WITH", value, self.text(text))

    def ends_with(self, value: Sql, text: str) -> Sql:
        return compare(exp.EQ, call("RIGHT", value, integer(len(text))), self.text(text))

    def matches(self, value: Sql, pattern: str) -> Sql:
        return exp.RegexpLike(this=_binary(value), expression=self._pattern(pattern))

    def _includes(self, values: Sql, element: Sql) -> Sql:
        return compare(exp.EQ, element, call("ANY", values))

    def ordered_text(self, value: Sql) -> Sql:
        return _binary(value)


def _collated(value: Sql, collation: str) -> Sql:
    return exp.Paren(this=exp.Collate(this=value, expression=exp.to_identifier(collation, quoted=True)))


def _binary(value: Sql) -> Sql:
    return _collated(value, "C")


#: Every dialect by its name.
ENGINES: dict[str, Engine] = {
    engine.name: engine for engine in (DuckDB(), Spark(), BigQuery(), Snowflake(), Postgres())
}


def find_engine(dialect: str) -> Engine:
    """Return the engine of a dialect.

    Raises
    ------
    UnsupportedError
        if there is none of that name.

    >>> find_engine("oracle")
    Traceback (most recent call last):
    ...
    rules_engine.errors.UnsupportedError: there is no SQL dialect `oracle`
    """
    if dialect not in ENGINES:
        raise UnsupportedError(f"there is no SQL dialect `{dialect}`", hint=f"the dialects are {', '.join(ENGINES)}")
    return ENGINES[dialect]
