"""Users whom the store does not know: written as ready-made hashes.

``RESTORE`` takes a key in the form in which the server itself keeps a small hash (a *listpack*), so that the server has
nothing to take apart and nothing to build, and refuses a key that exists. So nothing has to be compared or watched, and
no other writer can come between. It is for rows that are small: a server keeps others in another form. A server that
does not take the form (Redis before 7.0), or a user who may not use the command, is told by the answer.

The form is that of ``DUMP`` since version 10 of the server's format: a type, the listpack as one string, the version,
and a checksum. A listpack is its size, the number of its elements, and the elements, each with its length before and
behind. See ``rdb.h`` and ``listpack.c`` of Redis or Valkey; a contract test compares with what the server makes itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import redis

from rules_engine.features.writing.crc64 import crc64
from rules_engine.features.writing.ragged import Ints, Part, Ragged, bulk, bulk_string, constant, fixed, join, total
from rules_engine.features.writing.rows import BulkRows
from rules_engine.features.writing.wire import MOVED, Wire

#: The longest value, in bytes, whose length takes one byte.
_LONGEST = 63
#: The most fields of a row, and bytes of one; a server converts a hash of more fields, and more bytes gain nothing.
_MOST_FIELDS = 250
_MOST_BYTES = 4_000

_TYPE = b"\x10"
_LENGTH_IN_32_BITS = b"\x80"
_SHORT_STRING = 0x80
_END = b"\xff"
_VERSION = b"\x0a\x00"
_HEADER = 6


def restores(piece: BulkRows, key_ttl: int) -> Ragged | None:
    """Return the command that puts a row in place whole, of each row; None if some are too large for it.

    Parameters
    ----------
    piece
        the rows.
    key_ttl
        seconds until a written key expires; 0 is never.
    """
    names = piece.fields
    if len(set(names)) < len(names) or len(names) > _MOST_FIELDS or not all(map(_is_plain, names)):
        return None
    dumps = _dumps(piece)
    if dumps is None:
        return None
    rows = len(piece)
    payload: list[Part] = [dumps, fixed(crc64(dumps))]
    ttl = bulk_string(b"%d" % (key_ttl * 1_000))
    return join([constant(b"*4\r\n$7\r\nRESTORE\r\n", rows), piece.keys, constant(ttl, rows), *bulk(payload)])


def _dumps(piece: BulkRows) -> Ragged | None:
    """Return the rows in the server's format, without the checksum."""
    rows = len(piece)
    elements: list[Part] = []
    for name, value in zip(piece.fields, piece.values, strict=True):
        sizes = total(value)
        if sizes.max(initial=0) > _LONGEST:
            return None
        elements += [constant(_element(name), rows), _bytes(sizes | _SHORT_STRING), *value, _bytes(sizes + 1)]
    sizes = _HEADER + total(elements) + len(_END)
    if sizes.max(initial=0) > _MOST_BYTES:
        return None
    count = (2 * len(piece.fields)).to_bytes(2, "little")
    listpack = [fixed(sizes.astype("<u4")), constant(count, rows), *elements, constant(_END, rows)]
    length = [constant(_TYPE + _LENGTH_IN_32_BITS, rows), fixed(sizes.astype("<u4").byteswap())]
    return join([*length, *listpack, constant(_VERSION, rows)])


def _bytes(numbers: Ints) -> Part:
    """Return a byte for each row."""
    if numbers.min() == numbers.max():
        return constant(bytes([numbers[0]]), len(numbers))
    return fixed(numbers.astype(np.uint8))


def _element(name: bytes) -> bytes:
    return bytes([_SHORT_STRING | len(name)]) + name + bytes([len(name) + 1])


def _is_plain(name: bytes) -> bool:
    """Tell whether the server keeps it as a short string: what reads as a whole number it keeps as a number."""
    return 0 < len(name) <= _LONGEST and not name.lstrip(b"-").isdigit()


class NotRestoredError(Exception):
    """The server does not take a ready-made hash."""


def write_new(pool: Any, commands: Ragged, rows: Sequence[int]) -> list[int]:
    """Put some of the rows in place; return those whose users the store knows already, and has left alone.

    Parameters
    ----------
    pool
        redis-py's connections to the server.
    commands, rows
        from :func:`restores`, and the numbers of those that are sent.

    Raises
    ------
    NotRestoredError
        if the server refuses the command: whatever the reason, rows can still be tried to be written otherwise.
    redis.RedisError
        if the server cannot be reached, or keys moved to another node.
    """
    with Wire.out_of(pool) as wire:
        spans = [(rows.start, rows.stop)] if isinstance(rows, range) else [(row, row + 1) for row in rows]
        wire.send([commands.span(*span) for span in spans])
        answers = wire.answers(len(rows))
    return [row for row, answer in zip(rows, answers, strict=True) if _is_known(answer)]


def _is_known(answer: Any) -> bool:
    if not isinstance(answer, Exception):
        return False
    text = str(answer)
    if text.startswith("BUSYKEY"):
        return True
    if isinstance(answer, redis.ResponseError) and not isinstance(answer, MOVED):
        raise NotRestoredError(text) from answer
    raise answer
