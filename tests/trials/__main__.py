"""``python -m tests.trials``: see the package."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from tests.trials.outcome import Trial
from tests.trials.trial import run_trial
from tests.trials.world import Size, draw_world


def main() -> None:
    """Run trials one after the other, say what was compared, and end with 1 if anything differed."""
    parser = argparse.ArgumentParser(prog="python -m tests.trials")
    parser.add_argument("--projects", type=int, default=10, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of the first; the next ones follow")
    parser.add_argument("--entities", type=int, default=60, help="at most so many in a project")
    parser.add_argument("--events", type=int, default=200_000, help="at most so many in a project")
    parser.add_argument("--segments", type=int, default=16, help="drawn for each project; some are refused")
    parser.add_argument("--triggers", type=int, default=3, help="drawn for each project")
    given = parser.parse_args()
    size = Size(given.entities, given.events, given.segments, given.triggers)
    total: Counter[str] = Counter()
    differences = undecided = 0
    for seed in range(given.seed, given.seed + given.projects):
        began = time.monotonic()
        folder = Path(tempfile.mkdtemp(prefix=f"trial{seed}-"))
        try:
            trial = run_trial(draw_world(seed, size), folder)
        except Exception:  # noqa: BLE001  # shown, and the next project is tried
            traceback.print_exc()
            trial = Trial(differences=["the project could not be made or asked"])
        if trial.differences:
            print(f"  kept in {folder}")
        else:
            shutil.rmtree(folder)
        total.update(trial.compared)
        differences += len(trial.differences)
        undecided += trial.undecided
        print(
            f"seed {seed}: {sum(trial.compared.values()):,} answers, {len(trial.differences)} differ, "
            f"{time.monotonic() - began:.1f} s",
            flush=True,
        )
        for line in trial.differences[:20]:
            print(f"  {line}", flush=True)
    shares = ", ".join(f"{pair} {number:,}" for pair, number in sorted(total.items()))
    print(f"{sum(total.values()):,} answers compared ({shares}): {differences:,} differ")
    if undecided:
        print(f"{undecided:,} answers of lookups were unknown, as more events came than are kept")
    sys.exit(differences > 0)


if __name__ == "__main__":
    main()
