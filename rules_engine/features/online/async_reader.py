"""Online reads for asyncio: the readers of this package, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from rules_engine.errors import StoreError, StoreUnavailableError
from rules_engine.features.online.opening import open_reader
from rules_engine.features.online.reader import OnlineReader
from rules_engine.features.online.redis_reader import RedisReads, unmet
from rules_engine.features.online.row_layout import Row, RowLayout
from rules_engine.features.online.selection import EntityFeatures
from rules_engine.read_plan import ReadPlan
from rules_engine.redis.async_sockets import AsyncPool
from rules_engine.redis.endpoint import pack_command
from rules_engine.redis.eviction import ASK_MEMORY, policy_in
from rules_engine.redis.server import RedisServer, server_of

_Answer = TypeVar("_Answer")


class AsyncRowReader(Protocol):
    """:class:`rules_engine.features.online.reader.RowReader`, awaited."""

    async def rows(self, layout: RowLayout, entities: Sequence[str]) -> list[Row]:
        """Read what the store has of entities, in order. See :meth:`RowReader.rows`."""
        ...


class AsyncOnlineReader(Protocol):
    """:class:`rules_engine.features.online.reader.OnlineReader`, awaited."""

    @property
    def undecoded(self) -> AsyncRowReader | None: ...

    async def read(
        self, entities: Sequence[str], features: Sequence[str] | None = None, state_name: bytes | None = None
    ) -> list[EntityFeatures]:
        """Read entities, in order. See :meth:`OnlineReader.read`."""
        ...

    async def for_plan(self, plan: ReadPlan) -> AsyncOnlineReader | None:
        """Give a reader of a newer plan. See :meth:`OnlineReader.for_plan`."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


class AsyncRedisReader(RedisReads):
    """Reads what Feast's Redis store wrote from one server, on asyncio's own transport.

    Parameters
    ----------
    plan
        the project's read plan.
    server
        where its store is.
    pool
        connections to it.
    is_met
        whether the server was looked at closer already.
    """

    def __init__(self, plan: ReadPlan, server: RedisServer, pool: AsyncPool, *, is_met: bool = False) -> None:
        super().__init__(plan, server, is_met=is_met)
        self._pool = pool

    @property
    def undecoded(self) -> AsyncRedisReader:
        """Return the reader itself: rows are given as the store has them."""
        return self

    async def read(
        self, entities: Sequence[str], features: Sequence[str] | None = None, state_name: bytes | None = None
    ) -> list[EntityFeatures]:
        """Read entities, in order. See :meth:`OnlineReader.read`."""
        layout = self._layout(entities, features, state_name)
        if not entities or (not layout.fields and state_name is None):
            return [EntityFeatures(entity) for entity in entities]
        if layout.state_name is None:
            rows = await self.rows(layout, entities)
            return [layout.decode(*pair) for pair in zip(entities, rows, strict=True)]
        return await self._ask(partial(self._read, layout, entities))

    async def rows(self, layout: RowLayout, entities: Sequence[str]) -> list[Row]:
        """Read what the store has of entities, undecoded, in order. See :meth:`RowReader.rows`."""
        if len(entities) == 1 and layout.state_name is None:
            return await self._ask(partial(self._row, layout, entities))
        rows = await self._ask(partial(self._rows, layout, entities))
        unknown = layout.unknown(rows)
        if unknown:
            confirmed = await self._ask(partial(self._confirmed, layout, [entities[place] for place in unknown]))
            for place, row in zip(unknown, confirmed, strict=True):
                rows[place] = row
        return rows

    async def _row(self, layout: RowLayout, entities: Sequence[str]) -> list[Row]:
        """Read the row of one entity; if it has none, it is read with the mark in one piece."""
        if not self._expects_unknown:
            rows = await self._rows(layout, entities)
            if not layout.is_unknown(rows[0]):
                return rows
        rows = await self._confirmed(layout, entities)
        self._note(is_unknown=layout.is_unknown(rows[0]))
        return rows

    async def _ask(self, action: Callable[[], Awaitable[_Answer]]) -> _Answer:
        """Ask the server; one that is ours to start is started if it was stopped. Look at it closer the first time."""
        try:
            answer = await action()
        except StoreUnavailableError:
            if not await asyncio.to_thread(self.server.revive):
                raise
            answer = await action()
        if not self._is_met:
            await self._meet()
        return answer

    async def _meet(self) -> None:
        self._is_met = True
        try:
            self._warn(policy_in(await self._pool.ask(pack_command(*ASK_MEMORY))))
        except StoreError as error:
            unmet(error)

    async def _rows(self, layout: RowLayout, entities: Sequence[str]) -> list[Row]:
        rows: list[Row] = []
        commands, take = layout.requests(entities, rows.append, self._pool.endpoint.refuse)
        if len(commands) == 1:
            take(await self._pool.ask(commands[0]))
        else:
            await self._pool.ask_many(commands, take)
        return rows

    async def _read(self, layout: RowLayout, entities: Sequence[str]) -> list[EntityFeatures]:
        features: list[EntityFeatures] = []
        refuse = self._pool.endpoint.refuse
        await self._pool.ask_many(layout.commands(entities), layout.collector(entities, features, refuse))
        return features

    async def _confirmed(self, layout: RowLayout, entities: Sequence[str]) -> list[Row]:
        rows: list[Row] = []
        await self._pool.ask_many(*layout.confirming(entities, rows.append, self._pool.endpoint.refuse))
        return rows

    async def for_plan(self, plan: ReadPlan) -> AsyncRedisReader | None:
        """Give a reader of a newer plan with the same connections. See :meth:`OnlineReader.for_plan`."""
        if plan.connection != self._plan.connection:
            return None
        return AsyncRedisReader(plan, self.server, self._pool, is_met=self._is_met)

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

    @property
    def undecoded(self) -> None:
        """Return None: the thread decodes too."""
        return None

    async def read(
        self, entities: Sequence[str], features: Sequence[str] | None = None, state_name: bytes | None = None
    ) -> list[EntityFeatures]:
        """Read entities, in order. See :meth:`OnlineReader.read`."""
        return await asyncio.to_thread(self._reader.read, entities, features, state_name)

    async def for_plan(self, plan: ReadPlan) -> ThreadedReader | None:
        """Give a reader of a newer plan. See :meth:`OnlineReader.for_plan`."""
        reader = await asyncio.to_thread(self._reader.for_plan, plan)
        return None if reader is None else ThreadedReader(reader)

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.to_thread(self._reader.close)


async def open_async_reader(plan: ReadPlan, root: Path, *, timeout: float | None = None) -> AsyncOnlineReader:  # noqa: ASYNC109 (the store's)
    """Open the reader that fits the project's online store, as ``open_reader`` of ``opening.py`` does."""
    server = server_of(plan.connection, root, timeout)
    if server is not None:
        endpoint = await asyncio.to_thread(lambda: server.endpoint)  # an embedded server may have to be started
        if endpoint is not None:
            return AsyncRedisReader(plan, server, AsyncPool(endpoint))
    return ThreadedReader(await asyncio.to_thread(open_reader, plan, root, timeout=timeout))
