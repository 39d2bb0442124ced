"""Instants, durations and times of day: what is read, what is refused with which words, and what is written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules_engine.clock import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    WEEK,
    format_duration,
    format_instant,
    format_time_of_day,
    from_micros,
    now_micros,
    parse_duration,
    parse_instant,
    parse_time_of_day,
    to_micros,
)

#: Year 1 to 9999 with a margin for offsets.
instants = st.integers(to_micros(datetime(2, 1, 1, tzinfo=UTC)), to_micros(datetime(9998, 12, 31, tzinfo=UTC)))


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00Z", 0),
        ("1970-01-01 00:00:01z", SECOND),
        ("1970-01-01t01:00:00+01:00", 0),
        ("1969-12-31T18:30:00-0530", 0),
        ("1970-01-01T00:00:00.5Z", SECOND // 2),
        ("1970-01-01T00:00:00.000001Z", 1),
        ("1969-12-31T23:59:59.999999Z", -1),
        ("2000-02-29T00:00:00Z", 11016 * DAY),
    ],
)
def test_instants_that_are_read(text: str, micros: int) -> None:
    assert parse_instant(text) == micros


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2026-01-31", "`2026-01-31` has no offset: write e.g. `2026-01-31T00:00:00Z`"),
        ("2026-01-31T09:00", "`2026-01-31T09:00` has no offset: write e.g. `2026-01-31T09:00Z`"),
        ("2026-01-31 09:00:00.25", "has no offset: write e.g. `2026-01-31 09:00:00.25Z`"),
        ("2026-02-30T09:00:00Z", "is not an instant: day"),
        ("2026-01-31T25:00:00Z", "is not an instant: hour"),
        ("2026-01-31T09:00:00.1234567Z", "is not an instant: write e.g."),
        ("31.01.2026 09:00", "is not an instant: write e.g. `2026-01-31T09:00:00Z`"),
        ("0001-01-01T00:00:00+14:00", "is not an instant"),
        ("２０２６-01-31T09:00:00Z", "is not an instant"),
        ("2026-01-31T09:00:00Z\n", "is not an instant"),
        ("", "is not an instant"),
    ],
)
def test_instants_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"^`") as caught:
        parse_instant(text)
    assert message in str(caught.value)


@given(instants)
def test_what_is_written_is_read_again(micros: int) -> None:
    assert parse_instant(format_instant(micros)) == micros
    assert to_micros(from_micros(micros)) == micros


@given(instants, st.integers(-14 * 60, 14 * 60))
def test_the_offset_does_not_change_the_instant(micros: int, minutes: int) -> None:
    zone = timezone(timedelta(minutes=minutes))
    assert parse_instant(from_micros(micros).astimezone(zone).isoformat()) == micros


def test_a_datetime_without_an_offset_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^2026-01-31T09:00:00 has no offset: .* e\.g\. 2026-01-31T09:00:00Z$"):
        to_micros(datetime(2026, 1, 31, 9))  # noqa: DTZ001 - that is what is tested


def test_now_is_the_wall_clock() -> None:
    before = datetime.now(UTC)
    assert to_micros(before) <= now_micros() <= to_micros(datetime.now(UTC)) + MINUTE


@pytest.mark.parametrize(
    ("text", "micros"),
    [("1s", SECOND), ("30m", 30 * MINUTE), ("24h", DAY), ("7d", WEEK), ("2w", 2 * WEEK), ("007d", WEEK)],
)
def test_durations_that_are_read(text: str, micros: int) -> None:
    assert parse_duration(text) == micros


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0s", "`0s` is no time at all"),
        ("1mo", "months and years differ in length"),
        ("3M", "months and years differ in length"),
        ("1 year", "months and years differ in length"),
        ("1.5h", "`1.5h` is not a duration: write a whole number and one of s, m, h, d, w"),
        ("1H", "is not a duration"),
        ("-1h", "is not a duration"),
        ("1h30m", "is not a duration"),
        ("10", "is not a duration"),
        ("h", "is not a duration"),
        ("1000000000d", "is not a duration"),
        ("٣m", "is not a duration"),
        ("30m\n", "is not a duration"),
    ],
)
def test_durations_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"^`") as caught:
        parse_duration(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("micros", "text"),
    [
        (0, "0s"),
        (45 * SECOND, "45s"),
        (90 * SECOND, "90s"),
        (90 * MINUTE, "90m"),
        (24 * HOUR, "1d"),
        (36 * HOUR, "36h"),
        (400 * DAY, "400d"),
        (HOUR + 500_000, "1h 0.5s"),
        (2 * DAY + 3 * HOUR + 4 * MINUTE + 5 * SECOND + 1, "2d 3h 4m 5.000001s"),
        (1, "0.000001s"),
        (-HOUR, "-1h"),
    ],
)
def test_durations_as_people_write_them(micros: int, text: str) -> None:
    assert format_duration(micros) == text


@given(st.integers(1, 999), st.sampled_from("smhdw"))
def test_a_written_duration_is_as_long_as_the_one_that_was_read(number: int, unit: str) -> None:
    micros = parse_duration(f"{number}{unit}")
    shown = format_duration(micros)
    assert sum(parse_duration(part) for part in shown.split()) == micros


@pytest.mark.parametrize(
    ("text", "micros"),
    [("00:00", 0), ("09:30", 570 * MINUTE), ("23:59:59", DAY - SECOND), ("12:00:01", 43201 * SECOND)],
)
def test_times_of_day_that_are_read(text: str, micros: int) -> None:
    assert parse_time_of_day(text) == micros
    assert parse_time_of_day(format_time_of_day(micros)) == micros


@pytest.mark.parametrize("text", ["24:00", "9:30", "09:60", "09:30:60", "0930", "09:30 ", "09:30:00.5", "", "９:30"])
def test_times_of_day_that_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a time of day: write `HH:MM` or `HH:MM:SS`"):
        parse_time_of_day(text)


def test_a_time_of_day_with_a_fraction_is_written_with_it() -> None:
    assert format_time_of_day(570 * MINUTE + 1) == "09:30:00.000001"
    assert format_time_of_day(5 * SECOND) == "00:00:05"


def test_what_no_calendar_holds_is_said_in_words() -> None:
    assert format_instant(2**62) == "after the year 9999"
    assert format_instant(-(2**62)) == "before the year 1"
