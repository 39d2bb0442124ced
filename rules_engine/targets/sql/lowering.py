"""One predicate as SQL: a lowering per operator of THE operator table.

SQL's own AND, OR, NOT and comparisons are three-valued as the language is, so a lowering only has to be NULL exactly
where the value is NULL.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlglot import exp

from rules_engine.errors import UnsupportedError
from rules_engine.rules.nodes import Predicate
from rules_engine.rules.operators import require_complete
from rules_engine.rules.types import Kind
from rules_engine.targets.sql.calendar import is_at_one_of
from rules_engine.targets.sql.engines import Engine
from rules_engine.targets.sql.expressions import (
    Sql,
    all_of,
    any_of,
    coalesce,
    compare,
    if_present,
    is_not_null,
    negation,
    truth,
)
from rules_engine.targets.sql.values import INTEGERS, Stored, at_least, at_most, literal, literals, read_as


@dataclass(frozen=True)
class Judged:
    """The input of a lowering: a predicate, and the forms in which its operand may be stored."""

    engine: Engine
    now: int
    predicate: Predicate
    values: Sequence[Stored]

    @property
    def argument(self) -> Any:
        return self.predicate.argument


def lower_predicate(engine: Engine, now: int, predicate: Predicate, values: Sequence[Stored]) -> Sql:
    """Return a predicate on the forms in which its operand may be stored.

    >>> from rules_engine.rules.nodes import FeatureRef
    >>> from rules_engine.rules.types import INTEGER
    >>> adult = Predicate(FeatureRef("user", "age"), "at_least", 18, operand_type=INTEGER, or_missing=True)
    >>> lower_predicate(Engine(), 0, adult, [Stored(INTEGER, exp.column("age"))]).sql()
    'COALESCE(age >= 18, TRUE)'
    """
    judged = Judged(engine, now, predicate, read_as(engine, values, predicate.operand_type))
    if predicate.operator == "exists":
        return LOWERINGS["exists"](judged)
    if predicate.operand_type is None:
        raise UnsupportedError(f"`{predicate}`: the type of its operand is not known, so its SQL is not known either")
    if not judged.values:
        return truth(True if predicate.or_missing else None)
    lowered = LOWERINGS[predicate.operator](judged)
    return coalesce(lowered, truth(True)) if predicate.or_missing else lowered


def _per_form(lower: Callable[[Judged, Stored], Sql]) -> Callable[[Judged], Sql]:
    """Lower an operator on single values: at most one stored form has a value, and that one gives the answer."""

    def lowered(judged: Judged) -> Sql:
        return coalesce(*[lower(judged, stored) for stored in judged.values])

    return lowered


def _kind(stored: Stored) -> Kind:
    assert stored.type is not None
    return stored.type.kind


def _text(judged: Judged, stored: Stored) -> Sql:
    return stored.read_folded(judged.engine) if judged.predicate.ignore_case else stored.read()


# --- any type -------------------------------------------------------------------------------------------------------


def _equals(judged: Judged, stored: Stored) -> Sql:
    return _is_one_of(judged, stored, [judged.argument])


def _in(judged: Judged, stored: Stored) -> Sql:
    return _is_one_of(judged, stored, judged.argument)


def _is_one_of(judged: Judged, stored: Stored, values: Sequence[Any]) -> Sql:
    options = literals(judged.engine, stored, list(dict.fromkeys(values)))
    value = _text(judged, stored)
    if not options:
        return if_present(value, False)
    if len(options) == 1:
        return compare(exp.EQ, value, options[0])
    return exp.In(this=value, expressions=options)


def _not_equals(judged: Judged, stored: Stored) -> Sql:
    equal = _equals(judged, stored)
    return exp.NEQ(this=equal.this, expression=equal.expression) if isinstance(equal, exp.EQ) else negation(equal)


def _exists(judged: Judged) -> Sql:
    if not judged.values:
        return truth(not judged.argument)
    there = any_of([is_not_null(stored.read()) for stored in judged.values])
    return there if judged.argument else negation(there)


# --- order ----------------------------------------------------------------------------------------------------------


def _between(judged: Judged, stored: Stored) -> Sql:
    low, high = judged.argument
    bounds = (at_least(judged.engine, stored, low), at_most(judged.engine, stored, high))
    if isinstance(bounds[0], exp.GTE) and isinstance(bounds[1], exp.LTE):
        return exp.Between(this=stored.read(), low=bounds[0].expression, high=bounds[1].expression)
    return all_of(bounds)


def _greater_than(judged: Judged, stored: Stored) -> Sql:
    return at_least(judged.engine, stored, judged.argument, strict=True)


def _less_than(judged: Judged, stored: Stored) -> Sql:
    return at_most(judged.engine, stored, judged.argument, strict=True)


# --- times ----------------------------------------------------------------------------------------------------------


def _in_last(judged: Judged, stored: Stored) -> Sql:
    after = at_least(judged.engine, stored, judged.now - judged.argument, strict=True)
    return all_of([after, at_most(judged.engine, stored, judged.now)])


def _in_next(judged: Judged, stored: Stored) -> Sql:
    after = at_least(judged.engine, stored, judged.now, strict=True)
    return all_of([after, at_most(judged.engine, stored, judged.now + judged.argument)])


def _in_calendar(judged: Judged, stored: Stored) -> Sql:
    start, end = judged.argument.bounds(judged.now)
    return all_of([at_least(judged.engine, stored, start), at_most(judged.engine, stored, end, strict=True)])


def _anniversary_in(judged: Judged, stored: Stored) -> Sql:
    return is_at_one_of(stored.read(), judged.argument.places(judged.now))


# --- strings --------------------------------------------------------------------------------------------------------


def _contains(judged: Judged, stored: Stored) -> Sql:
    return _part(judged, stored, judged.engine.contains)


def _starts_with(judged: Judged, stored: Stored) -> Sql:
    return _part(judged, stored, judged.engine.starts_with)


def _ends_with(judged: Judged, stored: Stored) -> Sql:
    return _part(judged, stored, judged.engine.ends_with)


def _part(judged: Judged, stored: Stored, function: Callable[[Sql, str], Sql]) -> Sql:
    value = _text(judged, stored)
    return function(value, judged.argument) if judged.argument else if_present(value, True)


def _matches(judged: Judged, stored: Stored) -> Sql:
    return judged.engine.matches(stored.read(), judged.argument)


# --- lists ----------------------------------------------------------------------------------------------------------


def _includes(judged: Judged, element: Any) -> Sql:
    """Say whether the list has an element. Integers and floats of one list lie in two arrays."""
    return any_of([_array_includes(judged.engine, stored, element) for stored in judged.values])


def _array_includes(engine: Engine, stored: Stored, element: Any) -> Sql:
    fits = _kind(stored) not in INTEGERS or -(2**63) <= element < 2**63
    written = literal(engine, _kind(stored), element) if fits else None
    return if_present(stored.read(), False) if written is None else engine.includes(stored.read(), written)


def _includes_any(judged: Judged) -> Sql:
    return any_of([_includes(judged, element) for element in judged.argument])


LOWERINGS: dict[str, Callable[[Judged], Sql]] = {
    "equals": _per_form(_equals),
    "not_equals": _per_form(_not_equals),
    "in": _per_form(_in),
    "not_in": _per_form(lambda judged, stored: negation(_in(judged, stored))),
    "exists": _exists,
    "greater_than": _per_form(_greater_than),
    "at_least": _per_form(lambda judged, stored: at_least(judged.engine, stored, judged.argument)),
    "less_than": _per_form(_less_than),
    "at_most": _per_form(lambda judged, stored: at_most(judged.engine, stored, judged.argument)),
    "between": _per_form(_between),
    "contains": _per_form(_contains),
    "starts_with": _per_form(_starts_with),
    "ends_with": _per_form(_ends_with),
    "matches": _per_form(_matches),
    "before": _per_form(_less_than),
    "after": _per_form(_greater_than),
    "in_last": _per_form(_in_last),
    "not_in_last": _per_form(lambda judged, stored: negation(_in_last(judged, stored))),
    "in_next": _per_form(_in_next),
    "in_calendar": _per_form(_in_calendar),
    "anniversary_in": _per_form(_anniversary_in),
    "includes": lambda judged: _includes(judged, judged.argument),
    "includes_any": _includes_any,
    "includes_all": lambda judged: all_of([_includes(judged, element) for element in judged.argument]),
    "includes_none": lambda judged: negation(_includes_any(judged)),
}

require_complete("sql", LOWERINGS)
