"""Gives the members of a segment in pages, from the ledger that the workers keep."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from typing import Any

from rules_engine.clock import format_instant, now_micros
from rules_engine.folders import Project

#: Seconds for which members that were read are paged through.
_FRESH = 5.0

#: Segments whose members are kept that long.
_KEPT = 8


class Members:
    """Reads the members of segments, and keeps them for the next page."""

    def __init__(self) -> None:
        self._read: dict[str, tuple[float, int, list[str]]] = {}
        self._lock = asyncio.Lock()

    async def page(self, project: Project, segment: str, after: str, limit: int) -> dict[str, Any]:
        """Return a page of the members, in the order of their keys.

        Parameters
        ----------
        project
            the folder.
        segment
            the segment's name.
        after
            the last key of the page before; empty for the first.
        limit
            how many at most.
        """
        read_at, members = await self._members(project, segment)
        start = bisect_right(members, after) if after else 0
        page = members[start : start + limit]
        is_last = start + limit >= len(members)
        return {
            "size": len(members),
            "members": page,
            "next": None if is_last else page[-1],
            "as_of": format_instant(read_at),
        }

    async def _members(self, project: Project, segment: str) -> tuple[int, list[str]]:
        async with self._lock:
            entry = self._read.get(segment)
            if entry is None or time.monotonic() > entry[0] + _FRESH:
                from rules_engine.stream.ledger import Ledger  # loads pyarrow

                read_at = now_micros()
                members = await asyncio.to_thread(Ledger.of(project).members, segment)
                if len(self._read) >= _KEPT:
                    self._read.clear()
                entry = self._read[segment] = time.monotonic(), read_at, members
            return entry[1], entry[2]
