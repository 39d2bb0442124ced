"""Build rows of bytes of different lengths with numpy, thousands of rows at once.

A row is a sequence of parts: some the same in all rows, some of fixed width, some of any length. All parts of a chunk
of rows go side by side into one padded matrix of bytes, beside a matrix that says which bytes count; taking the bytes
that count, row after row, is one operation of numpy. So the cost for each value is a few nanoseconds of C, and no
Python runs for a single value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Truths = npt.NDArray[np.bool_]

#: The largest padded matrix, in bytes; more rows than fit are done in several pieces. It stays in the cache of a core.
_MATRIX = 1 << 19

#: Lengths up to here have their headers in a table.
_SHORT = 4096

_POWERS_OF_128 = np.array([1 << (7 * i) for i in range(1, 10)], dtype=np.uint64)
_CR_LF = b"\r\n"


@dataclass(frozen=True, slots=True)
class Cells:
    """A part of fixed width: one line of the matrix for each row, of which the first ``lengths`` bytes count.

    Attributes
    ----------
    matrix
        rows by bytes. A constant is one line, repeated without copies.
    lengths
        None: all bytes count, in every row.
    """

    matrix: Bytes
    lengths: Ints | None = None

    @property
    def sizes(self) -> Ints:
        """Return how many bytes count in each row."""
        return np.full(len(self.matrix), self.matrix.shape[1], np.int64) if self.lengths is None else self.lengths

    def __len__(self) -> int:
        return len(self.matrix)

    @property
    def is_full(self) -> bool:
        """Tell whether all rows are as long as the part is wide."""
        return self.lengths is None

    def part(self, start: int, stop: int) -> Cells:
        """Return the rows from ``start`` up to ``stop``."""
        return Cells(self.matrix[start:stop], None if self.lengths is None else self.lengths[start:stop])

    def width(self) -> int:
        """Return how many columns of the matrix the part needs."""
        return int(self.matrix.shape[1])

    def fill(self, matrix: Bytes, counts: Truths) -> None:
        """Write the part into its columns of a matrix."""
        matrix[:] = self.matrix
        if self.lengths is not None:
            np.less(_columns(self.matrix.shape[1]), self.lengths[:, None], out=counts)


@dataclass(frozen=True, slots=True)
class Ragged:
    r"""A part of any length: row ``i`` is ``data[offsets[i]:offsets[i + 1]]``.

    >>> Ragged.of([b"one", b"", b"three"]).row(2)
    b'three'
    """

    data: Bytes
    offsets: Ints

    @classmethod
    def of(cls, rows: Sequence[bytes]) -> Ragged:
        """Make a part of byte strings, one for each row."""
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        return cls(np.frombuffer(b"".join(rows), np.uint8), _offsets(lengths))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def is_full(self) -> bool:
        """Return False: whether all rows have the same length is not checked."""
        return False

    @property
    def sizes(self) -> Ints:
        """Return how many bytes each row has."""
        return self.offsets[1:] - self.offsets[:-1]

    def part(self, start: int, stop: int) -> Ragged:
        """Return the rows from ``start`` up to ``stop``."""
        return Ragged(self.data, self.offsets[start : stop + 1])

    def width(self) -> int:
        """Return how many columns of the matrix the part needs."""
        return int(self.sizes.max(initial=0))

    def fill(self, matrix: Bytes, counts: Truths) -> None:
        """Write the part into its columns of a matrix."""
        np.less(_columns(matrix.shape[1]), self.sizes[:, None], out=counts)
        matrix[counts] = self.data[self.offsets[0] : self.offsets[-1]]  # both row after row

    def row(self, number: int) -> bytes:
        """Return a single row."""
        return self.data[self.offsets[number] : self.offsets[number + 1]].tobytes()

    def span(self, start: int, stop: int) -> memoryview[Any]:
        """Return the bytes of the rows from ``start`` up to ``stop``, without a copy."""
        return self.data[self.offsets[start] : self.offsets[stop]].data

    def grouped(self, offsets: Ints) -> Ragged:
        """Return longer rows: new row ``i`` is the old ones from ``offsets[i]`` up to ``offsets[i + 1]``."""
        return Ragged(self.data, self.offsets[offsets])


Part = Cells | Ragged


def constant(value: bytes, rows: int) -> Cells:
    """Return the same bytes in every row."""
    repeated = np.ndarray((rows, len(value)), np.uint8, value, strides=(0, 1))  # broadcast_to takes ten times as long
    return Cells(repeated)


def optional(value: bytes, present: Truths) -> Cells:
    """Return the same bytes in the rows that have them, else nothing."""
    return Cells(constant(value, len(present)).matrix, present * np.int64(len(value)))


def fixed(values: npt.NDArray[Any], present: Truths | None = None) -> Cells:
    """Return numbers as they lie in memory, little-endian; nothing in the rows that have none."""
    size = values.dtype.itemsize
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return Cells(
        little.view(np.uint8).reshape(len(values), size), None if present is None else present * np.int64(size)
    )


def varint(values: Ints, present: Truths | None = None) -> Cells:
    """Return numbers as protobuf writes them: seven bits a byte, the lowest first; negative ones as 64 bits.

    >>> cells = varint(np.array([1, 300, -1]))
    >>> [bytes(row[:size]).hex() for row, size in zip(cells.matrix, cells.sizes)]
    ['01', 'ac02', 'ffffffffffffffffff01']
    """
    left = values.astype(np.uint64)
    lengths = np.searchsorted(_POWERS_OF_128, left, side="right").astype(np.int64) + 1
    width = int(lengths.max(initial=1))
    matrix = np.empty((len(values), width), np.uint8)
    for column in range(width):
        matrix[:, column] = (left & np.uint64(0x7F)).astype(np.uint8) | ((lengths > column + 1) * np.uint8(0x80))
        left = left >> np.uint64(7)
    return Cells(matrix, lengths if present is None else lengths * present)


def join(parts: Sequence[Part]) -> Ragged:
    r"""Return the parts of each row, one after the other.

    >>> join([constant(b"<", 2), Ragged.of([b"a", b"bcd"]), constant(b">", 2)]).row(1)
    b'<bcd>'
    """
    sizes = total(parts)
    pieces = [_joined(piece) for piece in _pieces(_fewer(parts), len(sizes))]
    return Ragged(pieces[0] if len(pieces) == 1 else np.concatenate([*pieces, _NOTHING]), _offsets(sizes))


def _fewer(parts: Sequence[Part]) -> list[Part]:
    """Return the parts, with constants that are neighbours made one."""
    merged: list[Part] = []
    for part in parts:
        last = merged[-1] if merged else None
        if last is not None and _is_constant(last) and _is_constant(part):
            merged[-1] = constant(last.matrix[0].tobytes() + part.matrix[0].tobytes(), len(part.matrix))
        else:
            merged.append(part)
    return merged


def _is_constant(part: Part) -> TypeGuard[Cells]:
    return isinstance(part, Cells) and part.lengths is None and part.matrix.strides[0] == 0 and len(part.matrix) > 0


def bulk_string(value: bytes) -> bytes:
    r"""Return a bulk string of the server's protocol.

    >>> bulk_string(b"shop")
    b'$4\r\nshop\r\n'
    """
    return b"$%d\r\n%b\r\n" % (len(value), value)


def bulk(parts: Sequence[Part]) -> list[Part]:
    r"""Return the parts as one bulk string of the server's protocol: its length before, a line end after.

    >>> join(bulk([Ragged.of([b"shop", b""])])).data.tobytes()
    b'$4\r\nshop\r\n$0\r\n\r\n'
    """
    sizes = total(parts)
    return [_header(sizes), *parts, constant(_CR_LF, len(sizes))]


def total(parts: Sequence[Part]) -> Ints:
    """Return how many bytes the parts have together, by row."""
    sizes: Ints = np.full(len(parts[0]), sum(part.width() for part in parts if part.is_full), np.int64)
    for part in parts:
        if not part.is_full:
            sizes += part.sizes
    return sizes


_NOTHING: Bytes = np.empty(0, np.uint8)


def _header(sizes: Ints) -> Part:
    longest = int(sizes.max(initial=0))
    if len(sizes) and longest == int(sizes.min()):
        return constant(b"$%d\r\n" % longest, len(sizes))
    if longest >= _SHORT:
        return Ragged.of([b"$%d\r\n" % size for size in sizes.tolist()])
    headers, lengths = _headers(longest.bit_length())
    return Cells(headers[sizes], lengths[sizes])


@lru_cache(maxsize=16)
def _headers(bits: int) -> tuple[Bytes, Ints]:
    """Return the headers of all lengths with so many bits, as lines of a matrix, and how long each is."""
    lines = [b"$%d\r\n" % size for size in range(1 << bits)]
    width = len(lines[-1])
    matrix = np.frombuffer(b"".join(line.ljust(width) for line in lines), np.uint8).reshape(len(lines), width)
    return matrix, np.array([len(line) for line in lines], np.int64)


def _pieces(parts: Sequence[Part], rows: int) -> Iterable[Sequence[Part]]:
    """Return the parts by ranges of rows whose matrix is not too large; one row is never taken apart."""
    if rows <= 1 or rows * sum(part.width() for part in parts) <= _MATRIX:
        yield parts
        return
    middle = rows // 2
    yield from _pieces([part.part(0, middle) for part in parts], middle)
    yield from _pieces([part.part(middle, rows) for part in parts], rows - middle)


def _joined(parts: Sequence[Part]) -> Bytes:
    widths = [part.width() for part in parts]
    rows = len(parts[0])
    matrix = np.empty((rows, sum(widths)), np.uint8)
    counts = np.ones(matrix.shape, np.bool_)
    start = 0
    for part, width in zip(parts, widths, strict=True):
        part.fill(matrix[:, start : start + width], counts[:, start : start + width])
        start += width
    return matrix[counts]


def _offsets(lengths: Ints) -> Ints:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _columns(width: int) -> Ints:
    return np.arange(width, dtype=np.int64)
