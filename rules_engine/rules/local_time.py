"""The local time that a clock condition reads, and the instants at which it can cross a boundary."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from rules_engine.clock import DAY, HOUR, MINUTE, SECOND, from_micros, to_micros
from rules_engine.rules.forms import WEEKDAYS


@lru_cache(maxsize=1024)
def find_zone(name: str) -> ZoneInfo | None:
    """Return an IANA time zone, or None if there is none of that name.

    >>> find_zone("Europe/Oslo"), find_zone("Mars/Olympus")
    (zoneinfo.ZoneInfo(key='Europe/Oslo'), None)
    """
    if name.startswith(("posix", "right/")):  # copies with other rules, which only some systems have
        return None
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown, malformed (also "../x"), or a folder of zones
        return None


# Many entities are asked about at one instant, and look at the same days: so what was worked out is remembered.
@lru_cache(maxsize=4096)
def local_time(now: int, zone_name: str) -> tuple[int, str] | None:
    """Return microseconds since local midnight and the day of the week; None for an unknown zone.

    >>> local_time(0, "Asia/Tokyo")
    (32400000000, 'thursday')
    """
    zone = find_zone(zone_name)
    if zone is None:
        return None
    local = from_micros(now).astimezone(zone)
    micros = local.hour * HOUR + local.minute * MINUTE + local.second * SECOND + local.microsecond
    return micros, WEEKDAYS[local.weekday()]


def crossings(after: int, until: int, zone_name: str, times_of_day: Collection[int]) -> Iterator[int]:
    """Yield the instants in (after, until] at which local time may reach a boundary, ascending.

    A boundary is one of ``times_of_day`` (microseconds since local midnight), or a shift of the zone's offset. Between
    two of these instants local time runs evenly, so a condition on it cannot change unnoticed.
    """
    zone = find_zone(zone_name)
    if zone is None:
        return
    times = frozenset(times_of_day)
    day = from_micros(after - after % DAY - DAY)
    pending: set[int] = set()
    while to_micros(day) <= until + 2 * DAY:
        pending |= _day_crossings(day, zone, times)
        # No zone is a whole day from UTC, so no later local day adds anything before this day's start.
        ready = {instant for instant in pending if instant <= to_micros(day)}
        yield from (instant for instant in sorted(ready) if after < instant <= until)
        pending -= ready
        day += timedelta(days=1)


@lru_cache(maxsize=4096)
def _day_crossings(day: datetime, zone: ZoneInfo, times_of_day: frozenset[int]) -> frozenset[int]:
    """Return the boundaries of one local calendar day, and the day's shift of the offset.

    A wall time that occurs twice on this day gives two instants.
    """
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    instants = set()
    for micros in times_of_day:
        wall = midnight + timedelta(microseconds=micros)
        instants |= {to_micros(wall.replace(fold=fold).astimezone(UTC)) for fold in (0, 1)}
    start, end = to_micros(day), to_micros(day) + DAY
    if _offset(start, zone) != _offset(end, zone):
        instants.add(_shift(start, end, zone))
    return frozenset(instants)


def _offset(instant: int, zone: ZoneInfo) -> timedelta | None:
    return from_micros(instant).astimezone(zone).utcoffset()


def _shift(low: int, high: int, zone: ZoneInfo) -> int:
    """Return the first instant in (low, high] with the offset of ``high``, by bisection."""
    target = _offset(high, zone)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _offset(middle, zone) == target else (middle, high)
    return high
