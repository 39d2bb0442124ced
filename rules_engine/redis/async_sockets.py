"""Connections to one server for asyncio. Requests share them: each is sent at once, answers come in the same order.

They are our own for the reason that sockets.py gives, and because redis-py gives each request a connection of its own.

An answer belongs to the request that stands first in line, whatever became of who asked: one that was cancelled or ran
out of time keeps its place, and its answer is thrown away. So no answer can ever reach the wrong request.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import hiredis

from rules_engine.redis.endpoint import RedisEndpoint, tune
from rules_engine.redis.sockets import PIECE

#: Connections to the server at most. One serves many requests; more help while a long answer is under way.
_CONNECTIONS = 4

#: Another connection is opened when so many requests are under way on each that is open.
_CROWDED = 16

_BUFFER = 1 << 16

_CLOSED = "the server closed the connection"


class _Request:
    """A request that waits for its answers: how many are to come, where they go, and until when."""

    __slots__ = ("accept", "deadline", "done", "left")

    def __init__(
        self, left: int, deadline: float, accept: Callable[[Any], None] | None, done: asyncio.Future[Any]
    ) -> None:
        self.left = left
        self.deadline = deadline
        self.accept = accept
        self.done = done


class _AsyncConnection(asyncio.BufferedProtocol):
    """One connection. What is asked in one turn of the event loop goes out in one piece."""

    def __init__(self, endpoint: RedisEndpoint, loop: asyncio.AbstractEventLoop) -> None:
        self.waiting: deque[_Request] = deque()
        self.is_open = False
        self._endpoint = endpoint
        self._loop = loop
        self._buffer = bytearray(_BUFFER)
        self._parser: Any = hiredis.Reader()
        self._out: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_at = math.inf
        self._transport: Any = None

    # --- what asyncio calls -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        tune(transport.get_extra_info("socket"))
        self._transport = transport
        self.is_open = True

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 (asyncio's signature)
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        parser, waiting = self._parser, self.waiting
        try:
            parser.feed(self._buffer, 0, nbytes)
            reply = parser.gets()
            while reply is not False and waiting:
                self._answer(waiting[0], reply)
                reply = parser.gets()
        except hiredis.HiredisError as error:
            self.break_off(ConnectionError(str(error)))
            return
        if reply is not False:
            self.break_off(ConnectionError("the server answered what nobody asked"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.break_off(exc if isinstance(exc, OSError) else ConnectionResetError(_CLOSED))

    # --- requests ---------------------------------------------------------------------------------------------------

    def send(self, data: bytes, request: _Request) -> None:
        """Put a request in line."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)
        self.waiting.append(request)
        if request.deadline < self._wakes_at:
            self._wake_at(request.deadline)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self.is_open:
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))

    def _answer(self, request: _Request, reply: Any) -> None:
        request.left -= 1
        if not request.left:
            self.waiting.popleft()
        done = request.done
        if done.done():
            return  # cancelled, or out of time
        if request.accept is None:
            done.set_result(reply)
            return
        try:
            request.accept(reply)
        except Exception as error:  # noqa: BLE001 (it is the asker's)
            done.set_exception(error)
            return
        if not request.left:
            done.set_result(None)

    def break_off(self, error: OSError) -> None:
        """Close the connection; whoever waits for an answer hears why."""
        self.is_open = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()
        waiting, self.waiting = self.waiting, deque()
        for request in waiting:
            if not request.done.done():
                request.done.set_exception(error)

    # --- time -------------------------------------------------------------------------------------------------------

    def _wake_at(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._wakes_at = deadline
        self._timer = self._loop.call_at(deadline, self._wake)

    def _wake(self) -> None:
        """End requests that are out of time. There is one timer for all: a request that is answered costs none."""
        self._timer = None
        self._wakes_at = math.inf
        now = self._loop.time()
        late = [request for request in self.waiting if request.deadline <= now]
        for request in late:
            if not request.done.done():
                request.done.set_exception(TimeoutError("timed out"))
        if late:
            # Nothing says that the server will ever answer: the others try again on a new connection.
            self.break_off(ConnectionResetError("another request on the connection was not answered in time"))
        elif self.waiting:
            self._wake_at(min(request.deadline for request in self.waiting))


class AsyncPool:
    """The connections of one client to a server. Belongs to one event loop at a time; a new loop gets new connections.

    A connection that breaks is replaced, and what was asked on it is asked again, once.

    Parameters
    ----------
    endpoint
        the server.
    """

    def __init__(self, endpoint: RedisEndpoint) -> None:
        self.endpoint = endpoint
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connections: list[_AsyncConnection] = []
        self._opening: asyncio.Task[_AsyncConnection] | None = None
        self._retired = False

    async def ask(self, command: bytes) -> Any:
        """Return the answer to a command that only reads. An error of the server is returned, not raised.

        Raises
        ------
        StoreUnavailableError
            if there is no connection.
        StoreTimeoutError
            if the answer does not come in time.
        """
        return await self._twice([command], None)

    async def ask_many(self, commands: Sequence[bytes], accept: Callable[[Any], None]) -> None:
        """Hand over the answers to commands that only read, in order. As :meth:`ask`; the timeout is for each piece."""
        for start in range(0, len(commands), PIECE):
            await self._twice(commands[start : start + PIECE], accept)

    async def _twice(self, commands: Sequence[bytes], accept: Callable[[Any], None] | None) -> Any:
        """Ask, and if the connection breaks ask once more for what was not answered."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.endpoint.timeout
        counted = None if accept is None else _Counted(accept)
        try:
            return await self._once(loop, commands, counted, deadline)
        except TimeoutError as error:
            raise self.endpoint.timed_out() from error
        except OSError:
            rest = commands if counted is None else commands[counted.answers :]
        try:
            return await self._once(loop, rest, counted, deadline)
        except TimeoutError as error:
            raise self.endpoint.timed_out() from error
        except OSError as error:
            raise self.endpoint.unreachable(error) from error

    async def _once(
        self,
        loop: asyncio.AbstractEventLoop,
        commands: Sequence[bytes],
        accept: Callable[[Any], None] | None,
        deadline: float,
    ) -> Any:
        connection = self._pick(loop)
        if connection is None:
            connection = await self._opened(loop, deadline)
        done = loop.create_future()
        data = commands[0] if len(commands) == 1 else b"".join(commands)
        connection.send(data, _Request(len(commands), deadline, accept, done))
        try:
            return await done
        finally:
            if self._retired and not connection.waiting:
                connection.break_off(ConnectionResetError("the client was closed"))

    # --- connections ------------------------------------------------------------------------------------------------

    def _pick(self, loop: asyncio.AbstractEventLoop) -> _AsyncConnection | None:
        """Return the open connection with the fewest requests; None if another one should be opened."""
        if loop is not self._loop:
            self._loop, self._connections, self._opening = loop, [], None
        best = None
        for connection in self._connections:
            if connection.is_open and (best is None or len(connection.waiting) < len(best.waiting)):
                best = connection
        if best is None:
            return None
        if len(best.waiting) >= _CROWDED and self._opening is None and len(self._connections) < _CONNECTIONS:
            self._open(loop)  # for those who come later: this request need not wait for it
        return best

    def _open(self, loop: asyncio.AbstractEventLoop) -> asyncio.Task[_AsyncConnection]:
        if self._opening is None:
            self._opening = loop.create_task(self._connect(loop))
            self._opening.add_done_callback(self._is_opened)
        return self._opening

    def _is_opened(self, task: asyncio.Task[_AsyncConnection]) -> None:
        if self._opening is task:
            self._opening = None
        if task.cancelled() or task.exception() is not None:
            return  # whoever waits for it hears why
        self._connections = [connection for connection in self._connections if connection.is_open]
        self._connections.append(task.result())

    async def _opened(self, loop: asyncio.AbstractEventLoop, deadline: float) -> _AsyncConnection:
        """Return a new connection, which all who need one wait for together: one that is cancelled does not stop it."""
        async with asyncio.timeout_at(deadline):
            return await asyncio.shield(self._open(loop))

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> _AsyncConnection:
        endpoint = self.endpoint
        connection = _AsyncConnection(endpoint, loop)
        try:
            async with asyncio.timeout(endpoint.connect_timeout):
                if endpoint.path is not None:
                    await loop.create_unix_connection(lambda: connection, endpoint.path)
                else:
                    await loop.create_connection(
                        lambda: connection,
                        endpoint.host,
                        endpoint.port,
                        ssl=endpoint.encryption,
                        server_hostname=endpoint.host if endpoint.encryption else None,
                    )
                for command in endpoint.greeting():
                    done = loop.create_future()
                    connection.send(command, _Request(1, math.inf, None, done))
                    reply = await done
                    if isinstance(reply, Exception):
                        endpoint.refuse(reply)
        except BaseException:
            connection.break_off(ConnectionResetError("it was not opened"))
            raise
        return connection

    def retire(self) -> None:
        """Close what is idle now, and what is busy when it has answered: nobody's request fails."""
        self._retired = True
        connections, self._connections = self._connections, []
        if self._loop is None or self._loop.is_closed():
            return
        for connection in connections:
            if not connection.waiting:
                connection.break_off(ConnectionResetError("the client was closed"))


class _Counted:
    """Hands answers over, and knows how many there were."""

    __slots__ = ("_accept", "answers")

    def __init__(self, accept: Callable[[Any], None]) -> None:
        self._accept = accept
        self.answers = 0

    def __call__(self, reply: Any) -> None:
        self.answers += 1
        self._accept(reply)
