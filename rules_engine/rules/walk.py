"""Walk over the tree of a condition, and collect what it depends on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rules_engine.rules.nodes import (
    AllOf,
    AnyOf,
    BucketRef,
    ClockRef,
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
)
from rules_engine.rules.types import Kind


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


def operands(condition: Condition) -> Iterator[Operand]:
    """Yield every operand that the condition reads directly, the features of time zones included."""
    for node in walk(condition):
        if isinstance(node, Predicate):
            yield node.operand
            if isinstance(node.operand, ClockRef) and isinstance(node.operand.timezone, FeatureRef):
                yield node.operand.timezone


def reads_samples(condition: Condition) -> bool:
    """Say whether the answer depends on the entity's key: a part of the condition is a sample."""
    return any(isinstance(operand, BucketRef) for operand in operands(condition))


def event_matches(condition: Condition) -> Iterator[EventMatch]:
    """Yield every event match of the condition: of its aggregates and of the steps of its sequences."""
    for node in walk(condition):
        if isinstance(node, Predicate) and isinstance(node.operand, EventAggregate):
            yield node.operand.match
        elif isinstance(node, Sequence):
            yield from (step.match for step in node.steps)


def where_predicates(match: EventMatch) -> Iterator[Predicate]:
    """Yield every predicate on the events that a match means."""
    for condition in match.where:
        yield from (node for node in walk(condition) if isinstance(node, Predicate))


def context_times(conditions: Iterable[Condition]) -> frozenset[str]:
    """Return the names of the context values that some condition reads as times."""
    return frozenset(
        node.operand.name
        for condition in conditions
        for node in walk(condition)
        if isinstance(node, Predicate)
        and isinstance(node.operand, ContextRef)
        and node.operand_type is not None
        and node.operand_type.kind is Kind.TIME
    )


def reads_events(condition: Condition) -> bool:
    """Say whether a condition itself, not what is inside it, asks for events."""
    return not children(condition) and next(event_matches(condition), None) is not None


def event_operand(predicate: Predicate) -> EventAggregate:
    """Return the aggregate of events that a predicate compares."""
    assert isinstance(predicate.operand, EventAggregate), predicate
    return predicate.operand


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
