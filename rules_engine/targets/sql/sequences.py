"""Sequences: a step of the query for each step of the sequence, with the events that a chain of steps can have reached.

Later steps depend only on the entity, the instant of the event that a chain has reached, and the value of ``match_on``.
So chains that reach the same event go on as one.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Many
from dataclasses import dataclass, replace

from sqlglot import exp

from rules_engine.clock import format_duration
from rules_engine.rules.nodes import Sequence, SequenceStep
from rules_engine.rules.sequences import Leg, legs_of
from rules_engine.rules.types import TIME, Kind
from rules_engine.targets.sql.events import EventSteps, Joined, Step, row_number
from rules_engine.targets.sql.expressions import (
    Sql,
    aliased,
    all_of,
    any_of,
    case,
    coalesce,
    column,
    compare,
    integer,
    is_not_null,
    is_null,
    join,
    negation,
    own,
    select,
    table,
    truth,
)
from rules_engine.targets.sql.tables import AT, ENTITY, EVENT_ID
from rules_engine.targets.sql.values import INTEGERS, Stored, at_most, fractional_part, integral_part

#: Longer than any two instants are apart: a wait of this length has no end.
_UNBOUNDED = 2**60

_NEXT, _FORBIDDEN = "next_event", "forbidden"


class SequenceSteps:
    """Collects the sequences that rules read; equal ones are computed once."""

    def __init__(self, events: EventSteps) -> None:
        self._events = events
        self._written: dict[Sequence, tuple[str, list[Step]]] = {}

    def sequence(self, sequence: Sequence) -> Sql:
        """Say whether the sequence is complete, to be read after the joins. It is never unknown."""
        if sequence not in self._written:
            flag = self._events.names.numbered("sequence")
            self._written[sequence] = flag, list(_Writer(self._events, sequence, flag).steps())
        return own(self._written[sequence][0])

    def joined(self) -> Iterator[Step | Joined]:
        """Yield the steps of all sequences; the last of each is joined to the features."""
        for flag, steps in self._written.values():
            yield from steps[:-1]
            is_complete = is_not_null(column(ENTITY, steps[-1].name))
            yield Joined(steps[-1], (aliased(is_complete, flag),))


@dataclass(frozen=True, slots=True)
class _Edge:
    """An event that must not come at the instant at which a run ends, unless it could take one of the run's legs.

    Attributes
    ----------
    step
        the place of its ``did_not`` step.
    alike
        the places of the legs of that run that mean events of the same name.
    begins
        with which legs the run can have begun for this to be looked at.
    always
        whether it can have begun with no other.
    """

    step: int
    alike: tuple[int, ...]
    begins: tuple[int, ...]
    always: bool


class _Writer:
    """Writes the steps of one sequence.

    A leg is a ``did`` step with the ``did_not`` steps behind it. Legs taken at one instant are a run: different
    events have to take them, and an event of that instant that could take one of them is not in the way of an
    absence. Only where steps share the name of an event does the query have to count runs, or to remember which events
    it took.
    """

    def __init__(self, events: EventSteps, sequence: Sequence, flag: str) -> None:
        self._events = events
        self._engine = events.engine
        self._names = events.names
        self._sequence = sequence
        self._steps = sequence.steps
        self._legs = legs_of(sequence.steps)
        self._flag = flag
        self._exact = self._holds_integers_and_floats()
        self._keys = {kind: self._names.numbered("key") for kind in self._key(self._steps[0])}
        self._edges = [list(self._edges_of(end)) for end in range(len(self._legs))]
        counts_runs = any(not edge.always for edges in self._edges for edge in edges)
        self._run = self._names.unique("run") if counts_runs else None
        taken = {place for number in range(len(self._legs)) for place in self._remembered(number)}
        self._taken = {place: self._names.numbered("taken") for place in sorted(taken)}
        repeated = {self._event(place) for place in taken}
        self._choices = {event: self._names.unique(f"{flag}_{event}") for event in sorted(repeated)}

    def steps(self) -> Iterator[Step]:
        yield from (self._choice(event, name) for event, name in self._choices.items())
        chain = self._start()
        yield chain
        for number in range(1, len(self._legs)):
            chain = self._follow(chain.name, number)
            yield chain
        yield self._finish(chain.name)

    # --- legs and runs ----------------------------------------------------------------------------------------------

    def _event(self, leg: int) -> str:
        return self._steps[self._legs[leg].step].match.event

    def _may_begin(self, end: int) -> int:
        """Return the first leg with which a run that ends with this one can begin."""
        return next((leg + 1 for leg in reversed(range(end)) if self._legs[leg].pause), 0)

    def _remembered(self, number: int) -> list[int]:
        """Return the legs up to this one whose events a later leg of the same run must not take a second time."""
        last = next((leg for leg in range(number, len(self._legs)) if self._legs[leg].pause), len(self._legs) - 1)
        later = {self._event(leg) for leg in range(number + 1, last + 1)}
        return [leg for leg in range(self._may_begin(number), number + 1) if self._event(leg) in later]

    def _has_leg_of_its_event(self, step: int) -> bool:
        return any(self._steps[leg.step].match.event == self._steps[step].match.event for leg in self._legs)

    def _edges_of(self, end: int) -> Iterator[_Edge]:
        """Yield what must not come at the instant at which a run ends with this leg."""
        first = self._may_begin(end)
        begins = range(first, end + 1)
        absent = [(leg, step) for leg in range(max(first - 1, 0), end + 1) for step in self._legs[leg].forbidden]
        absent += [(end, step) for step, start, _ in self._legs[end].gaps if start == 0]
        for leg, step in absent:
            if not self._has_leg_of_its_event(step):
                continue  # nothing of the instant is exempt: the interval before or after it includes the instant
            event = self._steps[step].match.event
            by_alike: dict[tuple[int, ...], list[int]] = {}
            for begin in begins:
                alike = tuple(place for place in range(begin, end + 1) if self._event(place) == event)
                if begin <= leg + 1:
                    by_alike.setdefault(alike, []).append(begin)
            for alike, possible in by_alike.items():
                if all(self._steps[self._legs[place].step].match.where for place in alike):
                    yield _Edge(step, alike, tuple(possible), len(possible) == len(begins))

    # --- steps ------------------------------------------------------------------------------------------------------

    def _source(self, leg: int) -> str:
        """Return the step of the query with the events that a leg may take."""
        event = self._event(leg)
        return self._choices.get(event) or self._events.of(event).name

    def _choice(self, event: str, name: str) -> Step:
        """Return the step with as many events of each kind and instant as there are legs: more can take no more."""
        steps = [self._steps[leg.step] for leg in self._legs if self._steps[leg.step].match.event == event]
        flags = {sql.sql(): sql for step in steps for sql in self._events.matches(step.match)}
        keys = self._key(steps[0]).values()
        number = row_number([column(ENTITY), column(AT), *flags.values(), *keys], [column(EVENT_ID)])
        alike = self._names.unique("alike")
        numbered = select(exp.Star(), aliased(number, alike), source=table(self._events.of(event).name))
        source = numbered.subquery(self._names.unique("alike_events"), copy=False)
        where = [compare(exp.LTE, own(alike), integer(len(steps)))]
        return Step(name, select(exp.Star(), source=source, where=where), f"no more {event} of one instant than steps")

    def _start(self) -> Step:
        first = self._steps[0]
        keys = self._key(first)
        conditions = self._events.matches(first.match)
        if self._sequence.match_on is not None:
            conditions.append(any_of([is_not_null(key.copy()) for key in keys.values()]))
        marks = self._marks_of_start()
        columns = [column(ENTITY), column(AT), *(aliased(key, self._keys[kind]) for kind, key in keys.items())]
        columns += [aliased(value, name) for name, value in marks.items()]
        source = table(self._source(0))
        within = self._sequence.within
        inside = self._events.inside(None if within is None else self._events.now - within)
        if self._sequence.latest_only:
            source, conditions = self._latest(source, columns, conditions)
            columns = [column(ENTITY), column(AT), *(own(self._keys[kind]) for kind in keys), *map(own, marks)]
        query = select(*columns, source=source, where=[*conditions, *inside], distinct=True)
        return Step(self._names.unique(f"{self._flag}_start"), query, self._describe(first))

    def _latest(self, source: exp.Expr, columns: list[Sql], conditions: list[Sql]) -> tuple[exp.Expr, list[Sql]]:
        """Select only the events of the latest instant at which the first step is taken at all."""
        name = self._names.unique("latest")
        latest = exp.Window(this=exp.Max(this=column(AT)), partition_by=[column(ENTITY)])
        candidates = select(*columns, aliased(latest, name), source=source, where=conditions)
        subquery = candidates.subquery(self._names.unique("candidates"), copy=False)
        return subquery, [compare(exp.EQ, column(AT), own(name))]

    def _follow(self, previous: str, number: int) -> Step:
        """Return the step with the chains of the previous leg that go on to an event of this one."""
        leg, before = self._legs[number], self._legs[number - 1]
        step = self._steps[leg.step]
        conditions = [*self._events.matches(step.match, _NEXT), *self._quiet(before, previous)]
        for place in before.forbidden:
            conditions += self._absent(place, previous, self._between(place, previous))
        edges = self._clear_edges(number - 1, previous)
        if before.pause:
            conditions += edges
        else:
            conditions += [any_of([self._at_one_instant(previous), edge]) for edge in edges]
        keys = [own(name, previous) for name in self._keys.values()]
        marks = [aliased(value, name) for name, value in self._marks(previous, number).items()]
        columns = [column(ENTITY, previous), column(AT, _NEXT), *keys, *marks]
        query = select(*columns, source=table(previous), where=conditions, distinct=True)
        on = [self._same_entity(previous, _NEXT), *self._in_time(leg, before, previous)]
        on += [*self._key_of_chain(step, previous, _NEXT), *self._another(number, previous)]
        join(query, table(self._source(number), _NEXT), all_of(on))
        return Step(self._names.unique(f"{self._flag}_step_{leg.step + 1}"), query, self._describe(step))

    def _finish(self, previous: str) -> Step:
        last = self._legs[-1]
        conditions = [*self._quiet(last, previous), *self._clear_edges(len(self._legs) - 1, previous)]
        if last.pause:
            came = Stored(TIME, column(AT, previous))
            conditions.insert(0, at_most(self._engine, came, self._events.now - last.pause))
        query = select(column(ENTITY, previous), source=table(previous), where=conditions, distinct=True)
        text = "; ".join(self._describe(self._steps[place]) for place, _, _ in last.gaps)
        return Step(self._names.unique(f"{self._flag}_done"), query, text)

    # --- what a chain remembers of its instant ----------------------------------------------------------------------

    def _marks_of_start(self) -> dict[str, Sql]:
        marks = {self._run: integer(0)} if self._run is not None else {}
        return marks | {self._taken[leg]: column(EVENT_ID) for leg in self._remembered(0)}

    def _marks(self, previous: str, number: int) -> dict[str, Sql]:
        """Return with which leg the run began, and the events that it took, of a chain that goes on to a leg."""
        marks: dict[str, Sql] = {}
        if self._run is not None:
            goes_on = (self._at_one_instant(previous), own(self._run, previous))
            marks[self._run] = (
                integer(number) if self._legs[number - 1].pause else case(goes_on, default=integer(number))
            )
        for leg in self._remembered(number):
            name = self._taken[leg]
            kept = (self._at_one_instant(previous), own(name, previous))
            marks[name] = column(EVENT_ID, _NEXT) if leg == number else case(kept)
        return marks

    def _another(self, number: int, previous: str) -> list[Sql]:
        """Return the conditions that an event is none that the run took already."""
        taken = [leg for leg in self._remembered(number - 1) if self._event(leg) == self._event(number)]
        names = [own(self._taken[leg], previous) for leg in taken]
        return [any_of([is_null(name), compare(exp.NEQ, name.copy(), column(EVENT_ID, _NEXT))]) for name in names]

    # --- conditions -------------------------------------------------------------------------------------------------

    def _at_one_instant(self, previous: str) -> Sql:
        return compare(exp.EQ, column(AT, _NEXT), column(AT, previous))

    def _later(self, previous: str, by: int) -> Sql:
        at = column(AT, previous)
        return exp.Add(this=at, expression=self._engine.integer(by)) if by else at

    def _in_time(self, leg: Leg, before: Leg, previous: str) -> list[Sql]:
        """Return the conditions that the next event comes after the pause, and within its time."""
        at = column(AT, _NEXT)
        if before.pause >= _UNBOUNDED:
            return [truth(False)]
        conditions = [compare(exp.GT if before.pause else exp.GTE, at, self._later(previous, before.pause))]
        if leg.within is not None and before.pause + leg.within < _UNBOUNDED:
            conditions.append(compare(exp.LTE, at.copy(), self._later(previous, before.pause + leg.within)))
        return conditions

    def _between(self, place: int, previous: str) -> list[Sql]:
        """Return the bounds of an event between the previous and the next one."""
        at = column(AT, _FORBIDDEN)
        exempt = self._has_leg_of_its_event(place)  # then what came at the two instants is looked at by the run
        after, before = (exp.GT, exp.LT) if exempt else (exp.GTE, exp.LTE)
        return [compare(after, at, column(AT, previous)), compare(before, at.copy(), column(AT, _NEXT))]

    def _quiet(self, leg: Leg, previous: str) -> list[Sql]:
        """Return the conditions that nothing came in the gaps after the previous event."""
        conditions: list[Sql] = []
        for place, start, end in leg.gaps:
            if start >= _UNBOUNDED:
                break
            exempt = start == 0 and self._has_leg_of_its_event(place)
            bounds = [compare(exp.GT if exempt else exp.GTE, column(AT, _FORBIDDEN), self._later(previous, start))]
            if end < _UNBOUNDED:
                bounds.append(compare(exp.LTE, column(AT, _FORBIDDEN), self._later(previous, end)))
            conditions += self._absent(place, previous, bounds)
        return conditions

    def _clear_edges(self, end: int, previous: str) -> list[Sql]:
        """Return the conditions that nothing that must not came at the instant at which a run ended."""
        conditions: list[Sql] = []
        for edge in self._edges[end]:
            bounds = [compare(exp.EQ, column(AT, _FORBIDDEN), column(AT, previous))]
            for leg in edge.alike:
                taking = all_of(self._events.matches(self._steps[self._legs[leg].step].match, _FORBIDDEN))
                bounds.append(negation(coalesce(taking, truth(False))))
            others = [] if edge.always else [place for place in range(end + 1) if place not in edge.begins]
            began = [compare(exp.EQ, own(self._run or "", previous), integer(place)) for place in others]
            conditions += [any_of([*began, absent]) for absent in self._absent(edge.step, previous, bounds)]
        return conditions

    def _absent(self, place: int, previous: str, bounds: Many[Sql]) -> list[Sql]:
        """Return the condition that no event of a ``did_not`` step came within these bounds."""
        step = self._steps[place]
        if self._sequence.match_on is not None and self._keys.keys().isdisjoint(self._key(step)):
            return []  # no such event has the same value, so none is forbidden
        events = self._events.of(step.match.event).name
        same, key = self._same_entity(previous, _FORBIDDEN), self._key_of_chain(step, previous, _FORBIDDEN)
        conditions = [same, *bounds, *key, *self._events.matches(step.match, _FORBIDDEN)]
        return [negation(exp.Exists(this=select(integer(1), source=table(events, _FORBIDDEN), where=conditions)))]

    def _same_entity(self, previous: str, alias: str) -> Sql:
        return compare(exp.EQ, column(ENTITY, alias), column(ENTITY, previous))

    def _key_of_chain(self, step: SequenceStep, previous: str, alias: str) -> list[Sql]:
        return [] if self._sequence.match_on is None else [self._same_key(step, previous, alias)]

    # --- match_on ---------------------------------------------------------------------------------------------------

    def _forms(self, step: SequenceStep) -> list[Stored]:
        name = self._sequence.match_on
        if name is None:
            return []
        forms = self._events.property(step.match.event, name)
        return [form for form in forms if form.type is not None and not form.type.is_list]  # no other value agrees

    def _holds_integers_and_floats(self) -> bool:
        forms = [form for step in self._steps for form in self._forms(step)]
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
