"""``segments sql``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from rules_engine.cli.common import output
from rules_engine.cli.common.options import HERE, At, Repo
from rules_engine.clock import now_micros
from rules_engine.folders import Project


class Dialect(StrEnum):
    """The dialects of the SQL target, named here so that help need not import it; a test holds the two equal."""

    DUCKDB = "duckdb"
    SPARK = "spark"
    BIGQUERY = "bigquery"
    SNOWFLAKE = "snowflake"
    POSTGRES = "postgres"


def sql(
    segments: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Segments, a column each; decisions, a query each. Default: all segments."),
    ] = None,
    dialect: Annotated[Dialect, typer.Option(help="The SQL to write.")] = Dialect.DUCKDB,
    at: At = None,
    repo: Repo = HERE,
) -> None:
    """Print a segment or a decision as SQL.

    The query gives a row per entity and a column per segment: true, false, or null for unknown, as of an instant. It
    reads the tables `features`, point in time, and `events`. That of a decision gives the variant of each entity.
    """
    from rules_engine.deploy.definitions import load_project
    from rules_engine.rules.decisions.choosing import Chooser
    from rules_engine.targets.sql import to_sql
    from rules_engine.targets.sql.decide import decision_sql

    project = Project.open(repo)
    loaded = load_project(project)
    instant = at if at is not None else loaded.definitions.settings.now
    now = now_micros() if instant is None else instant
    decisions = loaded.definitions.decisions
    for name in [name for name in segments or () if name in decisions]:
        chooser = Chooser(decisions[name], loaded.definitions.experiments, loaded.definitions.settings.holdout)
        output.write(decision_sql(loaded.definitions.program, chooser, loaded.catalog, now, dialect.value))
        segments = [other for other in segments or () if other != name]
        if not segments:
            return
    output.write(to_sql(loaded.definitions.program, segments, loaded.catalog, now, dialect.value))
