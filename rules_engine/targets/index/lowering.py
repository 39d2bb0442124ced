"""Lowers each operator to a set of allowed values on a slot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rules_engine.rules.nodes import Predicate
from rules_engine.rules.nodes import Sequence as SequenceNode
from rules_engine.rules.operators import require_complete
from rules_engine.rules.types import BOOLEAN
from rules_engine.targets.index.domains import EMPTY, FULL, Domain, Lists, Ranges
from rules_engine.targets.index.lines import TRUTH, Line, prefix_end
from rules_engine.targets.index.slots import Reading, Slot, SlotTable


@dataclass(frozen=True, slots=True)
class _Scalar:
    """An operator on single values: the reading that it looks up, and the set of present values on which it is true."""

    ranges: Callable[[Line, Any], Ranges]
    reading: Reading = Reading.PLAIN


def _points(line: Line, values: Sequence[Any]) -> Ranges:
    return line.ranges(cut for value in dict.fromkeys(values) for cut in line.point(value))


def _from(line: Line, value: Any) -> Ranges:
    return line.ranges([line.point(value)[0]])


def _above(line: Line, value: Any) -> Ranges:
    return line.ranges([line.point(value)[1]])


def _between(line: Line, pair: tuple[Any, Any]) -> Ranges:
    return _from(line, pair[0]).intersect(_above(line, pair[1]).complement())


def _prefix(line: Line, prefix: str) -> Ranges:
    end = prefix_end(prefix)
    return line.ranges([(prefix, 0), *([(end, 0)] if end is not None else [])])


def _below(line: Line, value: Any) -> Ranges:
    return _from(line, value).complement()


def _age_in_last(line: Line, window: int) -> Ranges:
    return line.ranges([(0, 0), (window, 0)])


def _age_in_next(line: Line, window: int) -> Ranges:
    return line.ranges([(-window, 0), (0, 0)])


def _tested(line: Line, _argument: Any) -> Ranges:
    return _from(line, True)


_SCALARS = {
    "equals": _Scalar(lambda line, value: _points(line, [value])),
    "not_equals": _Scalar(lambda line, value: _points(line, [value]).complement()),
    "in": _Scalar(_points),
    "not_in": _Scalar(lambda line, values: _points(line, values).complement()),
    "greater_than": _Scalar(_above),
    "at_least": _Scalar(_from),
    "less_than": _Scalar(_below),
    "at_most": _Scalar(lambda line, value: _above(line, value).complement()),
    "between": _Scalar(_between),
    "before": _Scalar(_below),
    "after": _Scalar(_above),
    "in_last": _Scalar(_age_in_last, Reading.AGE),
    "not_in_last": _Scalar(lambda line, window: _age_in_last(line, window).complement(), Reading.AGE),
    "in_next": _Scalar(_age_in_next, Reading.AGE),
    "in_calendar": _Scalar(_tested, Reading.TEST),
    "anniversary_in": _Scalar(_tested, Reading.TEST),
    "starts_with": _Scalar(_prefix),
    "ends_with": _Scalar(lambda line, suffix: _prefix(line, suffix[::-1]), Reading.REVERSED),
    "contains": _Scalar(_tested, Reading.TEST),
    "matches": _Scalar(_tested, Reading.TEST),
}

_TESTED = _SCALARS["matches"]

_FOLDED = {Reading.PLAIN: Reading.FOLDED, Reading.REVERSED: Reading.FOLDED_REVERSED}


@dataclass(frozen=True, slots=True)
class _OnLists:
    """An operator on lists: the alternatives of lists on which it is true, and those on which it is false."""

    true: Callable[[Any], list[Lists]]
    false: Callable[[Any], list[Lists]]


def _has_any(values: Sequence[Any]) -> list[Lists]:
    return [Lists(anys=frozenset({frozenset(values)}))]


def _has_none(values: Sequence[Any]) -> list[Lists]:
    return [Lists(none=frozenset(values))]


def _has_all(values: Sequence[Any]) -> list[Lists]:
    return [Lists(anys=frozenset(frozenset({value}) for value in values))]


_ON_LISTS = {
    "includes": _OnLists(lambda value: _has_any([value]), lambda value: _has_none([value])),
    "includes_any": _OnLists(_has_any, _has_none),
    "includes_all": _OnLists(_has_all, lambda values: [_has_none([value])[0] for value in values]),
    "includes_none": _OnLists(_has_none, _has_any),
}

require_complete("index", [*_SCALARS, *_ON_LISTS, "exists"])


def lower(predicate: Predicate, positive: bool, slots: SlotTable) -> tuple[Slot, list[Domain]]:
    """Return the slot of a predicate, and the alternatives of values on which it is true; false, if not ``positive``.

    A missing value is only in alternatives of ``exists`` and ``or_missing``. So an unknown predicate allows nothing,
    whatever its polarity.

    >>> from rules_engine.rules.nodes import FeatureRef
    >>> from rules_engine.rules.types import INTEGER
    >>> adult = Predicate(FeatureRef("user", "age"), "at_least", 18, INTEGER)
    >>> lower(adult, False, SlotTable())[1]
    [Ranges(cuts=((18, 0),), low=True, missing=False)]
    """
    if predicate.operator == "exists":
        return _lower_exists(predicate, positive, slots)
    if predicate.operator in _ON_LISTS and predicate.operand_type is not None:
        return _lower_on_list(predicate, positive, slots)
    return _lower_scalar(predicate, positive, slots)


def _lower_exists(predicate: Predicate, positive: bool, slots: SlotTable) -> tuple[Slot, list[Domain]]:
    slot = slots.slot(predicate.operand, predicate.operand_type)
    present = bool(predicate.argument) == positive
    if slot.type is not None and slot.type.is_list:
        return slot, [Lists(present=present, missing=not present)]
    return slot, [FULL if present else EMPTY.with_missing(True)]


def _lower_on_list(predicate: Predicate, positive: bool, slots: SlotTable) -> tuple[Slot, list[Domain]]:
    slot = slots.slot(predicate.operand, predicate.operand_type)
    operator = _ON_LISTS[predicate.operator]
    alternatives = operator.true(predicate.argument) if positive else operator.false(predicate.argument)
    if positive and predicate.or_missing:
        alternatives = [lists.with_missing(True) for lists in alternatives]
    return slot, list(alternatives)


def _lower_scalar(predicate: Predicate, positive: bool, slots: SlotTable) -> tuple[Slot, list[Domain]]:
    # Without a type there is no line, so the operator is applied to the value itself.
    lowering = _TESTED if predicate.operand_type is None else _SCALARS[predicate.operator]
    reading = _FOLDED.get(lowering.reading, lowering.reading) if predicate.ignore_case else lowering.reading
    test = predicate if reading is Reading.TEST else None
    slot = slots.slot(predicate.operand, predicate.operand_type, reading, test)
    assert slot.line is not None, f"the checker lets no {predicate.operator} on {predicate.operand_type} pass"
    ranges = lowering.ranges(slot.line, predicate.argument)
    if not positive:
        return slot, [ranges.complement()]
    return slot, [ranges.with_missing(predicate.or_missing)]


def lower_answer(condition: Predicate | SequenceNode, positive: bool, slots: SlotTable) -> tuple[Slot, list[Domain]]:
    """Return the slot of a condition's own answer, and the answer that makes it true."""
    ranges = _from(TRUTH, True)
    return slots.slot(condition, BOOLEAN), [ranges if positive else ranges.complement()]
