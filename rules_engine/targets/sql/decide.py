"""Decisions as SQL: a query around that of segments, which takes the first condition that is true."""

from __future__ import annotations

from sqlglot import exp

from rules_engine.clock import format_instant
from rules_engine.errors import UnsupportedError
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.decisions.cells import cells_of, with_cells
from rules_engine.rules.decisions.choosing import Chooser
from rules_engine.rules.program import Program
from rules_engine.targets.sql.compile import Compiler
from rules_engine.targets.sql.engines import find_engine
from rules_engine.targets.sql.expressions import case, column
from rules_engine.targets.sql.tables import ENTITY, Tables, tables_of


def decision_sql(
    program: Program,
    chooser: Chooser,
    catalog: Catalog,
    now: int,
    dialect: str = "duckdb",
    *,
    tables: Tables | None = None,
) -> str:
    """Return one query with a row per entity and a column with the variant that it gets.

    Parameters
    ----------
    program
        the segments.
    chooser
        the decision.
    catalog, now, dialect, tables
        as for :func:`rules_engine.targets.sql.to_sql`.

    Raises
    ------
    UnsupportedError
        if the dialect cannot say one of the rules.

    >>> from rules_engine.rules.catalog import Feature
    >>> from rules_engine.rules.decisions.nodes import Decision, Rule, Serve, Variant
    >>> from rules_engine.rules.nodes import FeatureRef, Predicate
    >>> from rules_engine.rules.types import INTEGER
    >>> rules = (Rule(Serve("on"), Predicate(FeatureRef("user", "age"), "at_least", 18, INTEGER)),)
    >>> decision = Decision("d", (Variant("on", "true"), Variant("off", "false")), rules, "off", "boolean")
    >>> catalog = Catalog({"user:age": Feature("user", "age", INTEGER, "Int64")})
    >>> text = decision_sql(Program({}), Chooser(decision), catalog, now=0)
    >>> print(text.partition("FROM")[0].rstrip())
    -- The variants of d as of 1970-01-01T00:00:00Z, in duckdb
    SELECT
      "entity",
      CASE WHEN "decision.d.rule_1.1" THEN 'on' ELSE 'off' END AS "d"
    """
    engine = find_engine(dialect)
    cells = cells_of(chooser, now)
    names = [cell.name for cell in cells]
    if not names:
        raise UnsupportedError(
            f"no rule of `{chooser.decision.name}` serves anybody at this instant", hint="everybody gets the default"
        )
    compiler = Compiler(engine, with_cells(program, cells), names, tables or tables_of(catalog), now, {})
    inner = exp.Subquery(this=compiler.query(), alias=exp.TableAlias(this=exp.to_identifier("conditions")))
    branches = [(column(cell.name), exp.Literal.string(cell.variant)) for cell in cells]
    variant = case(*branches, default=exp.Literal.string(chooser.decision.default))
    query = exp.select(column(ENTITY), exp.alias_(variant, chooser.decision.name, quoted=True)).from_(inner)
    head = f"-- The variants of {chooser.decision.name} as of {format_instant(now)}, in {dialect}\n"
    return head + query.sql(dialect=dialect, pretty=True, copy=False)
