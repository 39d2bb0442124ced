"""The same question to three engines: who is in which of 100 segments, as of an instant, from one Parquet file.

Each finds every user's newest row at or before the instant, and counts a missing value as unknown. Polars and DuckDB
get the conditions as somebody would write them by hand. Run in a process of its own: ``python -m benchmarks.batch_sides
SIDE FILE``; it prints seconds, CPU seconds, memory and counts.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.workload import COLUMNS, program
from rules_engine.clock import to_micros
from rules_engine.rules.nodes import AllOf, AnyOf, Condition, Not, Predicate

AS_OF = datetime(2026, 1, 1, tzinfo=UTC)
SEGMENTS = 100

#: What answers: the number of users, and by segment of its members.
Counts = dict[str, int]

#: Every user with each segment of theirs.
Members = set[tuple[str, str]]


@dataclass(frozen=True)
class Side:
    """One way to answer: what is measured, and what is compared once."""

    count: Callable[[], Counts]
    members: Callable[[], Members]


def _pairs(columns: Mapping[str, Sequence[Any]]) -> Members:
    users = columns["user_id"]
    return {
        (user, name)
        for name, flags in columns.items()
        if name != "user_id"
        for user, flag in zip(users, flags, strict=True)
        if flag
    }


_DEFINITIONS = """\
from datetime import timedelta
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Bool, Float64, Int64, String

user = Entity(name="user_entity", join_keys=["user_id"], value_type=ValueType.STRING)
view = FeatureView(
    name="user", entities=[user], ttl=timedelta(0),
    source=FileSource(path={path!r}, timestamp_field="event_timestamp"),
    schema=[{fields}],
)
"""
_STORE = """\
project: bench
provider: local
registry: registry.db
offline_store: {type: duckdb}
online_store: {type: sqlite, path: online.db}
entity_key_serialization_version: 3
"""
_TYPES = {"string": "String", "boolean": "Bool", "integer": "Int64", "number": "Float64"}


# --- ours -----------------------------------------------------------------------------------------------------------


def ours(path: Path) -> Side:
    """What `segments evaluate` does."""
    from rules_engine.batch.engine import BatchRules
    from rules_engine.batch.evaluate import evaluate
    from rules_engine.features.feast.repo import FeastRepo
    from rules_engine.folders import Project

    root = path.parent / f"project-{path.stem}"
    repo = root / "feature_repo"
    repo.mkdir(parents=True, exist_ok=True)
    (root / "segments").mkdir(exist_ok=True)
    fields = ", ".join(f'Field(name="{column.name}", dtype={_TYPES[column.kind]})' for column in COLUMNS)
    (repo / "views.py").write_text(_DEFINITIONS.format(path=str(path), fields=fields))
    (repo / "feature_store.yaml").write_text(_STORE)
    for module in ("duckdb", "rules_engine.features.offline.parquet_stream"):
        importlib.import_module(module)  # imports are no side's work
    rules = BatchRules(FeastRepo(Project.open(root)), program(SEGMENTS))

    def count() -> Counts:
        sizes = evaluate(rules, to_micros(AS_OF))
        return {"users": sizes.users, **sizes.members}

    def members() -> Members:
        evaluate(rules, to_micros(AS_OF), root / "members.parquet")
        pairs = pq.read_table(root / "members.parquet")
        return set(zip(pairs["user_id"].to_pylist(), pairs["segment"].to_pylist(), strict=True))

    return Side(count, members)


# --- Polars ---------------------------------------------------------------------------------------------------------


def polars(path: Path) -> Side:
    """A lazy query on the streaming engine."""
    import polars as pl

    rows = pl.scan_parquet(path).filter(pl.col("event_timestamp") <= AS_OF)
    # Of six ways to take the newest row of each user this was the fastest, and among those that need the least memory.
    newest = rows.group_by("user_id").agg(pl.col("event_timestamp").max())
    users = rows.join(newest, on=["user_id", "event_timestamp"], how="semi")
    checked = program(SEGMENTS)
    flags = {name: _polars(checked.segment(name).when).fill_null(False) for name in checked.names}
    counted = users.select(pl.len().alias("users"), *(flag.sum().alias(name) for name, flag in flags.items()))
    listed = users.select("user_id", *(flag.alias(name) for name, flag in flags.items()))
    return Side(
        lambda: counted.collect(engine="streaming").row(0, named=True),
        lambda: _pairs(listed.collect().to_dict(as_series=False)),
    )


def _polars(condition: Condition) -> Any:
    if isinstance(condition, AllOf | AnyOf):
        first, *rest = map(_polars, condition.conditions)
        for other in rest:
            first = first & other if isinstance(condition, AllOf) else first | other
        return first
    if isinstance(condition, Not):
        return ~_polars(condition.condition)
    assert isinstance(condition, Predicate)
    import polars as pl

    value, argument = pl.col(_column(condition)), condition.argument
    written: Mapping[str, Callable[[], Any]] = {
        "equals": lambda: value == argument,
        "not_equals": lambda: value != argument,
        "in": lambda: value.is_in(list(argument)),
        "not_in": lambda: ~value.is_in(list(argument)),
        "contains": lambda: value.str.contains(argument, literal=True),
        "at_least": lambda: value >= argument,
        "greater_than": lambda: value > argument,
        "less_than": lambda: value < argument,
        "at_most": lambda: value <= argument,
        "between": lambda: value.is_between(*argument),
    }
    return written[condition.operator]()


# --- DuckDB ---------------------------------------------------------------------------------------------------------


def duckdb(path: Path) -> Side:
    """One query."""
    import duckdb as engine

    connection = engine.connect()
    connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false; SET preserve_insertion_order = false")
    checked = program(SEGMENTS)
    flags = {name: _duckdb(checked.segment(name).when) for name in checked.names}
    counted = ", ".join(f"count_if({flag}) AS {name}" for name, flag in flags.items())
    listed = ", ".join(f"coalesce({flag}, false) AS {name}" for name, flag in flags.items())
    # Of four ways to take the newest row of each user this was the fastest.
    rows = f"(SELECT * FROM read_parquet('{path}') WHERE event_timestamp <= TIMESTAMPTZ '{AS_OF.isoformat()}')"
    newest = f"SELECT user_id, max(event_timestamp) AS event_timestamp FROM {rows} GROUP BY user_id"
    users = f"{rows} SEMI JOIN ({newest}) USING (user_id, event_timestamp)"

    def count() -> Counts:
        result = connection.execute(f"SELECT count(*) AS users, {counted} FROM {users}")
        return dict(zip([column[0] for column in result.description], result.fetchone() or (), strict=True))

    def members() -> Members:
        return _pairs(connection.execute(f"SELECT user_id, {listed} FROM {users}").to_arrow_table().to_pydict())

    return Side(count, members)


def _duckdb(condition: Condition) -> str:
    if isinstance(condition, AllOf | AnyOf):
        word = " AND " if isinstance(condition, AllOf) else " OR "
        return "(" + word.join(map(_duckdb, condition.conditions)) + ")"
    if isinstance(condition, Not):
        return f"(NOT {_duckdb(condition.condition)})"
    assert isinstance(condition, Predicate)
    value, argument = _column(condition), condition.argument
    if condition.operator == "contains":
        return f"contains({value}, {_literal(argument)})"
    if condition.operator == "between":
        return f"{value} BETWEEN {_literal(argument[0])} AND {_literal(argument[1])}"
    return f"{value} {_OPERATORS[condition.operator]} {_literal(argument)}"


_OPERATORS = {
    "equals": "=",
    "not_equals": "<>",
    "in": "IN",
    "not_in": "NOT IN",
    "at_least": ">=",
    "greater_than": ">",
    "less_than": "<",
    "at_most": "<=",
}


def _literal(value: Any) -> str:
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_literal, value)) + ")"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"'{value}'"
    return f"{value!r}::DOUBLE" if isinstance(value, float) else str(value)


def _column(predicate: Predicate) -> str:
    return str(predicate.operand).partition(":")[2]


# --- one run --------------------------------------------------------------------------------------------------------

SIDES: dict[str, Callable[[Path], Side]] = {"ours": ours, "Polars": polars, "DuckDB": duckdb}


def _peak() -> int:
    """The most memory so far, in MB; of this process alone (what `getrusage` says begins with the parent's)."""
    status = Path("/proc/self/status")
    if status.exists():
        return (
            int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1]) // 1024
        )
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1 << 20)


def _measured(side: str, path: Path) -> dict[str, Any]:
    count = SIDES[side](path).count
    before, wall, cpu = _peak(), time.perf_counter(), time.process_time()
    counts = count()
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "ready_mb": before, "peak_mb": _peak(), "counts": counts}


if __name__ == "__main__":
    print(json.dumps(_measured(sys.argv[1], Path(sys.argv[2]))))
