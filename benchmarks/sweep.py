"""Measure what CPU a worker takes to look at all users: after new segments were applied, and after features changed.

The project is that of ``python -m benchmarks commands``, with ``USERS`` (5,000) users in its store. ``SIZES`` in the
environment names other numbers of segments, with commas.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.commands import make_project, run, write_segments
from benchmarks.timing import write
from rules_engine.redis.embedded import EmbeddedStore

USERS = int(os.environ.get("USERS", "5000"))
SIZES = tuple(map(int, os.environ.get("SIZES", "20,100,1000,10000").split(",")))

_WORKER = """
import json, sys, time
from pathlib import Path
from rules_engine.folders import Project
from rules_engine.stream.reevaluation import look_again
from rules_engine.stream.worker import Worker, tune_process
project = Project(Path(sys.argv[1]))
tune_process()
took = []
for cause in (None, "materialize"):
    if cause:
        look_again(project, cause)
    worker = Worker(project)
    start = time.process_time()
    looked = worker.run(once=True).looked
    took.append((time.process_time() - start) / looked * 1000)
print(json.dumps(took))
"""


@dataclass(frozen=True)
class Figure:
    """CPU milliseconds a user: of a sweep for new segments, which writes records, and of one that changes nothing."""

    segments: int
    applied: float
    materialized: float


def measure(root: Path, size: int) -> Figure:
    """Both sweeps for so many segments."""
    write_segments(root, size)
    run(root, "apply", size)
    done = subprocess.run([sys.executable, "-c", _WORKER, str(root)], stdout=subprocess.PIPE, check=True, text=True)
    return Figure(size, *json.loads(done.stdout))


def main() -> None:
    """Measure, print and write down."""
    with tempfile.TemporaryDirectory(prefix="segments-sweep") as folder:
        root = Path(folder) / "many"
        make_project(root, USERS)
        server = EmbeddedStore(root)
        try:
            run(root, "apply", 0)
            run(root, "materialize", 0)
            figures = [measure(root, size) for size in SIZES]
        finally:
            server.stop()
    table = Table("segments", "after apply", "after materialize", title="Sweeps, CPU milliseconds of the worker a user")
    for figure in figures:
        table.add_row(f"{figure.segments:,}", f"{figure.applied:.3f}", f"{figure.materialized:.3f}")
    Console().print(table)
    first, last = figures[0], figures[-1]
    grown = math.log(last.materialized / first.materialized) / math.log(last.segments / first.segments)
    write("sweep", {"users": USERS, "figures": [asdict(figure) for figure in figures], "exponent": grown})


if __name__ == "__main__":
    main()
