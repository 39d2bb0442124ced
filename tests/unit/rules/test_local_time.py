"""Local time, and the instants at which a condition on it may change, in zones whose clocks do odd things."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest

from rules_engine.clock import DAY, HOUR, MINUTE, SECOND, from_micros, parse_instant, parse_time_of_day, to_micros
from rules_engine.rules.local_time import crossings, find_zone, local_time

NINE = parse_time_of_day("09:00")


def local(instant: str, zone: str) -> tuple[str, str]:
    found = local_time(parse_instant(instant), zone)
    assert found is not None
    minutes, rest = divmod(found[0], MINUTE)
    assert rest == 0
    return f"{minutes // 60:02d}:{minutes % 60:02d}", found[1]


@pytest.mark.parametrize(
    ("instant", "zone", "expected"),
    [
        ("2026-03-02T23:30:00Z", "UTC", ("23:30", "monday")),
        ("2026-03-02T23:30:00Z", "Asia/Tokyo", ("08:30", "tuesday")),
        ("2026-03-02T02:00:00Z", "America/New_York", ("21:00", "sunday")),
        ("2026-03-02T00:00:00Z", "Asia/Kathmandu", ("05:45", "monday")),
        ("2026-03-29T00:59:00Z", "Europe/Oslo", ("01:59", "sunday")),
        ("2026-03-29T01:00:00Z", "Europe/Oslo", ("03:00", "sunday")),
        ("2026-10-25T00:59:00Z", "Europe/Oslo", ("02:59", "sunday")),
        ("2026-10-25T01:00:00Z", "Europe/Oslo", ("02:00", "sunday")),
        ("2011-12-30T09:59:00Z", "Pacific/Apia", ("23:59", "thursday")),  # Samoa skipped a whole Friday
        ("2011-12-30T10:00:00Z", "Pacific/Apia", ("00:00", "saturday")),
    ],
)
def test_local_time(instant: str, zone: str, expected: tuple[str, str]) -> None:
    assert local(instant, zone) == expected


@pytest.mark.parametrize(
    "name", ["Mars/Olympus", "", "Europe", "../../etc/passwd", "/etc/localtime", "a\0b", "x" * 300]
)
def test_what_is_no_zone(name: str) -> None:
    assert find_zone(name) is None
    assert local_time(0, name) is None
    assert list(crossings(0, 10 * DAY, name, [NINE])) == []


def shown(after: str, until: str, zone: str, times: list[int]) -> list[str]:
    found = crossings(parse_instant(after), parse_instant(until), zone, times)
    return [from_micros(instant).strftime("%m-%dT%H:%M:%S") for instant in found]


def test_the_ends_of_the_span() -> None:
    assert shown("2026-03-02T09:00:00Z", "2026-03-04T09:00:00Z", "UTC", [NINE]) == ["03-03T09:00:00", "03-04T09:00:00"]


def test_the_day_on_which_clocks_go_forward() -> None:
    times = [0, parse_time_of_day("02:30")]  # 02:30 does not occur; the shift itself is at 01:00 UTC
    found = shown("2026-03-28T12:00:00Z", "2026-03-29T22:00:00Z", "Europe/Oslo", times)
    assert found == ["03-28T23:00:00", "03-29T00:30:00", "03-29T01:00:00", "03-29T01:30:00", "03-29T22:00:00"]


def test_the_day_on_which_clocks_go_back() -> None:
    times = [parse_time_of_day("02:30")]  # it occurs twice
    found = shown("2026-10-24T12:00:00Z", "2026-10-25T12:00:00Z", "Europe/Oslo", times)
    assert found == ["10-25T00:30:00", "10-25T01:00:00", "10-25T01:30:00"]


ZONES = [
    "UTC",
    "Europe/Oslo",
    "America/New_York",
    "America/St_Johns",  # half an hour
    "Asia/Kathmandu",  # three quarters of an hour
    "Australia/Lord_Howe",  # shifts by half an hour
    "Pacific/Apia",  # skipped a day in 2011
    "Pacific/Kiritimati",  # UTC+14
    "Etc/GMT+12",
    "America/Sao_Paulo",  # shifted at midnight
    "Africa/Casablanca",  # shifts around Ramadan
]
SPANS = ["2011-12-28", "2018-11-02", "2026-02-14", "2026-03-06", "2026-03-27", "2026-04-03", "2026-10-23", "2026-10-30"]


@pytest.mark.parametrize("zone", ZONES)
def test_between_two_crossings_nothing_changes(zone: str) -> None:
    """Four days around each date, looked at every five minutes: what differs is told by a crossing."""
    bounds = [0, parse_time_of_day("02:15"), NINE, NINE + 1, parse_time_of_day("23:59:59")]
    changes = 0
    for start in SPANS:
        after = to_micros(datetime.fromisoformat(start).replace(tzinfo=UTC))
        until = after + 4 * DAY
        found = list(crossings(after, until, zone, bounds))
        assert found == sorted(set(found))
        assert all(after < instant <= until for instant in found)
        instants = range(after, until + 1, 5 * MINUTE)
        for one, other in pairwise(instants):
            if state(one, zone, bounds) != state(other, zone, bounds):
                changes += 1
                assert any(one < instant <= other for instant in found), from_micros(one)
        for instant in found:  # at a crossing of the wall clock the new state holds at once, not a moment later
            if state(instant - 1, zone, bounds) != state(instant + SECOND, zone, bounds):
                assert state(instant, zone, bounds) != state(instant - 1, zone, bounds)
    assert changes > 4 * len(SPANS)


def state(instant: int, zone: str, bounds: list[int]) -> tuple[str, int]:
    """What a condition on the clock can tell: the weekday, and between which bounds the time lies."""
    found = local_time(instant, zone)
    assert found is not None
    return found[1], sum(found[0] >= bound for bound in bounds)


def test_a_year_of_crossings() -> None:
    year = list(crossings(0, 365 * DAY, "Europe/Oslo", [0, NINE]))
    assert len(year) == 2 * 365  # no daylight saving time in Oslo in 1970
    assert year[:3] == [8 * HOUR, 23 * HOUR, 32 * HOUR]
