"""Slots: the values that the index looks up. A slot is an operand, taken as a type, and read in one of a few ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from rules_engine.rules.aggregates import AGGREGATES
from rules_engine.rules.forms import WEEKDAYS
from rules_engine.rules.nodes import ClockRef, Composite, EventAggregate, Operand, Predicate, Sequence
from rules_engine.rules.operators import OPERATORS, Argument
from rules_engine.rules.text import fold_case
from rules_engine.rules.types import Kind, Value, ValueType, conform
from rules_engine.rules.walk import parts
from rules_engine.targets.index import lines
from rules_engine.targets.index.lines import Line

#: The origin of a slot's value. The value of a predicate or a sequence is its answer.
Source = Operand | Predicate | Sequence


class Reading(Enum):
    """The form in which a value is looked up."""

    PLAIN = "the value"
    FOLDED = "the value in lower case"
    REVERSED = "the value from its end"
    FOLDED_REVERSED = "the value in lower case from its end"
    AGE = "the time since the value"
    TEST = "what a predicate says of the value"

    __hash__ = object.__hash__  # as in Kind


@dataclass(frozen=True, eq=False)
class Slot:
    """A value to look up. Slots compare by identity, so that two slots of a program never count as equal.

    Attributes
    ----------
    number
        its position among the slots of the program.
    type
        the type to which a value has to conform; None takes any.
    test
        the predicate, where ``reading`` is TEST.
    """

    number: int
    source: Source
    type: ValueType | None
    reading: Reading = Reading.PLAIN
    test: Predicate | None = None

    @cached_property
    def line(self) -> Line | None:
        """Return the order of its values; None for lists and for types whose values can only exist."""
        if self.reading is Reading.TEST:
            return lines.TRUTH
        if self.reading is Reading.AGE:
            return lines.WHOLE
        if isinstance(self.source, EventAggregate) and not self.may_be_missing:
            return lines.COUNTS
        return None if self.type is None or self.type.is_list else lines.OF_KIND.get(self.type.kind)

    @cached_property
    def may_be_missing(self) -> bool:
        if isinstance(self.source, Sequence):
            return False
        return not (isinstance(self.source, EventAggregate) and AGGREGATES[self.source.function].is_count)

    @property
    def reads_clock(self) -> bool:
        """Say whether the same raw value may have another reading at another time."""
        if self.test is not None:
            return OPERATORS[self.test.operator].boundaries is not None
        return self.reading is Reading.AGE

    @property
    def varies(self) -> bool:
        """Say whether its value can change with time alone, expiry aside."""
        if isinstance(self.source, Composite):
            return any(isinstance(part, EventAggregate) for part in parts(self.source))
        return self.reads_clock or isinstance(self.source, ClockRef | EventAggregate | Predicate | Sequence)

    def reader(self) -> Callable[[Value, int], Value]:
        """``(raw value, now) ->`` the value to look up; None if it is missing or of another type."""
        value_type, change = self.type, self._change()
        if change is None:
            return lambda raw, _now: conform(raw, value_type)

        def read(raw: Value, now: int) -> Value:
            value = conform(raw, value_type)
            return None if value is None else change(value, now)

        return read

    def _change(self) -> Callable[[Value, int], Value] | None:
        if self.test is not None:
            return _tester(self.test)
        if self.type == ValueType(Kind.DAY_OF_WEEK):
            return lambda value, _now: _DAY_NUMBERS.get(value)
        return _CHANGES.get(self.reading)


_DAY_NUMBERS = {day: number for number, day in enumerate(WEEKDAYS)}

_CHANGES: dict[Reading, Callable[[Value, int], Value]] = {
    Reading.FOLDED: lambda value, _now: fold_case(value),
    Reading.REVERSED: lambda value, _now: value[::-1],
    Reading.FOLDED_REVERSED: lambda value, _now: fold_case(value)[::-1],
    Reading.AGE: lambda value, now: now - value,
}


def _tester(predicate: Predicate) -> Callable[[Value, int], bool]:
    """Return a predicate on present values, equal to :func:`rules_engine.rules.predicates.predicate_truth`."""
    operator, argument = OPERATORS[predicate.operator], predicate.argument
    if predicate.ignore_case and operator.argument is not Argument.PATTERN:
        return lambda value, now: operator.meaning(fold_case(value), argument, now)
    return lambda value, now: operator.meaning(value, argument, now)


class SlotTable:
    """The slots of a program: one for each distinct value that is looked up.

    >>> from rules_engine.rules.types import BOOLEAN, FLOAT, INTEGER
    >>> from rules_engine.rules.nodes import FeatureRef
    >>> table = SlotTable()
    >>> age = FeatureRef("user", "age")
    >>> table.slot(age, INTEGER) is table.slot(age, FLOAT), table.slot(age, BOOLEAN) is table.slot(age, FLOAT)
    (True, False)
    """

    def __init__(self) -> None:
        self._slots: dict[object, Slot] = {}

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._slots.values())

    def slot(
        self,
        source: Source,
        value_type: ValueType | None,
        reading: Reading = Reading.PLAIN,
        test: Predicate | None = None,
    ) -> Slot:
        """Return the slot, made at its first use. Integers and floats share one, as they conform to each other."""
        if value_type is not None and value_type.kind is Kind.INTEGER:
            value_type = ValueType(Kind.FLOAT, value_type.is_list)
        # True == 1 in Python, so the key has the written form of an argument; elsewhere the type distinguishes them.
        tested = (test.operator, repr(test.argument), test.ignore_case) if test else None
        identity = repr(source) if isinstance(source, Predicate) else source  # True == 1 in its argument too
        key = (identity, value_type, reading, tested)
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = Slot(len(self._slots), source, value_type, reading, test)
        return slot
