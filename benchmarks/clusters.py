"""Clusters of many users: seconds of each stage, peak memory, and how fast labels reach the online store.

``python -m benchmarks clusters`` takes 1,000,000 users with 20 features; ``FEAST_SEGMENTS_BENCH_USERS=100000`` others,
and ``FEAST_SEGMENTS_BENCH_ALGORITHM=minibatch_kmeans`` another algorithm than k-means. The commands run as users run
them, in processes of their own: `segments apply`, `segments cluster fit`, `segments cluster attach`, and `attach` once
more, when no label is new. The figures go to ``benchmarks/results/clusters.json``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from benchmarks.timing import write
from rules_engine.redis.embedded import EmbeddedStore

USERS = 1_000_000
FEATURES = 20
GROUPS = 6
AT = datetime(2026, 3, 1, tzinfo=UTC)

_CHUNK = 100_000
_YAML = """\
project: bench
provider: local
registry: ../registry.db
offline_store: {type: duckdb}
online_store: {type: rules_engine.features.online_store.EmbeddedOnlineStore}
entity_key_serialization_version: 3
"""
_VIEWS = f"""\
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Bool, Float64, Int64, String

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
def view(name, columns):
    path = str(Path(__file__).parent / f"{{name}}.parquet")
    source = FileSource(name=name, path=path, timestamp_field="event_timestamp")
    schema = [Field(name=column, dtype=kind) for column, kind in columns.items()]
    return FeatureView(name=name, entities=[user], ttl=timedelta(0), source=source, schema=schema)
habits = view("habits", {{f"f{{number}}": Float64 for number in range({FEATURES})}})
labels = {{"label": String, "cluster": Int64, "distance": Float64, "model_version": String}}
user_clusters = view("user_clusters", labels | {{"confidence": Float64, "outlier": Bool}})
"""
_LABELS = {
    "label": pa.string(), "cluster": pa.int64(), "distance": pa.float64(), "model_version": pa.string(),
    "confidence": pa.float64(), "outlier": pa.bool_(),
}  # fmt: skip
_TIME = pa.timestamp("us", tz="UTC")


def main() -> None:
    """Fit and attach, and print what it took."""
    users = int(os.environ.get("FEAST_SEGMENTS_BENCH_USERS", USERS))
    algorithm = os.environ.get("FEAST_SEGMENTS_BENCH_ALGORITHM", "kmeans")
    with tempfile.TemporaryDirectory(prefix="segments-") as folder:
        project = _project(Path(folder), users, algorithm)
        try:
            runs = {
                "apply": _run(project, "apply"),
                "fit": _run(project, "cluster", "fit"),
                "attach": _run(project, "cluster", "attach"),
                "attach again": _run(project, "cluster", "attach"),
            }
        finally:
            EmbeddedStore(project).stop()
    _show(users, runs)
    write("clusters", {"users": users, "features": FEATURES, "algorithm": algorithm, "runs": runs})


def _project(root: Path, users: int, algorithm: str) -> Path:
    features = ", ".join(f"{{feature: habits:f{number}}}" for number in range(FEATURES))
    files = {
        "feature_repo/feature_store.yaml": _YAML,
        "feature_repo/views.py": _VIEWS,
        "feature_repo/clusters.yaml": f"clusters: user_clusters\nfeatures: [{features}]\nalgorithm: {algorithm}\n",
        "segments/project.yaml": f"project: bench\nnow: {AT:%Y-%m-%dT%H:%M:%SZ}\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    keys = {"user_id": pa.string(), "event_timestamp": _TIME}
    pq.write_table(pa.schema({**keys, **_LABELS}).empty_table(), root / "feature_repo" / "user_clusters.parquet")
    schema = pa.schema({**keys, **{f"f{number}": pa.float64() for number in range(FEATURES)}})
    random = np.random.default_rng(0)
    centers = random.normal(0, 3, (GROUPS, FEATURES))
    with pq.ParquetWriter(root / "feature_repo" / "habits.parquet", schema) as writer:
        for start in range(0, users, _CHUNK):
            size = min(_CHUNK, users - start)
            points = centers[random.integers(0, GROUPS, size)] + random.normal(0, 1.5, (size, FEATURES))
            names = pa.array([f"u{number:08d}" for number in range(start, start + size)])
            times = pa.array(np.full(size, np.datetime64(AT.replace(tzinfo=None), "us"))).cast(_TIME)
            writer.write_table(pa.table([names, times, *map(pa.array, points.T)], schema=schema))
    return root


def _run(project: Path, *command: str) -> dict[str, Any]:
    """What a command printed, its seconds, and the peak of its memory."""
    program = (
        "import json, resource, sys, time\n"
        "start = time.perf_counter()\n"
        "from rules_engine.cli.start import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    code = end.code\n"
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(json.dumps([code or 0, time.perf_counter() - start, peak]), file=sys.stderr)\n"
    )
    said = ["--format", "json"] if command[0] == "cluster" else []
    arguments = [sys.executable, "-c", program, *command, "--repo", str(project), *said]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    code, seconds, peak = json.loads(done.stderr.splitlines()[-1])
    if code:
        raise SystemExit(f"{' '.join(command)} failed: {done.stderr}")
    data = json.loads(done.stdout) if said else {}
    stages = {name: value for name, value in data.get("seconds", {}).items() if value >= 0.05}
    return {"seconds": round(seconds, 1), "peak_mb": peak // 1024, "stages": stages, "users": data.get("users")}


def _show(users: int, runs: dict[str, dict[str, Any]]) -> None:
    table = Table(title=f"{users:,} users, {FEATURES} features")
    for column in ("command", "seconds", "peak memory", "stages"):
        table.add_column(column)
    for name, run in runs.items():
        stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in run["stages"].items())
        table.add_row(name, f"{run['seconds']:.1f}", f"{run['peak_mb']:,} MB", stages)
    Console(width=160).print(table)
