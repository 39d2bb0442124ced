"""Answers with the instant until which they last: a worker evaluates one entity after every event, segment by segment.

A condition becomes a function that returns whether it is true (or whether it is false), and an instant until which that
stays so if nothing happens. The instant is never too late, and mostly exact; if it is too early, the worker only
evaluates once more. Predicates on values are those of :func:`~rules_engine.rules.predicates.predicate_truth`, and
events are read as :mod:`rules_engine.events.state.reading` plans it. tests/property/test_lasting.py compares both with
the plain evaluator.
"""

from __future__ import annotations

from collections.abc import Sequence

from rules_engine.events.state.reading import StateLayout
from rules_engine.rules.aggregates import Aggregate
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
    FeatureRef,
    Not,
    Predicate,
    SegmentRef,
    TwoSides,
)
from rules_engine.rules.nodes import Sequence as SequenceNode
from rules_engine.rules.program import Program
from rules_engine.targets.stepwise.aggregates import check_aggregate
from rules_engine.targets.stepwise.comparisons import check_comparison
from rules_engine.targets.stepwise.features import check_bucket, check_clock, check_context, check_feature
from rules_engine.targets.stepwise.sequences import check_sequence
from rules_engine.targets.stepwise.view import FOREVER, NEVER, Answer, Check, View


class Checks:
    """The conditions of a program, compiled at their first use.

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

    def segment(self, name: str, positive: bool = True) -> Check:
        """Return the check whether a segment is true; with ``positive`` False, whether it is false."""
        key = (name, positive)
        if key not in self._segments:
            self._segments[key] = self.condition(self._program.segment(name).when, positive)
        return self._segments[key]

    def condition(self, condition: Condition, positive: bool = True) -> Check:
        """Return the check whether a condition is true; with ``positive`` False, whether it is false."""
        match condition:
            case AllOf(conditions) | AnyOf(conditions):
                parts = [self.condition(part, positive) for part in sorted(conditions, key=_cost)]
                if len(parts) == 1:
                    return parts[0]
                return _every(parts) if isinstance(condition, AllOf) is positive else _some(parts)
            case Not(inner):
                return self.condition(inner, not positive)
            case SegmentRef(name):
                return _remembered(self.segment(name, positive), (name, positive))
            case SequenceNode():
                return self._lasting(condition, positive, check_sequence(self._layout, condition, positive))
            case Predicate(operand=EventAggregate() as aggregate):
                check = check_aggregate(self._layout, condition, aggregate, positive)
                # A count is taken as quickly as it is remembered.
                return check if aggregate.function is Aggregate.COUNT else self._lasting(condition, positive, check)
            case Predicate():
                return _predicate(self._layout, condition, positive)

    def _lasting(self, condition: Predicate | SequenceNode, positive: bool, check: Check) -> Check:
        """Return a check of a condition on events that is asked only where its last answer has ended."""
        number = self._layout.number(condition, positive)

        def answer(view: View, now: int) -> Answer:
            remembered = view.remembered.get(number)
            if remembered is not None and remembered[0] <= now < remembered[1][1]:
                return remembered[1]
            result = check(view, now)
            view.remembered[number] = now, result
            return result

        return answer


def _cost(condition: Condition) -> int:
    """Return the rank of a condition: cheap ones come first, because they may decide the answer."""
    if isinstance(condition, Predicate):
        if isinstance(condition.operand, ClockRef):
            return 4
        return 1 if isinstance(condition.operand, EventAggregate | Composite) else 0
    return 3 if isinstance(condition, SequenceNode) else 2


def _remembered(check: Check, key: tuple[str, bool]) -> Check:
    """Return a check that remembers its answer at an instant, as several segments may refer to it."""

    def answer(view: View, now: int) -> Answer:
        remembered = view.answers.get(key)
        if remembered is not None and remembered[0] == now:
            return remembered[1]
        result = check(view, now)
        view.answers[key] = now, result
        return result

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
            elif lasts > failed:  # one failed check suffices: take the one that lasts longest
                failed = lasts
        return (True, until) if failed == NEVER else (False, failed)

    return answer


def _some(checks: Sequence[Check]) -> Check:
    def answer(view: View, now: int) -> Answer:
        until, longest = FOREVER, NEVER
        for check in checks:
            holds, lasts = check(view, now)
            if not holds:
                if lasts < until:
                    until = lasts
            elif lasts == FOREVER:
                return True, FOREVER
            elif lasts > longest:
                longest = lasts
        return (False, until) if longest == NEVER else (True, longest)

    return answer


def _predicate(layout: StateLayout, predicate: Predicate, positive: bool) -> Check:
    operand = predicate.operand
    match operand:
        case FeatureRef():
            return check_feature(predicate, operand, positive)
        case ContextRef():
            return check_context(predicate, operand, positive)
        case ClockRef():
            return check_clock(predicate, operand, positive)
        case BucketRef():
            return check_bucket(predicate, operand, positive)
        case TwoSides() | Calculation():
            return check_comparison(layout, predicate, operand, positive)
    raise TypeError(f"{operand} is not read here")
