"""Answers with how long they last: what a worker asks of one entity, segment by segment, after every event.

A condition becomes a function that gives whether it is true (or whether it is false), and an instant until which that
holds if nothing happens. The instant is never too late, and mostly exact; who looks again too early only looks again.
The truth of values is :func:`~rules_engine.rules.predicates.judge`'s, as everywhere, and events are read as
:mod:`rules_engine.events.state.reading` plans it. tests/property/test_lasting.py holds both to the plain evaluator.
"""

from __future__ import annotations

from collections.abc import Sequence

from rules_engine.events.state.reading import StateLayout
from rules_engine.rules.nodes import (
    AllOf,
    AnyOf,
    ClockRef,
    Condition,
    ContextRef,
    EventAggregate,
    FeatureRef,
    Not,
    Predicate,
    SegmentRef,
)
from rules_engine.rules.nodes import Sequence as SequenceNode
from rules_engine.rules.program import Program
from rules_engine.targets.stepwise.aggregates import check_aggregate
from rules_engine.targets.stepwise.features import check_clock, check_context, check_feature
from rules_engine.targets.stepwise.sequences import check_sequence
from rules_engine.targets.stepwise.view import FOREVER, NEVER, Answer, Check, View


class Checks:
    """The conditions of a program, compiled when they are first asked for.

    >>> from rules_engine.events.state.requirements import requirements_of
    >>> from rules_engine.events.state.entity_state import empty_state, update
    >>> from rules_engine.events.state.reading import StateReader
    >>> from rules_engine.features.online.selection import EntityFeatures
    >>> from rules_engine.rules.aggregates import Aggregate
    >>> from rules_engine.rules.inputs import Event
    >>> from rules_engine.rules.nodes import EventMatch, Segment
    >>> viewed = Predicate(EventAggregate(Aggregate.COUNT, EventMatch("view"), within=10), "at_least", 1)
    >>> program = Program({"viewed": Segment("viewed", viewed)})
    >>> requirements = requirements_of(program)
    >>> layout = StateLayout(requirements)
    >>> state = update(empty_state(requirements), [Event("view", 3, "a")], requirements)
    >>> view = View(EntityFeatures("42"), StateReader(state, layout))
    >>> Checks(program, layout).segment("viewed")(view, 5)
    (True, 13)
    """

    def __init__(self, program: Program, layout: StateLayout) -> None:
        self._program = program
        self._layout = layout
        self._segments: dict[tuple[str, bool], Check] = {}

    def segment(self, name: str, wanted: bool = True) -> Check:
        """Say whether a segment is true; with ``wanted`` False, whether it is false."""
        key = (name, wanted)
        if key not in self._segments:
            self._segments[key] = self.condition(self._program.segment(name).when, wanted)
        return self._segments[key]

    def condition(self, condition: Condition, wanted: bool = True) -> Check:
        """Say whether a condition is true; with ``wanted`` False, whether it is false."""
        match condition:
            case AllOf(conditions) | AnyOf(conditions):
                parts = [self.condition(part, wanted) for part in sorted(conditions, key=_cost)]
                if len(parts) == 1:
                    return parts[0]
                return _every(parts) if isinstance(condition, AllOf) is wanted else _some(parts)
            case Not(inner):
                return self.condition(inner, not wanted)
            case SegmentRef(name):
                return _remembered(self.segment(name, wanted), (name, wanted))
            case SequenceNode():
                return check_sequence(self._layout, condition, wanted)
            case Predicate():
                return _predicate(self._layout, condition, wanted)


def _cost(condition: Condition) -> int:
    """Return the rank of a condition: cheap ones come first, as they may decide."""
    if isinstance(condition, Predicate):
        if isinstance(condition.operand, ClockRef):
            return 4
        return 1 if isinstance(condition.operand, EventAggregate) else 0
    return 3 if isinstance(condition, SequenceNode) else 2


def _remembered(check: Check, key: tuple[str, bool]) -> Check:
    """Remember the answer at an instant: several segments refer to it."""

    def answer(view: View, now: int) -> Answer:
        known = view.known.get(key)
        if known is not None and known[0] == now:
            return known[1]
        found = check(view, now)
        view.known[key] = now, found
        return found

    return answer


def _every(checks: Sequence[Check]) -> Check:
    def answer(view: View, now: int) -> Answer:
        until, failed = FOREVER, NEVER
        for check in checks:
            holds, lasts = check(view, now)
            if holds:
                if lasts < until:
                    until = lasts
            elif lasts == FOREVER:
                return False, FOREVER
            elif lasts > failed:  # any one that fails will do: the longest
                failed = lasts
        return (True, until) if failed == NEVER else (False, failed)

    return answer


def _some(checks: Sequence[Check]) -> Check:
    def answer(view: View, now: int) -> Answer:
        until, held = FOREVER, NEVER
        for check in checks:
            holds, lasts = check(view, now)
            if not holds:
                if lasts < until:
                    until = lasts
            elif lasts == FOREVER:
                return True, FOREVER
            elif lasts > held:
                held = lasts
        return (False, until) if held == NEVER else (True, held)

    return answer


def _predicate(layout: StateLayout, predicate: Predicate, wanted: bool) -> Check:
    operand = predicate.operand
    match operand:
        case FeatureRef():
            return check_feature(predicate, operand, wanted)
        case ContextRef():
            return check_context(predicate, operand, wanted)
        case ClockRef():
            return check_clock(predicate, operand, wanted)
        case EventAggregate():
            return check_aggregate(layout, predicate, operand, wanted)
    raise TypeError(f"{operand} is not read here")
