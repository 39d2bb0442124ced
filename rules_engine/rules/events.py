"""Tells what windows and aggregates say of an entity's ordered events at an instant."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

from rules_engine.rules.aggregates import AGGREGATES, Aggregate
from rules_engine.rules.comparison import composite_value
from rules_engine.rules.inputs import Event, KeptEvents
from rules_engine.rules.nodes import Composite, EventAggregate, EventMatch, Predicate, Source
from rules_engine.rules.one_event import read_value
from rules_engine.rules.predicates import Truth, as_read, judge_read
from rules_engine.rules.types import Value, ValueType, conform


def matching(match: EventMatch, events: Sequence[Event]) -> list[Event]:
    """Return the matching events, in their order."""
    return [event for event in events if event.is_meant_by(match)]


def in_window(events: Sequence[Event], now: int, within: int | None) -> Sequence[Event]:
    """Return those of ordered events in (now - within, now]; with ``within`` None all up to now.

    >>> [event.at for event in in_window([Event("a", at, str(at)) for at in (0, 1, 5, 6)], now=5, within=5)]
    [1, 5]
    """
    end = bisect_right(events, now, key=lambda event: event.at)
    start = 0 if within is None else bisect_right(events, now - within, key=lambda event: event.at)
    return events[start:end]


def counted_events(aggregate: EventAggregate, events: Sequence[Event], now: int) -> Sequence[Event]:
    """Return those of ordered events that an aggregate is over, which are all of its match."""
    after, until = aggregate.bounds(now)
    end = bisect_right(events, until, key=lambda event: event.at)
    start = 0 if after is None else bisect_right(events, after, 0, end, key=lambda event: event.at)
    return events[start:end]


def answer_from(predicate: Predicate, aggregate: Callable[[EventAggregate], Value], now: int) -> Truth:
    """Return the answer of a predicate that reads nothing but aggregates of events."""
    operand = predicate.operand
    if not isinstance(operand, Composite):
        assert isinstance(operand, EventAggregate), predicate
        return judge_read(predicate, aggregate(operand), now)

    def read(part: Source, value_type: ValueType | None) -> Value:
        assert isinstance(part, EventAggregate), predicate
        return as_read(aggregate(part), value_type)

    return judge_read(predicate, composite_value(operand, read), now)


# --- aggregates -----------------------------------------------------------------------------------------------------


def aggregate_value(aggregate: EventAggregate, events: Sequence[Event], now: int) -> Value:
    """Return the aggregate over the matching events in its window; None where it is missing.

    >>> from rules_engine.clock import HOUR
    >>> views = [Event("view", at * HOUR, str(at)) for at in range(5)]
    >>> aggregate_value(EventAggregate(Aggregate.COUNT, EventMatch("view"), 2 * HOUR), views, now=4 * HOUR)
    2
    """
    if isinstance(events, KeptEvents):
        return events.aggregate_value(aggregate, now)
    return reduce_events(aggregate, counted_events(aggregate, matching(aggregate.match, events), now))


def reduce_events(aggregate: EventAggregate, counted: Sequence[Event]) -> Value:
    """Return the aggregate over exactly these events, which are in order."""
    if aggregate.of is None:
        return AGGREGATES[aggregate.function].reduce([None] * len(counted))
    of, of_type = aggregate.of, aggregate.of_type
    values = [conform(read_value(of, event.properties, event.at), of_type) for event in counted]
    return reduce_values(aggregate.function, values, aggregate.skip)


def reduce_values(function: Aggregate, values: Sequence[Value], skip: int = 0) -> Value:
    """Return the aggregate over the values of the events that count, which are in order; None is a missing value.

    As many events as ``skip`` are passed over first.

    >>> reduce_values(Aggregate.MAX, [1, None, 3]), reduce_values(Aggregate.LAST, [1, None])
    (3, None)
    """
    return AGGREGATES[function].reduce(values[skip:] if skip else values)
