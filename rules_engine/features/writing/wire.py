"""One connection of a redis-py client, used past it: what is sent is ready, and answers are small and many.

redis-py opens it, as the client's configuration says: encrypted or not, with a password, to the master that sentinels
name. Its own way of reading costs as much for each answer as the server needs for a command.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import hiredis
import redis
from redis._parsers.base import BaseParser
from redis.exceptions import AskError, ClusterDownError, TryAgainError

_BUFFER = 1 << 16

#: What a cluster answers while keys move to another node, or nodes are lost.
MOVED = (AskError, ClusterDownError, TryAgainError)


class Wire:
    """A connection that is taken out of a pool.

    Parameters
    ----------
    pool
        redis-py's.

    Raises
    ------
    redis.ConnectionError
        if there is none.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._connection = pool.get_connection()
        self._socket: Any = self._connection._sock  # noqa: SLF001 (redis-py gives it out nowhere)
        self._reader: Any = hiredis.Reader(replyError=BaseParser.parse_error)  # its types know no buffer but bytes
        self._buffer = bytearray(_BUFFER)

    def send(self, parts: Sequence[Any]) -> None:
        """Send bytes that are one or more commands."""
        try:
            self._socket.sendall(parts[0] if len(parts) == 1 else b"".join(parts))  # a copy costs less than a call
        except OSError as error:
            raise _lost(error) from error

    def answers(self, count: int) -> list[Any]:
        """Return the next ``count`` answers; an error of the server counts as one, as others follow it."""
        answers: list[Any] = []
        gets = self._reader.gets
        while len(answers) < count:
            answer = gets()
            if answer is False:
                self._receive()
            elif answer.__class__ is not hiredis.PushNotification:
                answers.append(answer)
        return answers

    def _receive(self) -> None:
        try:
            size = self._socket.recv_into(self._buffer)
        except OSError as error:
            raise _lost(error) from error
        if size == 0:
            raise redis.ConnectionError("the server closed the connection")
        self._reader.feed(self._buffer, 0, size)

    @classmethod
    @contextmanager
    def out_of(cls, pool: Any) -> Iterator[Wire]:
        """Lend a connection for a block; it is closed if the block fails, as answers may be left in it."""
        wire = cls(pool)
        clean = False
        try:
            yield wire
            clean = True
        finally:
            wire.close(clean=clean)

    def close(self, *, clean: bool) -> None:
        """Give the connection back. One that is not clean, as answers may be left in it, is closed."""
        if not clean:
            self._connection.disconnect()
        self._pool.release(self._connection)


def _lost(error: OSError) -> redis.RedisError:
    if isinstance(error, TimeoutError):
        return redis.TimeoutError("the server did not answer in time")
    return redis.ConnectionError(f"the connection broke: {error}")
