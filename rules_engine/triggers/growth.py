"""Tells what a further event can do to an answer: a view never ends "viewed three times", nor begins "did not view"."""

from __future__ import annotations

from enum import Flag

from rules_engine.rules.aggregates import AGGREGATES
from rules_engine.rules.nodes import AllOf, AnyOf, Condition, EventAggregate, Not, Predicate, SegmentRef, Sequence
from rules_engine.rules.program import Program

_COUNTING = tuple(function for function, row in AGGREGATES.items() if row.is_count)
_MORE, _LESS = ("at_least", "greater_than"), ("at_most", "less_than")


class Effect(Flag):
    """Says how the truth of a condition can differ, at any instant, after one more event of a name."""

    NONE = 0
    RISES = 1
    FALLS = 2
    EITHER = 3


def effect(program: Program, condition: Condition, event: str) -> Effect:
    """Return what one more event of that name can do to a condition. It is never less than what happens.

    >>> from rules_engine.rules.aggregates import Aggregate
    >>> from rules_engine.rules.aggregates import Aggregate
    >>> from rules_engine.rules.nodes import EventMatch
    >>> viewed = Predicate(EventAggregate(Aggregate.COUNT, EventMatch("view"), within=10), "at_least", 3)
    >>> [effect(Program({}), one, "view").name for one in (viewed, Not(viewed), AllOf((viewed, Not(viewed))))]
    ['RISES', 'FALLS', 'EITHER']
    """
    match condition:
        case AllOf(conditions) | AnyOf(conditions):
            found = Effect.NONE
            for inner in conditions:
                found |= effect(program, inner, event)
            return found
        case Not(inner):
            return _turned(effect(program, inner, event))
        case SegmentRef(name):
            return effect(program, program.segment(name).when, event)
        case Sequence():
            return _of_sequence(condition, event)
        case Predicate(operand=EventAggregate() as aggregate) if aggregate.match.event == event:
            return _of_aggregate(condition, aggregate)
    return Effect.NONE


def _turned(found: Effect) -> Effect:
    return {Effect.RISES: Effect.FALLS, Effect.FALLS: Effect.RISES}.get(found, found)


def _of_aggregate(predicate: Predicate, aggregate: EventAggregate) -> Effect:
    if aggregate.function not in _COUNTING:
        return Effect.EITHER
    is_of_none = predicate.argument == 0  # as in `did_not`, and a count is never below it
    if predicate.operator in _MORE or (predicate.operator == "not_equals" and is_of_none):
        return Effect.RISES
    is_falling = predicate.operator in _LESS or (predicate.operator == "equals" and is_of_none)
    return Effect.FALLS if is_falling else Effect.EITHER


def _of_sequence(sequence: Sequence, event: str) -> Effect:
    """It asks whether some events fit: further ones give more to choose from, forbidden ones less."""
    wanted = any(step.match.event == event for step in sequence.steps if not step.negated)
    forbidden = any(step.match.event == event for step in sequence.steps if step.negated)
    if sequence.latest_only and sequence.steps[0].match.event == event:
        return Effect.EITHER  # another first step takes the place of the latest
    return (Effect.RISES if wanted else Effect.NONE) | (Effect.FALLS if forbidden else Effect.NONE)
