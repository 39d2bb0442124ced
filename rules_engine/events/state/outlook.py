"""The outlook of an entity: what each event condition says from an instant on if nothing more happens.

Without new events the answer of an event condition is a step function of time with few steps. Whoever writes a state
works the steps out and puts them behind it, in the same string; a request reads the end of the string and compares
instants. What is appended when an event is reported comes to lie at the end instead, so an outlook that lacks an event
is never read as one. docs/adr/0021-outlooks.md says more.

The bytes are a mark, their length, the answers at the first instant (two bits each), the instants of changes, the
places of the conditions that change, their new answers, and a foot of fixed size that is found from the end.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct, pack, unpack_from

#: What the bytes begin and end with. Neither a state nor an entry that waits begins so, and no entry ends so.
MARK = 0xF6

#: Answers.
FALSE, TRUE, UNKNOWN = range(3)

#: Later than every instant: where an outlook has no end.
FOREVER = 2**62

#: Conditions of which there may be an outlook: their places are written as 16 bits.
MAX_CONDITIONS = 1 << 16

_HEAD = Struct("<BI")
_FOOT = Struct("<QqqqHIB")
_ANSWERS_IN_BYTE = 4
#: Bytes of one change: an instant, a place, an answer.
_CHANGE = 8 + 2 + 1

#: Changes for which there is room, beside three for each condition.
_SPARE = 16

#: The four answers of each byte.
ANSWERS = [tuple(byte >> shift & 3 for shift in (0, 2, 4, 6)) for byte in range(256)]

#: One change: its instant, the place of the condition, the new answer.
Change = tuple[int, int, int]


def changes_at_most(conditions: int) -> int:
    """Return how many changes an outlook of so many conditions may hold; those that come later are left out."""
    return 3 * conditions + _SPARE


def longest(conditions: int) -> int:
    """Return how many bytes at the end of a string an outlook takes at most."""
    return _width(conditions) + _CHANGE * changes_at_most(conditions) + _FOOT.size


def _width(conditions: int) -> int:
    return -(-conditions // _ANSWERS_IN_BYTE)


def packed(answers: Sequence[int]) -> bytes:
    """Return answers, four in a byte.

    >>> packed([TRUE, FALSE, UNKNOWN]).hex()
    '21'
    """
    packed_answers = bytearray(_width(len(answers)))
    for place, answer in enumerate(answers):
        packed_answers[place >> 2] |= answer << 2 * (place & 3)
    return bytes(packed_answers)


def unpacked(answers: bytes) -> list[int]:
    """Return the answers of bytes, four of each."""
    return [answer for byte in answers for answer in ANSWERS[byte]]


def encode_outlook(
    stamp: int, answers: Sequence[int], changes: Sequence[Change], begins_at: int, ends_at: int
) -> bytes:
    """Encode an outlook.

    Parameters
    ----------
    stamp
        the 64 bits that tell the conditions from others.
    answers
        of each condition, at ``begins_at``.
    changes
        after ``begins_at`` and before ``ends_at``, in the order of their instants.
    begins_at, ends_at
        from when on, and before what instant, the answers are known; microseconds.
    """
    number = len(changes)
    body = b"".join(
        (
            packed(answers),
            pack(f"<{number}q", *(at for at, _, _ in changes)),
            pack(f"<{number}H", *(place for _, place, _ in changes)),
            bytes(answer for _, _, answer in changes),
        )
    )
    first = changes[0][0] if changes else FOREVER
    foot = _FOOT.pack(stamp, begins_at, ends_at, first, number, zlib.crc32(body), MARK)
    return _HEAD.pack(MARK, len(body) + len(foot)) + body + foot


def outlook_size(data: bytes, start: int) -> int:
    """Return how many bytes from ``start`` on are an outlook; 0 if none begins there or it is cut off."""
    if len(data) < start + _HEAD.size or data[start] != MARK:
        return 0
    size = _HEAD.size + int(_HEAD.unpack_from(data, start)[1])
    return size if start + size <= len(data) else 0


def stamp_of(data: bytes) -> int | None:
    """Return the stamp of the outlook at the end of a string; None if there is none."""
    if len(data) < _FOOT.size or data[-1] != MARK:
        return None
    return int(_FOOT.unpack_from(data, len(data) - _FOOT.size)[0])


@dataclass(slots=True)
class Outlook:
    """An outlook as it was read. Not to be changed; frozen it would take longer to make than to read.

    Attributes
    ----------
    answers
        at ``begins_at``, four in a byte.
    begins_at, ends_at
        the answers are known from the one instant on, and before the other.
    first
        the instant of the first change, ``FOREVER`` if there is none.

    >>> data = encode_outlook(7, [TRUE, FALSE], [(50, 0, FALSE), (60, 1, TRUE)], begins_at=10, ends_at=FOREVER)
    >>> outlook = read_outlook(data, 7, 2)
    >>> [outlook.at(now).hex() for now in (10, 49, 50, 60)], outlook.changes(50)
    (['01', '01', '00', '04'], [(60, 1, 1)])
    """

    answers: bytes
    begins_at: int
    ends_at: int
    first: int
    _data: bytes
    _start: int
    _number: int

    def at(self, now: int) -> bytes:
        """Return the answers at an instant that the outlook covers, four in a byte."""
        if now < self.first:
            return self.answers
        current = bytearray(self.answers)
        instants, places, answers = self._columns()
        for place, answer in zip(places[: bisect_right(instants, now)], answers, strict=False):
            shift = 2 * (place & 3)
            current[place >> 2] = current[place >> 2] & ~(3 << shift) | answer << shift
        return bytes(current)

    def changes(self, now: int) -> list[Change]:
        """Return the changes after an instant, in order."""
        if not self._number:
            return []
        instants, places, answers = self._columns()
        changes = list(zip(instants, places, answers, strict=True))
        return changes if now < self.first else changes[bisect_right(instants, now) :]

    def _columns(self) -> tuple[Sequence[int], Sequence[int], bytes]:
        number, at = self._number, self._start
        instants = unpack_from(f"<{number}q", self._data, at)
        places = unpack_from(f"<{number}H", self._data, at + 8 * number)
        at += 10 * number
        return instants, places, self._data[at : at + number]


def read_outlook(data: bytes, stamp: int, conditions: int) -> Outlook | None:
    """Return the outlook at the end of a string; None if there is none, or not for these conditions.

    Parameters
    ----------
    data
        the end of what the store keeps of an entity's events: :func:`longest` bytes, or all of it.
    stamp, conditions
        what the conditions are told by, and how many they are.
    """
    start = len(data) - _FOOT.size
    if start < 0 or data[-1] != MARK:
        return None
    its_stamp, begins_at, ends_at, first, number, checksum, _ = _FOOT.unpack_from(data, start)
    if its_stamp != stamp:
        return None
    width = -(-conditions // _ANSWERS_IN_BYTE)
    begin = start - width - _CHANGE * number
    if begin < 0 or zlib.crc32(data[begin:start]) != checksum:
        return None
    return Outlook(data[begin : begin + width], begins_at, ends_at, first, data, begin + width, number)
