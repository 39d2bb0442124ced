"""Watch an embedded server load its data from disk: a wait for it ends when nothing goes on, and not after a time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from rules_engine.redis.inquiry import ServerInquiry

#: Seconds between two questions, and between two messages in the log; the first of these comes after as many.
_QUESTION_SECONDS, _MESSAGE_SECONDS = 0.2, 5.0

_log = logging.getLogger("rules_engine.store")


@dataclass(frozen=True, slots=True)
class Loading:
    """Holds how much of its data a server has loaded.

    >>> str(Loading(430_000_000, 1_000_000_000))
    'loading its data: 43% of 1,000 MB'
    """

    loaded_bytes: int
    total_bytes: int

    def __str__(self) -> str:
        share = self.loaded_bytes / self.total_bytes if self.total_bytes else 0.0
        return f"loading its data: {min(share, 1.0):.0%} of {self.total_bytes // 1_000_000:,} MB"


#: Is told how far a server is.
Report = Callable[[Loading], None]


class LoadingWatch:
    """Tells how long to wait for a server that starts.

    Parameters
    ----------
    inquiry
        asks the server.
    patience
        seconds to wait while it does not go on loading.
    report
        is told how far it is; by default the log is, every few seconds.

    Attributes
    ----------
    deadline
        the instant of ``time.monotonic`` at which the wait ends.
    """

    def __init__(self, inquiry: ServerInquiry, patience: float, report: Report | None = None) -> None:
        self._inquiry = inquiry
        self._patience = patience
        self._report = report or self._write
        self._loading: Loading | None = None
        self._asks_at = time.monotonic()
        self._writes_at = self._asks_at + _MESSAGE_SECONDS
        self.deadline = self._asks_at + patience

    def look(self) -> None:
        """Ask how far the server is, if it is time to; put the end of the wait off if it went on."""
        now = time.monotonic()
        if now < self._asks_at:
            return
        self._asks_at = now + _QUESTION_SECONDS
        info = self._inquiry.info("persistence")
        if info.get("loading") != "1":
            return
        loading = Loading(int(info.get("loading_loaded_bytes", 0)), int(info.get("loading_total_bytes", 0)))
        if loading != self._loading:
            self._loading, self.deadline = loading, now + self._patience
            self._report(loading)

    def _write(self, loading: Loading) -> None:
        now = time.monotonic()
        if now >= self._writes_at:
            self._writes_at = now + _MESSAGE_SECONDS
            _log.warning("the embedded store is %s", loading)
