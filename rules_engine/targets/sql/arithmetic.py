"""Arithmetic on doubles, as :mod:`rules_engine.rules.arithmetic` defines it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import reduce

from sqlglot import exp

from rules_engine.rules.arithmetic import Operation
from rules_engine.rules.types import Kind
from rules_engine.targets.sql.engines import Engine
from rules_engine.targets.sql.expressions import Sql, call, case, cast, coalesce, compare
from rules_engine.targets.sql.values import Stored

_NODES: dict[Operation, type[exp.Binary]] = {
    Operation.TOTAL: exp.Add,
    Operation.DIFFERENCE: exp.Sub,
    Operation.PRODUCT: exp.Mul,
    Operation.RATIO: exp.Div,
}


def as_double(engine: Engine, forms: Sequence[Stored]) -> Sql:
    """Return a number as a double, whatever form it is stored in; NULL if there is none."""
    numbers = [_double(engine, form) for form in forms]
    return coalesce(*numbers) if numbers else cast(exp.Null(), "DOUBLE")


def _double(engine: Engine, form: Stored) -> Sql:
    if form.is_scalar((Kind.FLOAT,)):
        return form.read()
    return engine.integer_as_double(form.read()) if form.wide else cast(form.read(), "DOUBLE")


def computed_of(engine: Engine, operation: Operation, terms: Sequence[Sql]) -> Sql:
    """Return what doubles come to; NULL if one is, or if the result is no finite number.

    >>> from rules_engine.targets.sql.expressions import own
    >>> computed_of(Engine(), Operation.PRODUCT, [own("a"), own("b")]).sql("duckdb")
    'CASE WHEN ABS(a * b) <= 1.7976931348623157e+308 THEN a * b END'
    """
    if operation is Operation.RATIO:
        terms = [terms[0], exp.Nullif(this=terms[1], expression=engine.double(0.0))]
    value = reduce(lambda left, right: _applied(operation, left, right), terms)
    most = engine.double(sys.float_info.max)
    return case((compare(exp.LTE, call("ABS", value.copy()), most), value))


def _applied(operation: Operation, left: Sql, right: Sql) -> Sql:
    if operation is Operation.RATIO:
        return exp.Div(this=left, expression=right, typed=True, safe=False)
    return _NODES[operation](this=left, expression=right)
