"""Find the answer on an aggregate of events, and until when it lasts: of a predicate, or as a mask of the index."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TypeVar

from rules_engine.events.state.choices import CHOICES
from rules_engine.events.state.reading import AggregatePlan, StateLayout
from rules_engine.events.state.requirements import KeepRule
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

    return of_aggregate(layout, aggregate, truth, _numbers(predicate.argument))


def _numbers(argument: object) -> Sequence[float] | None:
    """Return the numbers that a value is compared with; None if it is compared with anything else."""
    numbers = argument if isinstance(argument, tuple) else (argument,)
    compared = [number for number in numbers if isinstance(number, int | float) and not isinstance(number, bool)]
    return sorted(compared) if len(compared) == len(numbers) else None


def of_aggregate(
    layout: StateLayout,
    aggregate: EventAggregate,
    answer_of: Callable[[Value], Answered],
    breaks: Sequence[float] | None = None,
) -> Callable[[View, int], tuple[Answered, int]]:
    """Return a function that gives the answer on an aggregate's value at an instant, and until when it lasts at least.

    Parameters
    ----------
    answer_of
        gives the answer on a value, on None if it is missing, and on :class:`Undecided`.
    breaks
        numbers, ascending, between which all numbers have one answer; None if they are not known.
    """
    plan = layout.plan(aggregate)
    assert isinstance(plan, AggregatePlan), aggregate
    of_kept = _of_kept(plan, aggregate, answer_of, breaks)

    def answer(view: View, now: int) -> tuple[Answered, int]:
        if view.reader.is_whole or view.reader.dropped_until(aggregate, now) is None:
            return of_kept(view, now)
        return answer_of(view.reader.aggregate(aggregate, now)), next_instant(view, aggregate, now)

    return answer


def _of_kept(
    plan: AggregatePlan,
    aggregate: EventAggregate,
    answer_of: Callable[[Value], Answered],
    breaks: Sequence[float] | None,
) -> Callable[[View, int], tuple[Answered, int]]:
    function, is_small = aggregate.function, plan.limit is not None and plan.limit <= _COUNTED
    if aggregate.window is not None:
        return _windowed(aggregate, answer_of)
    if plan.total is not None:
        return _total(plan, aggregate, answer_of)
    if function is Aggregate.COUNT and (is_small or breaks is not None):
        return _count(plan, _falls(answer_of, plan.limit, breaks))
    if function is Aggregate.LAST and plan.source.column is not None:
        return _last(plan, answer_of)
    if function is Aggregate.DISTINCT and (is_small or breaks is not None):
        return _distinct(plan, _falls(answer_of, plan.limit, breaks))
    if function in (Aggregate.MIN, Aggregate.MAX):
        return _extreme(plan, answer_of)
    if function in (Aggregate.SUM, Aggregate.AVG) and breaks is not None:
        return _sum(plan, answer_of, breaks)
    if function is Aggregate.FIRST and not aggregate.skip:
        return _first(plan, answer_of)
    return _reduced(plan, answer_of, aggregate.skip)


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
    plan: AggregatePlan, answer_of: Callable[[Value], Answered], skip: int
) -> Callable[[View, int], tuple[Answered, int]]:
    function, within, limit = plan.function, plan.within, plan.limit

    def reduced(values: Sequence[Value]) -> Value:
        value = reduce_values(function, values, skip)
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


def _sum(
    plan: AggregatePlan, answer_of: Callable[[Value], Answered], breaks: Sequence[float]
) -> Callable[[View, int], tuple[Answered, int]]:
    """Return the answer on a sum or mean over a window."""
    function, within, column = plan.function, plan.within, plan.source.column
    assert within is not None, "a sum without a start is a total"
    assert column is not None, plan
    reduced = _reduced(plan, answer_of, 0)

    def answer(view: View, now: int) -> tuple[Answered, int]:
        stream = view.reader.stream(plan.source)
        ats = stream.ats
        if not ats or ats[-1] > now or not (sums := stream.sums(column)).is_known:
            return reduced(view, now)
        start = bisect_right(ats, now - within)

        def is_turn(place: int) -> bool:
            return place == len(ats) or ats[place] != ats[place - 1]

        place = sums.next_change(function, start, is_turn, answer_of, breaks)
        return answer_of(sums.value(function, start)), FOREVER if place is None else ats[place - 1] + within

    return answer


def _first(plan: AggregatePlan, answer_of: Callable[[Value], Answered]) -> Callable[[View, int], tuple[Answered, int]]:
    """Return the answer on the value of the earliest event in a window."""
    within, column = plan.within, plan.source.column
    of_nothing = answer_of(None)

    def answer(view: View, now: int) -> tuple[Answered, int]:
        stream = view.reader.stream(plan.source)
        ats, values = stream.ats, stream.column(column)
        end = bisect_right(ats, now)
        start = 0 if within is None else bisect_right(ats, now - within, 0, end)
        until = ats[end] if end < len(ats) else FOREVER
        if start == end:
            return of_nothing, until
        here, before = answer_of(values[start]), values[start]
        if within is None:
            return here, until
        for place in range(start + 1, end):
            value = values[place]
            if ats[place] == ats[place - 1] or value is before:
                continue
            before = value
            if answer_of(value) != here:
                return here, min(until, ats[place - 1] + within)
        return here, until if of_nothing == here else min(until, ats[end - 1] + within)

    return answer


#: Gives for a number the answer, and the next smaller number with another answer; -1 if there is none.
_Falls = Callable[[int], tuple[Answered, int]]


def _falls(
    answer_of: Callable[[Value], Answered], limit: int | None, breaks: Sequence[float] | None
) -> _Falls[Answered]:
    """Return the answers on counts; those up to a small limit are looked up in a table."""
    if limit is not None and limit <= _COUNTED:
        answers = [answer_of(number) for number in range(limit + 1)]
        falls = [-1]
        for number in range(1, limit + 1):
            falls.append(number - 1 if answers[number - 1] != answers[number] else falls[number - 1])
        table = list(zip(answers, falls, strict=True))
        return table.__getitem__
    near = {math.floor(number) + step for number in breaks or () for step in (-1, 0, 1)}

    def of(number: int) -> tuple[Answered, int]:
        here = answer_of(number)
        smaller = sorted((other for other in (number - 1, *near) if 0 <= other < number), reverse=True)
        return here, next((other for other in smaller if answer_of(other) != here), -1)

    return of


def _count(plan: AggregatePlan, answers: _Falls[Answered]) -> Callable[[View, int], tuple[Answered, int]]:
    source, within, limit = plan.source, plan.within, plan.limit
    key = source.stream

    def answer(view: View, now: int) -> tuple[Answered, int]:
        stream = view.streams.get(key)
        ats = view.reader.stream(source).ats if stream is None else stream.ats
        size = len(ats)
        if not size:
            return answers(0)[0], FOREVER
        end = size if ats[-1] <= now else bisect_right(ats, now)
        start = 0 if within is None else bisect_right(ats, now - within, 0, end)
        number = end - start
        if limit is not None and number > limit:
            number = limit
        until = FOREVER if end == size else ats[end]
        here, falls_to = answers(number)
        if falls_to >= 0 and within is not None:
            leaves = ats[end - falls_to - 1] + within
            if leaves < until:
                until = leaves
        return here, until

    return answer


def _distinct(plan: AggregatePlan, answers: _Falls[Answered]) -> Callable[[View, int], tuple[Answered, int]]:
    within, limit, column = plan.within, plan.limit, plan.source.column
    assert column is not None, plan

    def answer(view: View, now: int) -> tuple[Answered, int]:
        ats, values = view.reader.stream(plan.source).decisive(column, CHOICES[KeepRule.DISTINCT], now)
        end = bisect_right(ats, now)
        start = 0 if within is None else bisect_right(ats, now - within, 0, end)
        until = ats[end] if end < len(ats) else FOREVER
        newest: dict[tuple[bool, Value], int] = {}  # by value, in the order from the newest back
        for place in range(end - 1, start - 1, -1):
            value = values[place]
            if value is not None:
                newest.setdefault((value is True or value is False, value), ats[place])
                if len(newest) == limit:
                    break
        here, falls_to = answers(len(newest))
        if within is not None and falls_to >= 0:
            until = min(until, next(islice(newest.values(), falls_to, None)) + within)
        return here, until

    return answer


def _extreme(
    plan: AggregatePlan, answer_of: Callable[[Value], Answered]
) -> Callable[[View, int], tuple[Answered, int]]:
    within, greatest, column = plan.within, plan.function is Aggregate.MAX, plan.source.column
    assert column is not None, plan
    choice = CHOICES[KeepRule.GREATEST if greatest else KeepRule.LEAST]
    of_nothing = answer_of(None)

    def answer(view: View, now: int) -> tuple[Answered, int]:
        ats, values = view.reader.stream(plan.source).decisive(column, choice, now)
        end = bisect_right(ats, now)
        start = 0 if within is None else bisect_right(ats, now - within, 0, end)
        until = ats[end] if end < len(ats) else FOREVER
        if not end:
            return of_nothing, until
        best: list[tuple[int, Value]] = []  # from the newest back, those that no newer one equals or beats
        for place in range(end - 1, start - 1, -1):
            value = values[place]
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
