"""Rules as SQL: as of an instant, over a table of point-in-time features and a table of events.

Begin with ``compile.py``; ``tables.py`` says what the tables look like. One tree is written with sqlglot and printed
for DuckDB (on which every test runs), Spark, BigQuery, Snowflake and PostgreSQL. What a dialect cannot say raises
:class:`~rules_engine.errors.UnsupportedError`, never a filter that means something else.

Sums of floats from 1.2e-7 to 1.07e9 in size are exact, as in the other targets. Beyond that they are the engine's own
(DuckDB: compensated): they may differ in the last digit, and by more where huge values cancel, as in [1e16, 1, -1e16].
A mean of integers whose sum is beyond 2**53 may differ in the last digit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rules_engine.rules.catalog import Catalog
from rules_engine.rules.program import Program
from rules_engine.rules.types import Value
from rules_engine.targets.sql.compile import Compiler, header
from rules_engine.targets.sql.engines import ENGINES, find_engine
from rules_engine.targets.sql.run import evaluate_duckdb
from rules_engine.targets.sql.tables import Column, Tables, tables_of, updated_at_column

__all__ = ["DIALECTS", "Column", "Tables", "evaluate_duckdb", "tables_of", "to_sql", "updated_at_column"]

#: The dialects that can be asked for.
DIALECTS: tuple[str, ...] = tuple(ENGINES)


def to_sql(
    program: Program,
    names: Iterable[str] | None,
    catalog: Catalog,
    now: int,
    dialect: str = "duckdb",
    *,
    tables: Tables | None = None,
    context: Mapping[str, Value] | None = None,
) -> str:
    """Return one query with a row per entity and a column per segment: TRUE, FALSE, or NULL for unknown.

    Parameters
    ----------
    names
        the segments, in the order of the columns; None for all.
    catalog
        tells the types of features and event properties, and the views' ttl.
    now
        the instant, in microseconds.
    tables
        where the data is, if not in tables as :func:`tables_of` describes them.
    context
        context values; others take their ``default``, or are missing.

    Raises
    ------
    UnsupportedError
        if the dialect cannot say one of the rules.
    UnknownNameError
        if there is no segment of a name.

    >>> from rules_engine.rules.catalog import Feature
    >>> from rules_engine.rules.nodes import FeatureRef, Predicate, Segment
    >>> from rules_engine.rules.types import INTEGER
    >>> adult = Segment("adult", Predicate(FeatureRef("user", "age"), "at_least", 18, INTEGER), description="Of age")
    >>> catalog = Catalog({"user:age": Feature("user", "age", INTEGER, "Int64")})
    >>> print(to_sql(Program({"adult": adult}), ["adult"], catalog, now=0))
    -- Segments as of 1970-01-01T00:00:00Z, in duckdb: TRUE, FALSE, or NULL for unknown
    --   adult: Of age
    WITH known_features AS (
      /* what is known of each entity; NaN and what is past its ttl is missing */
      SELECT
        "entity",
        "user:age"
      FROM features
    )
    SELECT
      "entity",
      "user:age" >= 18 AS "adult"
    FROM known_features
    """
    engine = find_engine(dialect)
    segments = list(program.names if names is None else dict.fromkeys(names))
    compiler = Compiler(engine, program, segments, tables or tables_of(catalog), now, context or {})
    return header(program, segments, now, dialect) + compiler.query().sql(dialect=dialect, pretty=True, copy=False)
