"""Aggregates of events: one grouping per event name for all of them, and a step per first or last event."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from sqlglot import exp

from rules_engine.rules.aggregates import Aggregate, require_aggregates
from rules_engine.rules.nodes import EventAggregate, EventMatch
from rules_engine.rules.types import FLOAT, INTEGER, Kind
from rules_engine.rules.windows import Window
from rules_engine.targets.sql.events import EventSteps, Joined, Step, row_number
from rules_engine.targets.sql.expressions import (
    Sql,
    aliased,
    all_of,
    any_of,
    case,
    cast,
    coalesce,
    column,
    compare,
    integer,
    is_null,
    negation,
    own,
    select,
    table,
)
from rules_engine.targets.sql.tables import AT, ENTITY, EVENT_ID
from rules_engine.targets.sql.values import (
    INTEGERS,
    Stored,
    fractional_part,
    integral_part,
    not_above,
    not_below,
    readable,
    require_scalars,
)


@dataclass
class Totals:
    """The grouping of the events of one name: columns, each with its default for an entity without events."""

    name: str
    events: str
    columns: list[tuple[str, Sql, Sql | None, str]] = field(default_factory=list)
    prepared: list[tuple[str, Sql]] = field(default_factory=list)


@dataclass
class Pick:
    """The first or last event of a window, and the properties that are read from it."""

    name: str
    events: str
    conditions: list[Sql]
    descending: bool
    comment: str
    skip: int = 0
    columns: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Counted:
    """An aggregate while it is lowered, with the stored forms of its property."""

    steps: AggregateSteps
    aggregate: EventAggregate
    conditions: list[Sql]
    forms: list[Stored]

    def of(self, *kinds: Kind) -> list[Stored]:
        return [form for form in self.forms if form.is_scalar(kinds)]

    @property
    def whole(self) -> list[Stored]:
        return self.of(*INTEGERS)

    @property
    def floats(self) -> list[Stored]:
        return self.of(Kind.FLOAT)

    def value(self, sql: Sql) -> Sql:
        """Return a value where the event counts, else NULL."""
        return case((all_of([each.copy() for each in self.conditions]), sql)) if self.conditions else sql

    def numbers(self) -> Callable[[], Sql]:
        """Return the property where the event counts, as a double; it is computed once and read often."""
        forms = [*[form.read() for form in self.floats], *[cast(form.read(), "DOUBLE") for form in self.whole]]
        name = self.steps.prepare(self.aggregate, self.value(coalesce(*forms)))
        return lambda: own(name)

    def column(self, sql: Sql, of_none: Sql | None = None) -> Sql:
        """Return a new column of the grouping."""
        return self.steps.total(self.aggregate, sql, of_none)


class AggregateSteps:
    """Collects the aggregates that rules read; equal ones are computed once."""

    def __init__(self, events: EventSteps) -> None:
        self.events = events
        self.engine = events.engine
        self._names = events.names
        self._totals: dict[str, Totals] = {}
        self._picks: dict[tuple[EventMatch, int | None, Window | None, bool, int], Pick] = {}
        self._lowered: dict[EventAggregate, list[Stored]] = {}

    def aggregate(self, aggregate: EventAggregate) -> list[Stored]:
        """Return the forms of an aggregate's value, to be read after the joins."""
        if aggregate not in self._lowered:
            self._lowered[aggregate] = self._lower(aggregate)
        return self._lowered[aggregate]

    def _lower(self, aggregate: EventAggregate) -> list[Stored]:
        match = aggregate.match
        forms = readable(self.events.value(match.event, aggregate.of), aggregate.of_type) if aggregate.of else []
        conditions = [*self.events.matches(match), *self.events.counted(aggregate)]
        return _LOWERINGS[aggregate.function](Counted(self, aggregate, conditions, forms))

    def total(self, aggregate: EventAggregate, sql: Sql, of_none: Sql | None) -> Sql:
        """Add a column to the grouping of an event, and return the expression that reads it."""
        name = self._names.numbered(aggregate.function.value)
        self._totals_of(aggregate).columns.append((name, sql, of_none, str(aggregate)))
        return own(name)

    def prepare(self, aggregate: EventAggregate, sql: Sql) -> str:
        """Add a column to the rows that are grouped, and return its name."""
        name = self._names.numbered("counted")
        self._totals_of(aggregate).prepared.append((name, sql))
        return name

    def _totals_of(self, aggregate: EventAggregate) -> Totals:
        event = aggregate.match.event
        if event not in self._totals:
            self._totals[event] = Totals(self._names.unique(f"{event}_totals"), self.events.of(event).name)
        return self._totals[event]

    # --- first and last ---------------------------------------------------------------------------------------------

    def picked(self, aggregate: EventAggregate, forms: Sequence[Stored]) -> list[Stored]:
        descending = aggregate.function is Aggregate.LAST
        key = (aggregate.match, aggregate.within, aggregate.window, descending, aggregate.skip)
        if key not in self._picks:
            rows = self.events.of(aggregate.match.event)
            conditions = [*self.events.matches(aggregate.match), *self.events.counted(aggregate)]
            name = self._names.numbered(f"{aggregate.function.value}_{rows.name}".removesuffix("_events"))
            self._picks[key] = Pick(name, rows.name, conditions, descending, str(aggregate), aggregate.skip)
        columns = self._picks[key].columns
        for form in forms:
            columns.setdefault(form.sql.name, self._names.numbered(aggregate.function.value))
        return [Stored(form.type, own(columns[form.sql.name])) for form in forms]

    # --- steps ------------------------------------------------------------------------------------------------------

    def joined(self) -> Iterator[Joined]:
        """Yield the steps, in an order in which each can be written, with the columns to join to the features."""
        for totals in self._totals.values():
            yield self._grouping(totals)
        for pick in self._picks.values():
            if pick.columns:
                yield self._picking(pick)

    def _grouping(self, totals: Totals) -> Joined:
        columns = [aliased(sql, name, comment=comment) for name, sql, _, comment in totals.columns]
        source: exp.Expr = table(totals.events)
        if totals.prepared:
            prepared = [aliased(sql, name) for name, sql in totals.prepared]
            subquery = select(exp.Star(), *prepared, source=source)
            source = subquery.subquery(self._names.unique(f"counted_{totals.events}"), copy=False)
        query = select(column(ENTITY), *columns, source=source)
        query.set("group", exp.Group(expressions=[column(ENTITY)]))
        read = []
        for name, _, of_none, _ in totals.columns:
            if of_none is None:
                read.append(own(name, totals.name))
            else:
                without = case((is_null(column(ENTITY, totals.name)), of_none), default=own(name, totals.name))
                read.append(aliased(without, name))
        return Joined(Step(totals.name, query), tuple(read))

    def _picking(self, pick: Pick) -> Joined:
        position = self._names.unique("position")
        order = [column(AT), self.engine.ordered_text(column(EVENT_ID))]
        number = aliased(row_number([column(ENTITY)], order, pick.descending), position)
        values = [column(name) for name in pick.columns]
        ranked = select(column(ENTITY), *values, number, source=table(pick.events), where=pick.conditions)
        query = select(
            column(ENTITY),
            *(aliased(column(name), alias) for name, alias in pick.columns.items()),
            source=ranked.subquery(self._names.unique("ranked"), copy=False),
            where=[compare(exp.EQ, own(position), integer(pick.skip + 1))],
        )
        return Joined(
            Step(pick.name, query, pick.comment), tuple(own(alias, pick.name) for alias in pick.columns.values())
        )


# --- the functions --------------------------------------------------------------------------------------------------


def _count(counted: Counted) -> list[Stored]:
    value = counted.value(integer(1)) if counted.conditions else exp.Star()
    return [Stored(INTEGER, counted.column(exp.Count(this=value), integer(0)))]


def _sum(counted: Counted) -> list[Stored]:
    """Return the sum: exact of integers, a float with a float among them, and 0 of nothing."""
    engine, whole, floats = counted.steps.engine, counted.whole, counted.floats
    if not whole and not floats:
        return [Stored(INTEGER, integer(0))]
    totals = []
    if whole:
        exact = coalesce(engine.integer_sum(counted.value(whole[0].read())), integer(0))
        if floats:
            exact = case((_none_counted(counted), exact))
        totals.append(Stored(INTEGER, counted.column(exact, integer(0)), wide=True))
    if floats:
        numbers = counted.numbers()
        nothing = _none_counted(counted) if whole else compare(exp.EQ, exp.Count(this=numbers()), integer(0))
        rounded = case((nothing, exp.Null() if whole else engine.double(0.0)), *engine.double_sum(numbers))
        totals.append(Stored(FLOAT, counted.column(rounded, None if whole else engine.double(0.0))))
    return totals


def _none_counted(counted: Counted) -> Sql:
    return compare(exp.EQ, exp.Count(this=counted.value(counted.floats[0].read())), integer(0))


def _avg(counted: Counted) -> list[Stored]:
    engine, whole, floats = counted.steps.engine, counted.whole, counted.floats
    if not whole and not floats:
        return []
    means = []
    if whole:
        total = engine.integer_sum(counted.value(whole[0].read()))
        means.append(_ratio(engine.integer_as_double(total), counted.value(whole[0].read())))
    if floats:
        numbers = counted.numbers()
        means.append(_ratio(case(*engine.double_sum(numbers)), numbers()))
    mean = case((_none_counted(counted), means[0]), default=means[1]) if len(means) == 2 else means[0]
    return [Stored(FLOAT, counted.column(mean))]


def _ratio(total: Sql, value: Sql) -> Sql:
    count = exp.Nullif(this=exp.Count(this=value), expression=integer(0))
    return exp.Div(this=total, expression=cast(count, "DOUBLE"), typed=True, safe=False)


def _extreme(function: Callable[..., Sql], smaller: bool) -> Callable[[Counted], list[Stored]]:
    """Lower MIN or MAX; integers and floats of one property are compared exactly."""

    def lower(counted: Counted) -> list[Stored]:
        engine = counted.steps.engine
        extremes = [
            Stored(form.type, counted.column(function(this=counted.value(form.read()))))
            for form in (*counted.whole, *counted.floats)
        ]
        if len(extremes) < 2:
            return extremes
        whole, number = extremes
        whole_wins = (not_above if smaller else not_below)(engine, whole, number)
        return [
            Stored(whole.type, case((any_of([is_null(number.read()), whole_wins]), whole.read()))),
            Stored(number.type, case((any_of([is_null(whole.read()), negation(whole_wins.copy())]), number.read()))),
        ]

    return lower


def _distinct(counted: Counted) -> list[Stored]:
    """Return the number of distinct values: equal numbers are one value; numbers, strings and booleans differ."""
    require_scalars(counted.forms, f"`{counted.aggregate}`")
    values = [form.read() for form in counted.forms]
    if counted.whole and counted.floats:
        others = [form.read() for form in counted.forms if form not in (*counted.whole, *counted.floats)]
        engine, number = counted.steps.engine, counted.floats[0]
        whole = coalesce(*[form.read() for form in counted.whole], integral_part(engine, number))
        values = [*others, whole, fractional_part(engine, number)]
    counts = [exp.Count(this=exp.Distinct(expressions=[counted.value(value)])) for value in values]
    if not counts:
        return [Stored(INTEGER, integer(0))]
    total: Sql = counts[0]
    for count in counts[1:]:
        total = exp.Add(this=total, expression=count)
    return [Stored(INTEGER, counted.column(total, integer(0)))]


def _pick(counted: Counted) -> list[Stored]:
    return counted.steps.picked(counted.aggregate, counted.forms)


_LOWERINGS: dict[Aggregate, Callable[[Counted], list[Stored]]] = {
    Aggregate.COUNT: _count,
    Aggregate.SUM: _sum,
    Aggregate.AVG: _avg,
    Aggregate.MIN: _extreme(exp.Min, smaller=True),
    Aggregate.MAX: _extreme(exp.Max, smaller=False),
    Aggregate.DISTINCT: _distinct,
    Aggregate.FIRST: _pick,
    Aggregate.LAST: _pick,
}
require_aggregates("target sql", _LOWERINGS)
