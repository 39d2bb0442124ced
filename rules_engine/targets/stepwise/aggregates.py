"""Find the answer on an aggregate of events, and until when it lasts: of a predicate, or as a mask of the index."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import TypeVar

from rules_engine.events.state.reading import AggregatePlan, StateLayout
from rules_engine.rules.aggregates import Aggregate
from rules_engine.rules.events import reduce_values
from rules_engine.rules.nodes import (
    EventAggregate,
    Predicate,
)
from rules_engine.rules.predicates import predicate_truth
from rules_engine.rules.types import Value, conform
from rules_engine.rules.undecided import Undecided
from rules_engine.targets.stepwise.view import FOREVER, LOOK_AHEAD, Check, View, next_instant

#: The answer on a value: whether a predicate is true, or a mask of the index.
Answered = TypeVar("Answered")

#: The largest count whose answers are looked up in a table.
_COUNTED = 256


def check_aggregate(layout: StateLayout, predicate: Predicate, aggregate: EventAggregate, positive: bool) -> Check:
    """Return the check of a predicate on an aggregate of events."""
    operand_type = predicate.operand_type

    def truth(value: Value) -> bool:
        value = value if value.__class__ is Undecided else conform(value, operand_type)
        return predicate_truth(predicate, value, 0) is positive  # no operator on aggregates reads the clock

    return of_aggregate(layout, aggregate, truth)


def of_aggregate(
    layout: StateLayout, aggregate: EventAggregate, answer_of: Callable[[Value], Answered]
) -> Callable[[View, int], tuple[Answered, int]]:
    """Return a function that gives the answer on an aggregate's value at an instant, and until when it lasts at least.

    Parameters
    ----------
    answer_of
        gives the answer on a value, on None if it is missing, and on :class:`Undecided`.
    """
    plan = layout.plan(aggregate)
    assert isinstance(plan, AggregatePlan), aggregate
    of_kept = _of_kept(plan, aggregate, answer_of)

    def answer(view: View, now: int) -> tuple[Answered, int]:
        if view.reader.is_whole or view.reader.dropped_until(aggregate, now) is None:
            return of_kept(view, now)
        return answer_of(view.reader.aggregate(aggregate, now)), next_instant(view, aggregate, now)

    return answer


def _of_kept(
    plan: AggregatePlan, aggregate: EventAggregate, answer_of: Callable[[Value], Answered]
) -> Callable[[View, int], tuple[Answered, int]]:
    if aggregate.window is not None:
        return _windowed(aggregate, answer_of)
    if aggregate.function is Aggregate.COUNT and plan.limit is not None and plan.limit <= _COUNTED:
        return _count(plan, answer_of)
    if aggregate.function is Aggregate.LAST and plan.source.column is not None:
        return _last(plan, answer_of)

    if plan.total is not None:
        return _total(plan, aggregate, answer_of)
    if aggregate.function is Aggregate.DISTINCT and plan.limit is not None and plan.limit <= _COUNTED:
        return _distinct(plan, answer_of)
    if aggregate.function in (Aggregate.MIN, Aggregate.MAX):
        return _extreme(plan, answer_of)
    return _reduced(plan, answer_of)


def _windowed(
    aggregate: EventAggregate, answer_of: Callable[[Value], Answered]
) -> Callable[[View, int], tuple[Answered, int]]:
    """Return the answer on an aggregate over a window that is no rolling duration."""

    def answer(view: View, now: int) -> tuple[Answered, int]:
        return answer_of(view.reader.aggregate(aggregate, now)), next_instant(view, aggregate, now)

    return answer


def _total(
    plan: AggregatePlan, aggregate: EventAggregate, answer_of: Callable[[Value], Answered]
) -> Callable[[View, int], tuple[Answered, int]]:
    def answer(view: View, now: int) -> tuple[Answered, int]:
        value = view.reader.aggregate(aggregate, now)
        ats = view.reader.stream(plan.source).ats
        comes = bisect_right(ats, now)
        return answer_of(value), ats[comes] if comes < len(ats) else FOREVER

    return answer


def _reduced(
    plan: AggregatePlan, answer_of: Callable[[Value], Answered]
) -> Callable[[View, int], tuple[Answered, int]]:
    function, within, limit = plan.function, plan.within, plan.limit

    def reduced(values: Sequence[Value]) -> Value:
        value = reduce_values(function, values)
        return value if limit is None else min(value, limit)

    of_nothing = answer_of(reduced(()))

    def answer(view: View, now: int) -> tuple[Answered, int]:
        stream = view.streams.get(plan.source.stream) or view.reader.stream(plan.source)
        ats = stream.ats
        if not ats:
            return of_nothing, FOREVER
        column = stream.column(plan.source.column)
        end = bisect_right(ats, now)
        start = 0 if within is None else bisect_right(ats, now - within, 0, end)
        until = ats[end] if end < len(ats) else FOREVER
        value = reduced(column[start:end])
        here = answer_of(value)
        if within is None:
            return here, until
        for tried, place in enumerate(range(start, end), 1):  # the event that leaves the window next
            leaves = ats[place] + within
            if leaves >= until:
                break
            if place + 1 < end and ats[place + 1] == ats[place]:
                continue
            left = reduced(column[place + 1 : end])
            if tried == LOOK_AHEAD or (left is not value and answer_of(left) != here):
                return here, leaves
        return here, until

    return answer


def _counted(answer_of: Callable[[Value], Answered], limit: int) -> tuple[list[Answered], list[int]]:
    """Return for each number the answer, and the next smaller number with another answer; -1 if there is none."""
    answers = [answer_of(number) for number in range(limit + 1)]
    falls = [-1]
    for number in range(1, limit + 1):
        falls.append(number - 1 if answers[number - 1] != answers[number] else falls[number - 1])
    return answers, falls


def _count(plan: AggregatePlan, answer_of: Callable[[Value], Answered]) -> Callable[[View, int], tuple[Answered, int]]:
    source, within, limit = plan.source, plan.within, plan.limit
    assert limit is not None
    key = source.stream
    answers, falls = _counted(answer_of, limit)

    def answer(view: View, now: int) -> tuple[Answered, int]:
        stream = view.streams.get(key)
        ats = view.reader.stream(source).ats if stream is None else stream.ats
        size = len(ats)
        if not size:
            return answers[0], FOREVER
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
        return answers[number], until

    return answer


def _distinct(
    plan: AggregatePlan, answer_of: Callable[[Value], Answered]
) -> Callable[[View, int], tuple[Answered, int]]:
    within, limit = plan.within, plan.limit
    assert limit is not None
    answers, falls = _counted(answer_of, limit)

    def answer(view: View, now: int) -> tuple[Answered, int]:
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
        return answers[number], until

    return answer


def _extreme(
    plan: AggregatePlan, answer_of: Callable[[Value], Answered]
) -> Callable[[View, int], tuple[Answered, int]]:
    within, greatest = plan.within, plan.function is Aggregate.MAX
    of_nothing = answer_of(None)

    def answer(view: View, now: int) -> tuple[Answered, int]:
        stream = view.reader.stream(plan.source)
        ats, column = stream.ats, stream.column(plan.source.column)
        end = bisect_right(ats, now)
        start = 0 if within is None else bisect_right(ats, now - within, 0, end)
        until = ats[end] if end < len(ats) else FOREVER
        if not end:
            return of_nothing, until
        best: list[tuple[int, Value]] = []  # from the newest back, those that no newer one equals or beats
        for place in range(end - 1, start - 1, -1):
            value = column[place]
            if value is not None and (not best or (value > best[-1][1] if greatest else value < best[-1][1])):
                best.append((ats[place], value))
        if not best:
            return of_nothing, until
        at, value = best.pop()
        here = answer_of(value)
        while within is not None and at + within < until:
            leaves = at + within
            at, value = best.pop() if best else (FOREVER, None)
            if answer_of(value) != here:
                return here, leaves
        return here, until

    return answer


def _last(plan: AggregatePlan, answer_of: Callable[[Value], Answered]) -> Callable[[View, int], tuple[Answered, int]]:
    within = plan.within
    of_nothing = answer_of(None)

    def answer(view: View, now: int) -> tuple[Answered, int]:
        stream = view.reader.stream(plan.source)
        ats = stream.ats
        end = bisect_right(ats, now)
        until = ats[end] if end < len(ats) else FOREVER
        if not end or (within is not None and ats[end - 1] <= now - within):
            return of_nothing, until
        here = answer_of(stream.column(plan.source.column)[end - 1])
        if within is not None and here != of_nothing:
            until = min(until, ats[end - 1] + within)
        return here, until

    return answer
