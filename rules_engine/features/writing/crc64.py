"""The checksum of a key in the server's own format, of thousands of rows at once.

CRC-64 with the polynomial of Jones (0xAD93D23594C935A9, reflected, first and last value zero), which Redis and Valkey
put behind what ``DUMP`` gives and check in ``RESTORE``. A checksum that starts at zero is the sum (exclusive or) of
what each byte adds by itself, and that depends only on the byte and on how many bytes come after it. So the rows are
laid side by side, all ending in the same column, and each column is looked up in a table of its own.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from rules_engine.features.writing.ragged import Ragged

Checksums = npt.NDArray[np.uint64]

#: The polynomial with its bits in reverse.
_REVERSED = 0x95AC9329AC4BC9B5
_BYTE = np.uint64(0xFF)
_EIGHT = np.uint64(8)


def crc64(rows: Ragged) -> Checksums:
    """Return the checksum of each row.

    >>> [hex(value) for value in crc64(Ragged.of([b"123456789", b"", b"9"])).tolist()]
    ['0xe9c6d914c4b8d9ca', '0x0', '0x56e99d30c1e3c78f']
    """
    sizes = rows.sizes
    width = int(sizes.max(initial=0))
    matrix = np.zeros((len(sizes), width), np.uint8)
    matrix[np.arange(width) >= (width - sizes)[:, None]] = rows.data[rows.offsets[0] : rows.offsets[-1]]
    columns = np.ascontiguousarray(matrix.T)
    tables = _tables(width.bit_length())
    checksums = np.zeros(len(sizes), np.uint64)
    added = np.empty_like(checksums)
    for column in range(width):
        tables[width - 1 - column].take(columns[column], out=added, mode="clip")  # the mode that needs no copy
        checksums ^= added
    return checksums


@lru_cache(maxsize=4)
def _tables(bits: int) -> Checksums:
    """Return the table of what each byte adds to the checksum, by the number of bytes that follow it."""
    tables = np.empty((1 << bits, 256), np.uint64)
    tables[0] = [_shifted(byte) for byte in range(256)]
    for place in range(1, len(tables)):
        before = tables[place - 1]
        tables[place] = tables[0][(before & _BYTE).astype(np.intp)] ^ (before >> _EIGHT)
    return tables


def _shifted(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (_REVERSED if value & 1 else 0)
    return value
