"""Comparisons of two sides, with the instant until which both sides last."""

from __future__ import annotations

from collections.abc import Callable

from rules_engine.events.state.reading import StateLayout
from rules_engine.rules.comparison import composite_value
from rules_engine.rules.nodes import Composite, ContextRef, EventAggregate, FeatureRef, Operand, Predicate, Source
from rules_engine.rules.predicates import as_read, context_value, predicate_truth
from rules_engine.rules.types import Value, ValueType
from rules_engine.rules.walk import parts
from rules_engine.targets.stepwise.aggregates import of_aggregate
from rules_engine.targets.stepwise.view import FOREVER, Answer, Check, View

#: A value at an instant, and until when it lasts at least.
Lasting = Callable[[View, int], tuple[Value, int]]


def check_comparison(layout: StateLayout, predicate: Predicate, operand: Composite, positive: bool) -> Check:
    """Return the check of a predicate on a comparison."""
    value_of = of_comparison(layout, operand)

    def answer(view: View, now: int) -> Answer:
        value, until = value_of(view, now)
        return predicate_truth(predicate, value, now) is positive, until

    return answer


def of_comparison(layout: StateLayout, operand: Composite) -> Lasting:
    """Return a function that gives the value of a comparison, and until when both of its sides last."""
    readers = {part: _reader(layout, part) for part in parts(operand)}

    def value(view: View, now: int) -> tuple[Value, int]:
        until = FOREVER

        def read(part: Source, value_type: ValueType | None) -> Value:
            nonlocal until
            if isinstance(part, ContextRef):  # there is no request, so its default counts
                return context_value(part, value_type, {})
            raw, lasts = readers[part](view, now)
            until = min(until, lasts)
            return as_read(raw, value_type)

        return composite_value(operand, read), until

    return value


def _reader(layout: StateLayout, part: Operand) -> Lasting:
    if isinstance(part, EventAggregate):
        return of_aggregate(layout, part, lambda value: value)
    if isinstance(part, FeatureRef):
        return lambda view, now: view.feature(part, now)
    assert isinstance(part, ContextRef), part
    return lambda _view, _now: (None, FOREVER)
