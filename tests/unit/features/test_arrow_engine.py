"""The engine beyond its limit of memory: DuckDB goes to disk, and what was set before is set again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ibis
import pytest

from rules_engine.features.feast_import import import_feast

import_feast()

from rules_engine.features.arrow_engine import ArrowEngine, _folder  # noqa: E402  # Feast is imported as the commands import it

SETTINGS = ("preserve_insertion_order", "disabled_optimizers", "enable_progress_bar")

#: The newest of rows that take several times the limit.
NEWEST = """
    SELECT * EXCLUDE place FROM (
        SELECT *, row_number() OVER (PARTITION BY key ORDER BY value DESC) AS place FROM (
            SELECT hash(i) % 600000 AS key, i AS value, repeat('x', 60) || i AS a, repeat('y', 60) || i AS b
            FROM range(900000) AS numbers(i)
        )
    ) WHERE place = 1
"""


def engine(limit: str) -> ArrowEngine:
    return ArrowEngine(repo_config=None, offline_store=None, online_store=None, memory_limit=limit)


def settings(connection: Any) -> list[Any]:
    return [connection.execute(f"SELECT current_setting('{name}')").fetchone()[0] for name in SETTINGS]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_rows_beyond_the_limit_go_to_disk() -> None:
    connection = ibis.duckdb.connect()
    table = connection.sql(NEWEST)
    before = settings(connection.con)
    rows, files = 0, 0
    with engine("100MB")._batches(SimpleNamespace(table=table)) as batches:
        for batch in batches:
            folder = Path(_folder())
            rows, files = rows + batch.num_rows, max(files, len(list(folder.iterdir())))
    assert settings(connection.con) == before
    assert (
        rows
        == connection.con.execute("SELECT count(DISTINCT hash(i) % 600000) FROM range(900000) AS t(i)").fetchone()[0]
    )
    assert files > 0
