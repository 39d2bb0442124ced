"""The order in which a request looks up the tables: cheap ones in tight loops, costly ones only while they matter."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rules_engine.rules.nodes import Composite, ContextRef, EventAggregate, FeatureRef, Predicate
from rules_engine.rules.nodes import Sequence as SequenceNode
from rules_engine.rules.predicates import context_value
from rules_engine.rules.types import STRING, Value, ValueType
from rules_engine.targets.index import lines
from rules_engine.targets.index.lines import Line
from rules_engine.targets.index.request import Request
from rules_engine.targets.index.slots import Reading, Slot
from rules_engine.targets.index.tables import Steps, Table
from rules_engine.targets.index.texts import ManyTests, Strings

#: Tables that are looked up only while they matter.
Late = Table | ManyTests

#: From a raw value to a mask, at an instant.
Mask = Callable[[Value, int], int]


@dataclass(frozen=True, slots=True)
class Plan:
    """The tables to look up for some segments.

    Each loop below handles one kind of feature and compares the exact class of the value first: this checks the type,
    and distinguishes ``1`` from ``True``. Values of other classes (a subclass, a wrong type) go through ``Table.mask``.

    Attributes
    ----------
    start
        the conjunctions that decide the segments.
    late
        the tables that are looked up only while a conjunction that mentions them is alive.
    """

    start: int
    words: tuple[tuple[str, dict[str, int], int, int, Mask], ...]
    texts: tuple[tuple[str, dict[str, int], Callable[[Value], int]], ...]
    numbers: tuple[tuple[str, list[int], list[float], Sequence[int], int, Mask], ...]
    flags: tuple[tuple[str, int, int, int], ...]
    ages: tuple[tuple[str, list[int], Sequence[int], int, Mask], ...]
    others: tuple[tuple[str, Mask], ...]
    context: tuple[tuple[ContextRef, ValueType | None, Mask], ...]
    late: tuple[Late, ...]

    def alive(self, features: Mapping[str, Value], context: Mapping[str, Any], now: int) -> int:
        """Return the conjunctions that features and context leave alive, late tables aside."""
        get = features.get
        alive = self.start
        for key, words, other, missing, mask in self.words:
            value = get(key)
            if value.__class__ is str:
                alive &= words.get(value, other)
            elif value is None:
                alive &= missing
            else:
                alive &= mask(value, now)
        for key, seen, look in self.texts:
            value = get(key)
            cached = seen.get(value) if value.__class__ is str else None
            alive &= look(value) if cached is None else cached
        alive = self._look_at_numbers(alive, get, now)
        for key, yes, no, missing in self.flags:
            value = get(key)
            if value is True:
                alive &= yes
            elif value is False:
                alive &= no
            else:
                alive &= missing
        alive = self._look_at_ages(alive, get, now)
        for key, mask in self.others:
            alive &= mask(get(key), now)
        for operand, value_type, mask in self.context:
            alive &= mask(context_value(operand, value_type, context), now)
        return alive

    def _look_at_numbers(self, alive: int, get: Callable[[str], Value], now: int) -> int:
        for key, edges, float_edges, cells, missing, mask in self.numbers:
            value = get(key)
            kind = value.__class__
            if kind is int:
                alive &= cells[bisect_right(edges, value)]
            elif kind is float:
                # NaN is the float that differs from itself.
                alive &= cells[bisect_right(float_edges, value)] if value == value else missing
            elif value is None:
                alive &= missing
            else:
                alive &= mask(value, now)
        return alive

    def _look_at_ages(self, alive: int, get: Callable[[str], Value], now: int) -> int:
        for key, edges, cells, missing, mask in self.ages:
            value = get(key)
            if value.__class__ is int:
                alive &= cells[bisect_right(edges, now - value)]
            elif value is None:
                alive &= missing
            else:
                alive &= mask(value, now)
        return alive


def look_late(alive: int, late: Iterable[Late], request: Request) -> int:
    """Return the conjunctions that the late tables leave alive."""
    for table in late:
        if alive & table.mentions:
            alive = table.narrow(alive, request.raw(table.slot), request.now)
    return alive


def make_plan(start: int, tables: Iterable[Table], strings: Strings) -> Plan:
    """Return the plan that decides the conjunctions of ``start``, without tables that mention none of them.

    In each kind, the tables that the most conjunctions mention come first.
    """
    relevant = [table for table in tables if table.mentions & start]
    relevant.sort(key=lambda table: (table.mentions & start).bit_count(), reverse=True)
    kinds: dict[str, list[Table]] = {}
    for table in relevant:
        kinds.setdefault(_kind(table), []).append(table)
    late: list[Late] = [*(tests for tests in strings.many if tests.mentions & start), *kinds.get("late", [])]
    return Plan(
        start,
        tuple(
            (key, table.words, table.other, table.missing, table.mask)
            for key, table in strings.words
            if table.mentions & start
        ),
        tuple((key, masks.seen, masks.mask) for key, masks in strings.texts if masks.mentions & start),
        tuple(
            (_key(table), table.edges, table.float_edges, table.cells, table.missing, table.mask)
            for table in _steps(kinds.get("numbers", []))
        ),
        tuple(
            (_key(table), table.present(True), table.present(False), table.missing)
            for table in _steps(kinds.get("flags", []))
        ),
        tuple(
            (_key(table), table.edges, table.cells, table.missing, table.mask)
            for table in _steps(kinds.get("ages", []))
        ),
        tuple((_key(table), table.mask) for table in kinds.get("others", [])),
        tuple(
            (table.slot.source, table.slot.type, table.mask)
            for table in kinds.get("context", [])
            if isinstance(table.slot.source, ContextRef)
        ),
        tuple(sorted(late, key=lambda table: _cost(table.slot))),
    )


def _kind(table: Table) -> str:
    """Return the name of the loop that looks up a table."""
    slot = table.slot
    if isinstance(slot.source, FeatureRef):
        if slot.type == STRING:
            return "late" if slot.reads_clock else "strings"  # strings are looked up together, by feature
        if slot.reading is Reading.AGE:
            return "ages"
        return _KINDS_OF_LINES.get(slot.line, "others") if slot.reading is Reading.PLAIN else "others"
    return "context" if isinstance(slot.source, ContextRef) and slot.reading is not Reading.TEST else "late"


_KINDS_OF_LINES: dict[Line | None, str] = {lines.NUMBERS: "numbers", lines.TRUTH: "flags"}


def _steps(tables: list[Table]) -> list[Steps]:
    return [table for table in tables if isinstance(table, Steps)]


def _cost(slot: Slot) -> int:
    """Return the rank of a slot by the cost of its value, for the order of the late tables."""
    if isinstance(slot.source, SequenceNode):
        return 3
    if isinstance(slot.source, EventAggregate | Predicate) or (isinstance(slot.source, Composite) and slot.varies):
        return 2
    return 1 if slot.reading is Reading.TEST else 0


def _key(table: Table) -> str:
    source = table.slot.source
    assert isinstance(source, FeatureRef), source
    return source.key
