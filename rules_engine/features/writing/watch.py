"""Write rows under watch: read what is stored, and write if nobody wrote in between.

For each chunk of rows: ``WATCH`` their keys, read the instants that are stored, then ``MULTI``, the ``HSET`` of each
row that is not older, ``EXEC``. If anyone, with whatever client, wrote one of the keys in between, the server does
nothing of it, and the chunk is written by a script instead, which nothing can come between.

Chunks take turns on a few connections, so that the server is not idle while one waits for us.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import redis

from rules_engine.features.writing.ragged import Ragged, bulk_string, constant, join
from rules_engine.features.writing.row_times import heads, newer
from rules_engine.features.writing.rows import BulkRows
from rules_engine.features.writing.wire import Wire

#: Chunks under way at once.
_LANES = 2

#: Strings in the commands of a chunk. Measured: with four times as many, the server keeps so many small strings at once
#: that a row costs it half as much time again, and readers wait longer.
_STRINGS = 1_000

_MULTI = b"*1\r\n$5\r\nMULTI\r\n"
_EXEC = b"*1\r\n$4\r\nEXEC\r\n"
_UNWATCH = b"*1\r\n$7\r\nUNWATCH\r\n"

#: Rows from one number up to another.
Chunk = tuple[int, int]


def write_watched(pool: Any, piece: BulkRows, key_ttl: int) -> tuple[int, list[Chunk]]:
    """Write rows, no key twice among them.

    Parameters
    ----------
    pool
        redis-py's connections to the server.
    piece
        the rows.
    key_ttl
        seconds until a written key expires; 0 is never.

    Returns
    -------
    tuple
        how many rows were written; and the chunks that were not, as somebody else wrote one of their users meanwhile.

    Raises
    ------
    redis.RedisError
        if the server cannot be reached, or refuses.
    """
    rows = max(1, _STRINGS // (2 * len(piece.fields) + 2))
    chunks = [(start, min(start + rows, len(piece))) for start in range(0, len(piece), rows)]
    commands = _Commands(piece, key_ttl)
    with _wires(pool, min(_LANES, len(chunks))) as wires:
        lanes = [_Lane(wire, commands) for wire in wires]
        for lane, chunk in zip(lanes, chunks, strict=False):
            lane.ask(chunk)
        for number in range(len(chunks)):
            following = chunks[number + len(lanes) :][:1]
            lanes[number % len(lanes)].write(following)
        for lane in lanes:
            lane.finish()
    return sum(lane.written for lane in lanes), sorted(chunk for lane in lanes for chunk in lane.refused)


@contextmanager
def _wires(pool: Any, count: int) -> Iterator[list[Wire]]:
    """Take ``count`` connections from the pool, or fewer if it has no more."""
    wires = [Wire(pool)]
    clean = False
    try:
        with suppress(redis.ConnectionError):
            wires += [Wire(pool) for _ in range(count - 1)]
        yield wires
        clean = True
    finally:
        for wire in wires:
            wire.close(clean=clean)


class _Commands:
    """Makes the commands that are sent about the rows of a piece."""

    def __init__(self, piece: BulkRows, key_ttl: int) -> None:
        rows = len(piece)
        self.piece = piece
        self._heads = heads(piece.instants)
        self._reads = join(
            [constant(b"*3\r\n$4\r\nHGET\r\n", rows), piece.keys, constant(bulk_string(piece.fields[0]), rows)]
        )
        self._expire: Ragged | None = None
        if key_ttl:
            seconds = constant(bulk_string(b"%d" % key_ttl), rows)
            self._expire = join([constant(b"*3\r\n$6\r\nEXPIRE\r\n", rows), piece.keys, seconds])

    def watching(self, chunk: Chunk) -> list[Any]:
        """Return the command that watches the rows' keys; it has one answer."""
        start, stop = chunk
        return [b"*%d\r\n$5\r\nWATCH\r\n" % (1 + stop - start), self.piece.keys.span(start, stop)]

    def reading(self, chunk: Chunk) -> list[Any]:
        """Return the commands that read the stored instants; they have one answer for each row."""
        return [self._reads.span(*chunk)]

    def older(self, chunk: Chunk, stored: Sequence[bytes | None]) -> list[int]:
        """Return the rows that are older than what is stored of them."""
        here = slice(*chunk)
        return newer(stored, self.piece.instants[here], self._heads[here], chunk[0])

    def writing(self, chunk: Chunk, older: Sequence[int]) -> tuple[list[Any], int]:
        """Return the transaction that writes a chunk but for the older rows, and how many answers it has."""
        spans = list(_spans(chunk, older))
        parts: list[Any] = [_MULTI]
        count = 0
        for commands in (self.piece.commands, self._expire):
            if commands is not None:
                parts += [commands.span(*span) for span in spans]
                count += sum(stop - start for start, stop in spans)
        return [*parts, _EXEC], count + 2


def _spans(chunk: Chunk, left_out: Sequence[int]) -> Iterator[Chunk]:
    """Yield the spans of rows that are left of a chunk without some of its rows."""
    start, stop = chunk
    for row in left_out:
        if row > start:
            yield start, row
        start = row + 1
    if start < stop:
        yield start, stop


class _Lane:
    """Writes chunks over one connection, one after the other."""

    def __init__(self, wire: Wire, commands: _Commands) -> None:
        self._wire = wire
        self._commands = commands
        self._chunk: Chunk = (0, 0)
        #: The chunk whose transaction is under way, how many rows it writes, and how many answers it has.
        self._writing: tuple[Chunk, int, int] | None = None
        self.written = 0
        self.refused: list[Chunk] = []

    def ask(self, chunk: Chunk) -> None:
        """Ask for what is stored of the first chunk."""
        self._wire.send(self._asking(chunk))

    def _asking(self, chunk: Chunk) -> list[Any]:
        self._chunk = chunk
        return [*self._commands.watching(chunk), *self._commands.reading(chunk)]

    def write(self, following: Sequence[Chunk]) -> None:
        """Write the chunk that was asked about, and ask about the next."""
        self.finish()
        chunk = start, stop = self._chunk
        stored = self._checked(self._wire.answers(1 + stop - start))[1:]
        older = self._commands.older(chunk, stored)
        written = stop - start - len(older)
        parts, answers = self._commands.writing(chunk, older) if written else ([_UNWATCH], 1)
        for next_chunk in following:
            parts += self._asking(next_chunk)
        self._wire.send(parts)
        self._writing = chunk, written, answers

    def finish(self) -> None:
        """Read the answer to the transaction that is under way, and note whether it was refused."""
        if self._writing is None:
            return
        chunk, written, answers = self._writing
        self._writing = None
        done = self._checked(self._wire.answers(answers))[-1]
        if done is None:
            self.refused.append(chunk)
            return
        if written:
            self._checked(done)
        self.written += written

    @staticmethod
    def _checked(answers: list[Any]) -> list[Any]:
        failure = next((answer for answer in answers if isinstance(answer, Exception)), None)
        if failure is not None:
            raise failure
        return answers
