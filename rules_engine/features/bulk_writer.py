"""Writes rows into Redis or Valkey: many at a time, a bounded amount under way, and never an older over a newer one.

A row is written by a script on the server, which compares its timestamp with the stored one and writes all of its
fields, as one step: no other writer comes between, no reader sees half a row, and a writer that dies leaves whole rows
only. A row as old as the stored one is written again, so that corrections and added features arrive.

While the server works on one piece, the next is being made. Sending a piece twice changes nothing, so a lost connection
or a server that came back without its scripts is met by sending the piece again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import redis
from redis.exceptions import AskError, ClusterDownError, NoScriptError, TryAgainError

from rules_engine.features.bulk_rows import BulkRows

#: Arguments to one call of the script: enough that the call costs little. Measured: with ten times as many, the server
#: holds so many small strings at once that it needs half as much time again, and readers wait longer.
_ARGUMENTS = 200

#: A piece is sent again after these pauses, in seconds, before a failure is passed on.
_PAUSES = (0.1, 0.5, 2.0)

#: Failures that pass: no connection, a script that is not there any more, keys that moved to another node (AskError).
_LOST = (redis.ConnectionError, ConnectionError, ClusterDownError, TryAgainError, NoScriptError, AskError)

# KEYS: the rows' keys. ARGV: seconds until a key expires or 0, fields of a row, their names, then each row's values.
# A row's first field is its timestamp, a google.protobuf.Timestamp. Lua unpacks at most 8,000 values at once.
SCRIPT = """\
local function number(bytes, at)  -- a negative one takes ten bytes; its complement is small, and exact in Lua's floats
  local value, complement, weight = 0, 0, 1
  for i = at, at + 8 do
    local byte = string.byte(bytes, i)
    value = value + (byte % 128) * weight
    complement = complement + (127 - byte % 128) * weight
    weight = weight * 128
    if byte < 128 then return value, i + 1 end
  end
  return -1 - complement, at + 10
end

local function instant(bytes)
  local seconds, nanos, at = 0, 0, 1
  while at <= #bytes do
    local tag = string.byte(bytes, at)
    if tag == 8 then seconds, at = number(bytes, at + 1) else nanos, at = number(bytes, at + 1) end
  end
  return seconds, nanos
end

local function newer(stored, given)
  local seconds, nanos = instant(stored)
  local given_seconds, given_nanos = instant(given)
  return seconds > given_seconds or (seconds == given_seconds and nanos > given_nanos)
end

local expire, count, row, at, written = tonumber(ARGV[1]), tonumber(ARGV[2]), {}, 0, 0
for i = 1, count do row[2 * i - 1] = ARGV[2 + i] end
at = 2 + count
for _, key in ipairs(KEYS) do
  local given = ARGV[at + 1]
  local stored = redis.call('HGET', key, row[1])
  if not stored or stored == given or not newer(stored, given) then
    for i = 1, count do row[2 * i] = ARGV[at + i] end
    for first = 1, 2 * count, 4000 do
      redis.call('HSET', key, unpack(row, first, math.min(first + 3999, 2 * count)))
    end
    if expire > 0 then redis.call('EXPIRE', key, expire) end
    written = written + 1
  end
  at = at + count
end
return written
"""
_SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest().encode()


class BulkWriter:
    """Writes rows through a client's connections.

    Parameters
    ----------
    client
        of a server, of a cluster, or of the master that sentinels name.
    key_ttl
        seconds after which a written user expires, as ``key_ttl_seconds`` in ``feature_store.yaml``; None is never.
    """

    def __init__(self, client: Any, key_ttl: int | None = None) -> None:
        self._client = client
        self._key_ttl = key_ttl or 0
        self._cluster = isinstance(client, redis.RedisCluster)

    def write(self, pieces: Iterable[BulkRows], progress: Callable[[int], Any] | None = None) -> int:
        """Write rows, piece after piece; return how many of them the store took (it leaves out older ones).

        Two pieces are in memory at once: the one that the server works on, and the one that is being made.

        Parameters
        ----------
        progress
            called with the number of rows of each piece, once the server is done with it.

        Raises
        ------
        redis.RedisError
            if the server cannot be reached, or refuses.
        """
        written = 0
        with ThreadPoolExecutor(1, "bulk-writer") as sender:
            under_way: tuple[int, Future[int]] | None = None
            for piece in pieces:
                following = len(piece), sender.submit(self._send, piece)
                written += _finish(under_way, progress)
                under_way = following
            written += _finish(under_way, progress)
        return written

    def _send(self, piece: BulkRows) -> int:
        for pause in _PAUSES:
            try:
                return self._send_once(piece)
            except _LOST as error:
                if isinstance(error, redis.AuthenticationError):
                    raise
                time.sleep(pause)
                if self._cluster:
                    self._client.nodes_manager.initialize()
        return self._send_once(piece)

    def _send_once(self, piece: BulkRows) -> int:
        if not self._cluster:
            return self._send_to(self._client.connection_pool, _commands(piece, self._key_ttl))
        commands = self._by_node(piece)
        return sum(self._send_to(pool, found) for pool, found in commands)

    def _by_node(self, piece: BulkRows) -> list[tuple[Any, list[bytes]]]:
        """In a cluster a script has the keys of one slot, so that each row is a call to the node that has its key."""
        by_node: dict[str, tuple[Any, list[bytes]]] = {}
        for number in range(len(piece)):
            key = piece.keys.row(number).split(b"\r\n", 1)[1][:-2]
            node = self._client.nodes_manager.get_node_from_slot(self._client.keyslot(key))
            pool = self._client.get_redis_connection(node).connection_pool
            by_node.setdefault(node.name, (pool, []))[1].append(_command(piece, number, number + 1, self._key_ttl))
        return list(by_node.values())

    @staticmethod
    def _send_to(pool: Any, commands: list[bytes]) -> int:
        """Send commands over one connection, and add up what they answer."""
        connection = pool.get_connection()
        try:
            connection.send_packed_command([_LOAD, *commands])
            answers = [_answer(connection) for _ in range(len(commands) + 1)][1:]
        except BaseException:
            connection.disconnect()  # answers may be left in it
            raise
        finally:
            pool.release(connection)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return sum(answers)


def _finish(under_way: tuple[int, Future[int]] | None, progress: Callable[[int], Any] | None) -> int:
    if under_way is None:
        return 0
    rows, sent = under_way
    written = sent.result()
    if progress is not None:
        progress(rows)
    return written


def _answer(connection: Any) -> Any:
    """One answer; an error of the server is one too, as others follow it."""
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        return error


def _commands(piece: BulkRows, key_ttl: int) -> list[bytes]:
    return [_command(piece, start, stop, key_ttl) for start, stop in _ranges(len(piece), len(piece.fields))]


def _ranges(rows: int, fields: int) -> Iterator[tuple[int, int]]:
    step = max(1, _ARGUMENTS // (fields + 1))
    return ((start, min(start + step, rows)) for start in range(0, rows, step))


def _command(piece: BulkRows, start: int, stop: int, key_ttl: int) -> bytes:
    """A call of the script for some of the rows, as the server takes it."""
    rows, fields = stop - start, len(piece.fields)
    head = b"*%d\r\n$7\r\nEVALSHA\r\n$40\r\n%b\r\n" % (5 + fields + rows * (1 + fields), _SHA)
    names = b"".join(_bulk_string(name) for name in (b"%d" % key_ttl, b"%d" % fields, *piece.fields))
    values = piece.values.span(start, stop)
    return b"".join((head, _bulk_string(b"%d" % rows), piece.keys.span(start, stop), names, values))


def _bulk_string(value: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(value), value)


_LOAD = b"*3\r\n" + b"".join(_bulk_string(part) for part in (b"SCRIPT", b"LOAD", SCRIPT.encode()))
