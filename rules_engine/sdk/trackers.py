"""The tracker of a client, made when the first event is reported: most clients only ask."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rules_engine.sdk.rules import Rules
    from rules_engine.sdk.tracking import Tracker


class Trackers:
    """Gives the tracker for the rules of the moment. Safe to share between threads.

    Parameters
    ----------
    root
        the project's folder.
    timeout
        seconds to wait for the store.
    """

    def __init__(self, root: Path, timeout: float | None) -> None:
        self._root = root
        self._timeout = timeout
        self._lock = threading.Lock()
        self._current: Tracker | None = None
        self._closed = False

    def of(self, rules: Rules) -> Tracker:
        """Return the tracker for these rules. One for older rules ends what it began, and its connections with it."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the client is closed")
            if self._current is None or self._current.rules is not rules:
                from rules_engine.sdk.tracking import Tracker

                self._current = Tracker(rules, self._root, self._timeout)
            return self._current

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            self._closed = True
            tracker, self._current = self._current, None
        if tracker is not None:
            tracker.close()
