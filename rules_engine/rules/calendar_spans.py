"""Units of the calendar around now: whether a time lies in them, or the anniversary of a date does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import lru_cache

from rules_engine.clock import DAY, from_micros
from rules_engine.rules.windows import UNITS, CalendarWindow

#: For how many years the anniversaries of a date are looked ahead: weekdays and leap years have come by then.
YEARS_AHEAD = 40

#: Days from 1 March of the year 0 to 1970, and in 400 years, 100 years, 4 years and a year. Years are counted from
#: March, so that a leap day is the last day of its year, and month and day alone tell the place of a date in it.
MARCH_0 = 719_468
ERA, CENTURY, OLYMPIAD, YEAR = 146_097, 36_524, 1_461, 365

#: How many days a unit has at least, so that 12 months are a year.
_SHORTEST = {"day": 1, "week": 7, "month": 30.5, "quarter": 91.5, "year": 366}

#: The places of 28 and 29 February.
_FEBRUARY_28, _FEBRUARY_29 = 364, 365


@dataclass(frozen=True, slots=True)
class CalendarSpan:
    """Neighbouring units of the calendar, as the clocks of a zone show them.

    Attributes
    ----------
    unit
        a name of :data:`rules_engine.rules.windows.UNITS`.
    first, last
        how many units after the one of now the first and the last of them are; below 0 before it.

    >>> may_2 = 19_845 * DAY
    >>> CalendarSpan("day", 1, 7).contains(may_2 + 7 * DAY, may_2), CalendarSpan("day", 0, 0).contains(may_2, may_2)
    (True, True)
    """

    unit: str
    first: int = 0
    last: int = 0
    timezone: str = "UTC"
    first_day: str = "monday"

    @property
    def _calendar(self) -> CalendarWindow:
        return CalendarWindow(self.unit, 0, self.timezone, self.first_day)

    def bounds(self, now: int) -> tuple[int, int]:
        """Return the first instant of the units at an instant, and the first one after them."""
        calendar = self._calendar
        number = calendar.number(now)
        return calendar.start(number + self.first), calendar.start(number + self.last + 1)

    @property
    def holds_a_year(self) -> bool:
        """Say whether every date has an anniversary in the units."""
        return (self.last - self.first + 1) * _SHORTEST[self.unit] >= 366 or self.unit == "year"

    # --- a time -----------------------------------------------------------------------------------------------------

    def contains(self, at: int, now: int) -> bool:
        """Say whether an instant lies in the units."""
        start, end = self.bounds(now)
        return start <= at < end

    def turns(self, at: int) -> tuple[int, int]:
        """Return from when until when an instant lies in the units."""
        return self._stay(self._calendar.number(at))

    def _stay(self, number: int) -> tuple[int, int]:
        calendar = self._calendar
        return calendar.start(number - self.last), calendar.start(number - self.first + 1)

    # --- an anniversary ---------------------------------------------------------------------------------------------

    def contains_anniversary(self, at: int, now: int) -> bool:
        """Say whether an anniversary of the date of an instant in UTC lies in the units.

        >>> leap_day, end_of_february = 19_782 * DAY, 20_147 * DAY
        >>> CalendarSpan("day").contains_anniversary(leap_day, end_of_february)
        True
        """
        return place_in_year(at) in self.places(now)

    def places(self, now: int) -> frozenset[int]:
        """Return the places in their year of the dates of which an anniversary lies in the units."""
        return _places(self.unit, self.first_day, self._calendar.number(now), self.first, self.last)

    def anniversary_turns(self, at: int, now: int) -> Iterator[int]:
        """Yield the instants, ascending, at which an anniversary begins or ends to lie in the units."""
        place, number = place_in_year(at), UNITS[self.unit].number
        year = from_micros(now).year
        for each in range(max(1, year - 1), min(9998, year + YEARS_AHEAD)):
            day = date(each, 3, 1).toordinal() + place
            yield from self._stay(number(_existing(day, place), self._calendar.shift))

    def __str__(self) -> str:
        zone = "" if self.timezone == "UTC" else f" in {self.timezone}"
        if not self.first and not self.last:
            return f"this {self.unit}{zone}"
        word, number = ("last", -self.first) if self.first < 0 else ("next", self.last)
        return f"the {word} {f'{number} {self.unit}s' if number > 1 else self.unit}{zone}"


def place_in_year(at: int) -> int:
    """Return the place of the date of an instant in UTC in its year: 0 is 1 March, 365 is 29 February.

    >>> [place_in_year(day * DAY) for day in (19_782, 19_783, 20_147)]  # 29 February and 1 March 2024, 28 February 2025
    [365, 0, 364]
    """
    in_era = (at // DAY + MARCH_0) % ERA
    in_century = CENTURY if in_era == ERA - 1 else in_era % CENTURY
    in_olympiad = in_century % OLYMPIAD
    return YEAR if in_olympiad == OLYMPIAD - 1 else in_olympiad % YEAR


def _existing(day: int, place: int) -> int:
    """Return the day of an anniversary: that of 29 February is 28 February in years without it."""
    return day - 1 if place == _FEBRUARY_29 and date.fromordinal(day).month == 3 else day


@lru_cache(maxsize=4096)
def _places(unit: str, first_day: str, number: int, first: int, last: int) -> frozenset[int]:
    calendar = CalendarWindow(unit, 0, first_day=first_day)
    begin, end = (UNITS[unit].first_day(number + step, calendar.shift) for step in (first, last + 1))
    places = set()
    for day in range(max(2, begin), min(end, date.max.toordinal())):
        place = place_in_year((day - _EPOCH) * DAY)
        places.add(place)
        if place == _FEBRUARY_28 and date.fromordinal(day + 1).month == 3:
            places.add(_FEBRUARY_29)
    return frozenset(places)


_EPOCH = date(1970, 1, 1).toordinal()
