"""Small helpers that build SQL trees, so that the rest of the target reads like SQL."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlglot import exp

Sql = exp.Expr

#: A chain of so many operands or more is cut into groups: engines limit the depth of an expression.
_LONG_CHAIN = 64


def column(name: str, table: str | None = None) -> Sql:
    """Return a column of an input table or of a step, by its exact name.

    >>> column("user:age").sql(), column("entity", "events").sql()
    ('"user:age"', 'events."entity"')
    """
    return exp.Column(this=exp.to_identifier(name, quoted=True), table=exp.to_identifier(table))


def own(name: str, table: str | None = None) -> Sql:
    """Return a column whose name was chosen by this target, so that it needs no quotes."""
    return exp.Column(this=exp.to_identifier(name), table=exp.to_identifier(table))


def call(name: str, *arguments: Sql) -> Sql:
    """Return a function call that every dialect prints unchanged."""
    return exp.Anonymous(this=name, expressions=list(arguments))


def integer(value: int) -> Sql:
    """Return a whole number.

    >>> integer(-5).sql()
    '-5'
    """
    literal = exp.Literal.number(abs(value))
    return exp.Neg(this=literal) if value < 0 else literal


def truth(value: bool | None) -> Sql:
    """Return TRUE, FALSE, or NULL as a boolean."""
    return cast(exp.Null(), "BOOLEAN") if value is None else exp.Boolean(this=value)


def cast(value: Sql, type_name: str) -> Sql:
    """Return a cast; the type is written as DuckDB writes it and printed as each dialect does."""
    return exp.Cast(this=value, to=exp.DataType.build(type_name, dialect="duckdb"))


def case(*branches: tuple[Sql, Sql], default: Sql | None = None) -> Sql:
    """Return CASE WHEN ... THEN ... [ELSE ...] END; a last branch that always holds is the ELSE.

    >>> case((own("a"), integer(1)), default=integer(2)).sql()
    'CASE WHEN a THEN 1 ELSE 2 END'
    """
    if default is None and isinstance(branches[-1][0], exp.Boolean) and branches[-1][0].this:
        default, branches = branches[-1][1], branches[:-1]
    return exp.Case(ifs=[exp.If(this=when, true=then) for when, then in branches], default=default)


def coalesce(first: Sql, *others: Sql) -> Sql:
    """Return COALESCE, or the value itself if it stands alone."""
    return exp.Coalesce(this=first, expressions=list(others)) if others else first


def is_null(value: Sql) -> Sql:
    """Say whether a value is NULL."""
    return exp.Is(this=_term(value), expression=exp.Null())


def is_not_null(value: Sql) -> Sql:
    """Say whether a value is not NULL."""
    return exp.Is(this=_term(value), expression=exp.Not(this=exp.Null()))


def compare(node: type[exp.Binary], left: Sql, right: Sql) -> Sql:
    """Return a comparison, e.g. ``compare(exp.GT, a, b)``."""
    return node(this=_term(left), expression=_term(right))


def if_present(value: Sql, answer: bool) -> Sql:
    """Return SQL that gives this answer for every value that is not missing.

    >>> if_present(own("a"), False).sql()
    'CASE WHEN a IS NOT NULL THEN FALSE END'
    """
    return case((is_not_null(value), truth(answer)))


def negation(value: Sql) -> Sql:
    """Return NOT value."""
    return exp.Not(this=exp.Paren(this=value) if isinstance(value, exp.Connector | exp.Not) else value)


def all_of(operands: Iterable[Sql]) -> Sql:
    """Return AND of operands, TRUE of none.

    >>> all_of([own("a"), any_of([own("b"), own("c")])]).sql()
    'a AND (b OR c)'
    """
    return _chain(exp.And, list(operands), True)


def any_of(operands: Iterable[Sql]) -> Sql:
    """Return OR of operands, FALSE of none."""
    return _chain(exp.Or, list(operands), False)


def _chain(node: type[exp.Connector], operands: Sequence[Sql], of_none: bool) -> Sql:
    if not operands:
        return truth(of_none)
    if len(operands) == 1:
        return operands[0]
    if len(operands) >= _LONG_CHAIN:
        size = max(_LONG_CHAIN // 2, -(-len(operands) // (_LONG_CHAIN // 2)))
        operands = [_chain(node, operands[start : start + size], of_none) for start in range(0, len(operands), size)]
        return _chain(node, operands, of_none)
    chained = _link(operands[0])
    for operand in operands[1:]:
        chained = node(this=chained, expression=_link(operand))
    return chained


def _link(operand: Sql) -> Sql:
    """Return an operand of AND and OR."""
    return exp.Paren(this=operand) if isinstance(operand, exp.Connector) else operand


def _term(operand: Sql) -> Sql:
    """Return an operand of a comparison."""
    return exp.Paren(this=operand) if isinstance(operand, exp.Connector | exp.Predicate | exp.Not) else operand


def aliased(value: Sql, name: str, *, quoted: bool = False, comment: str = "") -> Sql:
    """Return a value under a name, with a comment behind it."""
    alias = exp.Alias(this=value, alias=exp.to_identifier(name, quoted=quoted))
    if comment:
        alias.add_comments([f" {' '.join(comment.split())} "])
    return alias


def select(*projections: Sql, source: exp.Expr, where: Iterable[Sql] = (), distinct: bool = False) -> exp.Select:
    """Return SELECT [DISTINCT] projections FROM source [WHERE all of the conditions]."""
    query = exp.select(*projections, copy=False).from_(source, copy=False)
    if distinct:
        query.set("distinct", exp.Distinct())
    conditions = list(where)
    if conditions:
        query.set("where", exp.Where(this=all_of(conditions)))
    return query


def table(name: str, alias: str | None = None) -> exp.Expr:
    """Return a step of the query, optionally under another name."""
    source = exp.Table(this=exp.to_identifier(name))
    return exp.alias_(source, alias, table=True, copy=False) if alias else source


def join(query: exp.Select, source: exp.Expr, on: Sql, side: str = "") -> None:
    """Add a join to a query."""
    query.append("joins", exp.Join(this=source, on=on, side=side or None))
