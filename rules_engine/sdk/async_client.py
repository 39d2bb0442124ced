"""The same client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rules_engine.project import Project
from rules_engine.rules.explain import Explanation
from rules_engine.rules.program import Program
from rules_engine.sdk.client import OnError, SegmentClient, find_project
from rules_engine.sdk.membership import Membership


class AsyncSegmentClient:
    """:class:`SegmentClient` for asyncio: the same methods, awaited.

    Each call runs in a thread of asyncio's pool, so the event loop is free while the store answers. It makes a loop
    wait for nothing; it does not make many calls at once cheaper than threads do.

    Examples
    --------
    ::

        async with AsyncSegmentClient.from_repo(".") as client:
            (await client.lookup("42")).segments
    """

    def __init__(self, project: Project, *, on_error: OnError = "raise", timeout: float | None = None) -> None:
        self._client = SegmentClient(project, on_error=on_error, timeout=timeout)

    @classmethod
    def from_repo(cls, path: str | Path = ".", *, on_error: OnError = "raise", timeout: float | None = None) -> Self:
        """A client for the project in a folder. Reads one file, and so does not need to be awaited.

        See :meth:`SegmentClient.from_repo`.
        """
        return cls(find_project(path), on_error=on_error, timeout=timeout)

    @property
    def program(self) -> Program:
        """The checked definitions that the client answers from."""
        return self._client.program

    async def lookup(
        self,
        entity: str,
        *,
        context: Mapping[str, Any] | None = None,
        segments: Iterable[str] | None = None,
        at: datetime | None = None,
    ) -> Membership:
        """Which segments an entity is in. See :meth:`SegmentClient.lookup`."""
        return await asyncio.to_thread(self._client.lookup, entity, context=context, segments=segments, at=at)

    async def lookup_many(
        self,
        entities: Sequence[str],
        *,
        context: Mapping[str, Any] | None = None,
        segments: Iterable[str] | None = None,
        at: datetime | None = None,
    ) -> list[Membership]:
        """Which segments each entity is in, in order. See :meth:`SegmentClient.lookup_many`."""
        return await asyncio.to_thread(self._client.lookup_many, entities, context=context, segments=segments, at=at)

    async def is_member(
        self, entity: str, segment: str, *, context: Mapping[str, Any] | None = None, at: datetime | None = None
    ) -> bool:
        """Whether an entity is in a segment. See :meth:`SegmentClient.is_member`."""
        return await asyncio.to_thread(self._client.is_member, entity, segment, context=context, at=at)

    async def explain(
        self, entity: str, segment: str, *, context: Mapping[str, Any] | None = None, at: datetime | None = None
    ) -> Explanation:
        """Why an entity is, or is not, in a segment. See :meth:`SegmentClient.explain`."""
        return await asyncio.to_thread(self._client.explain, entity, segment, context=context, at=at)

    async def features(
        self, entity: str, names: Iterable[str] | None = None, *, at: datetime | None = None
    ) -> dict[str, Any]:
        """The values of features. See :meth:`SegmentClient.features`."""
        return await asyncio.to_thread(self._client.features, entity, names, at=at)

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.to_thread(self._client.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
