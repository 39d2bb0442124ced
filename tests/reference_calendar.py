"""Units of the calendar and anniversaries, for the brute-force reference; see `tests.reference`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
LONGEST = {"day": 1, "week": 7, "month": 31, "quarter": 92, "year": 366}


def unit_number(unit: str, day: date, first_day: int) -> int:
    """Count calendar units up to the one that a day lies in."""
    months = day.year * 12 + day.month - 1
    numbers = {"day": day.toordinal(), "week": (day.toordinal() - 1 - first_day) // 7, "month": months}
    return numbers.get(unit, months // 3 if unit == "quarter" else day.year)


def in_units(span: Mapping[str, Any], value: datetime, now: datetime) -> bool:
    """Tell whether an instant lies in the units of the calendar around now."""
    zone = ZoneInfo(span.get("timezone", "UTC"))
    return day_in_units(span, value.astimezone(zone).date(), now)


def day_in_units(span: Mapping[str, Any], day: date, now: datetime) -> bool:
    today = now.astimezone(ZoneInfo(span.get("timezone", "UTC"))).date()
    first_day = DAYS.index(span.get("first_day", "monday"))
    ahead = unit_number(span["calendar"], day, first_day) - unit_number(span["calendar"], today, first_day)
    if span.get("last", "this") != "this":
        return -int(span["last"]) <= ahead < 0
    return 0 < ahead <= int(span["next"]) if span.get("next", "this") != "this" else ahead == 0


def has_anniversary(span: Mapping[str, Any], value: datetime, now: datetime) -> bool:
    """Try the day of every year around now; 29 February is 28 February in years without it."""
    born = value.astimezone(UTC).date()
    return any(day_in_units(span, anniversary(born, now.year + years), now) for years in (-2, -1, 0, 1, 2))


def anniversary(born: date, year: int) -> date:
    try:
        return born.replace(year=year)
    except ValueError:
        return date(year, 2, 28)


def reach(span: Mapping[str, Any]) -> timedelta:
    """Return how far from a value its answer may change, at most."""
    most = max(int(span[key]) if span.get(key, "this") != "this" else 1 for key in ("last", "next"))
    return timedelta(days=(most + 2) * LONGEST[span["calendar"]])
