"""Look at many segments of an entity at once: through the tables of the rule index, and with how long it lasts."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import islice

from rules_engine.clock import LAST_INSTANT
from rules_engine.events.state.reading import StateLayout
from rules_engine.rules.changes import CLOCK_HORIZON
from rules_engine.rules.local_time import crossings, local_time
from rules_engine.rules.nodes import (
    Calculation,
    ClockField,
    ClockRef,
    Composite,
    ContextRef,
    EventAggregate,
    FeatureRef,
    TwoSides,
)
from rules_engine.rules.nodes import Sequence as SequenceNode
from rules_engine.rules.operators import OPERATORS
from rules_engine.rules.predicates import as_read, context_value
from rules_engine.rules.program import Program
from rules_engine.rules.types import STRING, Value, conform
from rules_engine.rules.walk import parts
from rules_engine.targets.index.layout import lay_out
from rules_engine.targets.index.normal_form import normalize
from rules_engine.targets.index.plan import look_late, make_plan
from rules_engine.targets.index.request import Request
from rules_engine.targets.index.slots import Reading, Slot, Source
from rules_engine.targets.index.tables import Steps, Table, build_tables
from rules_engine.targets.index.texts import group_strings
from rules_engine.targets.stepwise.aggregates import of_aggregate
from rules_engine.targets.stepwise.comparisons import of_comparison
from rules_engine.targets.stepwise.sequences import check_sequence
from rules_engine.targets.stepwise.view import FOREVER, View

#: The conjunctions that a slot's value leaves at an instant, and until when at least.
_Masks = Callable[[View, int], tuple[int, int]]

#: Segments that are true at an instant, and until when at least the same ones are.
Look = Callable[[View, int], tuple[Collection[str], int]]

#: A look through the index pays from so many conditions for each table on. A condition that is asked by itself costs
#: twice a table, and about half of them are decided by others before.
WORTH = 2


class IndexedLooks:
    """Makes looks at groups of the segments of a program, all at once and not condition by condition.

    What only features decide is asked once of a view, for all groups; see :attr:`View.fixed`.

    Parameters
    ----------
    program
        the segments.
    layout
        how event conditions are read from states.
    """

    def __init__(self, program: Program, layout: StateLayout) -> None:
        self._layout = lay_out(normalize(program))
        self._tables = build_tables(self._layout)
        self._events = layout
        fixed = [table for table in self._tables if not table.slot.varies]
        self._fixed_plan = make_plan(self._layout.everything, fixed, group_strings(fixed))

    def of(self, names: Collection[str], worth: float = WORTH) -> Look | None:
        """Return a look at some segments; None where it has fewer than ``worth`` conditions for each table.

        It is for entities of whom all events are kept that count: see :attr:`StateReader.is_whole`.
        """
        start = self._layout.bits_of(names)
        tables = [table for table in self._tables if table.mentions & start]
        conditions = sum((table.mentions & start).bit_count() for table in tables)
        if conditions < worth * len(tables):
            return None
        return self._look(start, tables)

    def _look(self, start: int, tables: list[Table]) -> Look:
        layout, fixed_of = self._layout, self._fixed
        timed = sorted((table for table in tables if table.slot.varies), key=lambda table: _cost(table.slot))
        masks = [(table.mentions, self._masks(table)) for table in timed]
        read = (part for table in tables for part in _parts(table.slot.source))
        views = frozenset(part.view for part in read if isinstance(part, FeatureRef))

        def look(view: View, now: int) -> tuple[Collection[str], int]:
            fixed = view.fixed
            if fixed is None or now >= fixed[1]:
                fixed = view.fixed = fixed_of(view, now)
            alive, until = fixed[0] & start, view.expiry(views, now)
            for mentions, read in masks:
                if alive & mentions:
                    mask, lasts = read(view, now)
                    alive &= mask
                    if lasts < until:
                        until = lasts
            return layout.names_of(layout.fold(alive)), until

        return look

    def _fixed(self, view: View, now: int) -> tuple[int, int]:
        """Return the conjunctions that features leave at an instant, and until when."""
        plan, features = self._fixed_plan, view.current(now)
        alive = plan.alive(features, {}, now)
        if alive and plan.late:
            alive = look_late(alive, plan.late, Request(features, {}, view.reader, now, view.entity))
        return alive, view.expiry(view.expires_at, now)

    def _masks(self, table: Table) -> _Masks:
        source = table.slot.source
        match source:
            case EventAggregate():
                breaks = [cut[0] for cut in table.cuts] if isinstance(table, Steps) else None
                return of_aggregate(self._events, source, lambda value: table.mask(value, 0), breaks)
            case SequenceNode():
                return _of_sequence(self._events, source, table)
            case ClockRef():
                return _of_clock(source, table)
            case TwoSides() | Calculation():
                return _of_value(table, of_comparison(self._events, source))
            case FeatureRef():
                return _of_value(table, lambda view, now: view.feature(source, now))
            case ContextRef():
                default = context_value(source, table.slot.type, {})
                return _of_value(table, lambda _view, _now: (default, FOREVER))
        raise TypeError(f"no condition is about {source}")


def _cost(slot: Slot) -> int:
    """Return the rank of a slot: cheap ones come first, as they may decide."""
    source = slot.source
    if isinstance(source, ClockRef):
        return 3
    return 2 if isinstance(source, SequenceNode) else 1 if isinstance(source, EventAggregate | Composite) else 0


def _parts(source: Source) -> tuple[Source, ...]:
    return parts(source) if isinstance(source, Composite) else (source,)


def _of_sequence(layout: StateLayout, sequence: SequenceNode, table: Table) -> _Masks:
    check = check_sequence(layout, sequence, positive=True)
    masks = table.present(False), table.present(True)

    def read(view: View, now: int) -> tuple[int, int]:
        holds, until = check(view, now)
        return masks[holds], until

    return read


def _of_value(table: Table, value_of: Callable[[View, int], tuple[Value, int]]) -> _Masks:
    """Return the masks of a value that is compared with the time."""

    def read(view: View, now: int) -> tuple[int, int]:
        raw, until = value_of(view, now)
        value = as_read(raw, table.slot.type)
        if value is not None:
            until = min([until, *_changes(table, value, now)])
        return table.mask(raw, now), until

    return read


def _changes(table: Table, value: Value, now: int) -> Iterable[int]:
    """Return the next instant at which what is said of a value changes; none if there is none."""
    if table.slot.reading is Reading.AGE:
        assert isinstance(table, Steps), table
        cell = bisect_right(table.edges, now - value)
        return [value + edge for edge in table.edges[cell : cell + 1]]
    test = table.slot.test
    boundaries = None if test is None else OPERATORS[test.operator].boundaries
    if test is None or boundaries is None:
        return ()
    return islice((at for at in boundaries(value, test.argument, now) if at > now), 1)


def _of_clock(clock: ClockRef, table: Table) -> _Masks:
    is_time = clock.field is ClockField.TIME_OF_DAY
    times = {0, *(table.edges if is_time and isinstance(table, Steps) else ())}

    def mask(zone: str | None, at: int) -> int:
        local = None if zone is None else local_time(at, zone)
        return table.mask(None if local is None else local[0] if is_time else local[1], at)

    def read(view: View, now: int) -> tuple[int, int]:
        zone, until = (
            (clock.timezone, FOREVER) if isinstance(clock.timezone, str) else view.feature(clock.timezone, now)
        )
        zone = conform(zone, STRING)
        here = mask(zone, now)
        if zone is None or local_time(now, zone) is None:
            return here, until
        last = min(now + CLOCK_HORIZON, LAST_INSTANT)
        changes = (at for at in crossings(now, last, zone, times) if at >= until or mask(zone, at) != here)
        return here, min(until, next(changes, last))

    return read


def looks_at(
    program: Program, layout: StateLayout, groups: Mapping[str, Collection[str]], worth: float = WORTH
) -> dict[str, Look]:
    """Return the looks at groups of segments for which they pay."""
    looks = IndexedLooks(program, layout)
    by_group = {group: looks.of(names, worth) for group, names in groups.items()}
    return {group: look for group, look in by_group.items() if look is not None}
