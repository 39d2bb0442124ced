"""Sequences: a step of the query per step of the sequence, each with the events that a chain can have come to.

A chain that has come to an event needs to be remembered only by the entity, the instant of that event and the value of
``match_on``: what the later steps ask for depends on nothing else. So chains that meet go on as one.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Many
from dataclasses import replace

from sqlglot import exp

from rules_engine.clock import format_duration
from rules_engine.rules.nodes import Sequence, SequenceStep
from rules_engine.rules.types import TIME, Kind
from rules_engine.targets.sql.events import EventSteps, Joined, Step, instant
from rules_engine.targets.sql.expressions import (
    Sql,
    aliased,
    all_of,
    any_of,
    coalesce,
    column,
    compare,
    integer,
    is_not_null,
    join,
    negation,
    own,
    select,
    table,
)
from rules_engine.targets.sql.tables import AT, ENTITY
from rules_engine.targets.sql.values import INTEGERS, Stored, at_most, fractional_part, integral_part

#: Longer than any two instants are apart: a wait of this length has no end.
_UNBOUNDED = 2**60

_NEXT, _FORBIDDEN = "next_event", "forbidden"


class SequenceSteps:
    """Collects the sequences that rules ask for; equal ones are computed once."""

    def __init__(self, events: EventSteps) -> None:
        self._events = events
        self._known: dict[Sequence, tuple[str, list[Step]]] = {}

    def sequence(self, sequence: Sequence) -> Sql:
        """Say whether the sequence is complete, to be read after the joins. It is never unknown."""
        if sequence not in self._known:
            flag = self._events.names.numbered("sequence")
            self._known[sequence] = flag, list(_Writer(self._events, sequence, flag).steps())
        return own(self._known[sequence][0])

    def joined(self) -> Iterator[Step | Joined]:
        """Yield the steps of all sequences; the last of each is joined to the features."""
        for flag, steps in self._known.values():
            yield from steps[:-1]
            found = is_not_null(column(ENTITY, steps[-1].name))
            yield Joined(steps[-1], (aliased(found, flag),))


class _Writer:
    """Writes the steps of one sequence."""

    def __init__(self, events: EventSteps, sequence: Sequence, flag: str) -> None:
        self._events = events
        self._engine = events.engine
        self._sequence = sequence
        self._flag = flag
        self._exact = self._holds_integers_and_floats()
        first = self._key(sequence.steps[0])
        self._keys = {kind: events.names.numbered("key") for kind in first}

    def steps(self) -> Iterator[Step]:
        chain = self._start()
        yield chain
        forbidden: list[SequenceStep] = []
        for number, step in enumerate(self._sequence.steps[1:], start=2):
            if step.negated:
                forbidden.append(step)
                continue
            chain = self._follow(chain.name, number, step, forbidden)
            yield chain
            forbidden = []
        yield self._finish(chain.name, forbidden)

    # --- steps ------------------------------------------------------------------------------------------------------

    def _start(self) -> Step:
        first = self._sequence.steps[0]
        events = self._events.of(first.match.event).name
        keys = self._key(first)
        conditions = self._events.matches(first.match)
        if self._sequence.match_on is not None:
            conditions.append(any_of([is_not_null(key.copy()) for key in keys.values()]))
        columns = [column(ENTITY), column(AT), *(aliased(key, self._keys[kind]) for kind, key in keys.items())]
        source = table(events)
        inside = self._events.inside(self._sequence.within)
        if self._sequence.latest_only:
            source, conditions = self._latest(source, columns, conditions)
            columns = [column(ENTITY), column(AT), *(own(self._keys[kind]) for kind in keys)]
        query = select(*columns, source=source, where=[*conditions, *inside], distinct=True)
        return Step(self._events.names.unique(f"{self._flag}_start"), query, self._describe(first))

    def _latest(self, source: exp.Expr, columns: list[Sql], conditions: list[Sql]) -> tuple[exp.Expr, list[Sql]]:
        """Select only the events of the latest instant at which the first step is taken at all."""
        name = self._events.names.unique("latest")
        latest = exp.Window(this=exp.Max(this=column(AT)), partition_by=[column(ENTITY)])
        candidates = select(*columns, aliased(latest, name), source=source, where=conditions)
        subquery = candidates.subquery(self._events.names.unique("candidates"), copy=False)
        return subquery, [compare(exp.EQ, column(AT), own(name))]

    def _follow(self, previous: str, number: int, step: SequenceStep, forbidden: Many[SequenceStep]) -> Step:
        """Return the step with the chains of the previous step that go on to an event of this one."""
        events = self._events.of(step.match.event).name
        at = column(AT, _NEXT)
        conditions = [*self._events.matches(step.match, _NEXT)]
        for each in forbidden:
            conditions += self._absent(each, previous, compare(exp.LT, column(AT, _FORBIDDEN), at.copy()))
        keys = [own(name, previous) for name in self._keys.values()]
        query = select(column(ENTITY, previous), at, *keys, source=table(previous), where=conditions, distinct=True)
        join(query, table(events, _NEXT), all_of(self._after(step, previous, _NEXT)))
        return Step(self._events.names.unique(f"{self._flag}_step_{number}"), query, self._describe(step))

    def _finish(self, previous: str, forbidden: Many[SequenceStep]) -> Step:
        conditions = [condition for step in forbidden for condition in self._absent(step, previous)]
        waits = [step.within for step in forbidden if step.within is not None]
        if waits:
            came = Stored(TIME, column(AT, previous))
            conditions.insert(0, at_most(self._engine, came, self._events.now - max(waits)))
        query = select(column(ENTITY, previous), source=table(previous), where=conditions, distinct=True)
        text = "; ".join(self._describe(step) for step in forbidden)
        return Step(self._events.names.unique(f"{self._flag}_done"), query, text)

    # --- conditions -------------------------------------------------------------------------------------------------

    def _absent(self, step: SequenceStep, previous: str, *before: Sql) -> list[Sql]:
        """Return the condition that no event of a ``did_not`` step came after the previous event, within its wait."""
        if self._sequence.match_on is not None and self._keys.keys().isdisjoint(self._key(step)):
            return []  # no such event has the same value, so none is forbidden
        events = self._events.of(step.match.event).name
        conditions = [*self._after(step, previous, _FORBIDDEN), *before, *self._events.matches(step.match, _FORBIDDEN)]
        return [negation(exp.Exists(this=select(integer(1), source=table(events, _FORBIDDEN), where=conditions)))]

    def _after(self, step: SequenceStep, previous: str, alias: str) -> list[Sql]:
        """Return the conditions of a later event of the same entity: within the wait, with the same ``match_on``."""
        since, at = column(AT, previous), instant(alias).sql
        conditions = [
            compare(exp.EQ, column(ENTITY, alias), column(ENTITY, previous)),
            compare(exp.GT, at, since),
        ]
        if step.within is not None and step.within < _UNBOUNDED:
            until = exp.Add(this=since.copy(), expression=self._engine.integer(step.within))
            conditions.append(exp.LTE(this=at.copy(), expression=until))
        if self._sequence.match_on is not None:
            conditions.append(self._same_key(step, previous, alias))
        return conditions

    # --- match_on ---------------------------------------------------------------------------------------------------

    def _forms(self, step: SequenceStep) -> list[Stored]:
        name = self._sequence.match_on
        if name is None:
            return []
        forms = self._events.property(step.match.event, name)
        return [form for form in forms if form.type is not None and not form.type.is_list]  # no other value agrees

    def _holds_integers_and_floats(self) -> bool:
        forms = [form for step in self._sequence.steps for form in self._forms(step)]
        floats = any(form.is_scalar([Kind.FLOAT]) for form in forms)
        return floats and any(form.is_scalar(INTEGERS) for form in forms)

    def _key(self, step: SequenceStep, alias: str | None = None) -> dict[str, Sql]:
        """Return the value of ``match_on`` by its kind; two values are equal if kind and value are."""
        keys: dict[str, Sql] = {}
        for form in self._forms(step):
            of_event = replace(form, sql=column(form.sql.name, alias))
            for kind, key in self._parts(of_event):
                keys[kind] = coalesce(keys[kind], key) if kind in keys else key
        return keys

    def _parts(self, form: Stored) -> Iterator[tuple[str, Sql]]:
        if form.is_scalar(INTEGERS):
            yield "integer", form.read()
        elif form.is_scalar([Kind.FLOAT]) and self._exact:
            yield "integer", integral_part(self._engine, form)
            yield "float", fractional_part(self._engine, form)
        else:
            yield str(form.type), form.read()

    def _same_key(self, step: SequenceStep, previous: str, alias: str) -> Sql:
        keys = self._key(step, alias)
        return any_of(
            [compare(exp.EQ, keys[kind], own(name, previous)) for kind, name in self._keys.items() if kind in keys]
        )

    def _describe(self, step: SequenceStep) -> str:
        within = f" within {format_duration(step.within)}" if step.within is not None else ""
        return f"{'did not' if step.negated else 'did'} {step.match}{within}"
