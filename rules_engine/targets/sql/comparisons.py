"""Two sides as SQL: how the value left of an operator compares with the one right of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from sqlglot import exp

from rules_engine.rules.nodes import Operand, Predicate, Side, TwoSides
from rules_engine.rules.types import BOOLEAN, FLOAT, INTEGER, STRING, TIME, Kind, Value, ValueType
from rules_engine.targets.sql.engines import Engine
from rules_engine.targets.sql.expressions import (
    Sql,
    all_of,
    case,
    cast,
    coalesce,
    compare,
    is_not_null,
    negation,
    truth,
)
from rules_engine.targets.sql.values import INTEGERS, Stored, integral_part, literal, not_above, not_below, read_as

#: The forms in which an operand that is read as a type is stored.
Forms = Callable[[Operand, ValueType | None], Sequence[Stored]]

_OPERATORS: dict[str, type[exp.Binary]] = {
    "equals": exp.EQ,
    "not_equals": exp.NEQ,
    "greater_than": exp.GT,
    "after": exp.GT,
    "at_least": exp.GTE,
    "less_than": exp.LT,
    "before": exp.LT,
    "at_most": exp.LTE,
}
_MIRRORED = {exp.GT: exp.LT, exp.GTE: exp.LTE, exp.LT: exp.GT, exp.LTE: exp.GTE}


def lower_comparison(engine: Engine, predicate: Predicate, comparison: TwoSides, forms: Forms) -> Sql:
    """Return a predicate on a comparison: NULL where a side is missing, or TRUE there with ``or_missing``."""
    lefts = _readable(engine, forms, comparison.left, comparison.type)
    rights = _side(engine, comparison, forms)
    numbers = (Kind.INTEGER, Kind.FLOAT) if comparison.type is None else (*INTEGERS, Kind.FLOAT)
    pairs = [(left, right) for left in lefts for right in rights if _is_comparable(left, right, numbers)]
    node = _OPERATORS[predicate.operator]
    if not pairs:
        return truth(True if predicate.or_missing else None)
    compared = coalesce(*[_compare(engine, node, left, right) for left, right in pairs])
    return coalesce(compared, truth(True)) if predicate.or_missing else compared


def _side(engine: Engine, comparison: TwoSides, forms: Forms) -> list[Stored]:
    side = comparison.right
    values = _readable(engine, forms, side.value, comparison.type)
    return values if side.is_plain or not values else _scaled(engine, side, values, forms)


def _readable(engine: Engine, forms: Forms, operand: Operand, value_type: ValueType | None) -> list[Stored]:
    """Return the forms of single values that an operand may have."""
    stored = read_as(engine, forms(operand, value_type), value_type)
    return [form for form in stored if form.type is not None and not form.type.is_list]


def _scaled(engine: Engine, side: Side, values: Sequence[Stored], forms: Forms) -> list[Stored]:
    scaled: Sql = _as_double(engine, values)
    if side.times != 1:
        scaled = exp.Mul(this=scaled, expression=engine.double(float(side.times)))
    if side.over != 1:
        scaled = _quotient(scaled, engine.double(float(side.over)))
    if side.divisor is not None:
        divisors = _readable(engine, forms, side.divisor, FLOAT)
        if not divisors:
            return []
        divisor = exp.Nullif(this=_as_double(engine, divisors), expression=engine.double(0.0))
        scaled = engine.without_nan(_quotient(scaled, divisor))
    return [Stored(FLOAT, scaled)]


def _quotient(value: Sql, divisor: Sql) -> Sql:
    return exp.Div(this=value, expression=divisor, typed=True, safe=False)


def _as_double(engine: Engine, values: Sequence[Stored]) -> Sql:
    """Return numbers as doubles, rounded once."""
    return coalesce(*[_double(engine, value) for value in values])


def _double(engine: Engine, value: Stored) -> Sql:
    if not value.is_scalar(INTEGERS):
        return value.read()
    return engine.integer_as_double(value.read()) if value.wide else cast(value.read(), "DOUBLE")


def _is_comparable(left: Stored, right: Stored, numbers: Collection[Kind]) -> bool:
    return left.type == right.type or (left.is_scalar(numbers) and right.is_scalar(numbers))


def _compare(engine: Engine, node: type[exp.Binary], left: Stored, right: Stored) -> Sql:
    whole, other = left.is_scalar(INTEGERS), right.is_scalar(INTEGERS)
    if whole == other:
        return compare(node, left.read(), right.read())
    if node in (exp.EQ, exp.NEQ):
        number, exact = (right, left) if whole else (left, right)
        return _equal(engine, exact, number, node is exp.EQ)
    if not whole:
        return _ordered(engine, _MIRRORED[node], right, left)
    return _ordered(engine, node, left, right)


def _ordered(engine: Engine, node: type[exp.Binary], whole: Stored, number: Stored) -> Sql:
    """Compare a whole number with a float, exactly."""
    holds = (not_above if node in (exp.LTE, exp.GT) else not_below)(engine, whole, number)
    answer = holds if node in (exp.LTE, exp.GTE) else negation(holds)
    return case((all_of([is_not_null(whole.read()), is_not_null(number.read())]), answer))


def _equal(engine: Engine, whole: Stored, number: Stored, positive: bool) -> Sql:
    same = coalesce(compare(exp.EQ, whole.read(), integral_part(engine, number)), truth(False))
    there = all_of([is_not_null(whole.read()), is_not_null(number.read())])
    return case((there, same if positive else negation(same)))


# --- context values -------------------------------------------------------------------------------------------------


def constant_forms(engine: Engine, value: Value, value_type: ValueType | None) -> list[Stored]:
    """Return the form of a value that is the same for all entities; none if it is missing or no single value."""
    value_type = TIME if value_type == TIME else _type_of(value)
    if value is None or value_type is None:
        return []
    written = literal(engine, value_type.kind, value)
    assert written is not None, value
    return [Stored(value_type, written, wide=value_type == INTEGER)]


def _type_of(value: Value) -> ValueType | None:
    kinds = ((bool, BOOLEAN), (int, INTEGER), (float, FLOAT), (str, STRING))
    return next((value_type for python_type, value_type in kinds if isinstance(value, python_type)), None)


def with_default(is_given: Sql, forms: Sequence[Stored], default: Sequence[Stored]) -> list[Stored]:
    """Return the forms of a context value that differs by entity, with its default where it is not given."""
    chosen = []
    for form in forms:
        instead = next((each.read() for each in default if each.type == form.type), exp.Null())
        chosen.append(replace(form, sql=case((is_given.copy(), form.read()), default=instead)))
    others = [each for each in default if all(each.type != form.type for form in forms)]
    nothing = [replace(each, sql=case((exp.Not(this=is_given.copy()), each.read()))) for each in others]
    return chosen + nothing
