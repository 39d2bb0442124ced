"""Every instant at which an answer could change, for the brute-force reference; see `tests.reference`."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta, tzinfo
from itertools import combinations_with_replacement
from typing import Any
from zoneinfo import ZoneInfo

from tests.reference_calendar import reach
from tests.reference_values import (
    RELATIVE_TIME,
    Condition,
    World,
    duration,
    operator_of,
    time_of_day,
    zone_of,
)

TICK = timedelta(microseconds=1)


def candidates(condition: Condition, world: World) -> Iterator[datetime]:
    """Yield, in order, every instant after now at which the answer could change."""
    nodes = list(walk([condition, *world.segments.values()]))
    sources = data_moments(nodes, world) | set(calendar_moments(nodes, world))
    moments = sorted(moment for moment in sources if moment > world.now)
    clocks = [node for node in nodes if "clock" in node]
    ticks = clock_moments(clocks, world, moments[-1] if moments else world.now) if clocks else iter(())
    previous = world.now
    for moment in heapq.merge(moments, ticks):
        if moment > previous:
            yield moment
            previous = moment


def walk(data: Any) -> Iterator[Mapping[str, Any]]:
    """Yield every mapping in plain data."""
    if isinstance(data, Mapping):
        yield data
        for value in data.values():
            yield from walk(value)
    elif isinstance(data, list | tuple):
        for value in data:
            yield from walk(value)


def data_moments(nodes: list[Mapping[str, Any]], world: World) -> set[datetime]:
    """Return every event, time and expiry, moved by every duration of the condition, to the microsecond."""
    lengths = durations_of(nodes)
    in_sequences = durations_of(list(walk([node for node in nodes if "sequence" in node])))
    sums = {
        sum(some, timedelta()) for many in (2, 3) for some in combinations_with_replacement(sorted(in_sequences), many)
    }
    zero = timedelta()
    moments = {event["at"] + step for event in world.events for step in {zero} | lengths | sums}
    times = set(find_times([world.features, world.context, [dict(event) for event in world.events]]))
    moments |= {time + sign * step for time in times for step in {zero} | lengths for sign in (1, -1)}
    moments |= {world.updated_at[view] + life for view, life in world.ttl.items() if view in world.updated_at}
    return {moment.astimezone(UTC) + sign * TICK for moment in moments for sign in (-1, 0, 1)}


def calendar_moments(nodes: list[Mapping[str, Any]], world: World) -> Iterator[datetime]:
    """Yield the local midnights after now, until every event has left every calendar window."""
    windows = [node for node in nodes if "calendar" in node]
    times = find_times([world.features, world.context])
    latest = max([world.now, *(event["at"] for event in world.events), *times])
    for window in windows:
        end = latest + reach(window)
        if any("anniversary_in" in node for node in nodes):
            end = max(end, world.now + timedelta(days=3 * 366))
        for number in range((end - world.now).days + 2):
            day = (world.now + timedelta(days=number)).date()
            yield from boundaries(ZoneInfo(window.get("timezone", "UTC")), day, {0})


def durations_of(nodes: list[Mapping[str, Any]]) -> set[timedelta]:
    texts = {node[key] for node in nodes for key in ("within", *RELATIVE_TIME) if isinstance(node.get(key), str)}
    texts |= {text for node in nodes for text in node.get("between_ago", ())}
    return {long for long in map(duration, texts) if long is not None}


def find_times(data: Any) -> Iterator[datetime]:
    if isinstance(data, datetime):
        yield data
    elif isinstance(data, Mapping):
        yield from find_times(list(data.values()))
    elif isinstance(data, list | tuple):
        for value in data:
            yield from find_times(value)


def clock_moments(clocks: list[Mapping[str, Any]], world: World, last: datetime) -> Iterator[datetime]:
    """Yield every boundary of the clock conditions, day by day.

    In one zone sixteen days after the last other change see every weekday and time of day, whatever the
    daylight saving change between; two zones may only meet while their offsets differ, so a year is tried.
    """
    zones = {zone for zone in (zone_of(node, world) for node in clocks) if zone is not None}
    seconds = {0}
    for node in clocks:
        if node["clock"] == "time_of_day":
            literal = node[operator_of(node)]
            seconds |= {time_of_day(item) for item in (literal if isinstance(literal, list) else [literal])}
    end = last + timedelta(days=16 if len(zones) < 2 else 400)
    day = world.now.date()
    while day <= end.date():
        found = {moment for zone in zones for moment in boundaries(zone, day, seconds)}
        yield from sorted(moment for moment in found if moment.date() == day)
        day += timedelta(days=1)


def boundaries(zone: tzinfo, day: date, seconds: set[int]) -> Iterator[datetime]:
    """Yield the instants around a UTC day at which a clock in `zone` shows one of `seconds`, or is changed."""
    for shift in (-1, 0, 1):
        midnight = datetime(day.year, day.month, day.day, tzinfo=zone) + timedelta(days=shift)
        for second in seconds:
            for fold in (0, 1):
                local = (midnight + timedelta(seconds=second)).replace(fold=fold)  # wall clock arithmetic
                yield from around(local.astimezone(UTC))
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    for hour in range(24):
        begin, end = start + timedelta(hours=hour), start + timedelta(hours=hour + 1)
        if offset(begin, zone) != offset(end, zone):
            yield from around(clock_change(begin, end, zone))


def around(moment: datetime) -> list[datetime]:
    return [moment - TICK, moment, moment + TICK]


def offset(moment: datetime, zone: tzinfo) -> timedelta | None:
    return moment.astimezone(zone).utcoffset()


def clock_change(begin: datetime, end: datetime, zone: tzinfo) -> datetime:
    """Return the second in (begin, end] from which the zone has the offset that it has at `end`."""
    for second in range(1, int((end - begin).total_seconds())):
        if offset(begin + timedelta(seconds=second), zone) == offset(end, zone):
            return begin + timedelta(seconds=second)
    return end
