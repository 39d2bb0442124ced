"""Bounds the effect of a further event on an answer: a view never ends "viewed three times"."""

from __future__ import annotations

from enum import Flag

from rules_engine.rules.aggregates import AGGREGATES
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


def effect(program: Program, condition: Condition, event: str) -> Effect:
    """Return an upper bound of what one more event of that name can do to a condition.

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
                combined |= effect(program, inner, event)
            return combined
        case Not(inner):
            return _turned(effect(program, inner, event))
        case SegmentRef(name):
            return effect(program, program.segment(name).when, event)
        case Sequence():
            return _of_sequence(condition, event)
        case Predicate(operand=EventAggregate() as aggregate) if aggregate.match.event == event:
            return _of_aggregate(condition, aggregate)
        case Predicate() if any(match.event == event for match in event_matches(condition)):
            return Effect.EITHER
    return Effect.NONE


def _turned(change: Effect) -> Effect:
    return {Effect.RISES: Effect.FALLS, Effect.FALLS: Effect.RISES}.get(change, change)


def _of_aggregate(predicate: Predicate, aggregate: EventAggregate) -> Effect:
    if aggregate.function not in _COUNTING:
        return Effect.EITHER
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
