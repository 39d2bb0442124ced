"""Connections to one server over plain sockets, shared between threads.

They are our own because redis-py takes longer for a request than server and kernel together (the figures are in
docs/adr/0007-read-path.md). A request is bytes that were prepared, one ``send``, and as many ``recv`` as the answer
takes; hiredis parses. Timeouts of unencrypted connections are kept by the kernel, which saves a system call before each
of the two.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from struct import pack
from typing import Any

import hiredis

from rules_engine.redis.endpoint import RedisEndpoint, is_timeout, tune

#: Bytes read at once.
_BUFFER = 1 << 16

#: Requests that are on their way at once, at most: what bounds the memory of both sides.
PIECE = 256

#: What a connection raises that cannot be used any more.
_BROKEN = (OSError, hiredis.HiredisError)

#: How often an answer is looked for before sleeping: for some forty microseconds. Over a unix socket one takes half of
#: that, and to be woken up by the kernel takes as long again.
_LOOKS = 48
_AT_ONCE = getattr(socket, "MSG_DONTWAIT", 0)
#: On a single core, looking would keep the server from answering.
_HAS_CORES = bool(_AT_ONCE) and (os.cpu_count() or 1) > 1

#: So few commands are answered as soon as one: what one entity needs is at most its row, its event state and the mark.
_SOON_ANSWERED = 3

_CLOSED = "the server closed the connection"

#: A connection that could not be opened in less than this cannot be used for anything.
_LEAST_TIMEOUT = 0.001


class SocketConnection:
    """One connection. Used by one thread at a time."""

    __slots__ = ("_buffer", "_endpoint", "_is_near", "_parser", "_seconds", "_sock")

    def __init__(self, endpoint: RedisEndpoint, deadline: float) -> None:
        self._endpoint = endpoint
        self._parser: Any = hiredis.Reader()  # its types know no buffer but bytes
        self._buffer = bytearray(_BUFFER)
        self._seconds = -1.0
        self._is_near = endpoint.path is not None and _HAS_CORES
        self._sock = _connected(endpoint, min(deadline, time.monotonic() + endpoint.connect_timeout))
        try:
            self.limit(deadline)
            for command in endpoint.greeting():
                self._sock.sendall(command)
                reply = self._receive(deadline)
                if isinstance(reply, Exception):
                    endpoint.refuse(reply)
        except BaseException:
            self.close()
            raise

    def limit(self, deadline: float | None) -> None:
        """Let the next send or receive take until a deadline; None is the endpoint's timeout."""
        seconds = self._endpoint.timeout
        if deadline is not None:
            seconds = max(deadline - time.monotonic(), _LEAST_TIMEOUT)
        if seconds == self._seconds:
            return
        self._seconds = seconds
        if self._endpoint.encryption is not None:
            self._sock.settimeout(seconds)
            return
        whole = int(seconds)
        interval = pack("@ll", whole, int((seconds - whole) * 1_000_000))
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, interval)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, interval)

    def ask(self, command: bytes, *, polls: bool = False) -> Any:
        """Send a command and return its answer; with ``polls``, look for it some times before going to sleep."""
        began = time.monotonic()
        self._sock.sendall(command)
        size = self._soon() if polls and self._is_near else self._sock.recv_into(self._buffer)
        if size == 0:
            raise ConnectionResetError(_CLOSED)
        parser = self._parser
        parser.feed(self._buffer, 0, size)
        reply = parser.gets()
        return reply if reply is not False else self._receive(began + self._seconds)

    def ask_many(self, commands: Sequence[bytes], accept: Callable[[Any], None], *, polls: bool = False) -> None:
        """Send commands in pieces, and hand over each answer as it comes in; ``polls`` as for :meth:`ask`.

        The next piece is sent when half of one is answered, so that the server is not idle while answers are decoded.
        """
        gets = self._parser.gets
        sent = answered = 0
        total = len(commands)
        while answered < total:
            if sent < total and sent - answered <= PIECE // 2:
                self.limit(None)
                piece = commands[sent : sent + PIECE]
                self._sock.sendall(piece[0] if len(piece) == 1 else b"".join(piece))
                sent += len(piece)
            self._fill(polls=polls)
            reply = gets()
            while reply is not False:
                answered += 1
                accept(reply)
                reply = gets()

    def _soon(self) -> int:
        """Read what comes in. On the same machine it is there before the kernel would have woken us up."""
        receive, buffer = self._sock.recv_into, self._buffer
        for _ in range(_LOOKS):
            try:
                return receive(buffer, 0, _AT_ONCE)
            except BlockingIOError:
                pass
        return receive(buffer)

    def _fill(self, *, polls: bool = False) -> None:
        size = self._soon() if polls and self._is_near else self._sock.recv_into(self._buffer)
        if size == 0:
            raise ConnectionResetError(_CLOSED)
        self._parser.feed(self._buffer, 0, size)

    def _receive(self, deadline: float) -> Any:
        """Return the rest of an answer. The kernel's timeout is for each piece, so a deadline holds them together."""
        reply = self._parser.gets()
        try:
            while reply is False:
                self.limit(deadline)
                if time.monotonic() >= deadline:
                    raise TimeoutError("timed out")
                self._fill()
                reply = self._parser.gets()
        finally:
            with suppress(OSError):
                self.limit(None)
        return reply

    def close(self) -> None:
        self._sock.close()

    def __del__(self) -> None:
        with suppress(AttributeError):  # the connection was never opened
            self._sock.close()


def _connected(endpoint: RedisEndpoint, deadline: float) -> socket.socket:
    seconds = max(deadline - time.monotonic(), _LEAST_TIMEOUT)
    if endpoint.path is not None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(seconds)
            sock.connect(endpoint.path)
        except BaseException:
            sock.close()
            raise
    else:
        sock = socket.create_connection((endpoint.host, endpoint.port), seconds)
    try:
        tune(sock)
        if endpoint.encryption is None:
            sock.settimeout(None)
            return sock
        return endpoint.encryption.wrap_socket(sock, server_hostname=endpoint.host)
    except BaseException:
        sock.close()
        raise


class Pool:
    """The connections of one client: as many as threads ask at once, the last used first. Threads may share it.

    A connection that breaks is replaced and the request sent again, once: reads change nothing. A timeout is not tried
    again: the caller's time is up. What could have an answer of another request in it is closed, never used again. A
    process that was forked off opens connections of its own.

    Parameters
    ----------
    endpoint
        the server.
    """

    def __init__(self, endpoint: RedisEndpoint) -> None:
        self.endpoint = endpoint
        self._start()
        _pools.add(self)

    def _start(self) -> None:
        self._idle: list[SocketConnection] = []
        self._open = 0
        self._waiting = 0
        self._retired = False
        self._free = threading.Condition()

    def forget(self) -> None:
        """Let go of what is open after a fork: it belongs to the parent, which closing our copy does not disturb."""
        idle, retired = self._idle, self._retired
        self._start()
        self._retired = retired
        for connection in idle:
            connection.close()

    # --- asking -----------------------------------------------------------------------------------------------------

    def ask(self, command: bytes) -> Any:
        """Return the answer to a command that only reads. An error of the server is returned, not raised.

        Raises
        ------
        StoreUnavailableError
            if there is no connection.
        StoreTimeoutError
            if the answer does not come in time.
        """
        deadline = None
        try:
            connection = self._idle.pop()
        except IndexError:
            deadline = time.monotonic() + self.endpoint.timeout
            connection = self._take(deadline)
        try:
            # Other threads get the processor while this one sleeps, so only a lone connection polls.
            reply = connection.ask(command, polls=self._open == 1)
        except _BROKEN as error:
            return self._ask_once_more(connection, error, deadline, lambda fresh: fresh.ask(command))
        except BaseException:
            self._drop(connection)
            raise
        if deadline is None:
            self._idle.append(connection)
            if self._waiting or self._retired:
                self._settle()
        else:
            self._give(connection)
        return reply

    def ask_many(self, commands: Sequence[bytes], accept: Callable[[Any], None]) -> None:
        """Hand over the answers to commands that only read, in order. As :meth:`ask`; the timeout is for each piece."""
        answered = 0

        def count(reply: Any) -> None:
            nonlocal answered
            answered += 1
            accept(reply)

        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._take(time.monotonic() + self.endpoint.timeout)
        try:
            connection.ask_many(commands, count, polls=self._open == 1 and len(commands) <= _SOON_ANSWERED)
        except _BROKEN as error:
            self._ask_once_more(connection, error, None, lambda fresh: fresh.ask_many(commands[answered:], accept))
        except BaseException:
            self._drop(connection)
            raise
        else:
            self._give(connection)

    def _ask_once_more(
        self,
        broken: SocketConnection,
        error: Exception,
        deadline: float | None,
        request: Callable[[SocketConnection], Any],
    ) -> Any:
        """Ask once more, on a new connection, after one broke; the others that are idle broke with it."""
        self._drop(broken)
        if is_timeout(error):
            raise self.endpoint.timed_out() from error
        self._drop_idle()
        connection = self._take(time.monotonic() + self.endpoint.timeout if deadline is None else deadline)
        try:
            reply = request(connection)
        except _BROKEN as second_error:
            self._drop(connection)
            raise self._failure(second_error) from second_error
        except BaseException:
            self._drop(connection)
            raise
        self._give(connection)
        return reply

    def _failure(self, error: Exception) -> Exception:
        return self.endpoint.timed_out() if is_timeout(error) else self.endpoint.unreachable(error)

    # --- connections ------------------------------------------------------------------------------------------------

    def _take(self, deadline: float) -> SocketConnection:
        """Return a connection that was given back meanwhile, else a new one; wait if there are as many as may be."""
        with self._free:
            self._waiting += 1
            try:
                while self._open >= self.endpoint.max_connections:
                    with suppress(IndexError):
                        connection = self._idle.pop()
                        connection.limit(deadline)
                        return connection
                    if not self._free.wait(deadline - time.monotonic()):
                        raise self.endpoint.exhausted()
            finally:
                self._waiting -= 1
            self._open += 1
        try:
            connection = SocketConnection(self.endpoint, deadline)
            connection.limit(deadline)
        except BaseException as error:
            self._closed(1)
            if isinstance(error, _BROKEN):
                raise self._failure(error) from error
            raise
        return connection

    def _give(self, connection: SocketConnection) -> None:
        try:
            connection.limit(None)
        except OSError:
            self._drop(connection)
            return
        self._idle.append(connection)
        self._settle()

    def _settle(self) -> None:
        """Tell those who wait that a connection was given back. They look after saying so: none is overlooked."""
        if self._retired:
            self._drop_idle()
        if self._waiting:
            with self._free:
                self._free.notify()

    def _drop(self, connection: SocketConnection) -> None:
        connection.close()
        self._closed(1)

    def _closed(self, number: int) -> None:
        with self._free:
            self._open -= number
            self._free.notify(number)

    def _drop_idle(self) -> None:
        with suppress(IndexError):
            while True:
                self._drop(self._idle.pop())

    def retire(self) -> None:
        """Close what is idle now, and what is busy when it is done: nobody's request fails."""
        self._retired = True
        self._drop_idle()


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


def _forget_all() -> None:
    for pool in list(_pools):
        pool.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
