"""Instants and durations. Inside the package an instant is a whole number of microseconds since the epoch, UTC."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
WEEK = 7 * DAY

UNITS = {"s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY, "w": WEEK}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: Python's calendar ends with the year 9999, and local time needs some days before that. What would change later never
#: does: a date such as 9999-12-31 stands for "never" in many a database.
LAST_INSTANT = (datetime(9999, 12, 1, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)

#: Events of before are refused: they come from clocks that were never set, and from programs' zero times.
FIRST_INSTANT = (datetime(1900, 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)

_DURATION = re.compile(r"([0-9]{1,9})([smhdw])\Z", re.ASCII)
# A calendar date with a time of day and an offset. Fractions beyond microseconds are refused, not rounded.
_INSTANT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?([Zz]|[+-][0-9]{2}:?[0-9]{2})\Z",
    re.ASCII,
)
_LOCAL_INSTANT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ][0-9:.]+)?\Z", re.ASCII)
_CALENDAR = re.compile(r"[0-9]+ ?(mo|mon|month|months|y|yr|year|years|q|quarter|quarters|M|Y)\Z", re.ASCII)
_TIME_OF_DAY = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9]))?\Z", re.ASCII)


def now_micros() -> int:
    """Return the wall clock, in microseconds since the epoch."""
    return time.time_ns() // 1000


def to_micros(instant: datetime) -> int:
    """Return an aware datetime as microseconds since the epoch.

    Raises
    ------
    ValueError
        if the datetime has no offset.

    >>> to_micros(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC))
    1000000
    """
    if instant.tzinfo is None:
        raise ValueError(f"{instant.isoformat()} has no offset: write the time zone, e.g. {instant.isoformat()}Z")
    return (instant - _EPOCH) // timedelta(microseconds=1)


def from_micros(micros: int) -> datetime:
    """Return microseconds since the epoch as an aware datetime in UTC.

    >>> from_micros(1_500_000).isoformat()
    '1970-01-01T00:00:01.500000+00:00'
    """
    return _EPOCH + timedelta(microseconds=micros)


def format_instant(micros: int) -> str:
    """Write an instant in ISO 8601, UTC, with the digits that are needed; in words if no calendar holds it.

    >>> format_instant(0), format_instant(1_500_000), format_instant(2**62)
    ('1970-01-01T00:00:00Z', '1970-01-01T00:00:01.500000Z', 'after the year 9999')
    """
    try:
        return from_micros(micros).isoformat().replace("+00:00", "Z")
    except OverflowError:
        return "after the year 9999" if micros > 0 else "before the year 1"


def parse_instant(text: str) -> int:
    """Return an ISO 8601 instant with an offset, as microseconds since the epoch.

    Raises
    ------
    ValueError
        if the text is no instant, has no offset, or names a day that does not exist.

    >>> parse_instant("1970-01-01T01:00:00+01:00")
    0
    """
    if not _INSTANT.match(text):
        if _LOCAL_INSTANT.match(text):
            raise ValueError(f"`{text}` has no offset: write e.g. `{_with_offset(text)}`")
        raise ValueError(f"`{text}` is not an instant: write e.g. `2026-01-31T09:00:00Z`")
    try:
        micros = to_micros(datetime.fromisoformat(text.upper()))
        from_micros(micros)  # in UTC it may lie outside of the calendar
        return micros
    except (ValueError, OverflowError) as error:
        raise ValueError(f"`{text}` is not an instant: {error}") from None


def _with_offset(text: str) -> str:
    return text + "Z" if len(text) > len("2026-01-31") else text + "T00:00:00Z"


def parse_duration(text: str) -> int:
    """Return a whole number of ``s m h d w`` as microseconds.

    Raises
    ------
    ValueError
        if the text is no duration, is zero, or is a calendar month or year, whose length is not fixed.

    >>> parse_duration("30m") // MINUTE
    30
    """
    match = _DURATION.match(text)
    if match and int(match[1]) > 0:
        return int(match[1]) * UNITS[match[2]]
    if match:
        raise ValueError(f"`{text}` is no time at all: a duration is at least `1s`")
    if _CALENDAR.match(text):
        raise ValueError(
            f"`{text}`: months and years differ in length and are no durations; write days, e.g. `30d` or `365d`"
        )
    raise ValueError(
        f"`{text}` is not a duration: write a whole number and one of s, m, h, d, w, e.g. `30m`, `24h`, `7d`"
    )


def format_duration(micros: int) -> str:
    """Return the shortest exact text of a duration, or a sum of parts where no single unit fits.

    >>> format_duration(90 * MINUTE), format_duration(24 * HOUR), format_duration(HOUR + 500_000)
    ('90m', '1d', '1h 0.5s')
    """
    if micros < 0:
        return "-" + format_duration(-micros)
    if micros == 0:
        return "0s"
    for unit, size in (("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", SECOND)):
        if micros % size == 0 and micros // size < 1000:
            return f"{micros // size}{unit}"
    parts = []
    for unit, size in (("d", DAY), ("h", HOUR), ("m", MINUTE)):
        count, micros = divmod(micros, size)
        if count:
            parts.append(f"{count}{unit}")
    if micros:
        parts.append(f"{micros / SECOND:.6f}".rstrip("0").rstrip(".") + "s")
    return " ".join(parts)


def parse_time_of_day(text: str) -> int:
    """Return ``HH:MM`` or ``HH:MM:SS`` as microseconds since local midnight.

    Raises
    ------
    ValueError
        if the text is no time of day.

    >>> parse_time_of_day("09:30") // MINUTE
    570
    """
    match = _TIME_OF_DAY.match(text)
    if not match:
        raise ValueError(f"`{text}` is not a time of day: write `HH:MM` or `HH:MM:SS`, from 00:00 to 23:59:59")
    return int(match[1]) * HOUR + int(match[2]) * MINUTE + int(match[3] or 0) * SECOND


def format_time_of_day(micros: int) -> str:
    """Return the inverse of :func:`parse_time_of_day`, with a fraction where there is one.

    >>> format_time_of_day(570 * MINUTE)
    '09:30'
    """
    hours, rest = divmod(micros, HOUR)
    minutes, rest = divmod(rest, MINUTE)
    text = f"{hours:02d}:{minutes:02d}"
    if rest:
        text += f":{rest / SECOND:09.6f}".rstrip("0").rstrip(".")
    return text
