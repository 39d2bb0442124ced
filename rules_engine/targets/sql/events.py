"""Write the steps over the table of events: one clean pass, one step per event name, one grouping per event name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from sqlglot import exp

from rules_engine.errors import UnsupportedError
from rules_engine.rules.nodes import (
    AllOf,
    AnyOf,
    ComputedValue,
    Condition,
    EventAggregate,
    EventMatch,
    EventTime,
    EventValue,
    Not,
    Operand,
    Predicate,
    PropertyRef,
    TwoSides,
)
from rules_engine.rules.types import FLOAT, TIME
from rules_engine.targets.sql.arithmetic import as_double, computed_of
from rules_engine.targets.sql.comparisons import lower_comparison
from rules_engine.targets.sql.engines import Engine
from rules_engine.targets.sql.expressions import (
    Sql,
    aliased,
    all_of,
    any_of,
    column,
    compare,
    integer,
    negation,
    own,
    select,
    table,
)
from rules_engine.targets.sql.features import Projection, as_projection
from rules_engine.targets.sql.local_times import local_time_of
from rules_engine.targets.sql.lowering import lower_predicate
from rules_engine.targets.sql.names import UniqueNames
from rules_engine.targets.sql.tables import AT, ENTITY, EVENT, EVENT_ID, SEQUENCE_NUMBER, Tables
from rules_engine.targets.sql.values import Stored, at_least, at_most, readable

PAST = "past_events"


@dataclass(frozen=True)
class Step:
    """Holds one named step of the query."""

    name: str
    query: exp.Select
    comment: str = ""


@dataclass(frozen=True)
class Joined:
    """Holds a step with a row per entity, and the columns that rules read of it, each with its default for no row."""

    step: Step
    columns: tuple[Sql, ...]


@dataclass
class EventTable:
    """Holds what is read or computed of the events of one name, and whether they match a ``where``."""

    event: str
    name: str
    columns: dict[str, None] = field(default_factory=dict)
    flags: dict[tuple[Condition, ...], tuple[str, Sql, str]] = field(default_factory=dict)
    computed: dict[EventValue, tuple[str, Sql]] = field(default_factory=dict)


def instant(table_name: str | None = None) -> Stored:
    """Return the column of the instant of an event."""
    return Stored(TIME, column(AT, table_name))


class EventSteps:
    """Collects what rules read of the table of events, and writes the steps before any aggregate or sequence."""

    def __init__(self, engine: Engine, tables: Tables, now: int, names: UniqueNames) -> None:
        self.engine = engine
        self.now = now
        self.names = names
        self._tables = tables
        self._past = names.unique(PAST)
        self._projection = Projection(engine, tables.timestamps)
        self._by_event: dict[str, EventTable] = {}

    def of(self, event: str) -> EventTable:
        """Return the table of the events of one name; a step of the query is written for it."""
        if event not in self._by_event:
            self._by_event[event] = EventTable(event, self.names.unique(f"{event}_events"))
        return self._by_event[event]

    def property(self, event: str, name: str, folded: bool = False) -> list[Stored]:
        """Return the forms in which a property is stored."""
        columns = self._tables.property_columns.get((event, name))
        if columns is None:
            raise UnsupportedError(
                f"the SQL target is not told in which column the property `{name}` of `{event}` is, nor its type"
            )
        values = self._projection.read(columns, folded)
        read = [each.sql.name for each in values] + [each.folded.name for each in values if each.folded is not None]
        self.of(event).columns.update(dict.fromkeys(read))
        return values

    def matches(self, match: EventMatch, alias: str | None = None) -> list[Sql]:
        """Return conditions on a row of ``match.event``'s step; those of ``where`` are computed once, as a flag."""
        events = self.of(match.event)
        if not match.where:
            return []
        if match.where not in events.flags:
            conditions = [self._where(match.event, predicate) for predicate in match.where]
            events.flags[match.where] = self.names.numbered("matches"), all_of(conditions), str(match)
        return [own(events.flags[match.where][0], alias)]

    def _where(self, event: str, condition: Condition) -> Sql:
        match condition:
            case Predicate(PropertyRef(name)):
                folded = condition.ignore_case and condition.operator != "matches"
                return lower_predicate(self.engine, self.now, condition, self.property(event, name, folded))
            case Predicate(EventTime() as time):
                return lower_predicate(self.engine, self.now, condition, [local_time_of(time, column(AT), self.now)])
            case Predicate(TwoSides() as sides):
                return lower_comparison(self.engine, condition, sides, lambda part, _: self._side(event, part))
            case AllOf(conditions):
                return all_of([self._where(event, inner) for inner in conditions])
            case AnyOf(conditions):
                return any_of([self._where(event, inner) for inner in conditions])
            case Not(inner):
                return negation(self._where(event, inner))
            case _:
                raise TypeError(f"{condition} is not about one event")

    def value(self, event: str, of: EventValue) -> list[Stored]:
        """Return the forms in which what is read of an event is stored, or computed."""
        if isinstance(of, str):
            return self.property(event, of)
        computed = self.of(event).computed
        stored = self._computed(event, of)
        if of not in computed:
            computed[of] = self.names.numbered("computed"), stored.sql
        return [replace(stored, sql=own(computed[of][0]))]

    def _computed(self, event: str, of: EventTime | ComputedValue) -> Stored:
        if isinstance(of, EventTime):
            return local_time_of(of, column(AT), self.now)
        terms = [
            as_double(self.engine, readable(self.property(event, term), FLOAT))
            if isinstance(term, str)
            else self.engine.double(float(term))
            for term in of.terms
        ]
        return Stored(FLOAT, computed_of(self.engine, of.operation, terms))

    def _side(self, event: str, operand: Operand) -> list[Stored]:
        assert isinstance(operand, PropertyRef), operand
        return self.property(event, operand.name)

    def inside(self, after: int | None, until: int | None = None) -> list[Sql]:
        """Return the conditions that a past event came later than an instant, and not later than another."""
        conditions = [] if after is None else [at_least(self.engine, instant(), after, strict=True)]
        return conditions if until is None else [*conditions, at_most(self.engine, instant(), until)]

    def counted(self, aggregate: EventAggregate) -> list[Sql]:
        """Return the conditions that a past event lies in the window of an aggregate."""
        after, until = aggregate.bounds(self.now)
        return self.inside(after, until if until < self.now else None)

    def steps(self) -> Iterator[Step]:
        """Yield the clean pass, and one step per event name."""
        if self._by_event:
            yield Step(self._past, self._past_events(), "what has happened by now, each event once")
            yield from (self._event_step(events) for events in self._by_event.values())

    def _past_events(self) -> exp.Select:
        when = self.engine.micros(column(AT)) if self._tables.timestamps else column(AT)
        names = [self.engine.text(event) for event in self._by_event]
        named = (
            compare(exp.EQ, column(EVENT), names[0])
            if len(names) == 1
            else exp.In(this=column(EVENT), expressions=names)
        )
        until = at_most(self.engine, Stored(TIME, when.copy()), self.now)
        columns = [column(ENTITY), column(EVENT), as_projection(AT, when), column(EVENT_ID)]
        columns += [as_projection(name, value) for name, value in self._projection.columns.items()]
        source = exp.to_table(self._tables.events, dialect=self.engine.name)
        if self._tables.unique_events:
            return select(*columns, source=source, where=[named, until])
        delivery = self.names.unique("delivery")
        first = compare(exp.EQ, own(delivery), integer(1))
        return select(*columns, source=_numbered(source, delivery, self.names), where=[first, named, until])

    def _event_step(self, events: EventTable) -> Step:
        columns = [column(ENTITY), column(AT), column(EVENT_ID), *(column(name) for name in events.columns)]
        flags = [aliased(condition, name, comment=text) for name, condition, text in events.flags.values()]
        computed = [aliased(sql, name, comment=str(of)) for of, (name, sql) in events.computed.items()]
        where = [compare(exp.EQ, column(EVENT), self.engine.text(events.event))]
        return Step(events.name, select(*columns, *computed, *flags, source=table(self._past), where=where))


def _numbered(source: exp.Expr, delivery: str, names: UniqueNames) -> exp.Expr:
    """Number the deliveries of each event: 1 for the row that was stored first."""
    number = row_number([column(ENTITY), column(EVENT_ID)], [column(SEQUENCE_NUMBER)])
    return select(exp.Star(), aliased(number, delivery), source=source).subquery(names.unique("deliveries"), copy=False)


def row_number(partition: list[Sql], order: list[Sql], descending: bool = False) -> Sql:
    """Return ROW_NUMBER() OVER (PARTITION BY ... ORDER BY ...); what it orders by is never NULL."""
    ordered = [exp.Ordered(this=each, desc=True) if descending else each for each in order]
    return exp.Window(this=exp.RowNumber(), partition_by=partition, order=exp.Order(expressions=ordered))
