"""``python -m tests.fuzz``: see the package."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import psutil

from rules_engine.redis.embedded import EmbeddedStore
from tests.fuzz.ground import Ground, make_ground
from tests.fuzz.kinds import KINDS, NAMED

SECONDS, BYTES = 2.0, 500 << 20


def run(ground: Ground, kind: str, seed: int) -> str | None:
    """Do one run; return what is wrong with it, or None."""
    before, began = psutil.Process().memory_info().rss, time.process_time()
    try:
        KINDS[kind](ground, random.Random(f"{kind} {seed}"))
    except NAMED as error:
        if "rules_engine" not in (type(error).__module__ or "") and not _is_refusal(error):
            return _shown(error)
    except Exception as error:  # noqa: BLE001  # finding them is what this is for
        return _shown(error)
    seconds = time.process_time() - began
    grown = psutil.Process().memory_info().rss - before
    if seconds > SECONDS:
        return f"took {seconds:.1f} s of CPU"
    return f"took {grown >> 20} MB" if grown > BYTES else None


def _is_refusal(error: BaseException) -> bool:
    """Tell whether a TypeError or ValueError was raised on purpose: by our code, and not by what it called."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return "rules_engine" in last.filename and str(last.line).lstrip().startswith("raise ")


def _shown(error: BaseException) -> str:
    where = traceback.extract_tb(error.__traceback__)[-4:]
    path = " > ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in where)
    return f"{type(error).__name__}: {str(error)[:200]!r} at {path}"


def main() -> None:
    """Fuzz for some minutes or runs; end with 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--minutes", type=float, default=1.0, help="how long")
    parser.add_argument("--runs", type=int, default=10**9, help="at most so many of each kind")
    parser.add_argument("--kind", choices=[*KINDS], action="append", help="only this kind; may be given several times")
    parser.add_argument("--seed", type=int, default=0, help="of the first run; the next ones follow")
    given = parser.parse_args()
    kinds, until = given.kind or [*KINDS], time.monotonic() + 60 * given.minutes
    wrong: Counter[str] = Counter()
    seed = given.seed
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
        ground = make_ground(Path(folder))
        try:
            while time.monotonic() < until and seed - given.seed < given.runs:
                for kind in kinds:
                    found = run(ground, kind, seed)
                    if found is not None:
                        wrong[f"{kind}: {found}"] += 1
                        if wrong[f"{kind}: {found}"] == 1:
                            print(f"{kind} {seed}: {found}", flush=True)
                seed += 1
        finally:
            EmbeddedStore(ground.root).stop()
    print(f"{(seed - given.seed) * len(kinds):,} runs: {sum(wrong.values()):,} wrong, in {len(wrong):,} ways")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
