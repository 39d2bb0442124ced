"""Everyone at once, from a Parquet file: ours beside Polars and DuckDB, at 100,000 to 10,000,000 users.

Every fifth user has an older row too, every twentieth one after the instant that is asked about, and every twentieth
value is missing. Each side runs in a process of its own, in turns. Before anything is measured, all sides' memberships
are compared; and with every run, the number of members of each segment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from benchmarks.batch_sides import AS_OF, SEGMENTS, SIDES
from benchmarks.timing import Limit, write
from benchmarks.workload import COLUMNS, Column
from rules_engine.clock import DAY, to_micros

SIZES = (100_000, 1_000_000, 10_000_000)

#: So many runs of each side, of which the fastest counts.
ROUNDS = {100_000: 3, 1_000_000: 5, 10_000_000: 1}

#: Limits: at 1,000,000 users so many times faster than Polars and DuckDB, ...
LIMITS_AT, LEAST_TIMES = 1_000_000, {"Polars": 1.0, "DuckDB": 5.0}
#: ... and at 10,000,000 users so much memory at most.
MOST_MB = 1_000

_CHUNK = 100_000
_DOCS = Path(__file__).parents[1] / "docs"
_COLOURS = {"ours": "#1b6ca8", "Polars": "#e07a3f", "DuckDB": "#9a9a9a"}


@dataclass(frozen=True)
class Figure:
    """The fastest run of one side. ``ready_mb`` is what its process took before it began."""

    side: str
    users: int
    seconds: float
    cpu_seconds: float
    ready_mb: int
    peak_mb: int


# --- data -----------------------------------------------------------------------------------------------------------


def write_source(path: Path, users: int) -> None:
    """Write the file: first the older rows, then everybody's newest, then those of the future."""
    draw = np.random.default_rng(0)
    order = draw.permutation(users)
    parts = [(order[: users // 5], 40, 400), (draw.permutation(users), 1, 39), (order[-users // 20 :], -5, -1)]
    writer = None
    for numbers, least, most in parts:
        for start in range(0, len(numbers), _CHUNK):
            batch = _rows(numbers[start : start + _CHUNK], least, most, draw)
            writer = writer or pq.ParquetWriter(path, batch.schema)
            writer.write_batch(batch)
    assert writer is not None
    writer.close()


def _rows(numbers: Any, least: int, most: int, draw: np.random.Generator) -> pa.RecordBatch:
    size = len(numbers)
    ats = to_micros(AS_OF) - draw.integers(least * DAY, most * DAY, size)
    made = {
        "user_id": pa.array(np.char.add("user-", numbers.astype(str))),
        "event_timestamp": pa.array(ats, pa.timestamp("us", "UTC")),
    }
    return pa.record_batch(made | {column.name: _values(column, size, draw) for column in COLUMNS})


def _values(column: Column, size: int, draw: np.random.Generator) -> pa.Array:
    missing = draw.random(size) < 0.05
    if column.kind == "string":
        codes = pa.array(draw.integers(0, len(column.choices), size).astype(np.int32), mask=missing)
        return pa.DictionaryArray.from_arrays(codes, pa.array(column.choices)).cast(pa.string())
    if column.kind == "boolean":
        return pa.array(draw.random(size) < 0.3, mask=missing)
    if column.kind == "integer":
        return pa.array(draw.exponential(column.scale, size).astype(np.int64), mask=missing)
    return pa.array(np.round(draw.lognormal(0, 1, size) * column.scale, 2), mask=missing)


# --- runs -----------------------------------------------------------------------------------------------------------


def measure(path: Path, users: int, rounds: int) -> list[Figure]:
    """The fastest run of each side; they take turns.

    Raises
    ------
    ValueError
        if they do not count the same.
    """
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(rounds):
        for side, found in runs.items():
            found.append(_run(side, path))
            if found[-1]["counts"] != runs["ours"][0]["counts"]:
                raise ValueError(f"{side} counts otherwise than we do")
    return [_figure(side, users, min(found, key=lambda run: float(run["seconds"]))) for side, found in runs.items()]


def _run(side: str, path: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.batch_sides", side, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    if done.returncode:
        raise RuntimeError(f"{side} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    return found


def _figure(side: str, users: int, run: dict[str, Any]) -> Figure:
    seconds, cpu_seconds = round(run["seconds"], 2), round(run["cpu_seconds"], 2)
    return Figure(side, users, seconds, cpu_seconds, run["ready_mb"], run["peak_mb"])


def compare(path: Path) -> int:
    """Compare the memberships of all sides; how many there are.

    Raises
    ------
    ValueError
        if a side has others.
    """
    found = {side: make(path).members() for side, make in SIDES.items()}
    for side, members in found.items():
        if members != found["ours"]:
            differing = sorted(members ^ found["ours"])
            raise ValueError(f"{side} differs from us in {len(differing):,} memberships: {differing[:3]}")
    return len(found["ours"])


# --- results --------------------------------------------------------------------------------------------------------


def limits(figures: Sequence[Figure]) -> list[Limit]:
    """Return what our side may take, beside what was measured."""
    by = {(figure.side, figure.users): figure for figure in figures}
    measured: list[Limit] = []
    ours = by.get(("ours", LIMITS_AT))
    for side, least in LEAST_TIMES.items():
        other = by.get((side, LIMITS_AT))
        if ours is not None and other is not None:
            measured += [
                Limit(f"{what}, times faster than {side}", times, at_least=least) for what, times in _times(ours, other)
            ]
    largest = by.get(("ours", SIZES[-1]))
    if largest is not None:
        measured.append(Limit(f"MB at {SIZES[-1]:,} users", largest.peak_mb, at_most=MOST_MB))
    return measured


def _times(ours: Figure, other: Figure) -> Iterator[tuple[str, float]]:
    yield "seconds", round(other.seconds / ours.seconds, 2)
    yield "CPU seconds", round(other.cpu_seconds / ours.cpu_seconds, 2)


def show(figures: Sequence[Figure], measured: Sequence[Limit]) -> None:
    """Print the table and the limits."""
    console = Console()
    table = Table(title=f"Everyone in {SEGMENTS} segments over {len(COLUMNS)} features, from a Parquet file")
    for name in ("side", "users", "seconds", "CPU s", "MB before", "MB at most"):
        table.add_column(name, justify="left" if name == "side" else "right")
    for figure in figures:
        side, *numbers = asdict(figure).values()
        table.add_row(side, *(f"{number:,}" for number in numbers))
    console.print(table)
    for limit in measured:
        console.print(limit)


def draw(figures: Sequence[Figure]) -> None:
    """Draw CPU seconds and memory by users."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for axis, title in zip(axes, ("CPU seconds", "peak memory, MB"), strict=True):
        for side in SIDES:
            chosen = [found for found in figures if found.side == side]
            heights = [found.cpu_seconds if title == "CPU seconds" else found.peak_mb for found in chosen]
            axis.plot([found.users for found in chosen], heights, "o-", label=side, color=_COLOURS[side])
            for found, height in zip(chosen, heights, strict=True):
                beside = (6, -9) if side == "ours" else (-6, 6)
                axis.annotate(f"{height:,.4g}", (found.users, height), beside, textcoords="offset points", fontsize=7.5)
        axis.set(xscale="log", yscale="log", xlabel="users", title=title)
        axis.margins(x=0.12, y=0.15)
    axes[0].legend(frameon=False)
    figure.savefig(_DOCS / "batch_speed.png", dpi=130)


def main() -> None:
    """Measure, print and write down."""
    chosen = os.environ.get("FEAST_SEGMENTS_BENCH_USERS")
    sizes = [int(size) for size in chosen.split(",")] if chosen else list(SIZES)
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="feast-segments-bench-") as folder:
        for users in sizes:
            path = Path(folder) / f"users{users}.parquet"
            write_source(path, users)
            if users == min(sizes):
                print(f"All sides agree on {compare(path):,} memberships")
            figures += measure(path, users, ROUNDS.get(users, 1))
            path.unlink()
    measured = limits(figures)
    show(figures, measured)
    if not chosen:
        draw(figures)
        rows = {"figures": [asdict(figure) for figure in figures], "limits": [asdict(limit) for limit in measured]}
        path = write("batch", rows)
        print(f"Written to benchmarks/results/{path.name} and docs/batch_speed.png")


if __name__ == "__main__":
    main()
