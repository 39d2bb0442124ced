"""End a command on Ctrl-C: at any instant, with one line and exit code 130, even where other code loses the interrupt.

Python raises ``KeyboardInterrupt`` wherever the program is just then, and what runs there may lose it: a callback of
the import system or of a weak reference, whose exceptions Python drops; a library in C that makes an ``ImportError``
or a ``RuntimeError`` of it; an ``except:``. A command then went on to its end, and exited with 0. So an interrupt is
noted as well as raised. It is raised again once its exception is gone while the program still runs, and what ends the
process looks at the note. And if seconds later the process is still there, as when DuckDB's threads finish
a query although its connection is closed, it is ended all the same: whatever we write survives a kill.

This module is imported before all others and imports little: until then Python answers Ctrl-C with a traceback.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import time
import weakref

TYPE_CHECKING = False  # as `typing` has it, without its weight
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, NoReturn

#: What a shell reports for a program that Ctrl-C stopped.
INTERRUPTED = 130

#: Seconds between two checks of whether an interrupt was lost.
_LOOK = 0.02

#: Seconds for which a further Ctrl-C is ignored, while the program cleans up after the first one.
_PATIENCE = 1.0

#: Seconds that a command has for cleaning up after an interrupt.
_CLEARING = 3.0


class _Interrupt(KeyboardInterrupt):
    """A ``KeyboardInterrupt`` that weak references can refer to, so that one sees when it is gone."""


class _Watch:
    """Notes Ctrl-C in this process, and ends the process after it.

    Attributes
    ----------
    on
        whether interrupts are noted here.
    came
        whether there was one.
    """

    def __init__(self) -> None:
        self.on = self.came = self._over = False
        self._raised: weakref.ref[_Interrupt] | None = None
        self._at = 0.0
        self._leaving = _thread.allocate_lock()

    def begin(self) -> None:
        """Note interrupts from now on, unless SIGINT is handled otherwise, as in a shell's background job."""
        if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            return
        with contextlib.suppress(ValueError):  # in a thread, where no signal comes
            signal.signal(signal.SIGINT, self._interrupt)
            self.on = True
            sys.excepthook = self._at_the_top
            sys.unraisablehook = self._dropped

    def end(self) -> None:
        """End the process if there was an interrupt; otherwise ignore those that come from now on.

        The command has done its work and printed its result by then. Python takes half a second to exit after Feast.
        """
        if not self.on:
            return
        if self.came or isinstance(sys.exception(), KeyboardInterrupt):
            self.leave()
        with contextlib.suppress(OSError, ValueError):  # Python tries again, and says what is wrong
            sys.stdout.flush()
        self._over = True
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def leave(self) -> NoReturn:
        """End the process with the exit code of an interrupt, not by Python's exit: modules may be half imported."""
        self._over = True
        try:
            if self._leaving.acquire(blocking=False):
                for step in (self._say, sys.stdout.flush, _at_exit):
                    with contextlib.suppress(Exception):
                        step()
            else:  # another thread does it, or waits for the reader of its output
                time.sleep(_CLEARING)
        finally:
            os._exit(INTERRUPTED)

    def _leave_late(self) -> None:
        time.sleep(_CLEARING)
        self.leave()

    @staticmethod
    def _say() -> None:
        if sys.stderr.isatty():
            sys.stderr.write("\x1b[?25h")  # the cursor, which a progress line hides
        sys.stderr.write("interrupted\n")
        sys.stderr.flush()

    def _interrupt(self, *_: object) -> None:
        if self._over or (self._exists() and time.monotonic() - self._at < _PATIENCE):
            return
        if not self.came:
            self.came = True
            _thread.start_new_thread(self._leave_late, ())  # of `threading` we may be within a lock
            self._keep_looking()
        self._raise()

    def _keep_looking(self) -> None:
        if signal.getsignal(signal.SIGALRM) is signal.SIG_DFL:
            signal.signal(signal.SIGALRM, self._look)
            signal.setitimer(signal.ITIMER_REAL, _LOOK, _LOOK)
        threading: Any = sys.modules.get("threading")
        if threading is not None:
            threading.excepthook = lambda _: None  # what fails in a thread now came of the interrupt

    def _look(self, *_: object) -> None:
        if not self._over and not self._exists():
            self._raise()

    def _exists(self) -> bool:
        return self._raised is not None and self._raised() is not None

    def _raise(self) -> NoReturn:
        self._at = time.monotonic()
        raise self._new_interrupt()  # without a variable, which would keep it alive by its own traceback

    def _new_interrupt(self) -> _Interrupt:
        interrupt = _Interrupt()
        self._raised = weakref.ref(interrupt)
        return interrupt

    def _at_the_top(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if self.came or issubclass(kind, KeyboardInterrupt):
            self.leave()
        sys.__excepthook__(kind, error, trace)

    def _dropped(self, what: Any) -> None:
        if not self.came and not self._over:
            sys.__unraisablehook__(what)


def _at_exit() -> None:
    """Run the exit functions that Python would run, such as those that remove temporary folders."""
    import atexit

    atexit._run_exitfuncs()  # noqa: SLF001  # it has no other name


#: The watch of this process.
WATCH = _Watch()
