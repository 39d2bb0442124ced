"""Rows compared and written by a script on the server, as one step."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from rules_engine.features.writing.ragged import bulk_string
from rules_engine.features.writing.rows import BulkRows
from rules_engine.features.writing.wire import Wire

#: Arguments to one call of the script: enough that the call costs little. Measured: with ten times as many, the server
#: holds so many small strings at once that it needs half as much time again, and readers wait longer.
_ARGUMENTS = 200

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
_LOAD = b"*3\r\n" + b"".join(bulk_string(part) for part in (b"SCRIPT", b"LOAD", SCRIPT.encode()))


def write_scripted(pool: Any, piece: BulkRows, rows: Sequence[int], key_ttl: int, *, one_by_one: bool) -> int:
    """Write some of the rows, in their order; return how many the store took.

    Parameters
    ----------
    pool
        redis-py's connections to the server.
    piece, rows
        the rows, and the numbers of those that are written.
    key_ttl
        seconds until a written key expires; 0 is never.
    one_by_one
        a call for each row: in a cluster a script has the keys of one slot.

    Raises
    ------
    redis.RedisError
        if the server cannot be reached, or refuses.
    """
    step = 1 if one_by_one else max(1, _ARGUMENTS // (2 * len(piece.fields) + 1))
    calls = [_call(piece, rows[start : start + step], key_ttl) for start in range(0, len(rows), step)]
    with Wire.out_of(pool) as wire:
        wire.send([_LOAD, *calls])
        answers = wire.answers(len(calls) + 1)[1:]
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return sum(answers)


def _call(piece: BulkRows, rows: Sequence[int], key_ttl: int) -> bytes:
    """Return a call of the script for some of the rows, as the server takes it."""
    width = len(piece.fields)
    head = b"*%d\r\n$7\r\nEVALSHA\r\n$40\r\n%b\r\n" % (5 + len(rows) * (1 + 2 * width), _SHA)
    keys, values = [piece.keys.row(row) for row in rows], [piece.pairs(row) for row in rows]
    settings = [bulk_string(b"%d" % key_ttl), bulk_string(b"%d" % width)]
    return b"".join((head, bulk_string(b"%d" % len(rows)), *keys, *settings, *values))
