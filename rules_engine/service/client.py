"""The client of one process: it answers lookups, and takes events, by the definitions that were applied last."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from rules_engine.features.online.selection import checked
from rules_engine.rules.explanation import Explanation
from rules_engine.sdk import AsyncSegmentClient
from rules_engine.sdk.tracking import Tracker

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Person:
    """Holds what one reading of the store says of an entity.

    Attributes
    ----------
    now
        the instant that counted as now, in microseconds.
    explanations
        by segment, why the entity is in it or is not.
    features
        by ``view:name``, the value as Python has it.
    updated_at, expires_at
        by feature view: when its row was observed, and from when on it counts as missing, in microseconds.
    """

    now: int
    explanations: Mapping[str, Explanation]
    features: Mapping[str, Any]
    updated_at: Mapping[str, int]
    expires_at: Mapping[str, int]


class ServiceClient(AsyncSegmentClient):
    """:class:`AsyncSegmentClient`, which also lends its tracker: the rules are compiled once for both."""

    async def report(self, action: Callable[[Tracker], _T]) -> _T:
        """Do something with the tracker, in a thread: its connection blocks."""
        rules = (await self._now())[0]
        return await asyncio.to_thread(lambda: action(self._trackers.of(rules)))

    async def person(
        self,
        entity: str,
        segments: Iterable[str],
        *,
        context: Mapping[str, Any] | None = None,
        at: datetime | None = None,
    ) -> Person:
        """Explain several segments for an entity, and return its features: all from one reading of the store.

        Raises
        ------
        UnknownNameError
            if a segment does not exist.
        StoreError
            if the store cannot be read, or does not hold what the answers rest on.
        """
        current = await self._now()
        rules = current[0]
        names = list(segments)
        keys, question, checked_context, now = self._request(rules, (checked(entity),), context, names, at)
        _, state_name = rules.sources(None)
        reader = await self._reader(current)
        (stored,) = await reader.read(keys, None, state_name or question.state_name)
        explanations = {name: rules.explain(name, stored, checked_context, now) for name in names}
        return Person(now, explanations, rules.features(None, stored, now), stored.updated_at, stored.expires_at)
