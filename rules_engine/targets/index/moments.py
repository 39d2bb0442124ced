"""Finds the first instant at which the set of true segments changes by time alone.

Nothing changes between two instants at which a looked-up value can change. So the index is evaluated at each of these
instants, in order, until the set differs. Tables that do not depend on time are looked up once for each period between
two expiries; at an instant only the tables whose value can change there are looked up. Local time changes without end,
so it is followed only while a conjunction that mentions it is otherwise alive.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from rules_engine.clock import LAST_INSTANT
from rules_engine.rules.changes import CLOCK_HORIZON
from rules_engine.rules.inputs import Inputs
from rules_engine.rules.local_time import crossings
from rules_engine.rules.nodes import ClockField, ClockRef, Composite, EventAggregate, FeatureRef, Predicate, Sequence
from rules_engine.rules.operators import OPERATORS
from rules_engine.rules.types import STRING, conform
from rules_engine.rules.walk import parts
from rules_engine.targets.index.event_values import EventValues
from rules_engine.targets.index.layout import Layout
from rules_engine.targets.index.plan import Plan, look_late, make_plan
from rules_engine.targets.index.request import Request, unexpired
from rules_engine.targets.index.slots import Reading
from rules_engine.targets.index.tables import Steps, Table
from rules_engine.targets.index.texts import Strings


@dataclass(frozen=True, slots=True)
class TimedPlan:
    """A plan in two halves: tables that only new data or an expiry changes, and tables that time changes."""

    static: Plan
    timed: tuple[Table, ...]
    clocks: tuple[Table, ...]


def make_timed_plan(start: int, tables: Iterable[Table], strings: Strings) -> TimedPlan:
    """Return the plan that decides on the conjunctions of ``start``, and follows them through time."""
    relevant = [table for table in tables if table.mentions & start]
    clocks = [table for table in relevant if isinstance(table.slot.source, ClockRef)]
    timed = [table for table in relevant if table.slot.varies and table not in clocks]
    static = [table for table in relevant if table not in clocks and table not in timed]
    return TimedPlan(make_plan(start, static, strings), tuple(timed), tuple(clocks))


def members_until(
    layout: Layout, plan: TimedPlan, inputs: Inputs, now: int, events: EventValues
) -> tuple[int, int | None]:
    """Return the segments that are true now, folded, and the first instant at which others are, or None."""
    watch = _Watch(plan, inputs, events)
    watch.start(now)
    first = layout.fold(watch.with_clocks(now))
    last = now
    for instant in watch.instants(now):
        crossing = _first_crossing(layout, watch, first, last, min(instant, last + CLOCK_HORIZON))
        if crossing is not None:
            return first, crossing
        if watch.move(instant) and layout.fold(watch.with_clocks(instant)) != first:
            return first, instant
        last = instant
    return first, _first_crossing(layout, watch, first, last, last + CLOCK_HORIZON)


def _first_crossing(layout: Layout, watch: _Watch, first: int, after: int, until: int) -> int | None:
    """Return the first instant in (after, until) at which local time alone makes others true."""
    for at in watch.crossings(after, until):
        if at < until and layout.fold(watch.with_clocks(at)) != first:
            return at
    return None


class _Watch:
    """One entity's masks as time goes on. ``move`` goes forward only."""

    def __init__(self, plan: TimedPlan, inputs: Inputs, events: EventValues) -> None:
        self._plan = plan
        self._inputs = inputs
        self._events = events
        self._features = inputs.features
        self._static = 0
        self._alive = 0
        self._timed: list[Table] = []
        self._masks: list[int] = []
        self._due: dict[int, set[int]] = {}

    def start(self, now: int) -> None:
        """Look up every table that can matter now or after an expiry."""
        expiries = sorted(at for at in set(self._inputs.expires_at.values()) if at > now)
        self._due = {at: set() for at in expiries}
        relevant = 0
        for at in (*reversed(expiries), now):
            self._expire(at)
            relevant |= self._static
        self._timed = [table for table in self._plan.timed if table.mentions & relevant]
        self._masks = [self._look(table, now) for table in self._timed]
        for position, table in enumerate(self._timed):
            for at in self._changes_of(table, now):
                if at > now:
                    self._due.setdefault(at, set()).add(position)
        self._combine()

    def instants(self, now: int) -> list[int]:
        """Return the instants after now at which anything but local time can change."""
        return sorted(at for at in self._due if now < at <= LAST_INSTANT)

    def move(self, at: int) -> bool:
        """Look up the tables that are due at an instant. Return whether anything may have changed."""
        if at in self._inputs.expires_at.values():
            self._expire(at)
            self._masks = [self._look(table, at) for table in self._timed]
        for position in self._due[at]:
            self._masks[position] = self._look(self._timed[position], at)
        before = self._alive
        self._combine()
        return self._alive != before or self._clocks_matter()

    def with_clocks(self, at: int) -> int:
        """Return the conjunctions alive at an instant until which only local time has changed."""
        return look_late(self._alive, self._plan.clocks, self._request(at)) if self._clocks_matter() else self._alive

    def crossings(self, after: int, until: int) -> Iterator[int]:
        """Return the instants in between at which local time crosses a boundary that matters."""
        times: dict[str, set[int]] = {}
        for table in self._plan.clocks:
            zone = self._zone(table) if table.mentions & self._alive else None
            if zone is not None:
                times.setdefault(zone, {0}).update(_times_of_day(table))
        until = min(until, LAST_INSTANT)
        return heapq.merge(*(crossings(after, until, zone, boundaries) for zone, boundaries in times.items()))

    def _clocks_matter(self) -> bool:
        return any(table.mentions & self._alive for table in self._plan.clocks)

    def _combine(self) -> None:
        self._alive = self._static
        for mask in self._masks:
            self._alive &= mask

    def _request(self, at: int) -> Request:
        return Request(self._features, self._inputs.context, self._events, at, self._inputs.entity)

    def _expire(self, at: int) -> None:
        """Use the features that are not expired at an instant."""
        self._features = unexpired(self._inputs, at)
        request, plan = self._request(at), self._plan.static
        self._static = look_late(plan.alive(request.features, request.context, at), plan.late, request)

    def _look(self, table: Table, at: int) -> int:
        return table.mask(self._request(at).raw(table.slot), at)

    def _changes_of(self, table: Table, now: int) -> Iterable[int]:
        """Return the instants after now at which a table's value may change, expiries aside; also others."""
        source = table.slot.source
        if isinstance(source, EventAggregate | Predicate | Sequence):
            return self._events.instants(source)
        if isinstance(source, Composite):
            aggregates = (part for part in parts(source) if isinstance(part, EventAggregate))
            return chain.from_iterable(map(self._events.instants, aggregates))
        request = Request(self._inputs.features, self._inputs.context, self._events, 0)
        value = conform(request.raw(table.slot), table.slot.type)
        if value is None:
            return ()
        if table.slot.reading is Reading.AGE:
            assert isinstance(table, Steps), table
            return [value + edge for edge in table.edges]
        assert table.slot.test is not None, table.slot
        boundaries = OPERATORS[table.slot.test.operator].boundaries
        return boundaries(value, table.slot.test.argument, now) if boundaries else ()

    def _zone(self, table: Table) -> str | None:
        """Return the zone whose time a clock reads, expired or not."""
        assert isinstance(table.slot.source, ClockRef), table.slot
        zone = table.slot.source.timezone
        return conform(self._inputs.features.get(zone.key), STRING) if isinstance(zone, FeatureRef) else zone


def _times_of_day(table: Table) -> Iterable[int]:
    """Return the local times, other than midnight, at which the value of a clock's table changes."""
    source = table.slot.source
    reads_time = isinstance(source, ClockRef) and source.field is ClockField.TIME_OF_DAY
    return table.edges if reads_time and isinstance(table, Steps) else ()
