"""The same client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from rules_engine.clock import from_micros
from rules_engine.errors import SegmentsError, StoreError
from rules_engine.features.online.async_reader import AsyncOnlineReader, open_async_reader
from rules_engine.features.online.selection import EntityFeatures, checked
from rules_engine.folders import Project
from rules_engine.sdk.assignment import Assignment
from rules_engine.sdk.base_client import (
    BaseClient,
    OnError,
    Request,
    checked_keys,
    unanswered,
    wanted_decisions,
    wanted_features,
)
from rules_engine.sdk.membership import Membership
from rules_engine.sdk.rules import Question, Rules

if TYPE_CHECKING:
    from rules_engine.rules.decisions.explaining import DecisionExplanation
    from rules_engine.rules.explanation import Explanation

#: Memberships that are computed before other tasks have their turn.
_TURN = 100

_Current = tuple[Rules, AsyncOnlineReader | None]

_Read = TypeVar("_Read")
_Answer = TypeVar("_Answer")


class AsyncSegmentClient(BaseClient[AsyncOnlineReader]):
    """:class:`SegmentClient` for asyncio: the same methods, awaited.

    A single server is read on asyncio's own transport: requests that are under way at the same time share a few
    connections, and a task that is cancelled disturbs no other. Other stores are read in threads.

    Examples
    --------
    ::

        async with AsyncSegmentClient.from_repo(".") as client:
            (await client.lookup("42")).segments
    """

    def __init__(self, project: Project, *, on_error: OnError = "raise", timeout: float | None = None) -> None:
        super().__init__(project, on_error=on_error, timeout=timeout)
        self._opening: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None

    async def lookup(
        self,
        entity: str,
        *,
        context: Mapping[str, Any] | None = None,
        segments: Iterable[str] | None = None,
        at: datetime | None = None,
    ) -> Membership:
        """Return which segments an entity is in. See :meth:`SegmentClient.lookup`."""
        current = await self._now()
        request = self._request(current[0], (checked(entity),), context, segments, at)
        try:
            return (await self._answer(current, request))[0]
        except StoreError as error:
            return self._instead(request, error)[0]

    async def lookup_many(
        self,
        entities: Sequence[str],
        *,
        context: Mapping[str, Any] | None = None,
        segments: Iterable[str] | None = None,
        at: datetime | None = None,
    ) -> list[Membership]:
        """Return which segments each entity is in, in order. See :meth:`SegmentClient.lookup_many`."""
        current = await self._now()
        request = self._request(current[0], checked_keys(entities), context, segments, at)
        try:
            return await self._answer(current, request)
        except StoreError as error:
            return self._instead(request, error)

    async def _answer(self, current: _Current, request: Request) -> list[Membership]:
        """Give memberships by undecoded rows if the reader has some; of entities of which they do not tell, by all."""
        rules = current[0]
        keys, question, context, now = request
        at = from_micros(now)
        on_rows = rules.on_rows(question)
        answers: list[Membership | None] = [None] * len(keys)
        if on_rows is not None and keys:
            reader = (current[1] or await self._reader(current)).undecoded
            if reader is not None:
                rows = list(zip(keys, await reader.rows(on_rows.layout, keys), strict=True))
                answers = await in_turns(lambda pair: on_rows.membership(*pair, context, now, at), rows)
        read = await self._read(current, unanswered(keys, answers), question)
        rest = iter(await in_turns(lambda features: rules.membership(question, features, context, now, at), read))
        return [next(rest) if answer is None else answer for answer in answers]

    async def decide(
        self, entity: str, decision: str, *, context: Mapping[str, Any] | None = None, at: datetime | None = None
    ) -> Assignment:
        """Return which variant of a decision an entity gets. See :meth:`SegmentClient.decide`."""
        return (await self._decide((checked(entity),), (decision,), context, at))[0][0]

    async def decide_many(
        self,
        entities: Sequence[str],
        decision: str,
        *,
        context: Mapping[str, Any] | None = None,
        at: datetime | None = None,
    ) -> list[Assignment]:
        """Return which variant of a decision each entity gets. See :meth:`SegmentClient.decide_many`."""
        return [assignment for (assignment,) in await self._decide(checked_keys(entities), (decision,), context, at)]

    async def decide_all(
        self,
        entity: str,
        decisions: Iterable[str] | None = None,
        *,
        context: Mapping[str, Any] | None = None,
        at: datetime | None = None,
    ) -> dict[str, Assignment]:
        """Return the assignments of several decisions for an entity. See :meth:`SegmentClient.decide_all`."""
        assignments = (await self._decide((checked(entity),), wanted_decisions(decisions), context, at))[0]
        return {assignment.decision: assignment for assignment in assignments}

    async def _decide(
        self,
        keys: Sequence[str],
        decisions: Iterable[str] | None,
        context: Mapping[str, Any] | None,
        at: datetime | None,
    ) -> list[list[Assignment]]:
        """Give assignments by undecoded rows if the reader has some; of entities of which they do not tell, by all."""
        current = await self._now()
        rules = current[0]
        inquiry, values, now = self._inquiry(rules, decisions, context, at)
        instant, question = from_micros(now), inquiry.question
        on_rows = rules.on_rows(question)
        answers: list[list[Assignment] | None] = [None] * len(keys)
        try:
            reader = None if on_rows is None or not keys else (current[1] or await self._reader(current)).undecoded
            if on_rows is not None and reader is not None:
                rows = list(zip(keys, await reader.rows(on_rows.layout, keys), strict=True))
                choosers = inquiry.choosers
                answers = await in_turns(lambda pair: on_rows.assignments(choosers, *pair, values, now, instant), rows)
            read = await self._read(current, unanswered(keys, answers), question)
        except StoreError as error:
            return self._defaults(keys, inquiry, instant, error)
        rest = iter(await in_turns(lambda features: rules.assignments(inquiry, features, values, now, instant), read))
        return [next(rest) if answer is None else answer for answer in answers]

    async def explain_decision(
        self, entity: str, decision: str, *, context: Mapping[str, Any] | None = None, at: datetime | None = None
    ) -> DecisionExplanation:
        """Explain why an entity gets a variant. See :meth:`SegmentClient.explain_decision`."""
        current = await self._now()
        inquiry, values, now = self._inquiry(current[0], (decision,), context, at)
        (features,) = await self._read(current, (checked(entity),), inquiry.question)
        return current[0].explain_decision(decision, features, values, now)

    async def is_member(
        self, entity: str, segment: str, *, context: Mapping[str, Any] | None = None, at: datetime | None = None
    ) -> bool:
        """Tell whether an entity is in a segment. See :meth:`SegmentClient.is_member`."""
        membership = await self.lookup(entity, context=context, segments=[segment], at=at)
        return segment in membership.segments

    async def explain(
        self, entity: str, segment: str, *, context: Mapping[str, Any] | None = None, at: datetime | None = None
    ) -> Explanation:
        """Explain why an entity is, or is not, in a segment. See :meth:`SegmentClient.explain`."""
        current = await self._now()
        rules = current[0]
        keys, question, checked_context, now = self._request(rules, (checked(entity),), context, [segment], at)
        (features,) = await self._read(current, keys, question)
        return rules.explain(segment, features, checked_context, now)

    async def features(
        self, entity: str, names: Iterable[str] | None = None, *, at: datetime | None = None
    ) -> dict[str, Any]:
        """Return the values of features. See :meth:`SegmentClient.features`."""
        requested = wanted_features(names)
        current = await self._now()
        rules = current[0]
        now = rules.now(at)
        reader = await self._reader(current)
        stored, state_name = rules.sources(requested)
        (features,) = await reader.read([checked(entity)], stored, state_name)
        return rules.features(requested, features, now)

    # --- the store --------------------------------------------------------------------------------------------------

    async def _now(self) -> _Current:
        """Return the rules and the reader to answer with; new rules are compiled in a thread meanwhile."""
        current = self._current
        if not self._applied.changed(current[0]):
            return current
        await asyncio.to_thread(self._applied.load)
        async with self._lock():
            previous, reader = self._current
            rules = self._applied.rules
            if rules is previous:
                return self._current
            follower = None
            with suppress(SegmentsError):  # the new plan's store cannot be reached: that is for the requests to say
                follower = reader and await reader.for_plan(rules.plan)
            if reader is not None and follower is None:
                await reader.close()
            self._current = rules, follower
            return self._current

    async def _read(self, current: _Current, keys: Sequence[str], question: Question) -> list[EntityFeatures]:
        if not keys or (not question.features and question.state_name is None):
            return [EntityFeatures(key) for key in keys]
        reader = current[1] or await self._reader(current)
        return await reader.read(keys, question.features, question.state_name)

    async def _reader(self, current: _Current) -> AsyncOnlineReader:
        """Return the reader, opened when it is first needed: a store that is down is an error of the lookup."""
        rules, reader = current
        if reader is not None:
            return reader
        async with self._lock():
            self._open_check()
            newest, reader = self._current
            if newest is not rules or reader is None:
                reader = await open_async_reader(rules.plan, self._project.root, timeout=self._timeout)
                if newest is rules:
                    self._current = rules, reader
            return reader

    def _lock(self) -> asyncio.Lock:
        """Return the lock of the event loop that the client is used in now; loops come one after the other."""
        loop = asyncio.get_running_loop()
        if self._opening is None or self._opening[0] is not loop:
            self._opening = loop, asyncio.Lock()
        return self._opening[1]

    async def track(
        self,
        entity: str,
        event: str,
        properties: Mapping[str, Any] | None = None,
        *,
        at: datetime | None = None,
        event_id: str | None = None,
    ) -> str:
        """Report that an entity did something. See :meth:`SegmentClient.track`."""
        rules = (await self._now())[0]
        instant = rules.now(at)
        tracker = await asyncio.to_thread(self._trackers.of, rules)
        return await asyncio.to_thread(tracker.track, checked(entity), event, properties, instant, event_id)

    async def alias(self, previous_id: str, entity: str, *, at: datetime | None = None) -> str:
        """Join the id under which somebody was seen before to an entity. See :meth:`SegmentClient.alias`."""
        rules = (await self._now())[0]
        tracker = await asyncio.to_thread(self._trackers.of, rules)
        return await asyncio.to_thread(tracker.join, checked(previous_id), checked(entity), rules.now(at))

    async def close(self) -> None:
        """Close the connections. A closed client raises RuntimeError when it needs the store."""
        async with self._lock():
            self._closed = True
            rules, reader = self._current
            self._current = rules, None
        await asyncio.to_thread(self._trackers.close)
        if reader is not None:
            await reader.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


async def in_turns(answer: Callable[[_Read], _Answer], read: Sequence[_Read]) -> list[_Answer]:
    """Return the answer to each; when there are many, other tasks have their turn in between."""
    answers: list[_Answer] = []
    for start in range(0, len(read), _TURN):
        if start:
            await asyncio.sleep(0)
        answers += map(answer, read[start : start + _TURN])
    return answers
