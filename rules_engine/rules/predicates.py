"""The truth of one predicate on one value. Every place that judges a value uses this."""

from __future__ import annotations

from collections.abc import Mapping

from rules_engine.rules.nodes import EventMatch, Predicate, PropertyRef
from rules_engine.rules.operators import OPERATORS, Argument
from rules_engine.rules.text import fold_case
from rules_engine.rules.types import Value, conform

#: True, False, or None for unknown.
Truth = bool | None


def judge(predicate: Predicate, value: Value, now: int) -> Truth:
    """The predicate on a value that already conforms to the operand's type; None is a missing value.

    >>> from rules_engine.rules.nodes import FeatureRef
    >>> adult = Predicate(FeatureRef("user", "age"), "at_least", 18)
    >>> judge(adult, 20, now=0), judge(adult, None, now=0)
    (True, None)
    """
    operator = OPERATORS[predicate.operator]
    if operator.name == "exists":
        return (value is not None) == predicate.argument
    if value is None:
        return True if predicate.or_missing else None
    if predicate.ignore_case and operator.argument is not Argument.PATTERN:
        value = fold_case(value)
    return operator.meaning(value, predicate.argument, now)


def selects(match: EventMatch, name: str, properties: Mapping[str, Value], now: int = 0) -> bool:
    """Whether an event is one of those meant: its name fits and every ``where`` predicate is true.

    No operator on a property reads the clock (times relative to now are refused there), so ``now`` does not matter.

    >>> selects(EventMatch("purchase"), "purchase", {})
    True
    """
    return name == match.event and all(_property_holds(predicate, properties, now) for predicate in match.where)


def _property_holds(predicate: Predicate, properties: Mapping[str, Value], now: int) -> bool:
    operand = predicate.operand
    assert isinstance(operand, PropertyRef), operand
    value = conform(properties.get(operand.name), predicate.operand_type)
    return judge(predicate, value, now) is True
