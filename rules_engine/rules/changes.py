"""Compute the next instant at which an answer changes by time alone.

Every condition is constant between certain instants: an event enters or leaves a window, a wait ends, a value expires,
the local time crosses a boundary. So the next change is found exactly by evaluating at each of these instants, in
order.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import chain
from typing import TypeVar

from rules_engine.clock import DAY, LAST_INSTANT
from rules_engine.rules.evaluate import Evaluation
from rules_engine.rules.events import matching
from rules_engine.rules.inputs import Inputs, KeptEvents
from rules_engine.rules.local_time import crossings
from rules_engine.rules.nodes import (
    AllOf,
    AnyOf,
    ClockField,
    ClockRef,
    Condition,
    EventAggregate,
    FeatureRef,
    Not,
    Predicate,
    SegmentRef,
    Sequence,
)
from rules_engine.rules.operators import OPERATORS
from rules_engine.rules.predicates import Truth
from rules_engine.rules.program import Program
from rules_engine.rules.sequences import sequence_instants
from rules_engine.rules.truth import all_of, any_of, negate
from rules_engine.rules.walk import children, operands, walk

#: How far clock conditions are looked ahead while nothing else happens: more than a year, so that every combination of
#: weekday, time of day and daylight saving time in the zones' yearly rules has come by.
CLOCK_HORIZON = 400 * DAY

Answer = TypeVar("Answer")

#: An instant before any ttl: reads a value whether or not it has expired.
_BEFORE_EXPIRY = -(2**62)


def changes_at(program: Program, condition: Condition, inputs: Inputs, now: int) -> int | None:
    """Return the first instant after now at which the three-valued answer differs on the same data; None if never.

    >>> from rules_engine.rules.nodes import EventMatch
    >>> from rules_engine.rules.aggregates import Aggregate
    >>> from rules_engine.rules.inputs import Event
    >>> viewed = Predicate(EventAggregate(Aggregate.COUNT, EventMatch("view"), within=10), "at_least", 1)
    >>> changes_at(Program({}), viewed, Inputs(events=(Event("view", 3, "a"),)), now=5)
    13
    """
    conditions = reachable(program, [condition])

    def answer(at: int) -> Truth:
        return Evaluation(program, inputs, at).condition(condition)

    def may_change(after: int) -> bool:
        return len(_possible(condition, Evaluation(program, inputs, after))) > 1

    return first_change(answer, candidates(conditions, inputs, now), now, clocks_of(conditions, inputs), may_change)


def first_change(
    answer: Callable[[int], Answer],
    instants: Iterable[int],
    now: int,
    clocks: Callable[[int, int], Iterator[int]] | None = None,
    may_change: Callable[[int], bool] = lambda _after: True,
) -> int | None:
    """Return the first instant at which ``answer`` differs from its value now; None if never.

    Parameters
    ----------
    answer
        the answer, as a function of the instant.
    instants
        the finitely many instants after now at which it may change, except by clock conditions.
    clocks
        ``(after, until) ->`` the instants in between at which a clock condition may change; None without such
        conditions.
    may_change
        ``after ->`` whether clock conditions alone can still change the answer before the next of ``instants``.
    """
    first, current = answer(now), now
    for instant in sorted({at for at in instants if at <= LAST_INSTANT}):
        for at in chain(_by_clock(clocks, current, instant, may_change), (instant,)):
            if answer(at) != first:
                return at
        current = instant
    by_clock = _by_clock(clocks, current, LAST_INSTANT, may_change)
    return next((at for at in by_clock if answer(at) != first), None)


def _by_clock(
    clocks: Callable[[int, int], Iterator[int]] | None, after: int, until: int, may_change: Callable[[int], bool]
) -> Iterator[int]:
    """Yield the instants in between at which clock conditions may change the answer."""
    if clocks is not None and may_change(after):
        yield from (at for at in clocks(after, min(until, after + CLOCK_HORIZON)) if at < until)


def reachable(program: Program, conditions: Iterable[Condition]) -> list[Condition]:
    """Return the conditions, all conditions inside them, and those of the segments that they refer to."""
    nodes: list[Condition] = []
    seen: set[str] = set()
    waiting = list(conditions)
    while waiting:
        for node in walk(waiting.pop()):
            nodes.append(node)
            if isinstance(node, SegmentRef) and node.name not in seen:
                seen.add(node.name)
                waiting.append(program.segment(node.name).when)
    return nodes


def candidates(conditions: Iterable[Condition], inputs: Inputs, now: int) -> set[int]:
    """Return every instant after now at which one of the conditions may change, except for clock conditions."""
    instants: set[int] = set()
    events = inputs.events
    for condition in conditions:
        if isinstance(condition, Sequence):
            if isinstance(events, KeptEvents):
                instants.update(events.instants(condition))
            else:
                instants.update(sequence_instants(condition, events))
        elif isinstance(condition, Predicate):
            instants.update(_predicate_instants(condition, inputs, now))
    return {instant for instant in instants if instant > now}


def _predicate_instants(predicate: Predicate, inputs: Inputs, now: int) -> Iterator[int]:
    for operand in operands(predicate):
        if isinstance(operand, EventAggregate) and isinstance(inputs.events, KeptEvents):
            yield from inputs.events.instants(operand)
        elif isinstance(operand, EventAggregate):
            for event in matching(operand.match, inputs.events):
                yield from operand.turns(event.at)
        elif isinstance(operand, FeatureRef) and operand.view in inputs.expires_at:
            yield inputs.expires_at[operand.view]
    yield from _value_instants(predicate, inputs, now)


def _value_instants(predicate: Predicate, inputs: Inputs, now: int) -> Iterator[int]:
    """Yield the instants at which the answer of an operator such as ``in_last`` changes for the value."""
    boundaries = OPERATORS[predicate.operator].boundaries
    value = Evaluation(Program({}), inputs, _BEFORE_EXPIRY).value(predicate) if boundaries else None
    if boundaries is not None and value is not None:
        yield from boundaries(value, predicate.argument, now)


def clocks_of(conditions: Iterable[Condition], inputs: Inputs) -> Callable[[int, int], Iterator[int]] | None:
    """Return the ``clocks`` of :func:`first_change` for all clock conditions; None if there are none."""
    times: dict[str, set[int]] = {}
    for condition in conditions:
        if isinstance(condition, Predicate) and isinstance(condition.operand, ClockRef):
            zone = Evaluation(Program({}), inputs, _BEFORE_EXPIRY).zone(condition.operand)
            if zone is not None:
                times.setdefault(zone, {0}).update(_times_of_day(condition))
    if not times:
        return None
    return lambda after, until: _ascending(crossings(after, until, zone, at) for zone, at in times.items())


def _times_of_day(predicate: Predicate) -> Iterator[int]:
    if not isinstance(predicate.operand, ClockRef) or predicate.operand.field is not ClockField.TIME_OF_DAY:
        return
    argument = predicate.argument
    for time in argument if isinstance(argument, tuple) else (argument,):
        yield time
        yield time + 1  # the first instant that is later


def _ascending(streams: Iterable[Iterator[int]]) -> Iterator[int]:
    last = None
    for instant in heapq.merge(*streams):
        if instant != last:
            yield instant
        last = instant


def _possible(condition: Condition, evaluation: Evaluation) -> set[Truth]:
    """Return the answers of a condition if clock conditions could give any answer: at least the possible ones."""
    if isinstance(condition, Predicate) and isinstance(condition.operand, ClockRef):
        return {evaluation.condition(condition)} if evaluation.value(condition) is None else {True, False}
    if isinstance(condition, SegmentRef):
        return _possible(evaluation.program.segment(condition.name).when, evaluation)
    if isinstance(condition, Not):
        return {negate(answer) for answer in _possible(condition.condition, evaluation)}
    if isinstance(condition, AllOf | AnyOf):
        combine = all_of if isinstance(condition, AllOf) else any_of
        return _combinations([_possible(child, evaluation) for child in children(condition)], combine)
    return {evaluation.condition(condition)}


def _combinations(sets: Collection[set[Truth]], combine: Callable[[list[Truth]], Truth]) -> set[Truth]:
    reached: set[Truth] = set()
    for answers in sets:
        reached = {combine([left, right]) for left in reached for right in answers} if reached else set(answers)
    return reached
