"""Bounds the effect of a further event on an answer: a view never ends "viewed three times"."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Flag

from rules_engine.rules.aggregates import AGGREGATES, Aggregate
from rules_engine.rules.nodes import AllOf, AnyOf, Condition, EventAggregate, Not, Predicate, SegmentRef, Sequence
from rules_engine.rules.program import Program
from rules_engine.rules.walk import event_matches

_COUNTING = tuple(function for function, row in AGGREGATES.items() if row.is_count)
_MORE, _LESS = ("at_least", "greater_than"), ("at_most", "less_than")


class Effect(Flag):
    """The way in which the truth of a condition can differ, at any instant, after one more event of a name."""

    NONE = 0
    RISES = 1
    FALLS = 2
    EITHER = 3


#: How many answers of :meth:`Bounds.of` are remembered.
_REMEMBERED = 1_000


class Bounds:
    """Bounds of what events can do to the segments of groups. Safe to share between threads.

    Parameters
    ----------
    program
        the segments.
    groups
        the names of the segments in each group.
    """

    def __init__(self, program: Program, groups: Mapping[str, Collection[str]]) -> None:
        self._program = program
        self._groups = groups
        self._remembered: dict[tuple[str, Collection[str]], tuple[frozenset[str], frozenset[str]]] = {}

    def of(self, group: str, events: Collection[str]) -> tuple[frozenset[str], frozenset[str]]:
        """Return the segments of a group that events of these names can only make true, and those only not true."""
        key = group, events
        bounds = self._remembered.get(key)
        if bounds is None:
            bounds = self._only(group, Effect.RISES, events), self._only(group, Effect.FALLS, events)
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            self._remembered[key] = bounds
        return bounds

    def _only(self, group: str, does: Effect, events: Collection[str]) -> frozenset[str]:
        program = self._program
        conditions = {name: program.segment(name).when for name in self._groups[group]}
        return frozenset(
            name
            for name, condition in conditions.items()
            if all(effect(program, condition, event) in does for event in events)
        )


def effect(program: Program, condition: Condition, event: str, positive: bool = True) -> Effect:
    """Return an upper bound of what one more event of that name can do to a condition.

    Asked is whether the condition is true; with ``positive`` False, whether it is false.

    >>> from rules_engine.rules.aggregates import Aggregate
    >>> from rules_engine.rules.nodes import EventMatch
    >>> viewed = Predicate(EventAggregate(Aggregate.COUNT, EventMatch("view"), within=10), "at_least", 3)
    >>> [effect(Program({}), node, "view").name for node in (viewed, Not(viewed), AllOf((viewed, Not(viewed))))]
    ['RISES', 'FALLS', 'EITHER']
    """
    match condition:
        case AllOf(conditions) | AnyOf(conditions):
            combined = Effect.NONE
            for inner in conditions:
                combined |= effect(program, inner, event, positive)
            return combined
        case Not(inner):
            return effect(program, inner, event, not positive)
        case SegmentRef(name):
            return effect(program, program.segment(name).when, event, positive)
        case Sequence():
            does = _of_sequence(condition, event)
            return does if positive else _turned(does)
        case Predicate(operand=EventAggregate() as aggregate) if aggregate.match.event == event:
            return _of_aggregate(condition, aggregate, positive)
        case Predicate() if any(match.event == event for match in event_matches(condition)):
            return Effect.EITHER
    return Effect.NONE


def _turned(change: Effect) -> Effect:
    return {Effect.RISES: Effect.FALLS, Effect.FALLS: Effect.RISES}.get(change, change)


def _of_aggregate(predicate: Predicate, aggregate: EventAggregate, positive: bool) -> Effect:
    if aggregate.function in _COUNTING:
        does = _of_count(predicate)
        return does if positive else _turned(does)
    # The greatest value can only grow, and the least one shrink; of none they are missing, and no comparison is true.
    operators = {Aggregate.MAX: _MORE, Aggregate.MIN: _LESS}.get(aggregate.function, ())
    return Effect.RISES if positive and predicate.operator in operators and not predicate.or_missing else Effect.EITHER


def _of_count(predicate: Predicate) -> Effect:
    is_of_none = predicate.argument == 0  # as in `did_not`, and a count is never below it
    if predicate.operator in _MORE or (predicate.operator == "not_equals" and is_of_none):
        return Effect.RISES
    is_falling = predicate.operator in _LESS or (predicate.operator == "equals" and is_of_none)
    return Effect.FALLS if is_falling else Effect.EITHER


def _of_sequence(sequence: Sequence, event: str) -> Effect:
    """Return the effect on a sequence: more events of its steps can complete it, forbidden ones can break it."""
    is_step = any(step.match.event == event for step in sequence.steps if not step.negated)
    is_forbidden = any(step.match.event == event for step in sequence.steps if step.negated)
    if sequence.latest_only and sequence.steps[0].match.event == event:
        return Effect.EITHER  # another first step takes the place of the latest
    return (Effect.RISES if is_step else Effect.NONE) | (Effect.FALLS if is_forbidden else Effect.NONE)
