"""The newest transitions, in memory, for streams that begin where an earlier one ended."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import orjson

#: An id of the stream of transitions: its millisecond, and its number in it.
Position = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Announcement:
    """One transition, as streams send it.

    Attributes
    ----------
    position
        its id.
    entity, segment
        who entered or left what.
    public, whole
        what is sent to keys that see public segments only, and to all others.
    """

    position: Position
    entity: str
    segment: str
    public: bytes
    whole: bytes


def read_announcement(entry: bytes, content: bytes) -> Announcement | None:
    """Return an entry of the stream as it is sent; None if it is no transition.

    >>> content = b'{"entity":"42","segment":"vip","change":"enter","at":"T","cause":"timer"}'
    >>> announcement = read_announcement(b"7-0", content)
    >>> print(announcement.public.decode())
    id: 7-0
    event: enter
    data: {"segment":"vip","at":"T"}
    <BLANKLINE>
    id: 7-0
    data: {"type":"refetchEvaluation"}
    <BLANKLINE>
    <BLANKLINE>
    """
    try:
        transition: dict[str, Any] = orjson.loads(content)
        entity, segment, change = transition["entity"], transition["segment"], transition["change"]
        public = {"segment": segment, "at": transition["at"]}
        position = read_position(entry.decode())
        return Announcement(position, entity, segment, _sent(entry, change, public), _sent(entry, change, transition))
    except (ValueError, KeyError, TypeError):
        return None


def _sent(entry: bytes, change: str, content: dict[str, Any]) -> bytes:
    data = orjson.dumps(content)
    return b"id: %b\nevent: %b\ndata: %b\n\n%b" % (entry, change.encode(), data, refetch(entry))


def refetch(entry: bytes) -> bytes:
    """Return OFREP's event that asks a provider to evaluate anew."""
    return b'id: %b\ndata: {"type":"refetchEvaluation"}\n\n' % entry


def read_position(text: str) -> Position:
    """Return an id as numbers.

    Raises
    ------
    ValueError
        if it is none.

    >>> read_position("1772323200000-3")
    (1772323200000, 3)
    """
    milliseconds, _, number = text.partition("-")
    return int(milliseconds), int(number)


class RecentTransitions:
    """Keeps the newest announcements, by entity.

    Parameters
    ----------
    limit
        how many.

    Attributes
    ----------
    floor
        everything after this position is here.
    """

    def __init__(self, limit: int) -> None:
        self.floor: Position = (0, 0)
        self._limit = limit
        self._newest: deque[Announcement] = deque()
        self._by_entity: dict[str, deque[Announcement]] = {}

    def add(self, announcement: Announcement) -> None:
        """Keep one more; the oldest goes if there are too many."""
        self._newest.append(announcement)
        self._by_entity.setdefault(announcement.entity, deque()).append(announcement)
        if len(self._newest) > self._limit:
            oldest = self._newest.popleft()
            self.floor = oldest.position
            mine = self._by_entity[oldest.entity]
            mine.popleft()
            if not mine:
                del self._by_entity[oldest.entity]

    def after(self, entity: str, position: Position) -> list[Announcement] | None:
        """Return what was announced of an entity after a position; None if that is not known any more."""
        if position < self.floor:
            return None
        return [announcement for announcement in self._by_entity.get(entity, ()) if announcement.position > position]

    def clear(self, floor: Position) -> None:
        """Forget everything; only what comes after a position will be here."""
        self._newest.clear()
        self._by_entity.clear()
        self.floor = floor
