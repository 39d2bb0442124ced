"""The SQL target on DuckDB, for data at hand: loads it, runs the query, reads the answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from rules_engine.errors import DataError, MissingExtraError
from rules_engine.rules.inputs import Inputs
from rules_engine.rules.predicates import Truth
from rules_engine.rules.program import Program
from rules_engine.targets.sql.compile import Compiler
from rules_engine.targets.sql.engines import find_engine

if TYPE_CHECKING:
    import duckdb


def evaluate_duckdb(
    program: Program,
    users: Sequence[tuple[str, Inputs]],
    now: int,
    names: Iterable[str] | None = None,
) -> dict[str, dict[str, Truth]]:
    """Return every segment's answer for every entity, from one query on DuckDB.

    The types of columns are taken from the values. Events may be given in any order and more than once: of several
    with one id the first counts.

    Raises
    ------
    MissingExtraError
        if DuckDB is not installed.
    DataError
        if an entity is given twice, or a value cannot be stored in a column.
    UnsupportedError
        if a rule cannot be said in SQL.

    >>> from rules_engine.rules.nodes import FeatureRef, Predicate, Segment
    >>> from rules_engine.rules.types import INTEGER
    >>> adult = Segment("adult", Predicate(FeatureRef("user", "age"), "at_least", 18, INTEGER))
    >>> users = [("ada", Inputs({"user:age": 36})), ("bob", Inputs({"user:age": 7})), ("eve", Inputs())]
    >>> evaluate_duckdb(Program({"adult": adult}), users, now=0)
    {'ada': {'adult': True}, 'bob': {'adult': False}, 'eve': {'adult': None}}
    """
    if len({entity for entity, _ in users}) < len(users):
        raise DataError("an entity is given more than once", hint="put all that is known of it into one `Inputs`")
    segments = list(program.names if names is None else dict.fromkeys(names))
    if not users or not segments:
        return {entity: {} for entity, _ in users}
    from rules_engine.targets.sql.load import load

    conditions = [program.segment(name).when for name in program.closure(segments)]
    tables, features, events = load([inputs for _, inputs in users], conditions)
    labels = {name: f"segment {number}" for number, name in enumerate(program.closure(segments))}
    tree = Compiler(find_engine("duckdb"), program, segments, tables, now, {}, labels).query()
    with _database().cursor() as connection:
        connection.register("features", features)
        connection.register("events", events)
        rows = connection.execute(tree.sql(dialect="duckdb", copy=False)).fetchall()
    answers = {int(row[0]): dict(zip(segments, row[1:], strict=True)) for row in rows}
    return {entity: answers[position] for position, (entity, _) in enumerate(users)}


@lru_cache(maxsize=1)
def _database() -> duckdb.DuckDBPyConnection:
    """Return the process's one database in memory; every call works on its own connection, with its own tables."""
    try:
        import duckdb
    except ImportError:
        raise MissingExtraError("duckdb", "duckdb", "running rules as SQL") from None
    return duckdb.connect(":memory:")
