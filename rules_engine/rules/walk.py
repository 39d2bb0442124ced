"""Walk over the tree of a condition, and collect what it depends on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rules_engine.rules.nodes import (
    AllOf,
    AnyOf,
    BucketRef,
    Calculation,
    ClockRef,
    Composite,
    Condition,
    ContextRef,
    EventAggregate,
    EventMatch,
    FeatureRef,
    Not,
    Operand,
    Predicate,
    SegmentRef,
    Sequence,
    TwoSides,
)
from rules_engine.rules.types import FLOAT, Kind, ValueType


def children(condition: Condition) -> tuple[Condition, ...]:
    """Return the conditions directly inside one."""
    if isinstance(condition, Predicate):  # most are
        return ()
    if isinstance(condition, AllOf | AnyOf):
        return condition.conditions
    return (condition.condition,) if isinstance(condition, Not) else ()


def walk(condition: Condition) -> Iterator[Condition]:
    """Yield the condition and all inside it, outermost first; segment references are not followed."""
    yield condition
    for child in children(condition):
        yield from walk(child)


def segment_references(condition: Condition) -> set[str]:
    """Return the names of the segments that a condition refers to directly."""
    return {node.name for node in walk(condition) if isinstance(node, SegmentRef)}


def parts(operand: Operand) -> tuple[Operand, ...]:
    """Return the operands that an operand is made of; one that is made of no others is its own part."""
    if isinstance(operand, Calculation):
        return operand.terms
    if not isinstance(operand, TwoSides):
        return (operand,)
    divisor = operand.right.divisor
    return (operand.left, operand.right.value, *(() if divisor is None else (divisor,)))


def typed_parts(predicate: Predicate) -> Iterator[tuple[Operand, ValueType | None]]:
    """Yield the operands that a predicate reads, each with the type as which it is read."""
    operand = predicate.operand
    if not isinstance(operand, TwoSides):
        yield from ((part, predicate.operand_type) for part in parts(operand))
        return
    yield operand.left, operand.type
    yield operand.right.value, operand.type
    if operand.right.divisor is not None:
        yield operand.right.divisor, FLOAT


def operands(condition: Condition) -> Iterator[Operand]:
    """Yield every operand that the condition reads directly, the features of time zones included."""
    for node in walk(condition):
        if isinstance(node, Predicate):
            yield from parts(node.operand)
            if isinstance(node.operand, ClockRef) and isinstance(node.operand.timezone, FeatureRef):
                yield node.operand.timezone


def reads_samples(condition: Condition) -> bool:
    """Say whether the answer depends on the entity's key: a part of the condition is a sample."""
    return any(isinstance(operand, BucketRef) for operand in operands(condition))


def event_sources(condition: Condition) -> Iterator[EventAggregate | Sequence]:
    """Yield every aggregate and every sequence of the condition."""
    for node in walk(condition):
        if isinstance(node, Sequence):
            yield node
        elif isinstance(node, Predicate):
            yield from (part for part in parts(node.operand) if isinstance(part, EventAggregate))


def event_matches(condition: Condition) -> Iterator[EventMatch]:
    """Yield every event match of the condition: of its aggregates and of the steps of its sequences."""
    for source in event_sources(condition):
        if isinstance(source, EventAggregate):
            yield source.match
        else:
            yield from (step.match for step in source.steps)


def where_predicates(match: EventMatch) -> Iterator[Predicate]:
    """Yield every predicate on the events that a match means."""
    for condition in match.where:
        yield from (node for node in walk(condition) if isinstance(node, Predicate))


def context_times(conditions: Iterable[Condition]) -> frozenset[str]:
    """Return the names of the context values that some condition reads as times."""
    return frozenset(
        part.name
        for condition in conditions
        for node in walk(condition)
        if isinstance(node, Predicate)
        for part, value_type in typed_parts(node)
        if isinstance(part, ContextRef) and value_type is not None and value_type.kind is Kind.TIME
    )


def reads_events(condition: Condition) -> bool:
    """Say whether a condition itself, not what is inside it, asks for events and for nothing else."""
    if isinstance(condition, Predicate):
        return all(isinstance(part, EventAggregate) for part in parts(condition.operand))
    return isinstance(condition, Sequence)


def mixes_events(condition: Condition) -> bool:
    """Say whether a condition itself, not what is inside it, compares what events say with something else."""
    if not isinstance(condition, Predicate) or not isinstance(condition.operand, Composite):
        return False
    return len({isinstance(part, EventAggregate) for part in parts(condition.operand)}) > 1


@dataclass(frozen=True, slots=True)
class Dependencies:
    """Names what a condition reads directly, without what referenced segments read."""

    features: frozenset[str]
    context: frozenset[str]
    events: frozenset[str]
    segments: frozenset[str]


def dependencies(condition: Condition) -> Dependencies:
    """Return the features, context values, events and segments that a condition reads directly."""
    read = list(operands(condition))
    return Dependencies(
        features=frozenset(operand.key for operand in read if isinstance(operand, FeatureRef)),
        context=frozenset(operand.name for operand in read if isinstance(operand, ContextRef)),
        events=frozenset(match.event for match in event_matches(condition)),
        segments=frozenset(segment_references(condition)),
    )
