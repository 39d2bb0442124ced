"""The rules that were applied last, noticed while a client is in use."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

from rules_engine.read_plan import ReadPlan
from rules_engine.sdk.rules import Rules

#: Seconds between two looks at the read plan's file. A look costs a microsecond or two.
LOOK_EVERY = 0.2

_log = logging.getLogger("rules_engine.sdk")

#: What tells one version of the file from another. ``segments apply`` replaces the file, it never writes into it.
_Stamp = tuple[int, int, int] | None


class Applied:
    """The newest rules of a project. Safe to share between threads.

    Nothing runs in the background: who asks :meth:`changed` now and then, and calls :meth:`load` when it says so,
    has them. A new plan that cannot be read is an error in the log, and the rules stay as they are.

    Parameters
    ----------
    path
        the read plan's file.

    Attributes
    ----------
    rules
        from the file as it was when it was last loaded.

    Raises
    ------
    NotAppliedError
        if there is no plan.
    ProjectError
        if it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = _stamp(path)
        self._look_at = time.monotonic() + LOOK_EVERY
        self._loading = threading.Lock()
        self.rules = Rules(ReadPlan.load(path))

    def changed(self, current: Rules) -> bool:
        """Tell whether there is something newer than the rules that a client holds. Looks only every so often."""
        now = time.monotonic()
        if now < self._look_at:
            return False
        self._look_at = now + LOOK_EVERY
        return self.rules is not current or _stamp(self._path) != self._seen

    def load(self) -> None:
        """Load what is new. If it cannot be read, or another thread is at it, the rules stay as they are until then."""
        if not self._loading.acquire(blocking=False):
            return
        try:
            stamp = _stamp(self._path)
            if stamp == self._seen:
                return
            self._seen = stamp
            self.rules = Rules(ReadPlan.load(self._path))
            _log.info("answering by the newly applied definitions %s", self.rules.plan.definitions_version)
        except Exception:  # noqa: BLE001 (whatever is wrong with the new plan, the old one works)
            _log.exception("the newly applied read plan cannot be used; answering by the one before it")
        finally:
            self._loading.release()


def _stamp(path: Path) -> _Stamp:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
