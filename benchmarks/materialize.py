"""Materialization: rows a second and peak memory, Feast's own engine and store against ours, on servers alike.

``python -m benchmarks materialize`` measures 100,000 and 1,000,000 users. ``FEAST_SEGMENTS_BENCH_USERS=10000000`` (or
several, with commas) measures others, ``FEAST_SEGMENTS_BENCH_ONLY=ours`` only us, and ``FEAST_SEGMENTS_BENCH_LOG=no`` a
server that does not write a log of what it was told, as a Redis without further settings. Both sides run Feast's own
``FeatureStore.materialize`` on the same definitions and the same Parquet files, each in a process of its own: ten
features, every fifth user with an older row too. Everybody is written twice: as users whom the store does not know,
and an hour later, when it knows them. Feast runs with ``online_write_batch_size: 10000``, which costs it no time
and saves it half of its memory.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import redis
from rich.console import Console
from rich.table import Table

from benchmarks.materialize_plots import draw
from benchmarks.timing import Limit, write
from rules_engine.redis.embedded import EmbeddedStore

SIZES = (100_000, 1_000_000)
AT = datetime(2026, 3, 1, tzinfo=UTC)

#: Limits: at least so many times Feast's rows a second, less than this part of its peak memory, and at most this
#: growth of our own from the smallest to the largest size.
LEAST_SPEED, MOST_MEMORY, MOST_GROWTH = 10.0, 0.5, 1.25

_CHUNK = 200_000
_SIDES = {
    "feast": "online_store:\n  type: redis\n  connection_string: '{address}'\n"
    "materialization: {{pull_latest_features: true, online_write_batch_size: 10000}}\n",
    "ours": "online_store:\n  type: rules_engine.features.online_store.BulkRedisOnlineStore\n"
    "  connection_string: '{address}'\n"
    "batch_engine: {{type: rules_engine.features.arrow_engine.ArrowEngine}}\n",
}
_YAML = """\
project: bench
provider: local
registry: ../registry.db
offline_store: {type: duckdb}
entity_key_serialization_version: 3
"""
_DEFINITIONS = """\
from datetime import timedelta
from pathlib import Path
from typing import Any

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, Int64, String

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
path = str(Path(__file__).parents[2] / "users.parquet")
source = FileSource(name="users", path=path, timestamp_field="event_timestamp")
kinds = {"amount": Float64, "count": Int64, "word": String}
names = [*(f"amount{i}" for i in range(4)), *(f"count{i}" for i in range(3)), *(f"word{i}" for i in range(3))]
users = FeatureView(
    name="users", entities=[user], ttl=timedelta(0), source=source,
    schema=[Field(name=name, dtype=kinds[name.rstrip("0123456789")]) for name in names],
)
"""

# One run: what it prints last is read by the parent.
_RUN = """\
import json, sys, time
sys.path.insert(0, sys.argv[2])
from rules_engine.features.feast_import import import_feast, quiet
feast = import_feast()
from benchmarks.materialize import AT, peak_bytes
from datetime import timedelta
import contextlib, io
with quiet(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    from feast.repo_operations import apply_total
    store = feast.FeatureStore(repo_path=sys.argv[1])
    from pathlib import Path
    apply_total(store.config, Path(sys.argv[1]), skip_source_validation=False)
    store.provider.online_store, store.provider.offline_store, store.provider.batch_engine
    before, cpu, start = peak_bytes(), time.process_time(), time.perf_counter()
    store.materialize(AT - timedelta(days=1000), AT + timedelta(days=1))
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
print(); print(json.dumps({"seconds": seconds, "cpu": cpu, "imported": before, "peak": peak_bytes()}))
"""


@dataclass(frozen=True)
class Figure:
    """One run. Memory in MB: with everything imported and nothing done, and at its peak."""

    side: str
    users: int
    store: str
    seconds: float
    rows_per_second: float
    cpu_seconds: float
    server_cpu_seconds: float
    imported_mb: float
    peak_mb: float


def peak_bytes() -> int:
    """The most memory that this process ever had."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would count the parent's too
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def batches(users: int, hour: int) -> Iterator[pa.RecordBatch]:
    """The rows of the source at some hour: one for each user, and for every fifth an older one."""
    random = np.random.default_rng(1 + hour)
    words = pa.array([f"word-{number}" for number in range(500)])
    start = np.datetime64(AT.replace(tzinfo=None), "us") + np.timedelta64(hour, "h")
    for first in range(0, users, _CHUNK):
        numbers = np.arange(first, min(first + _CHUNK, users))
        for old, chosen in ((False, numbers), (True, numbers[::5])):
            count = len(chosen)
            ages = random.integers(1, 3_600_000_000, count) + (10**13 if old else 0)
            columns = {
                "user_id": pa.array([f"user-{number}" for number in chosen.tolist()]),
                "event_timestamp": pa.array(start - ages.astype("timedelta64[us]"), pa.timestamp("us")),
                **{f"amount{i}": random.lognormal(3, 1, count).round(2) for i in range(4)},
                **{f"count{i}": random.poisson(40, count) for i in range(3)},
                **{f"word{i}": words.take(pa.array(random.integers(0, 500, count))) for i in range(3)},
            }
            yield pa.RecordBatch.from_pydict(columns)


def write_source(path: Path, users: int, hour: int) -> None:
    """Write the source's file, a chunk at a time."""
    writer = None
    for batch in batches(users, hour):
        writer = writer or pq.ParquetWriter(path, batch.schema)
        writer.write_batch(batch)
    assert writer is not None
    writer.close()


def measure(side: str, users: int, root: Path) -> list[Figure]:
    """Two runs, each in a process of its own, into a new server: of users whom it does not know, and of the same."""
    server = EmbeddedStore(root / f"{side}-{users}")
    repo = server.root / "feature_repo"
    repo.mkdir(parents=True)
    server.ensure_running()
    try:
        (repo / "definitions.py").write_text(_DEFINITIONS)
        settings = _SIDES[side].format(address=server.connection_string)
        (repo / "feature_store.yaml").write_text(_YAML + settings)
        with redis.Redis.from_url(server.url) as client:
            client.config_set("appendonly", os.environ.get("FEAST_SEGMENTS_BENCH_LOG", "yes"))
            found = []
            for hour, store in enumerate(("empty", "knows them")):
                write_source(root / "users.parquet", users, hour)
                found.append(_run(side, users, store, repo, client))
            return found
    finally:
        server.stop()
        shutil.rmtree(server.root)


def _run(side: str, users: int, store: str, repo: Path, client: redis.Redis) -> Figure:
    before = _server_cpu(client)
    command = [sys.executable, "-c", _RUN, str(repo), str(Path(__file__).parents[1])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{side} failed:\n{done.stderr[-2000:]}")
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))  # DuckDB prints too
    if client.dbsize() != users:
        raise RuntimeError(f"{side} wrote {client.dbsize():,} of {users:,} users")
    return Figure(
        side=side,
        users=users,
        store=store,
        seconds=round(found["seconds"], 2),
        rows_per_second=round(users / found["seconds"]),
        cpu_seconds=round(found["cpu"], 2),
        server_cpu_seconds=round(_server_cpu(client) - before, 2),
        imported_mb=round(found["imported"] / 1e6),
        peak_mb=round(found["peak"] / 1e6),
    )


def _server_cpu(client: redis.Redis) -> float:
    info: Any = client.info("cpu")
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


def limits(figures: list[Figure]) -> list[Limit]:
    """Return what the writer may take, beside what was measured."""
    by = {(figure.side, figure.users, figure.store): figure for figure in figures}
    measured: list[Limit] = []
    for (side, users, store), figure in by.items():
        other = by.get(("feast", users, store))
        if side != "ours" or other is None:
            continue
        speed = figure.rows_per_second / other.rows_per_second
        memory = figure.peak_mb / other.peak_mb
        who = f"{users:,} users, store {store}"
        measured.append(Limit(f"{who}: rows a second, times Feast's", speed, at_least=LEAST_SPEED))
        measured.append(Limit(f"{who}: peak memory, part of Feast's", memory, at_most=MOST_MEMORY))
    ours = [figure for figure in figures if figure.side == "ours" and figure.store == "empty"]
    ours.sort(key=lambda figure: figure.users)
    if len(ours) > 1:
        growth = ours[-1].peak_mb / ours[0].peak_mb
        name = f"peak memory, {ours[-1].users:,} against {ours[0].users:,} users"
        measured.append(Limit(name, growth, at_most=MOST_GROWTH))
    return measured


def show(figures: list[Figure], measured: list[Limit]) -> None:
    """Print the table and the limits."""
    console = Console()
    table = Table(title="Materialization to the online store, 10 features")
    names = ["side", "users", "store", "seconds", "rows/s", "CPU s", "server CPU s", "imported MB", "peak MB"]
    for name in names:
        table.add_column(name, justify="left" if name in ("side", "store") else "right")
    for figure in figures:
        values = list(asdict(figure).values())
        table.add_row(*(value if isinstance(value, str) else f"{value:,}" for value in values))
    console.print(table)
    for limit in measured:
        console.print(limit)


def main() -> None:
    """Measure, print and write down."""
    chosen = os.environ.get("FEAST_SEGMENTS_BENCH_USERS")
    sizes = [int(size) for size in chosen.split(",")] if chosen else list(SIZES)
    only = os.environ.get("FEAST_SEGMENTS_BENCH_ONLY")
    sides = [only] if only else list(_SIDES)
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="feast-segments-bench-") as folder:
        for users in sizes:
            for side in sides:
                figures += measure(side, users, Path(folder))
    measured = limits(figures)
    show(figures, measured)
    if not chosen and not only and "FEAST_SEGMENTS_BENCH_LOG" not in os.environ:
        rows = {"figures": [asdict(figure) for figure in figures], "limits": [asdict(limit) for limit in measured]}
        path = write("materialize", rows)
        print(f"Written to benchmarks/results/{path.name}, drawn to {draw(figures)}")


if __name__ == "__main__":
    main()
