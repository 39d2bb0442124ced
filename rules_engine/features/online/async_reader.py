"""Online reads for asyncio: :mod:`rules_engine.features.online.reader`, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from rules_engine.errors import StoreUnavailableError
from rules_engine.features.online.reader import OnlineReader, checked, open_reader
from rules_engine.features.online.selection import EntityFeatures, Layout, Layouts, Row
from rules_engine.read_plan import ReadPlan
from rules_engine.redis import client as redis_client
from rules_engine.redis.async_sockets import AsyncPool
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.redis.endpoint import Endpoint

_Answer = TypeVar("_Answer")


class AsyncOnlineReader(Protocol):
    """:class:`rules_engine.features.online.reader.OnlineReader`, awaited."""

    async def read(
        self, entities: Sequence[str], features: Sequence[str] | None = None, beside: bytes | None = None
    ) -> list[EntityFeatures]:
        """Read entities, in order. See :meth:`OnlineReader.read`."""
        ...

    async def for_plan(self, plan: ReadPlan) -> AsyncOnlineReader:
        """A reader of a newer plan. See :meth:`OnlineReader.for_plan`."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


class AsyncRedisReader:
    """Reads what Feast's Redis store wrote from one server, on asyncio's own transport.

    Parameters
    ----------
    plan
        the project's read plan.
    root
        the project's folder; it says where the embedded server is.
    pool
        connections to the plan's store.
    timeout
        the caller's, for the store of a later plan.
    """

    def __init__(self, plan: ReadPlan, root: Path, pool: AsyncPool, timeout: float | None) -> None:
        self._timeout = timeout
        self._plan = plan
        self._root = root
        self._pool = pool
        self._layouts = Layouts(plan)

    async def read(
        self, entities: Sequence[str], features: Sequence[str] | None = None, beside: bytes | None = None
    ) -> list[EntityFeatures]:
        """Read entities, in order. See :meth:`OnlineReader.read`."""
        layout = self._layouts.of(features, beside)
        for entity in entities:
            if entity.__class__ is not str:
                checked(entity)
        if not entities or (not layout.fields and beside is None):
            return [EntityFeatures(entity) for entity in entities]
        return await self._started(self._read, layout, entities)

    async def rows(self, layout: Layout, entities: Sequence[str]) -> list[Row]:
        """What the store has of entities, undecoded, in order. See :meth:`RedisReader.rows`."""
        return await self._started(self._rows, layout, entities)

    async def _started(
        self, ask: Callable[[Layout, Sequence[str]], Awaitable[_Answer]], layout: Layout, entities: Sequence[str]
    ) -> _Answer:
        """What is asked; the embedded server is started if it was stopped."""
        try:
            return await ask(layout, entities)
        except StoreUnavailableError:
            if self._plan.connection.kind != "embedded":
                raise
            await asyncio.to_thread(EmbeddedStore(self._root).ensure_running)
            return await ask(layout, entities)

    async def _rows(self, layout: Layout, entities: Sequence[str]) -> list[Row]:
        whole = layout.whole
        command = layout.whole_command if whole else layout.command
        rows: list[Any] = []
        if len(entities) == 1:
            rows.append(await self._pool.ask(command(entities[0])))
        else:
            await self._pool.ask_many([command(entity) for entity in entities], rows.append)
        for row in rows:
            if row.__class__ is not list:
                self._pool.endpoint.refuse(row)
        return [layout.picked(row) for row in rows] if whole else rows

    async def _read(self, layout: Layout, entities: Sequence[str]) -> list[EntityFeatures]:
        if layout.name is None:
            rows = await self._rows(layout, entities)
            return [layout.decode(*pair) for pair in zip(entities, rows, strict=True)]
        found: list[EntityFeatures] = []
        refuse = self._pool.endpoint.refuse
        await self._pool.ask_many(layout.commands(entities), layout.collector(entities, found, refuse))
        return found

    async def for_plan(self, plan: ReadPlan) -> AsyncOnlineReader:
        """A reader of a newer plan. See :meth:`OnlineReader.for_plan`."""
        if plan.connection == self._plan.connection:
            return AsyncRedisReader(plan, self._root, self._pool, self._timeout)
        reader = await open_async_reader(plan, self._root, timeout=self._timeout)
        await self.close()
        return reader

    async def close(self) -> None:
        """Close the connections."""
        self._pool.retire()


class ThreadedReader:
    """Any other reader, in a thread for each read, so that the event loop is free meanwhile.

    Parameters
    ----------
    reader
        what reads.
    """

    def __init__(self, reader: OnlineReader) -> None:
        self._reader = reader

    async def read(
        self, entities: Sequence[str], features: Sequence[str] | None = None, beside: bytes | None = None
    ) -> list[EntityFeatures]:
        """Read entities, in order. See :meth:`OnlineReader.read`."""
        return await asyncio.to_thread(self._reader.read, entities, features, beside)

    async def for_plan(self, plan: ReadPlan) -> ThreadedReader:
        """A reader of a newer plan. See :meth:`OnlineReader.for_plan`."""
        return ThreadedReader(await asyncio.to_thread(self._reader.for_plan, plan))

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.to_thread(self._reader.close)


async def open_async_reader(plan: ReadPlan, root: Path, *, timeout: float | None = None) -> AsyncOnlineReader:  # noqa: ASYNC109 (the store's)
    """The reader that fits the project's online store. See :func:`rules_engine.features.online.reader.open_reader`."""
    if plan.connection.kind in ("embedded", "redis") and plan.connection.redis_type == "redis":
        address = await asyncio.to_thread(redis_client.resolve, plan.connection, root)
        endpoint = Endpoint.of(address, timeout)
        if endpoint is not None:
            return AsyncRedisReader(plan, root, AsyncPool(endpoint), timeout)
    return ThreadedReader(await asyncio.to_thread(open_reader, plan, root, timeout=timeout))
