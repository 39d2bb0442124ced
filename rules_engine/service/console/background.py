"""Run what takes long in processes of its own, so that what applications ask the service does not wait for a page.

A page asks for an answer, shows what is there, and is asked for anew when the answer is. Answers are kept for a while:
people who look at the same page ask once.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from typing import Any, Generic, TypeVar

from rules_engine.errors import SegmentsError

T = TypeVar("T")

#: Seconds for which an answer is shown before it is worked out anew.
FRESH = 60.0

#: Seconds that a page waits for an answer before it says that it is not there yet.
PATIENCE = 25.0

#: Answers that are kept.
_KEPT = 64


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """Holds an answer, or why there is none: it is not there yet, or the error says what is wrong."""

    value: T | None = None
    error: SegmentsError | None = None

    @property
    def is_pending(self) -> bool:
        """Say whether it is still worked out."""
        return self.value is None and self.error is None


class Background:
    """Works answers out in two processes: one that counts for long, and one that is quick.

    They begin with the first question, and end with the service.
    """

    def __init__(self) -> None:
        self._pools: dict[bool, ProcessPoolExecutor] = {}
        self._tasks: dict[Hashable, tuple[float, asyncio.Task[Any]]] = {}

    async def ask(
        self,
        function: Callable[..., T],
        *arguments: Any,
        waits: bool = False,
        quick: bool = False,
        fresh: float = FRESH,
    ) -> Answer[T]:
        """Return what a function gives, as far as it is there.

        Parameters
        ----------
        function, arguments
            what is worked out. Both are sent to a process, and so is the answer back.
        waits
            whether to wait for it.
        quick
            whether it takes moments, and must not stand behind what takes long.
        fresh
            seconds for which an earlier answer will do.
        """
        name = (function, *arguments)
        started, task = self._tasks.get(name, (0.0, None))
        if task is None or (task.done() and (time.monotonic() - started > fresh or _failed(task))):
            self._forget()
            task = asyncio.create_task(self._run(function, arguments, quick))
            self._tasks[name] = time.monotonic(), task
        if waits:
            await asyncio.wait([task], timeout=PATIENCE)
        if not task.done():
            return Answer()
        try:
            return Answer(task.result())
        except SegmentsError as error:
            return Answer(error=error)

    async def _run(self, function: Callable[..., T], arguments: tuple[Any, ...], quick: bool) -> T:
        pool = self._pools.get(quick)
        if pool is None:
            pool = self._pools[quick] = ProcessPoolExecutor(1, get_context("spawn"), _begin)
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, _named, function, arguments)
        except BrokenProcessPool:
            self._pools.pop(quick, None)
            raise SegmentsError(
                "the process that counts was ended", hint="was there enough memory? reload the page to try it"
            ) from None

    def _forget(self) -> None:
        """Make room: the oldest answers go."""
        if len(self._tasks) < _KEPT:
            return
        done = [name for name, (_, task) in self._tasks.items() if task.done()]
        for name in sorted(done, key=lambda name: self._tasks[name][0])[: _KEPT // 2]:
            del self._tasks[name]

    async def close(self) -> None:
        """End the processes, whatever they do."""
        for _, task in self._tasks.values():
            task.cancel()
        for pool in self._pools.values():
            for process in list((getattr(pool, "_processes", None) or {}).values()):
                process.terminate()
            pool.shutdown(wait=False, cancel_futures=True)


def _failed(task: asyncio.Task[Any]) -> bool:
    return task.cancelled() or task.exception() is not None


def _begin() -> None:
    """Leave Ctrl-C to the service, and end when the service ends, however it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    service = parent_process()
    if service is not None:
        threading.Thread(target=_end_after, args=(service.sentinel,), daemon=True).start()


def _end_after(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(0)


def _named(function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    """Return what a function gives; what no error of ours names is one that says where it came from."""
    try:
        return function(*arguments)
    except SegmentsError as error:
        plain = SegmentsError(str(error), hint=error.hint)  # errors of other classes do not all survive the way back
        raise plain from None
