"""Windows of event conditions that are no rolling duration: some time ago, between two instants, calendar units.

Each answers the same two questions for every target: which instants lie in it at a given time, and from when until when
an event is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import lru_cache

from rules_engine.clock import DAY, format_duration, format_instant, from_micros, to_micros
from rules_engine.rules.forms import WEEKDAYS
from rules_engine.rules.local_time import find_zone

#: The bounds of a window: instants later than the first (None: any), up to the second.
Bounds = tuple[int | None, int]

#: The time in which an event is in a window: from the first instant, until before the second (None: for ever).
Stay = tuple[int, int | None]

#: How many units a calendar window looks back at most.
MAX_UNITS = 1000

_EARLIER_THAN_ALL, _LATER_THAN_ALL = -(2**62), 2**62


@dataclass(frozen=True, slots=True)
class AgoWindow:
    """The time between two durations ago: (now - begin, now - end]; ``begin`` None has no start."""

    begin: int | None
    end: int

    @property
    def horizon(self) -> int | None:
        """Return how old an event is, at most, that lies in the window; None: any age."""
        return self.begin

    def bounds(self, now: int) -> Bounds:
        """Return the bounds at an instant.

        >>> AgoWindow(60, 30).bounds(100)
        (40, 70)
        """
        return None if self.begin is None else now - self.begin, now - self.end

    def stay(self, at: int) -> Stay | None:
        """Return when an event of this instant is in the window; None: never.

        >>> AgoWindow(60, 30).stay(100)
        (130, 160)
        """
        return at + self.end, None if self.begin is None else at + self.begin

    def __str__(self) -> str:
        begin = "ever" if self.begin is None else format_duration(self.begin)
        return f"between {format_duration(self.end)} and {begin} ago"


@dataclass(frozen=True, slots=True)
class FixedWindow:
    """The time from one instant until before another: [start, end); None has no start, or no end."""

    start: int | None
    end: int | None

    @property
    def horizon(self) -> int | None:
        """Return None: an event stays in the window however old it gets."""
        return None

    def bounds(self, now: int) -> Bounds:
        """Return the bounds at an instant.

        >>> FixedWindow(10, 20).bounds(15), FixedWindow(10, 20).bounds(99)
        ((9, 15), (9, 19))
        """
        return None if self.start is None else self.start - 1, now if self.end is None else min(now, self.end - 1)

    def stay(self, at: int) -> Stay | None:
        """Return when an event of this instant is in the window; None: never."""
        inside = (self.start is None or at >= self.start) and (self.end is None or at < self.end)
        return (at, None) if inside else None

    def __str__(self) -> str:
        start = "" if self.start is None else f"from {format_instant(self.start)}"
        return f"{start} {'' if self.end is None else f'until {format_instant(self.end)}'}".strip()


@dataclass(frozen=True, slots=True)
class CalendarWindow:
    """The calendar unit of now up to now (``last`` 0), or the whole units before it, as the clocks of a zone show them.

    A unit begins with the first instant of its first day there. A day that a zone skipped is empty.
    """

    unit: str
    last: int
    timezone: str = "UTC"
    first_day: str = "monday"

    @property
    def horizon(self) -> int | None:
        """Return how old an event is, at most, that lies in the window, with a day for changes of the clock."""
        return (self.last + 1) * UNITS[self.unit].longest * DAY + DAY

    def bounds(self, now: int) -> tuple[int, int]:
        """Return the bounds at an instant.

        >>> may_2 = to_micros(datetime(2024, 5, 2, tzinfo=UTC))
        >>> after, until = CalendarWindow("month", 1).bounds(may_2)
        >>> from_micros(after + 1).date().isoformat(), from_micros(until).date().isoformat()
        ('2024-04-01', '2024-04-30')
        """
        number = self.number(now)
        if not self.last:
            return self.start(number) - 1, now
        return self.start(number - self.last) - 1, self.start(number) - 1

    def stay(self, at: int) -> tuple[int, int]:
        """Return when an event of this instant is in the window."""
        number = self.number(at)
        enters = self.start(number + 1) if self.last else at
        return enters, self.start(number + 1 + self.last)

    def number(self, at: int) -> int:
        """Return the number of the unit that an instant lies in."""
        zone = find_zone(self.timezone)
        assert zone is not None, self.timezone
        number = UNITS[self.unit].number(from_micros(at).astimezone(zone).date().toordinal(), self.shift)
        while self.start(number) > at:  # where clocks are put back over midnight, a day shows twice
            number -= 1
        while self.start(number + 1) <= at:
            number += 1
        return number

    def start(self, number: int) -> int:
        """Return the first instant of a unit."""
        return _start_of_day(UNITS[self.unit].first_day(number, self.shift), self.timezone)

    @property
    def shift(self) -> int:
        """Return how many days after Monday weeks begin."""
        return WEEKDAYS.index(self.first_day)

    def __str__(self) -> str:
        zone = "" if self.timezone == "UTC" else f" in {self.timezone}"
        if not self.last:
            return f"this {self.unit}{zone}"
        return f"in the last {f'{self.last} {self.unit}s' if self.last > 1 else self.unit}{zone}"


@dataclass(frozen=True, slots=True)
class BeforeWindow:
    """All time before a calendar window."""

    window: CalendarWindow

    @property
    def horizon(self) -> int | None:
        """Return None: an event stays in the window however old it gets."""
        return None

    def bounds(self, now: int) -> Bounds:
        """Return the bounds at an instant."""
        after, _ = self.window.bounds(now)
        return None, after

    def stay(self, at: int) -> Stay | None:
        """Return when an event of this instant is in the window.

        >>> BeforeWindow(CalendarWindow("day", 0)).stay(5)
        (86400000000, None)
        """
        _, leaves = self.window.stay(at)
        return leaves, None

    def __str__(self) -> str:
        return f"before {self.window}"


Window = AgoWindow | FixedWindow | CalendarWindow | BeforeWindow


def before(within: int | None, window: Window | None) -> Window | None:
    """Return all time before a window, the rolling one of ``within`` if there is no other; None if it has no start.

    >>> str(before(DAY, None)), before(None, None) is None
    ('between 1d and ever ago', True)
    """
    match window:
        case None:
            return None if within is None else AgoWindow(None, within)
        case AgoWindow(begin):
            return None if begin is None else AgoWindow(None, begin)
        case FixedWindow(start):
            return None if start is None else FixedWindow(None, start)
        case CalendarWindow():
            return BeforeWindow(window)
        case BeforeWindow():
            return None


# --- calendar units -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CalendarUnit:
    """A unit of the calendar; its days are counted from 1 January of the year 1, which was a Monday.

    Attributes
    ----------
    number
        ``(day, first day of the week) ->`` the number of the unit that the day is in.
    first_day
        the inverse: the unit's first day.
    longest
        how many days it has at most.
    """

    number: Callable[[int, int], int]
    first_day: Callable[[int, int], int]
    longest: int


def _of_months(months: int) -> CalendarUnit:
    def number(day: int, _shift: int) -> int:
        return (date.fromordinal(day).year * 12 + date.fromordinal(day).month - 1) // months

    def first_day(unit: int, _shift: int) -> int:
        year, month = divmod(unit * months, 12)
        return date(year, month + 1, 1).toordinal() if 1 <= year <= 9999 else year * 366

    return CalendarUnit(number, first_day, {1: 31, 3: 92, 12: 366}[months])


UNITS: Mapping[str, CalendarUnit] = {
    "day": CalendarUnit(lambda day, _shift: day, lambda unit, _shift: unit, 1),
    "week": CalendarUnit(lambda day, shift: (day - 1 - shift) // 7, lambda unit, shift: unit * 7 + 1 + shift, 7),
    "month": _of_months(1),
    "quarter": _of_months(3),
    "year": _of_months(12),
}


@lru_cache(maxsize=4096)
def _start_of_day(day: int, timezone: str) -> int:
    """Return the first instant at which the date in a zone is a day or a later one."""
    if not 2 <= day < date.max.toordinal():
        return _EARLIER_THAN_ALL if day < 2 else _LATER_THAN_ALL
    zone = find_zone(timezone)
    assert zone is not None, timezone
    midnight = datetime.combine(date.fromordinal(day), datetime.min.time(), zone)
    start = to_micros(midnight.astimezone(UTC))
    if _day_of(start - 1, timezone) < day:
        return start
    low, high = start - DAY, start  # the clocks were put forward over midnight
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _day_of(middle, timezone) >= day else (middle, high)
    return high


def _day_of(at: int, timezone: str) -> int:
    return from_micros(at).astimezone(find_zone(timezone)).date().toordinal()
