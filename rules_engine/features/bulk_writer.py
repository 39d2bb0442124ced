"""Writes rows into Redis or Valkey: many at a time, a bounded amount under way, and never an older over a newer one.

Many rows are written under watch (``bulk_watch``), few by a script on the server, which compares a row's timestamp with
the stored one and writes all of its fields as one step. Either way no other writer comes between, no reader sees half a
row, and a writer that dies leaves whole rows only. A row as old as the stored one is written again, so that corrections
and added features arrive.

A cluster has scripts only: a transaction there has the keys of one slot, and a slot has few rows of a piece.

While the server works on one piece, the next is being made. Sending a piece twice changes nothing, so a lost connection
or a server that came back without its scripts is met by sending the piece again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import redis
from redis.exceptions import AskError, ClusterDownError, NoScriptError, TryAgainError

from rules_engine.features.bulk_rows import BulkRows
from rules_engine.features.bulk_watch import write_watched
from rules_engine.features.bulk_wire import Wire
from rules_engine.features.ragged import bulk_string

#: Arguments to one call of the script: enough that the call costs little. Measured: with ten times as many, the server
#: holds so many small strings at once that it needs half as much time again, and readers wait longer.
_ARGUMENTS = 200

#: Pieces of fewer rows are written by the script: one round trip.
_FEW = 20

#: A piece is sent again after these pauses, in seconds, before a failure is passed on; and not if the first tries took
#: so long already, as redis-py tries to connect for some seconds too.
_PAUSES = (0.1, 0.5, 2.0)
_PATIENCE = 5.0

#: Failures that pass: no connection, a script that is not there any more, keys that moved to another node (AskError).
_LOST = (redis.ConnectionError, ConnectionError, ClusterDownError, TryAgainError, NoScriptError, AskError)

# KEYS: the rows' keys. ARGV: seconds until a key expires or 0, fields of a row, each row's fields with their values. A
# row's first field is its timestamp, a google.protobuf.Timestamp. Lua unpacks at most 8,000 values at once.
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

local expire, width, at, written = tonumber(ARGV[1]), 2 * tonumber(ARGV[2]), 2, 0
for _, key in ipairs(KEYS) do
  local given = ARGV[at + 2]
  local stored = redis.call('HGET', key, ARGV[at + 1])
  if not stored or stored == given or not newer(stored, given) then
    for first = at + 1, at + width, 4000 do
      redis.call('HSET', key, unpack(ARGV, first, math.min(first + 3999, at + width)))
    end
    if expire > 0 then redis.call('EXPIRE', key, expire) end
    written = written + 1
  end
  at = at + width
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
        until = time.monotonic() + _PATIENCE
        for pause in _PAUSES:
            try:
                return self._send_once(piece)
            except _LOST as error:
                if isinstance(error, redis.AuthenticationError) or time.monotonic() > until:
                    raise
                time.sleep(pause)
                if self._cluster:
                    self._client.nodes_manager.initialize()
        return self._send_once(piece)

    def _send_once(self, piece: BulkRows) -> int:
        if self._cluster:
            return sum(self._send_to(pool, found) for pool, found in self._by_node(piece))
        pool = self._client.connection_pool
        if not piece.distinct or len(piece) < _FEW:
            return self._send_to(pool, _commands(piece, 0, len(piece), self._key_ttl))
        written, refused = write_watched(pool, piece, self._key_ttl)
        for chunk in refused:
            written += self._send_to(pool, _commands(piece, *chunk, self._key_ttl))
        return written

    def _by_node(self, piece: BulkRows) -> list[tuple[Any, list[bytes]]]:
        """In a cluster a script has the keys of one slot, so that each row is a call to the node that has its key."""
        by_node: dict[str, tuple[Any, list[bytes]]] = {}
        for number in range(len(piece)):
            key = piece.keys.row(number).partition(b"\r\n")[2][:-2]
            node = self._client.nodes_manager.get_node_from_slot(self._client.keyslot(key))
            pool = self._client.get_redis_connection(node).connection_pool
            by_node.setdefault(node.name, (pool, []))[1].append(_command(piece, number, number + 1, self._key_ttl))
        return list(by_node.values())

    @staticmethod
    def _send_to(pool: Any, commands: list[bytes]) -> int:
        """Send commands over one connection, and add up what they answer."""
        wire = Wire(pool)
        clean = False
        try:
            wire.send([_LOAD, *commands])
            answers = wire.answers(len(commands) + 1)[1:]
            clean = True
        finally:
            wire.close(clean=clean)
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


def _commands(piece: BulkRows, start: int, stop: int, key_ttl: int) -> list[bytes]:
    step = max(1, _ARGUMENTS // (2 * piece.width + 1))
    return [_command(piece, first, min(first + step, stop), key_ttl) for first in range(start, stop, step)]


def _command(piece: BulkRows, start: int, stop: int, key_ttl: int) -> bytes:
    """A call of the script for some of the rows, as the server takes it."""
    rows = stop - start
    head = b"*%d\r\n$7\r\nEVALSHA\r\n$40\r\n%b\r\n" % (5 + rows * (1 + 2 * piece.width), _SHA)
    values = [piece.pairs(row) for row in range(start, stop)]
    settings = [bulk_string(b"%d" % key_ttl), bulk_string(b"%d" % piece.width)]
    return b"".join((head, bulk_string(b"%d" % rows), piece.keys.span(start, stop), *settings, *values))


_LOAD = b"*3\r\n" + b"".join(bulk_string(part) for part in (b"SCRIPT", b"LOAD", SCRIPT.encode()))
