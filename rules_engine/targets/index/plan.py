"""The order in which one request looks at the tables: cheap ones in tight loops, dear ones only while they matter."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rules_engine.rules.nodes import ContextRef, EventAggregate, FeatureRef, Predicate
from rules_engine.rules.nodes import Sequence as SequenceNode
from rules_engine.rules.predicates import context_value
from rules_engine.rules.types import STRING, Value, ValueType
from rules_engine.targets.index import lines
from rules_engine.targets.index.lines import Line
from rules_engine.targets.index.request import Request
from rules_engine.targets.index.slots import Reading, Slot
from rules_engine.targets.index.tables import Steps, Table
from rules_engine.targets.index.texts import ManyTests, Strings

#: What is asked only while it matters.
Late = Table | ManyTests

#: From a raw value to a mask, at an instant.
Mask = Callable[[Value, int], int]


@dataclass(frozen=True, slots=True)
class Plan:
    """Lists what to look at for some segments.

    Each loop below knows one kind of feature by heart and judges the exact type of the value first: that is both the
    check that a value is of its type and what keeps ``1`` and ``True`` apart. Whatever it does not know (a subclass, a
    wrong type) goes the general way, through ``Table.mask``.

    Attributes
    ----------
    start
        the conjunctions that decide on the segments.
    late
        the tables that are asked only while a conjunction that mentions them is alive.
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
            known = seen.get(value) if value.__class__ is str else None
            alive &= look(value) if known is None else known
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
    """Return what is left of the conjunctions after the late tables."""
    for table in late:
        if alive & table.mentions:
            alive = table.narrow(alive, request.raw(table.slot), request.now)
    return alive


def make_plan(start: int, tables: Iterable[Table], strings: Strings) -> Plan:
    """Return the plan that decides on the conjunctions of ``start``: tables that mention none of them are left out.

    Of each kind, those come first that the most conjunctions mention.
    """
    wanted = [table for table in tables if table.mentions & start]
    wanted.sort(key=lambda table: (table.mentions & start).bit_count(), reverse=True)
    kinds: dict[str, list[Table]] = {}
    for table in wanted:
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
    """Return which loop of a plan looks at a table."""
    slot = table.slot
    if isinstance(slot.source, FeatureRef):
        if slot.type == STRING:
            return "late" if slot.reads_clock else "strings"  # those are looked at together, by feature
        if slot.reading is Reading.AGE:
            return "ages"
        return _KINDS_OF_LINES.get(slot.line, "others") if slot.reading is Reading.PLAIN else "others"
    return "context" if isinstance(slot.source, ContextRef) and slot.reading is not Reading.TEST else "late"


_KINDS_OF_LINES: dict[Line | None, str] = {lines.NUMBERS: "numbers", lines.TRUTH: "flags"}


def _steps(tables: list[Table]) -> list[Steps]:
    return [table for table in tables if isinstance(table, Steps)]


def _cost(slot: Slot) -> int:
    """Return how dear it is to get at a slot's value, for the order of the late tables."""
    if isinstance(slot.source, SequenceNode):
        return 3
    if isinstance(slot.source, EventAggregate | Predicate):
        return 2
    return 1 if slot.reading is Reading.TEST else 0


def _key(table: Table) -> str:
    source = table.slot.source
    assert isinstance(source, FeatureRef), source
    return source.key
