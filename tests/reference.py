"""A brute-force evaluator of conditions, for tests only.

It is written from the design alone, shares no code with `rules_engine`, and is as plain as possible: every
window filters the whole log, every sequence enumerates all chains of events, and the instant of the next change is
found by trying every instant that could matter. It checks nothing: a condition that a definition file could not
hold raises `ValueError` or whatever Python raises.

Conditions are the plain data of a definition (dicts, lists, scalars as YAML 1.2 gives them). Times in features,
contexts and event properties are aware datetimes. Instants written in a condition are strings with an offset.

>>> from datetime import datetime, timezone
>>> noon = datetime(2024, 1, 1, 12, tzinfo=timezone.utc)
>>> reference_evaluate({"feature": "user:age", "at_least": 18}, features={"user:age": 30}, now=noon)
True
>>> viewed = {"event": "view", "at": datetime(2024, 1, 1, 11, 55, tzinfo=timezone.utc)}
>>> reference_changes_at({"did": "view", "within": "10m"}, events=[viewed], now=noon)
datetime.datetime(2024, 1, 1, 12, 5, tzinfo=datetime.timezone.utc)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from tests.reference_calendar import unit_number
from tests.reference_moments import candidates
from tests.reference_sides import right_side, two_sides
from tests.reference_values import (
    DAYS,
    Condition,
    Event,
    Truth,
    World,
    bucket_of,
    clean,
    compare,
    context_value,
    duration,
    feature_value,
    kind,
    kind_of_type,
    length,
    operator_of,
    predicate,
    time_of_day,
    zone_of,
)

AGGREGATES = ("sum", "avg", "min", "max", "distinct", "first", "last")
SCALARS = ("string", "number", "bool", "time")


def reference_evaluate(
    condition: Condition,
    *,
    now: datetime,
    features: Mapping[str, Any] | None = None,
    context: Mapping[str, Any] | None = None,
    events: Sequence[Event] = (),
    types: Mapping[str, str] | None = None,
    segments: Mapping[str, Condition] | None = None,
    updated_at: Mapping[str, datetime] | None = None,
    ttl: Mapping[str, str | timedelta] | None = None,
    entity: str | None = None,
    properties: Mapping[str, Any] | None = None,
) -> Truth:
    """Return True, False or None (unknown) for `condition` at `now`.

    Parameters
    ----------
    condition
        The condition as plain data.
    now
        The instant of evaluation, aware.
    features
        ``{"view:name": value}``; times are aware datetimes.
    context
        Values passed with the request.
    events
        ``{"event": name, "at": datetime, "event_id": str, **properties}``; without an id the position is the id.
    types
        Feast type names of features; only needed to tell a time from other values, and Float32 from Float64.
    segments
        Conditions of the other segments by name.
    updated_at, ttl
        Row timestamp and time to live of a feature view by its name.
    entity
        The key, by which samples are drawn.
    """
    return truth(
        condition, make_world(now, features, context, events, types, segments, updated_at, ttl, entity, properties)
    )


def reference_changes_at(
    condition: Condition,
    *,
    now: datetime,
    features: Mapping[str, Any] | None = None,
    context: Mapping[str, Any] | None = None,
    events: Sequence[Event] = (),
    types: Mapping[str, str] | None = None,
    segments: Mapping[str, Condition] | None = None,
    updated_at: Mapping[str, datetime] | None = None,
    ttl: Mapping[str, str | timedelta] | None = None,
    entity: str | None = None,
    properties: Mapping[str, Any] | None = None,
) -> datetime | None:
    """Return the first instant after `now` at which the answer differs from the answer now, or None."""
    world = make_world(now, features, context, events, types, segments, updated_at, ttl, entity, properties)
    answer = truth(condition, world)
    for instant in candidates(condition, world):
        if truth(condition, replace(world, now=instant)) is not answer:
            return instant
    return None


def make_world(
    now: datetime,
    features: Mapping[str, Any] | None,
    context: Mapping[str, Any] | None,
    events: Sequence[Event],
    types: Mapping[str, str] | None,
    segments: Mapping[str, Condition] | None,
    updated_at: Mapping[str, datetime] | None,
    ttl: Mapping[str, str | timedelta] | None,
    entity: str | None = None,
    properties: Mapping[str, Any] | None = None,
) -> World:
    lives = {view: life if isinstance(life, timedelta) else duration(life) for view, life in (ttl or {}).items()}
    return World(
        now=now.astimezone(UTC),
        features=features or {},
        context=context or {},
        events=stored(events),
        types=types or {},
        segments=segments or {},
        updated_at=updated_at or {},
        ttl={view: life for view, life in lives.items() if life is not None},
        entity=entity,
        properties=properties or {},
    )


def stored(events: Sequence[Event]) -> list[Event]:
    """Return the log without redeliveries, ordered by instant and id."""
    log: dict[str, Event] = {}
    for position, event in enumerate(events):
        identity = event.get("event_id", f"{position:012d}")
        if identity not in log:
            log[identity] = {**event, "event_id": identity}
    return sorted(log.values(), key=lambda event: (event["at"], event["event_id"]))


def truth(condition: Condition, world: World) -> Truth:
    """Return the three-valued answer of any condition."""
    if "all" in condition:
        return and_(truth(child, world) for child in condition["all"])
    if "any" in condition:
        return or_(truth(child, world) for child in condition["any"])
    if "none" in condition:
        return not_(or_(truth(child, world) for child in condition["none"]))
    if "not" in condition:
        return not_(truth(condition["not"], world))
    if "in_segment" in condition:
        return truth(world.segments[condition["in_segment"]], world)
    if "not_in_segment" in condition:
        return not_(truth(world.segments[condition["not_in_segment"]], world))
    if "sequence" in condition:
        return sequence_truth(condition, world)
    return predicate_truth(condition, world)


def predicate_truth(condition: Condition, world: World) -> Truth:
    test = condition["count"] if "did" in condition and "count" in condition else condition
    if right_side(test) is not None:
        return two_sides(test, value_of(condition, world), lambda side: value_of(side, world))
    return leaf_truth(condition, world)


def leaf_truth(condition: Condition, world: World) -> Truth:
    if "feature" in condition:
        name = condition["feature"]
        return predicate(condition, feature_value(name, world), world.now, kind_of_type(world.types.get(name)))
    if "context" in condition:
        return predicate(condition, context_value(condition, world), world.now)
    if "clock" in condition:
        return clock_truth(condition, world)
    if "sample" in condition:
        share = condition["sample"]
        return None if world.entity is None else bucket_of(share["seed"], world.entity) < share["percent"] * 100
    if "did" in condition or "did_any" in condition:
        names = condition.get("did_any", [condition.get("did")])
        matching = [event for name in names for event in in_window(name, condition, world)]
        return predicate(condition.get("count", {"at_least": 1}), len(matching), world.now)
    if "did_not" in condition:
        return not in_window(condition["did_not"], condition, world)
    if "first_time" in condition:
        return first_time(condition, world)
    for name, value in COUNTED.items():
        if name in condition:
            return predicate(condition, value(condition, world), world.now)
    raise ValueError(f"no form in {condition}")


def value_of(side: Condition, world: World) -> Any:
    """Return the value on one side of an operator."""
    if "feature" in side:
        return feature_value(side["feature"], world)
    if "context" in side:
        return context_value(side, world)
    if "did" in side:
        return len(in_window(side["did"], side, world))
    if "count" in side:
        return len(in_window(side["count"]["event"], side, world, side["count"].get("where", {})))
    return next(value for name, value in COUNTED.items() if name in side)(side, world)


def and_(values: Iterable[Truth]) -> Truth:
    answers = list(values)
    if False in answers:
        return False
    return None if None in answers else True


def or_(values: Iterable[Truth]) -> Truth:
    answers = list(values)
    if True in answers:
        return True
    return None if None in answers else False


def not_(value: Truth) -> Truth:
    return None if value is None else not value


def clock_truth(condition: Condition, world: World) -> Truth:
    zone = zone_of(condition, world)
    if zone is None:
        return None
    local = world.now.astimezone(zone)
    if condition["clock"] == "day_of_week":
        return local_truth(local, "day_of_week", condition, world.now)
    return local_truth(local, "time_of_day", condition, world.now)


def matches_where(event: Event, where: Mapping[str, Any], now: datetime) -> bool:
    """Tell whether `where` is true of the event; unknown excludes it."""
    return where_truth(event, where, now) is True


def where_truth(event: Event, where: Mapping[str, Any], now: datetime) -> Truth:
    """Return the answer of all conditions of a mapping together."""
    return and_(one_truth(event, name, test, now) for name, test in where.items())


def one_truth(event: Event, name: str, test: Any, now: datetime) -> Truth:
    if name in ("all", "any", "none"):
        answers = [where_truth(event, inner, now) for inner in test]
        return and_(answers) if name == "all" else or_(answers) if name == "any" else not_(or_(answers))
    if name == "not":
        return not_(where_truth(event, test, now))
    if name == "at":
        local = event["at"].astimezone(ZoneInfo(test.get("timezone", "UTC")))
        return and_(local_truth(local, part, spec, now) for part, spec in test.items() if part != "timezone")
    spec = test if isinstance(test, Mapping) else {"equals": test}
    if right_side(spec) is not None:
        return two_sides(spec, event.get(name), lambda side: event.get(side["property"]))
    return predicate(spec, event.get(name), now)


def local_truth(local: datetime, part: str, test: Any, now: datetime) -> Truth:
    """Return what is said of a local time of day, or day of the week."""
    spec = test if isinstance(test, Mapping) else {"equals": test}
    if part == "day_of_week":
        return predicate(spec, DAYS[local.weekday()], now)
    name = operator_of(spec)
    literal = spec[name]
    seconds = [time_of_day(item) for item in literal] if isinstance(literal, list) else time_of_day(literal)
    return compare(name, moment_of_day(local), seconds, now)


def moment_of_day(local: datetime) -> Fraction:
    """Return the seconds since midnight that a clock shows."""
    return local.hour * 3600 + local.minute * 60 + local.second + Fraction(local.microsecond, 1_000_000)


def in_window(name: Any, spec: Mapping[str, Any], world: World, where: Mapping[str, Any] | None = None) -> list[Event]:
    """Return the matching events in the window, in order."""
    tests = spec.get("where", {}) if where is None else where
    found = []
    for event in world.events:
        inside = lies_in(spec["within"], event["at"], world.now)
        if event["event"] == name and event["at"] <= world.now and inside and matches_where(event, tests, world.now):
            found.append(event)
    return found


def lies_in(window: Any, at: datetime, now: datetime) -> bool:
    """Tell whether an instant lies in a window, as `within` writes it."""
    if isinstance(window, str):
        long = duration(window)
        return long is None or at > now - long
    if "between_ago" in window:
        nearer, farther = map(duration, window["between_ago"])
        return nearer is not None and at <= now - nearer and (farther is None or at > now - farther)
    if "calendar" in window:
        zone = ZoneInfo(window.get("timezone", "UTC"))
        first_day = DAYS.index(window.get("first_day", "monday"))
        units = [unit_number(window["calendar"], moment.astimezone(zone).date(), first_day) for moment in (at, now)]
        last = window.get("last", "this")
        return units[0] == units[1] if last == "this" else 1 <= units[1] - units[0] <= last
    return ("from" not in window or at >= datetime.fromisoformat(window["from"])) and (
        "to" not in window or at < datetime.fromisoformat(window["to"])
    )


def first_time(condition: Condition, world: World) -> bool:
    """Tell whether the first event ever is in the window."""
    inside = in_window(condition["first_time"], condition, world)
    ever = in_window(condition["first_time"], {**condition, "within": "ever"}, world)
    return bool(inside) and inside[0] is ever[0]


def nth(condition: Condition, world: World) -> Any:
    """Return the property of the n-th event of the window."""
    source = condition["nth"]
    events = in_window(source["event"], condition, world, source.get("where", {}))
    return read_of(events[source["n"] - 1], source["of"]) if len(events) >= source["n"] else None


def read_of(event: Event, of: Any) -> Any:
    """Return a property of an event, or what several come to."""
    if isinstance(of, str):
        return clean(event.get(of))
    ((operation, terms),) = of.items()
    return result_of(operation, [clean(event.get(term)) if isinstance(term, str) else term for term in terms])


def result_of(operation: str, numbers: list[Any]) -> float | None:
    """Return what numbers come to, None if one of them is none or the result is not finite."""
    if any(kind(number) != "number" for number in numbers):
        return None
    first, *others = map(float, numbers)
    try:
        for other in others:
            first = STEPS[operation](first, other)
    except ZeroDivisionError:
        return None
    return first if math.isfinite(first) else None


#: How an operation goes on from one number with the next.
STEPS: dict[str, Callable[[float, float], float]] = {
    "total": lambda left, right: left + right,
    "difference": lambda left, right: left - right,
    "product": lambda left, right: left * right,
    "ratio": lambda left, right: left / right,
}


def distinct_days(condition: Condition, world: World) -> int:
    """Count the local days with an event."""
    source = condition["distinct_days"]
    zone = ZoneInfo(source.get("timezone", "UTC"))
    events = in_window(source["event"], condition, world, source.get("where", {}))
    return len({event["at"].astimezone(zone).date() for event in events})


def aggregate(name: str, condition: Condition, world: World) -> Any:
    source = condition[name]
    events = in_window(source["event"], condition, world, source.get("where", {}))
    if name in ("first", "last"):
        chosen = events[0 if name == "first" else -1] if events else {}
        return read_of(chosen, source["of"])
    values = [read_of(event, source["of"]) for event in events]
    if name == "distinct":
        return len({(kind(value), value) for value in values if kind(value) in SCALARS})
    numbers = [value for value in values if kind(value) == "number"]
    if name in ("sum", "avg") and is_decimal(source, world):
        exact = sum((Fraction(str(number)) for number in numbers), Fraction(0))
        return float(exact) if name == "sum" else float(round(exact / len(numbers), 8)) if numbers else None
    if name == "sum":
        return total(numbers)
    if not numbers:
        return None
    if name == "avg":
        return mean(numbers)
    return min(numbers) if name == "min" else max(numbers)


def calculated(operation: str, condition: Condition, world: World) -> Any:
    """Return what several values come to."""
    return result_of(operation, [clean(value_of(side, world)) for side in condition[operation]])


#: The value of each form that compares what events come to.
COUNTED: dict[str, Callable[[Condition, World], Any]] = {
    **{name: partial(aggregate, name) for name in AGGREGATES},
    "nth": nth,
    "distinct_days": distinct_days,
    **{name: partial(calculated, name) for name in STEPS},
}


def is_decimal(source: Mapping[str, Any], world: World) -> bool:
    """Tell whether the property of an aggregate is declared as a decimal number."""
    schemas = world.properties.get(source["event"], {})
    return isinstance(source["of"], str) and "multipleOf" in schemas.get(source["of"], {})


def total(numbers: list[Any]) -> Any:
    """Return the sum: exact of integers, else correctly rounded; infinite if it is too large for a float."""
    if all(isinstance(number, int) for number in numbers):
        return sum(numbers)
    endless = [number for number in numbers if math.isinf(number)]
    if endless:
        return sum(endless)
    try:
        return math.fsum(numbers)
    except OverflowError:
        exact = sum(Fraction(number) for number in numbers)
    try:
        return float(exact)
    except OverflowError:
        return math.inf if exact > 0 else -math.inf


def mean(numbers: list[Any]) -> float:
    whole = total(numbers)
    return float(Fraction(whole, len(numbers))) if isinstance(whole, int) else float(whole) / len(numbers)


def sequence_truth(condition: Condition, world: World) -> bool:
    """Try every chain of events."""
    return any(chain_holds(condition, chain, world) for chain in chains(condition, world))


def step_events(step: Mapping[str, Any], condition: Condition, world: World, first: Event | None) -> list[Event]:
    """Return the events up to now that a step speaks of; with `match_on` only those that agree with the first."""
    ever = {"within": "ever", "where": step.get("where", {})}
    names = step.get("did", step.get("did_not"))
    found = [event for name in ([names] if isinstance(names, str) else names) for event in in_window(name, ever, world)]
    if "match_on" in condition:
        found = [event for event in found if agrees(event, first, condition["match_on"])]
    return found


def agrees(event: Event, first: Event | None, name: str) -> bool:
    mine = clean(event.get(name))
    theirs = mine if first is None else clean(first.get(name))
    return kind(mine) in SCALARS and kind(mine) == kind(theirs) and bool(mine == theirs)


def chains(condition: Condition, world: World) -> Iterator[list[Event]]:
    """Yield every choice of an event of its own for each `did` step, none before the one before it."""
    steps = [step for step in condition["sequence"] if "did" in step]
    firsts = step_events(steps[0], condition, world, None)
    if anchor_of(condition) == "latest":
        firsts = [event for event in firsts if event["at"] == firsts[-1]["at"]]
    for first in firsts:
        partial = [[first]]
        for step in steps[1:]:
            matching = step_events(step, condition, world, first)
            partial = [
                [*chain, event]
                for chain in partial
                for event in matching
                if event["at"] >= chain[-1]["at"] and all(event is not other for other in chain)
            ]
        yield from partial


def anchor_of(condition: Condition) -> str:
    default = "any" if "did" in condition["sequence"][-1] else "latest"
    return str(condition.get("anchor", default))


def chain_holds(condition: Condition, chain: list[Event], world: World) -> bool:
    own = duration(condition.get("within", "ever"))
    if own is not None and chain[0]["at"] <= world.now - own:
        return False
    matched, position, since_gap = chain[0]["at"], 0, False
    for step in condition["sequence"][1:]:
        if "did" in step:
            position += 1
            at = chain[position]["at"]
            if at < matched or (since_gap and at == matched):
                return False
            if "within" in step and at > matched + length(step["within"]):
                return False
            matched, since_gap = at, False
        elif "within" in step:
            end = matched + length(step["within"])
            if end > world.now or came(step, condition, chain, world, matched, end):
                return False
            matched, since_gap = end, True
        elif came(step, condition, chain, world, chain[position]["at"], chain[position + 1]["at"]):
            return False
    return True


def came(
    step: Mapping[str, Any], condition: Condition, chain: list[Event], world: World, start: datetime, end: datetime
) -> bool:
    """Tell whether an event of a `did_not` step came in [start, end], other than of the kind and instant of a match."""
    dids = [did for did in condition["sequence"] if "did" in did]
    alike = [
        event
        for did, taken in zip(dids, chain, strict=True)
        for event in step_events(did, condition, world, chain[0])
        if event["at"] == taken["at"]
    ]
    found = [event for event in step_events(step, condition, world, chain[0]) if start <= event["at"] <= end]
    return any(all(event is not other for other in alike) for event in found)
