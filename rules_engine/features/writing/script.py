"""Rows compared and written by a script on the server, as one step."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from rules_engine.features.writing.ragged import bulk_string
from rules_engine.features.writing.rows import BulkRows
from rules_engine.features.writing.wire import Wire
from rules_engine.redis.row_script import WRITE_ROWS

#: Arguments to one call of the script: enough that the call costs little. Measured: with ten times as many, the server
#: holds so many small strings at once that it needs half as much time again, and readers wait longer.
_ARGUMENTS = 200

_SHA = hashlib.sha1(WRITE_ROWS.encode(), usedforsecurity=False).hexdigest().encode()
_LOAD = b"*3\r\n" + b"".join(bulk_string(part) for part in (b"SCRIPT", b"LOAD", WRITE_ROWS.encode()))


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
