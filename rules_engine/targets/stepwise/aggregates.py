"""Predicates on aggregates of events."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from rules_engine.events.state.reading import AggregatePlan, StateLayout
from rules_engine.rules.aggregates import Aggregate
from rules_engine.rules.events import reduce_values
from rules_engine.rules.nodes import (
    EventAggregate,
    Predicate,
)
from rules_engine.rules.predicates import predicate_truth
from rules_engine.rules.types import Value, conform
from rules_engine.targets.stepwise.view import FOREVER, LOOK_AHEAD, Answer, Check, View, next_instant

#: The largest count whose answers are looked up in a table.
_COUNTED = 256


def check_aggregate(layout: StateLayout, predicate: Predicate, aggregate: EventAggregate, positive: bool) -> Check:
    """Return the check of a predicate on an aggregate of events."""
    plan = layout.plan(aggregate)
    assert isinstance(plan, AggregatePlan), aggregate
    check = _aggregate_of_kept(plan, predicate, aggregate, positive)

    def answer(view: View, now: int) -> Answer:
        if view.reader.is_whole or view.reader.dropped_until(aggregate, now) is None:
            return check(view, now)
        value = view.reader.aggregate(aggregate, now)
        return predicate_truth(predicate, value, now) is positive, next_instant(view, aggregate, now)

    return answer


def _aggregate_of_kept(plan: AggregatePlan, predicate: Predicate, aggregate: EventAggregate, positive: bool) -> Check:
    if aggregate.window is not None:
        return _windowed(predicate, aggregate, positive)
    if aggregate.function is Aggregate.COUNT and plan.limit is not None and plan.limit <= _COUNTED:
        return _count(plan, predicate, positive)
    if aggregate.function is Aggregate.LAST and plan.source.column is not None:
        return _last(plan, predicate, positive)

    if plan.total is not None:
        return _total(plan, predicate, aggregate, positive)
    if aggregate.function is Aggregate.DISTINCT and plan.limit is not None and plan.limit <= _COUNTED:
        return _distinct(plan, predicate, positive)
    if aggregate.function in (Aggregate.MIN, Aggregate.MAX):
        return _extreme(plan, predicate, positive)
    return _reduced(plan, predicate, positive)


def _windowed(predicate: Predicate, aggregate: EventAggregate, positive: bool) -> Check:
    """Return the check of an aggregate over a window that is no rolling duration."""

    def answer(view: View, now: int) -> Answer:
        value = conform(view.reader.aggregate(aggregate, now), predicate.operand_type)
        return predicate_truth(predicate, value, now) is positive, next_instant(view, aggregate, now)

    return answer


def _total(plan: AggregatePlan, predicate: Predicate, aggregate: EventAggregate, positive: bool) -> Check:
    def answer(view: View, now: int) -> Answer:
        value = conform(view.reader.aggregate(aggregate, now), predicate.operand_type)
        ats = view.reader.stream(plan.source).ats
        comes = bisect_right(ats, now)
        return predicate_truth(predicate, value, now) is positive, ats[comes] if comes < len(ats) else FOREVER

    return answer


def _reduced(plan: AggregatePlan, predicate: Predicate, positive: bool) -> Check:
    function, within, limit = plan.function, plan.within, plan.limit

    def reduced(values: Sequence[Value]) -> Value:
        value = reduce_values(function, values)
        return conform(value if limit is None else min(value, limit), predicate.operand_type)

    def answer(view: View, now: int) -> Answer:
        stream = view.reader.stream(plan.source)
        ats, column = stream.ats, stream.column(plan.source.column)
        end = bisect_right(ats, now)
        start = 0 if within is None else bisect_right(ats, now - within, 0, end)
        until = ats[end] if end < len(ats) else FOREVER
        value = reduced(column[start:end])
        holds = predicate_truth(predicate, value, now) is positive
        if within is None:
            return holds, until
        for tried, place in enumerate(range(start, end), 1):  # the event that leaves the window next
            leaves = ats[place] + within
            if leaves >= until:
                break
            if place + 1 < end and ats[place + 1] == ats[place]:
                continue
            left = reduced(column[place + 1 : end])
            if tried == LOOK_AHEAD or (
                left is not value and (predicate_truth(predicate, left, now) is positive) != holds
            ):
                return holds, leaves
        return holds, until

    return answer


def _counted(predicate: Predicate, limit: int, positive: bool) -> tuple[list[bool], list[int]]:
    """Return for each number the answer, and the next smaller number with another answer; -1 if there is none."""
    truths = [predicate_truth(predicate, number, 0) is positive for number in range(limit + 1)]
    falls = [-1]
    for number in range(1, limit + 1):
        falls.append(number - 1 if truths[number - 1] != truths[number] else falls[number - 1])
    return truths, falls


def _count(plan: AggregatePlan, predicate: Predicate, positive: bool) -> Check:
    source, within, limit = plan.source, plan.within, plan.limit
    assert limit is not None
    key = source.stream
    truths, falls = _counted(predicate, limit, positive)

    def answer(view: View, now: int) -> Answer:
        stream = view.streams.get(key)
        ats = view.reader.stream(source).ats if stream is None else stream.ats
        size = len(ats)
        if not size:
            return truths[0], FOREVER
        end = size if ats[-1] <= now else bisect_right(ats, now)
        start = 0 if within is None else bisect_right(ats, now - within, 0, end)
        number = end - start
        if number > limit:
            number = limit
        until = FOREVER if end == size else ats[end]
        falls_to = falls[number]
        if falls_to >= 0 and within is not None:
            leaves = ats[end - falls_to - 1] + within
            if leaves < until:
                until = leaves
        return truths[number], until

    return answer


def _distinct(plan: AggregatePlan, predicate: Predicate, positive: bool) -> Check:
    within, limit = plan.within, plan.limit
    assert limit is not None
    truths, falls = _counted(predicate, limit, positive)

    def answer(view: View, now: int) -> Answer:
        stream = view.reader.stream(plan.source)
        ats, column = stream.ats, stream.column(plan.source.column)
        end = bisect_right(ats, now)
        start = 0 if within is None else bisect_right(ats, now - within, 0, end)
        until = ats[end] if end < len(ats) else FOREVER
        newest: dict[tuple[bool, Value], int] = {}  # by value, in the order from the newest back
        for place in range(end - 1, start - 1, -1):
            value = column[place]
            if value is not None:
                newest.setdefault((value is True or value is False, value), ats[place])
        number = min(len(newest), limit)
        if within is not None and falls[number] >= 0:
            until = min(until, list(newest.values())[falls[number]] + within)
        return truths[number], until

    return answer


def _extreme(plan: AggregatePlan, predicate: Predicate, positive: bool) -> Check:
    within, greatest = plan.within, plan.function is Aggregate.MAX

    def answer(view: View, now: int) -> Answer:
        stream = view.reader.stream(plan.source)
        ats, column = stream.ats, stream.column(plan.source.column)
        end = bisect_right(ats, now)
        start = 0 if within is None else bisect_right(ats, now - within, 0, end)
        until = ats[end] if end < len(ats) else FOREVER
        best: list[tuple[int, Value]] = []  # from the newest back, those that no newer one equals or beats
        for place in range(end - 1, start - 1, -1):
            value = column[place]
            if value is not None and (not best or (value > best[-1][1] if greatest else value < best[-1][1])):
                best.append((ats[place], value))
        if not best:
            return predicate_truth(predicate, None, now) is positive, until
        at, value = best.pop()
        holds = predicate_truth(predicate, conform(value, predicate.operand_type), now) is positive
        while within is not None and at + within < until:
            leaves = at + within
            at, value = best.pop() if best else (FOREVER, None)
            if (predicate_truth(predicate, conform(value, predicate.operand_type), now) is positive) != holds:
                return holds, leaves
        return holds, until

    return answer


def _last(plan: AggregatePlan, predicate: Predicate, positive: bool) -> Check:
    within = plan.within
    of_nothing = predicate_truth(predicate, None, 0) is positive

    def answer(view: View, now: int) -> Answer:
        stream = view.reader.stream(plan.source)
        ats = stream.ats
        end = bisect_right(ats, now)
        until = ats[end] if end < len(ats) else FOREVER
        if not end or (within is not None and ats[end - 1] <= now - within):
            return of_nothing, until
        value = conform(stream.column(plan.source.column)[end - 1], predicate.operand_type)
        holds = predicate_truth(predicate, value, now) is positive
        if within is not None and holds != of_nothing:
            until = min(until, ats[end - 1] + within)
        return holds, until

    return answer
