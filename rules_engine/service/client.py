"""The client of one process: it answers lookups, and takes events, by the definitions that were applied last."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from rules_engine.sdk import AsyncSegmentClient
from rules_engine.sdk.tracking import Tracker

_T = TypeVar("_T")


class ServiceClient(AsyncSegmentClient):
    """:class:`AsyncSegmentClient`, which also lends its tracker: the rules are compiled once for both."""

    async def report(self, action: Callable[[Tracker], _T]) -> _T:
        """Do something with the tracker, in a thread: its connection blocks."""
        rules = (await self._now())[0]
        return await asyncio.to_thread(lambda: action(self._trackers.of(rules)))
