"""Find the stored rows that are newer than the rows to be written, many at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rules_engine.features.online.decode import decode_timestamp
from rules_engine.features.writing.ragged import Ints

#: A stored timestamp from 1978 to 3058 begins with a tag and five bytes, the lowest first, of seven bits of the seconds
#: each. Read as one number they are in the order of the seconds. The bits of a byte other than these seven are the
#: same in all of them, and show that a timestamp has this form.
_HEAD = 6
_BESIDE = 0x8080808080FF
_USUAL = 0x008080808008


def heads(instants: Ints) -> list[int]:
    """Return the number that the stored form of each instant begins with; 0 if it has another form.

    >>> [hex(head) for head in heads(np.array([1_800_000_000_000_000, 1_000_000]))]
    ['0x6daa7a48008', '0x0']
    """
    seconds = instants // 1_000_000
    result = np.full(len(instants), _USUAL, np.int64)
    for place in range(_HEAD - 1):
        result |= (seconds >> (7 * place) & 0x7F) << (8 * (place + 1))
    result[(seconds < 1 << 28) | (seconds >= 1 << 35)] = 0
    numbers: list[int] = result.tolist()
    return numbers


def newer(stored: Sequence[bytes | None], instants: Ints, given_heads: Sequence[int], first: int = 0) -> list[int]:
    """Return the numbers of the rows whose stored timestamp is later than the given one, counted from ``first``.

    Parameters
    ----------
    stored
        the timestamps that are stored, None where there is none.
    instants, given_heads
        the instants that are to be written, in microseconds, and :func:`heads` of them.

    Examples
    --------
    >>> given = np.array([5, 1_000_000, 1_000_000])
    >>> newer([None, bytes.fromhex("0802"), bytes.fromhex("0801")], given, heads(given))
    [1]
    """
    number = int.from_bytes
    # Most stored rows are older by whole seconds, which their first bytes tell; only the others are decoded.
    unsure = [
        row
        for row, (stamp, head) in enumerate(zip(stored, given_heads, strict=True))
        if stamp is not None
        and not ((stored_head := number(stamp[:_HEAD], "little")) & _BESIDE == _USUAL and stored_head < head)
    ]
    return [first + row for row in unsure if decode_timestamp(stored[row] or b"") > int(instants[row])]
