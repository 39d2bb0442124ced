"""How the benchmarks measure and write down.

CPU time of the process is taken, not the wall clock, so that other work on the machine moves the figures less; of
several rounds the best counts.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def microseconds(work: Callable[[Any], object], items: Sequence[Any], seconds: float = 0.5) -> float:
    """CPU time of one call of ``work`` on an item: the best of as many rounds over all items as fit, two at least."""
    best, spent, rounds = float("inf"), 0.0, 0
    while rounds < 2 or spent < seconds:
        start = time.process_time()
        for item in items:
            work(item)
        took = time.process_time() - start
        best, spent, rounds = min(best, took), spent + took, rounds + 1
    return best / len(items) * 1e6


def seconds_of(work: Callable[[], object], rounds: int = 3) -> float:
    """CPU time of one call, the best of some."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


@dataclass(frozen=True)
class Limit:
    """A measured value and the bound that it has to keep: a regression shows in the output of the benchmark."""

    name: str
    measured: float
    at_most: float | None = None
    at_least: float | None = None

    @property
    def kept(self) -> bool:
        """Tell whether the measured value lies within the bound."""
        if self.at_most is not None and self.measured > self.at_most:
            return False
        return self.at_least is None or self.measured >= self.at_least

    def __str__(self) -> str:
        bound = f"at most {self.at_most:g}" if self.at_most is not None else f"at least {self.at_least:g}"
        return f"{self.name}: {self.measured:.2f} ({bound}: {'kept' if self.kept else 'NOT KEPT'})"


def machine() -> dict[str, str | int | None]:
    """What the figures were taken on."""
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "processor": _processor(),
        "cores": os.cpu_count(),
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def write(name: str, figures: Mapping[str, Any]) -> Path:
    """Write figures as JSON beside the benchmarks; where."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **figures}, indent=2) + "\n", encoding="utf-8")
    return path
