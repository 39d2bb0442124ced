"""Show the stages of a long command, and measure how long each takes."""

from __future__ import annotations

import time
from collections.abc import Callable

from rules_engine.cli.common.output import say


class StageTimes:
    """Shows each stage of a command while it lasts, and measures its time.

    >>> stages = StageTimes(lambda text: print(text))
    >>> stages("Finding clusters", 1, 4)
    Finding clusters: 1 of 4
    >>> stages.seconds.keys()
    dict_keys(['Finding clusters'])
    """

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self.seconds: dict[str, float] = {}
        self._current, self._began = "", time.perf_counter()

    def __call__(self, what: str, done: int = 0, total: int = 0) -> None:
        """Go on with a stage, or begin the next one."""
        self._count()
        self._current = what
        self.seconds.setdefault(what, 0.0)
        of = f" of {total:,}" if total else ""
        self._show(f"{what}: {done:,}{of}" if done else what)

    def rounded(self) -> dict[str, float]:
        """Return the seconds of each stage so far, to the millisecond."""
        self._count()
        return {stage: round(seconds, 3) for stage, seconds in self.seconds.items()}

    def print(self) -> None:
        """Say how long it all took."""
        parts = [f"{what[0].lower()}{what[1:]} {seconds:.1f}" for what, seconds in self.rounded().items()]
        say((f"Took {sum(self.seconds.values()):.1f} s: {', '.join(parts)}", "dim"))

    def _count(self) -> None:
        now = time.perf_counter()
        if self._current:
            self.seconds[self._current] += now - self._began
        self._began = now
