"""Takes events for the routes of one process, by the definitions that were applied last."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from rules_engine.folders import Project
from rules_engine.sdk.applied import Applied
from rules_engine.sdk.trackers import Trackers
from rules_engine.sdk.tracking import Tracker

_T = TypeVar("_T")


class Collector:
    """Lends the tracker of the newest definitions to threads.

    Parameters
    ----------
    project
        the project; it was applied.
    """

    def __init__(self, project: Project) -> None:
        self._applied = Applied(project.read_plan)
        self._trackers = Trackers(project.root, None)

    async def run(self, action: Callable[[Tracker], _T]) -> _T:
        """Do something with the tracker, in a thread: its connection blocks."""
        return await asyncio.to_thread(self._run, action)

    def _run(self, action: Callable[[Tracker], _T]) -> _T:
        if self._applied.changed(self._applied.rules):
            self._applied.load()
        return action(self._trackers.of(self._applied.rules))

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.to_thread(self._trackers.close)
