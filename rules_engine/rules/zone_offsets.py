"""Tell how far the clocks of a zone are from UTC, as a table: local time is then arithmetic, in SQL too."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

from rules_engine.clock import DAY, from_micros, to_micros
from rules_engine.rules.local_time import find_zone

_FIRST = to_micros(datetime(1900, 1, 1, tzinfo=UTC))


def local_midnight(at: int, zone_name: str) -> int | None:
    """Return the local midnight before an instant, in microseconds of local time; None for an unknown zone.

    It tells the days of a zone apart, and orders them.

    >>> local_midnight(0, "Asia/Tokyo"), local_midnight(-1, "UTC")
    (0, -86400000000)
    """
    zone = find_zone(zone_name)
    if zone is None:
        return None
    local = at + _offset(at, zone_name)
    return local - local % DAY


@lru_cache(maxsize=64)
def zone_offsets(zone_name: str, until: int) -> tuple[tuple[int, int], ...]:
    """Return the offsets of a zone until an instant: each with the instant before which it holds; the last ends never.

    >>> [offset // 3_600_000_000 for _, offset in zone_offsets("Asia/Kolkata", 0)][-1]
    5
    """
    offsets: list[tuple[int, int]] = []
    day, offset = _FIRST, _offset(_FIRST, zone_name)
    while day < until:
        following = min(day + DAY, until)
        changed = _offset(following, zone_name)
        if changed != offset:
            offsets.append((_change(day, following, zone_name), offset))
            offset = changed
        day = following
    return (*offsets, (2**62, offset))


def _offset(at: int, zone_name: str) -> int:
    """Return how far local time is ahead, in microseconds."""
    offset = from_micros(at).astimezone(find_zone(zone_name)).utcoffset()
    assert offset is not None
    return round(offset.total_seconds()) * 1_000_000


def _change(low: int, high: int, zone_name: str) -> int:
    """Return the first instant in (low, high] with the offset of ``high``, by bisection."""
    target = _offset(high, zone_name)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _offset(middle, zone_name) == target else (middle, high)
    return high
