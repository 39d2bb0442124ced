"""Which of many stored rows are newer than those that are to be written."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rules_engine.features.ragged import Ints
from rules_engine.features.redis_decode import decode_timestamp

#: The first bytes of a stored timestamp from 1978 to 3058: a tag, and the seconds in five bytes of seven bits each.
_HEAD = 6
_TAG = 8
_WEIGHTS = np.array([1 << (7 * i) for i in range(_HEAD - 1)], np.int64)
_NOTHING = bytes(_HEAD)


def newer(stored: Sequence[bytes | None], given: Ints, first: int = 0) -> list[int]:
    """The numbers of the rows whose stored timestamp is later than the given one, counted from ``first``.

    >>> newer([None, bytes.fromhex("0802"), bytes.fromhex("0801")], np.array([5, 1_000_000, 1_000_000]))
    [1]
    """
    if stored.count(None) == len(stored):
        return []
    # Most stored rows are older by whole seconds, which their first bytes tell; only the others are decoded.
    heads = b"".join([_NOTHING if stamp is None else (stamp + _NOTHING)[:_HEAD] for stamp in stored])
    matrix = np.frombuffer(heads, np.uint8).reshape(len(stored), _HEAD)
    usual = (matrix[:, 0] == _TAG) & (matrix[:, 1:-1] >= 0x80).all(axis=1) & (matrix[:, -1] < 0x80)
    seconds = (matrix[:, 1:] & 0x7F) @ _WEIGHTS
    unsure = np.flatnonzero(~(usual & (seconds < given // 1_000_000)))
    return [first + row for row in unsure.tolist() if _is_newer(stored[row], int(given[row]))]


def _is_newer(stamp: bytes | None, instant: int) -> bool:
    return stamp is not None and decode_timestamp(stamp) > instant
