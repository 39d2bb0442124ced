"""Warnings about triggers."""

from __future__ import annotations

from collections.abc import Iterator

from rules_engine.clock import format_duration
from rules_engine.diagnostics import Diagnostic, Severity, Span
from rules_engine.rules.aggregates import Aggregate
from rules_engine.rules.implication import implies
from rules_engine.rules.load import Definitions
from rules_engine.rules.nodes import AllOf, Condition, ContextRef, EventAggregate, Not, Predicate, Segment, SegmentRef
from rules_engine.rules.program import Program
from rules_engine.rules.triggers.nodes import EVER, OnEnter, OnExit, QuietPolicy, Trigger, hidden_segments
from rules_engine.rules.types import INTEGER
from rules_engine.rules.walk import operands
from rules_engine.targets.index.normal_form import never_true

#: Begin the names of a condition's opposite, and of the condition for members of a segment, in the tested program.
_NOT, _IN = "not ", "in "


def lint_triggers(definitions: Definitions) -> Iterator[Diagnostic]:
    r"""Yield the warnings about triggers.

    >>> from rules_engine.rules.catalog import Catalog
    >>> from rules_engine.rules.load import load_text
    >>> text = "segment: a\nwhen: {feature: u:x, at_least: 1}\n---\ntrigger: t\non_enter: a\nsend: [{stream: s}]\n"
    >>> load = lambda more: load_text(text + more, Catalog(closed=False))
    >>> [warning.code for warning in lint_triggers(load("cancel_if: {not: {in_segment: a}}"))]
    ['cancel-without-waiting']
    """
    for trigger in definitions.triggers.values():
        yield from _of_trigger(definitions.program, trigger)
    yield from _constant(definitions)


def _warning(code: str, span: Span, message: str, hint: str) -> Diagnostic:
    return Diagnostic(code, span, message, hint, Severity.WARNING)


def _of_trigger(program: Program, trigger: Trigger) -> Iterator[Diagnostic]:
    for segment, context in sorted(_context_reads(program, trigger)):
        message = (
            f"`{trigger.name}` fires without a request, and the segment `{segment}` reads the value `{context}` of one"
        )
        yield _warning("context-in-trigger", trigger.span, message, f"give `context: {context}` a `default`")
    if trigger.cancel_if is not None and any(
        implies(program, fact, trigger.cancel_if) for fact in _facts_at_start(trigger, trigger.cancel_if)
    ):
        message = f"what starts `{trigger.name}` makes its `cancel_if` true, so it is always cancelled"
        yield _warning("always-cancelled", trigger.cancel_if.span, message, "say what else has to happen, e.g. `where`")
    elif trigger.cancel_if is not None and not _waits(trigger):
        message = f"`{trigger.name}` never waits, so `cancel_if` is judged at its start only"
        hint = "give it a `delay`, or write the condition's opposite in `if`"
        yield _warning("cancel-without-waiting", trigger.cancel_if.span, message, hint)
    cap, cooldown = trigger.cap, trigger.cooldown
    if cap is not None and cooldown is not None and cap.max * cooldown >= cap.per:
        waits = "once and for all" if cooldown == EVER else f"of {format_duration(cooldown)}"
        message = f"with a cooldown {waits}, nobody reaches the cap of `{trigger.name}`"
        yield _warning("cap-decides-nothing", trigger.span, message, "remove one of them")


def _waits(trigger: Trigger) -> bool:
    """Say whether a trigger may be due later than it starts."""
    hours = trigger.quiet_hours
    return bool(trigger.delay) or (hours is not None and hours.policy is QuietPolicy.DEFER)


def _facts_at_start(trigger: Trigger, condition: Condition) -> list[Condition]:
    """Return conditions that are true when the trigger starts, as far as they can matter to a condition."""
    if isinstance(trigger.on, OnEnter):
        return [SegmentRef(trigger.on.segment)]
    if isinstance(trigger.on, OnExit):
        return []
    came = trigger.on.match
    counted = {
        (operand.match, operand.within)
        for operand in operands(condition)
        if isinstance(operand, EventAggregate) and operand.match.event == came.event and operand.window is None
    }
    counts = [
        EventAggregate(Aggregate.COUNT, match, window)
        for match, window in counted
        if set(match.where) <= set(came.where)  # the event that came is one of those
    ]
    return [Predicate(count, "at_least", 1, INTEGER) for count in counts]


def _context_reads(program: Program, trigger: Trigger) -> set[tuple[str, str]]:
    """Return the context values without a default that the trigger's segments read, each with the segment."""
    hidden = hidden_segments([trigger])
    whole = Program({**program.segments, **hidden})
    start = [*hidden, *([trigger.segment] if trigger.segment is not None else [])]
    return {
        (name, operand.name)
        for name in whole.closure(start)
        if name in program.segments
        for operand in operands(whole.segment(name).when)
        if isinstance(operand, ContextRef) and operand.default is None
    }


def _constant(definitions: Definitions) -> Iterator[Diagnostic]:
    """Yield warnings of conditions of triggers that never hold, or always do."""
    hidden = hidden_segments(definitions.triggers.values())
    probes = {_NOT + name: Segment(_NOT + name, Not(segment.when)) for name, segment in hidden.items()}
    for trigger in definitions.triggers.values():
        if trigger.if_ is not None and isinstance(trigger.on, OnEnter) and not _waits(trigger):
            name = _IN + trigger.if_name
            probes[name] = Segment(name, AllOf((SegmentRef(trigger.on.segment), trigger.if_)))
    whole = Program({**definitions.program.segments, **hidden, **probes})
    started = [trigger.segment for trigger in definitions.triggers.values() if trigger.segment is not None]
    tested = whole.closure([*hidden, *probes, *started])
    impossible = never_true(Program({name: whole.segments[name] for name in tested}))
    for trigger in definitions.triggers.values():
        for key, name, condition in (
            ("if", trigger.if_name, trigger.if_),
            ("cancel_if", trigger.cancel_if_name, trigger.cancel_if),
        ):
            if condition is None:
                continue
            if name in impossible:
                hint = "look at the conditions that must hold together"
                yield _warning("never-true", condition.span, f"`{key}` of `{trigger.name}` never holds", hint)
            elif _IN + name in impossible and trigger.segment not in impossible:
                message = f"`{key}` of `{trigger.name}` never holds for who enters `{trigger.segment}`"
                yield _warning("never-true", condition.span, message, "look at the conditions of both")
            if _NOT + name in impossible:
                hint = "look at the conditions of which one is enough"
                yield _warning("never-false", condition.span, f"`{key}` of `{trigger.name}` always holds", hint)
