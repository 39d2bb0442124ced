"""Warnings about segments."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Many
from itertools import combinations

from rules_engine.diagnostics import Diagnostic, Severity, Span
from rules_engine.events.state.requirements import DEFAULT_BOUND, count_limit
from rules_engine.rules.changes import reachable
from rules_engine.rules.implication import implies
from rules_engine.rules.load import Definitions
from rules_engine.rules.nodes import AllOf, AnyOf, EventAggregate, EventMatch, Predicate, Segment, Sequence
from rules_engine.rules.program import Program
from rules_engine.rules.sequences import Leg, legs_of
from rules_engine.rules.walk import walk
from rules_engine.targets.index.normal_form import never_false, never_true


def lint_segments(definitions: Definitions) -> Iterator[Diagnostic]:
    """Yield the warnings about segments."""
    program = definitions.program
    yield from _duplicates(program)
    yield from _shadowed(program)
    yield from _constant(program)
    yield from _beyond_bound(program)
    yield from _idle_steps(program)


def _warning(code: str, span: Span, message: str, hint: str) -> Diagnostic:
    return Diagnostic(code, span, message, hint, Severity.WARNING)


def _duplicates(program: Program) -> Iterator[Diagnostic]:
    """Yield warnings of segments that mean the same, whatever the order and nesting of their conditions."""
    alike: dict[frozenset[object], list[Segment]] = {}
    for name in program.names:  # only segments that read the same operands can mean the same
        segment = program.segments[name]
        alike.setdefault(_read(program, segment), []).append(segment)
    for group in alike.values():
        for first, second in combinations(sorted(group, key=_position), 2):
            if implies(program, first.when, second.when) and implies(program, second.when, first.when):
                message = f"`{second.name}` has the same members as `{first.name}` ({first.span})"
                hint = "keep one, and refer to it with `in_segment`"
                yield _warning("duplicate-definition", second.span, message, hint)


def _read(program: Program, segment: Segment) -> frozenset[object]:
    conditions = reachable(program, [segment.when])
    return frozenset(
        node.operand if isinstance(node, Predicate) else node
        for node in conditions
        if isinstance(node, Predicate | Sequence)
    )


def _position(segment: Segment) -> tuple[str, int]:
    return segment.span.file, segment.span.line


def _shadowed(program: Program) -> Iterator[Diagnostic]:
    """Yield warnings of parts of `any` and `all` that decide nothing because of another part."""
    for segment in program.segments.values():
        for node in walk(segment.when):
            if isinstance(node, AnyOf | AllOf):
                yield from _shadowed_parts(program, node)


def _shadowed_parts(program: Program, group: AnyOf | AllOf) -> Iterator[Diagnostic]:
    reported: set[int] = set()
    for first, second in combinations(range(len(group.conditions)), 2):
        for place, neighbour in ((second, first), (first, second)):
            if reported & {place, neighbour} or not _decides_nothing(program, group, place, neighbour):
                continue
            reported.add(place)
            part, line = group.conditions[place], group.conditions[neighbour].span.line
            word = "narrower" if isinstance(group, AnyOf) else "wider"
            message = f"this decides nothing: it is {word} than the condition at line {line} beside it"
            yield _warning("shadowed-condition", part.span, message, "remove it, or change one of the two")


def _decides_nothing(program: Program, group: AnyOf | AllOf, place: int, neighbour: int) -> bool:
    part, other = group.conditions[place], group.conditions[neighbour]
    return implies(program, part, other) if isinstance(group, AnyOf) else implies(program, other, part)


def _beyond_bound(program: Program) -> Iterator[Diagnostic]:
    """Yield a warning for each comparison with a count larger than the number of events that are kept."""
    for segment in program.segments.values():
        for node in walk(segment.when):
            if not isinstance(node, Predicate) or not isinstance(node.operand, EventAggregate):
                continue
            limit = count_limit(node)
            if limit is not None and limit > DEFAULT_BOUND:
                message = (
                    f"lookups and triggers keep at most {DEFAULT_BOUND:,} events of a user for a condition, "
                    "so they answer `unknown` where this takes more to tell"
                )
                hint = f"compare with at most {DEFAULT_BOUND:,}, or answer it with `segments evaluate`"
                yield _warning("count-beyond-bound", node.span, message, hint)


def _idle_steps(program: Program) -> Iterator[Diagnostic]:
    """Yield warnings of `did_not` steps without `within` that decide nothing, as other events can be chosen."""
    for segment in program.segments.values():
        for node in walk(segment.when):
            if isinstance(node, Sequence):
                yield from _idle_steps_of(node)


def _idle_steps_of(sequence: Sequence) -> Iterator[Diagnostic]:
    legs = legs_of(sequence.steps)
    for number, leg in enumerate(legs):
        for place in leg.forbidden:
            step = sequence.steps[place]
            why = _idle_because(sequence, legs, number, place)
            if why is not None:
                message = f"this step decides nothing: {why}"
                hint = f"for a time without `{step.match.event}` add `within`, e.g. `within: 30d`; or remove the step"
                yield _warning("idle-step", step.span, message, hint)


def _idle_because(sequence: Sequence, legs: Many[Leg], number: int, place: int) -> str | None:
    """Return why a `did_not` without `within` decides nothing; None if it decides."""
    steps, leg, match = sequence.steps, legs[number], sequence.steps[place].match
    others = [other for other in leg.forbidden if other != place and _covers(steps[other].match, match)]
    if any(other < place or not _covers(match, steps[other].match) for other in others):
        return "another step forbids these events between the same two"
    if leg.gaps:
        return None
    if number == 0 and _covers(steps[leg.step].match, match):
        return "such an event between the two would itself be the first of them"
    if number == len(legs) - 2 and not legs[-1].gaps and _covers(steps[legs[-1].step].match, match):
        return "such an event between the two would itself be the second of them"
    return None


def _covers(match: EventMatch, other: EventMatch) -> bool:
    """Say whether a match means every event that the other one means."""
    return match.event == other.event and implies(Program({}), AllOf(other.where), AllOf(match.where))


def _constant(program: Program) -> Iterator[Diagnostic]:
    """Yield warnings of segments that are never true, or never false."""
    impossible, certain = never_true(program), never_false(program)
    for name, segment in program.segments.items():
        if name in impossible:
            message = f"nobody can be in `{name}`: its conditions exclude each other"
            yield _warning("never-true", segment.span, message, "look at the conditions that must hold together")
        if name in certain:
            message = f"`{name}` is never false: one of its conditions holds for everyone who is known"
            yield _warning("never-false", segment.span, message, "look at the conditions of which one is enough")
