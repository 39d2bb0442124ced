"""Audiences in a SQL database: what a reader finds there, and what is left of an export that failed.

On SQLite; and on the PostgreSQL server that the variable TEST_POSTGRES_URL names, if it is set.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from rules_engine.batch import export_sql
from rules_engine.batch.engine import BatchProject, BatchRules
from rules_engine.batch.export_sql import MEMBERS, STATE, SqlExports
from rules_engine.cli import main
from rules_engine.clock import to_micros
from rules_engine.errors import DataError
from tests.batch_shop import NOW, History, history, make_shop

SEGMENTS = """\
segment: rich
when: {feature: facts:amount, at_least: 50}
---
segment: scored
when: {feature: fresh:score, less_than: 0}
"""
POSTGRES = os.environ.get("TEST_POSTGRES_URL")
DAYS = [NOW - timedelta(days=days) for days in (3, 2, 1, 0)]


@pytest.fixture(scope="module")
def happened() -> History:
    return history(seed=31, users=60)


@pytest.fixture
def shop(make_project: Callable[..., Any], happened: History) -> BatchProject:
    return BatchProject.open(make_shop(make_project, happened, SEGMENTS))


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/audiences.db"
        return
    if POSTGRES is None:
        pytest.skip("TEST_POSTGRES_URL is not set")
    engine = sa.create_engine(POSTGRES)
    for table in ("audience", "moves", STATE, MEMBERS):
        with engine.begin() as connection:
            connection.execute(sa.text(f"DROP TABLE IF EXISTS {table}"))
    engine.dispose()
    yield POSTGRES


@pytest.fixture
def database(url: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(url)
    yield engine
    engine.dispose()


def export(url: str, shop: BatchProject, table: str, at: Any, segment: str = "rich") -> export_sql.Exported:
    rules, exports = BatchRules(shop.repo, shop.program, [segment]), SqlExports(segment, url, table)
    try:
        return (exports.changes if table == "moves" else exports.full)(rules, to_micros(at))
    finally:
        exports.close()


def read(database: sa.Engine, query: str) -> list[tuple[Any, ...]]:
    with database.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(query))]


def members(happened: History, shop: BatchProject, at: Any, segment: str = "rich") -> set[str]:
    answers = happened.members(shop.program, to_micros(at))
    return {user for user, segments in answers.items() if segment in segments}


def test_a_table_holds_the_members_of_now(
    url: str, database: sa.Engine, shop: BatchProject, happened: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_sql, "_CHUNK", 7)
    for number, at in enumerate(DAYS, 1):
        want = members(happened, shop, at)
        assert export(url, shop, "audience", at).members == len(want)
        rows = read(database, "SELECT user_id, export FROM audience WHERE segment = 'rich'")
        assert sorted(rows) == sorted((user, number) for user in want)
    assert len(want) > 7, "in several statements"
    export(url, shop, "audience", NOW, "scored")
    assert {user for (user,) in read(database, "SELECT user_id FROM audience WHERE segment = 'rich'")} == want
    scored = {user for (user,) in read(database, "SELECT user_id FROM audience WHERE segment = 'scored'")}
    assert scored == members(happened, shop, NOW, "scored") != set()


def test_changes_lead_from_one_export_to_the_next(
    url: str, database: sa.Engine, shop: BatchProject, happened: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_sql, "_CHUNK", 20)
    known: set[str] = set()
    for number, at in enumerate(DAYS, 1):
        done = export(url, shop, "moves", at)
        assert done.previous == (None if number == 1 else to_micros(DAYS[number - 2]))
        rows = read(database, f"SELECT user_id, change FROM moves WHERE export = {number}")
        entered, left = ({user for user, move in rows if move == change} for change in ("entered", "left"))
        assert (done.entered, done.left) == (len(entered), len(left))
        assert left <= known
        assert not entered & known
        known = (known | entered) - left
        assert known == members(happened, shop, at)
    changes = {change for (change,) in read(database, "SELECT change FROM moves")}
    assert changes == {"entered", "left"}, "or it says little"
    again = export(url, shop, "moves", NOW)
    assert (again.entered, again.left) == (0, 0)
    assert read(database, f"SELECT export, members FROM {STATE}") == [(5, len(known))]
    with pytest.raises(DataError, match="which is later"):
        export(url, shop, "moves", DAYS[1])


def test_an_export_that_fails_leaves_nothing_and_is_done_again(
    url: str, database: sa.Engine, shop: BatchProject, happened: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(url, shop, "moves", DAYS[0])
    before = [read(database, f"SELECT * FROM {table}") for table in ("moves", STATE, MEMBERS)]

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(SqlExports, "_note", killed)
        with pytest.raises(KeyboardInterrupt):
            export(url, shop, "moves", NOW)
    assert [read(database, f"SELECT * FROM {table}") for table in ("moves", STATE, MEMBERS)] == before
    done = export(url, shop, "moves", NOW)
    first, last = members(happened, shop, DAYS[0]), members(happened, shop, NOW)
    assert (done.entered, done.left) == (len(last - first), len(first - last))
    assert done.entered > 0


def test_what_a_consumer_takes_away_does_not_come_again(url: str, database: sa.Engine, shop: BatchProject) -> None:
    export(url, shop, "moves", DAYS[0])
    with database.begin() as connection:
        connection.execute(sa.text("DELETE FROM moves"))
    assert export(url, shop, "moves", DAYS[0]).entered == 0


def test_another_table_of_that_name_is_not_touched(url: str, database: sa.Engine, shop: BatchProject) -> None:
    with database.begin() as connection:
        connection.execute(sa.text("CREATE TABLE audience (user_id VARCHAR(10), name VARCHAR(10))"))
        connection.execute(sa.text("INSERT INTO audience VALUES ('a', 'b')"))
    with pytest.raises(DataError, match="has the columns name, user_id, and the export writes"):
        export(url, shop, "audience", NOW)
    assert read(database, "SELECT * FROM audience") == [("a", "b")]


def test_a_database_that_cannot_be_used_is_named_without_its_password(shop: BatchProject, tmp_path: Path) -> None:
    for url, said in (
        ("nothing", "is no URL of a database"),
        ("sqlite://user:secret@/x.db", "is no URL of a database"),
        ("nosuch://user:secret@host/x", "no driver for `nosuch`"),
        (f"sqlite:///{tmp_path}/no/such/folder.db", "unable to open database file"),
    ):
        with pytest.raises(DataError, match=said) as caught:
            export(url, shop, "audience", NOW)
        assert "secret" not in f"{caught.value} {caught.value.hint}"


def test_the_command_takes_a_file_or_a_table(shop: BatchProject, tmp_path: Path) -> None:
    def run(*arguments: str) -> Any:
        return CliRunner().invoke(main.app, ["export", "rich", *arguments, "--repo", str(shop.repo.project.root)])

    url = f"sqlite:///{tmp_path}/x.db"
    done = run("--to", url, "--table", "audience", "--format", "json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["table"] == f"audience in {url}"
    done = run("--to", url, "--table", "moves", "--changes-since-last")
    assert "entered and 0 left, the first export" in done.stdout
    for arguments in ((), ("--to", url), ("--table", "x"), ("--out", "x.csv", "--to", url, "--table", "x")):
        assert run(*arguments).exit_code == 2, arguments
