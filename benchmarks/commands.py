"""Measure how long `segments validate`, `plan` and `apply` take for many segments: each a process, as users start them.

The project has 41 features of 2,000 users in one Parquet file, the embedded store, and one event. Segments have five
conditions each, and every tenth also refers to the one before it. ``SIZES`` in the environment names other numbers of
segments, with commas. Besides these rows, one in which a single segment of the largest project is changed.
"""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from benchmarks.definitions import COUNTRIES, FEATURES, files
from benchmarks.timing import write
from rules_engine.redis.embedded import EmbeddedStore

SIZES = tuple(map(int, os.environ.get("SIZES", "100,1000,5000,10000").split(",")))
USERS = 2_000

_STORE = """\
project: many
provider: local
registry: ../.segments/registry.db
offline_store: {type: duckdb}
online_store: {type: rules_engine.features.online_store.EmbeddedOnlineStore}
entity_key_serialization_version: 3
"""
_FEATURES = """\
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, String

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
path = str(Path(__file__).parents[1] / "users.parquet")
source = FileSource(name="users", path=path, timestamp_field="event_timestamp")
fields = [Field(name=f"number{i}", dtype=Float64) for i in range(20)]
fields += [Field(name=f"text{i}", dtype=String) for i in range(20)]
view = FeatureView(name="user", entities=[user], ttl=timedelta(0), source=source, schema=fields)
"""
_EVENTS = "events:\n  purchase:\n    properties: {amount: {type: number}}\n    retention: 400d\n"


@dataclass(frozen=True)
class Figure:
    """One command over so many segments: seconds by the clock, of CPU, and the most memory."""

    command: str
    segments: int
    seconds: float
    cpu_seconds: float
    megabytes: float


def make_project(root: Path, users: int = USERS) -> None:
    """Write a project without segments."""
    chance = random.Random(1)
    (root / "feature_repo").mkdir(parents=True)
    (root / "segments").mkdir()
    (root / "feature_repo" / "feature_store.yaml").write_text(_STORE, encoding="utf-8")
    (root / "feature_repo" / "features.py").write_text(_FEATURES, encoding="utf-8")
    (root / "feature_repo" / "events.yaml").write_text(_EVENTS, encoding="utf-8")
    half = range(FEATURES // 2)
    columns = {
        "user_id": [f"user-{number}" for number in range(users)],
        "event_timestamp": pa.array([datetime(2026, 3, 1, tzinfo=UTC)] * users, pa.timestamp("us", "UTC")),
        **{f"number{i}": [chance.randrange(1_000) / 10 for _ in range(users)] for i in half},
        **{f"text{i}": chance.choices(COUNTRIES, k=users) for i in half},
    }
    pq.write_table(pa.table(columns), root / "users.parquet")


def write_segments(root: Path, size: int) -> None:
    """Replace the segments; every tenth refers to the one before it."""
    folder = root / "segments"
    for path in folder.iterdir():
        path.unlink()
    for place, text in enumerate(files(size)):
        documents = [_with_reference(document) for document in text.split("---\n")]
        (folder / f"{place:04d}.yaml").write_text("---\n".join(documents), encoding="utf-8")


def _with_reference(document: str) -> str:
    number = int(document.partition("\n")[0].removeprefix("segment: s"))
    return document + f"    - {{not_in_segment: s{number - 1}}}\n" if number % 10 == 9 else document


def run(root: Path, command: str, segments: int) -> Figure:
    """One run of a command, which must succeed."""
    with tempfile.TemporaryFile() as out:
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "rules_engine", command, "--repo", str(root)], stdout=out, stderr=out
        )
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            out.seek(0)
            raise SystemExit(f"segments {command}: {out.read().decode()}")
    return Figure(command, segments, seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1_000)


def measure(root: Path, size: int) -> list[Figure]:
    """All commands over so many segments, in the order in which a user would call them."""
    write_segments(root, size)
    figures = [run(root, command, size) for command in ("validate", "plan", "apply")]
    figures += [
        replace(run(root, command, size), command=f"{command}, nothing changed") for command in ("plan", "apply")
    ]
    path = root / "segments" / "0000.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("description: number 0", "description: other"), "utf-8")
    return [*figures, replace(run(root, "plan", size), command="plan, one segment changed")]


def growth(figures: list[Figure]) -> float:
    """The exponent with which CPU time grows from the smallest to the largest size; 1 is linear."""
    first, last = figures[0], figures[-1]
    return math.log(last.cpu_seconds / first.cpu_seconds) / math.log(last.segments / first.segments)


def main() -> None:
    """Measure, print and write down."""
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="segments-commands") as folder:
        root = Path(folder) / "many"
        make_project(root)
        server = EmbeddedStore(root)
        try:
            run(root, "apply", 0)  # Feast's registry is there, and what features there are is known
            for size in SIZES:
                figures += measure(root, size)
        finally:
            server.stop()
    table = Table("command", "segments", "seconds", "CPU s", "MB", title="Commands over many segments")
    by_command: dict[str, list[Figure]] = {}
    for figure in figures:
        by_command.setdefault(figure.command, []).append(figure)
    exponents = {command: growth(of_command) for command, of_command in by_command.items() if len(of_command) > 1}
    for command, of_command in by_command.items():
        for found in of_command:
            table.add_row(
                command,
                f"{found.segments:,}",
                f"{found.seconds:.2f}",
                f"{found.cpu_seconds:.2f}",
                f"{found.megabytes:.0f}",
            )
    Console().print(table)
    write("commands", {"figures": [asdict(figure) for figure in figures], "exponents": exponents})


if __name__ == "__main__":
    main()
