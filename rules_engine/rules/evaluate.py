"""The plain three-valued evaluator: the oracle of every target, and the source of explanations."""

from __future__ import annotations

from typing import assert_never

from rules_engine.rules.buckets import bucket
from rules_engine.rules.comparison import composite_value
from rules_engine.rules.events import aggregate_value
from rules_engine.rules.inputs import Inputs
from rules_engine.rules.local_time import local_time
from rules_engine.rules.nodes import (
    AllOf,
    AnyOf,
    BucketRef,
    Calculation,
    ClockField,
    ClockRef,
    Composite,
    Condition,
    ContextRef,
    EventAggregate,
    EventTime,
    FeatureRef,
    Not,
    Operand,
    Predicate,
    PropertyRef,
    SegmentRef,
    Sequence,
    TwoSides,
)
from rules_engine.rules.predicates import Truth, as_read, context_value, predicate_truth
from rules_engine.rules.program import Program
from rules_engine.rules.sequences import sequence_truth
from rules_engine.rules.truth import all_of, any_of, negate
from rules_engine.rules.types import STRING, Value, ValueType, conform


class Evaluation:
    """One entity's inputs at one instant, and the answers to every rule on them.

    >>> from rules_engine.rules.nodes import Segment
    >>> norwegian = Predicate(FeatureRef("user", "country"), "equals", "NO", operand_type=STRING)
    >>> abroad = Not(SegmentRef("norway"))
    >>> program = Program({"norway": Segment("norway", norwegian), "abroad": Segment("abroad", abroad)})
    >>> known, unknown = Evaluation(program, Inputs({"user:country": "NO"}), 0), Evaluation(program, Inputs(), 0)
    >>> known.segment("norway"), known.segment("abroad"), unknown.segment("abroad")
    (True, False, None)
    """

    def __init__(self, program: Program, inputs: Inputs, now: int) -> None:
        self.program = program
        self.inputs = inputs
        self.now = now
        self._segments: dict[str, Truth] = {}

    def segment(self, name: str) -> Truth:
        """Return a segment's answer.

        Raises
        ------
        UnknownNameError
            if there is none of that name.
        """
        if name not in self._segments:
            self._segments[name] = self.condition(self.program.segment(name).when)
        return self._segments[name]

    def condition(self, condition: Condition) -> Truth:
        """Return a condition's answer: True, False, or None for unknown."""
        match condition:
            case AllOf():
                return all_of([self.condition(child) for child in condition.conditions])
            case AnyOf():
                return any_of([self.condition(child) for child in condition.conditions])
            case Not():
                return negate(self.condition(condition.condition))
            case Predicate():
                return predicate_truth(condition, self.value(condition), self.now)
            case Sequence():
                return sequence_truth(condition, self.inputs.events, self.now)
            case SegmentRef():
                return self.segment(condition.name)
            case _:
                assert_never(condition)

    def value(self, predicate: Predicate) -> Value:
        """Return the value that a predicate is about; None if it is missing or of another type than was checked."""
        operand = predicate.operand
        if isinstance(operand, Composite):
            return composite_value(operand, self.read)
        return self.read(operand, predicate.operand_type)

    def read(self, operand: Operand, value_type: ValueType | None) -> Value:
        """Return the value of an operand as a type; None if it is missing or of another type."""
        if isinstance(operand, ContextRef):
            return context_value(operand, value_type, self.inputs.context)
        return as_read(self._raw(operand), value_type)

    def _raw(self, operand: Operand) -> Value:
        match operand:
            case FeatureRef():
                return self.feature(operand)
            case ClockRef():
                return self._clock(operand)
            case BucketRef():
                return None if self.inputs.entity is None else bucket(operand.seed, self.inputs.entity)
            case EventAggregate():
                return aggregate_value(operand, self.inputs.events, self.now)
            case PropertyRef() | EventTime() | ContextRef() | TwoSides() | Calculation():
                raise TypeError(f"{operand} is not read here")
            case _:
                assert_never(operand)

    def feature(self, ref: FeatureRef) -> Value:
        """Return a feature's value now; None if it is missing or past its view's ttl."""
        expires_at = self.inputs.expires_at.get(ref.view)
        return None if expires_at is not None and self.now >= expires_at else self.inputs.features.get(ref.key)

    def zone(self, clock: ClockRef) -> str | None:
        """Return the name of the time zone that a clock condition reads; None if its feature is missing."""
        if isinstance(clock.timezone, str):
            return clock.timezone
        return conform(self.feature(clock.timezone), STRING)  # type: ignore[no-any-return]

    def _clock(self, clock: ClockRef) -> Value:
        zone = self.zone(clock)
        local = local_time(self.now, zone) if zone is not None else None
        if local is None:
            return None
        return local[0] if clock.field is ClockField.TIME_OF_DAY else local[1]
