"""The order in which one request looks at the tables: cheap ones in tight loops, dear ones only while they matter."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rules_engine.rules.nodes import ClockRef, ContextRef, EventAggregate, FeatureRef
from rules_engine.rules.nodes import Sequence as SequenceNode
from rules_engine.rules.types import Value
from rules_engine.targets import lines
from rules_engine.targets.request import Request
from rules_engine.targets.slots import Reading, Slot
from rules_engine.targets.tables import Steps, Table, Words

#: From a raw value to a mask, at an instant.
Mask = Callable[[Value, int], int]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to look at for some segments.

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
    numbers: tuple[tuple[str, list[int], list[float], Sequence[int], int, Mask], ...]
    flags: tuple[tuple[str, int, int, int], ...]
    ages: tuple[tuple[str, list[int], Sequence[int], int, Mask], ...]
    others: tuple[tuple[str, Mask], ...]
    context: tuple[tuple[ContextRef, Mask], ...]
    late: tuple[Table, ...]

    def alive(self, features: Mapping[str, Value], context: Mapping[str, Any], now: int) -> int:
        """The conjunctions that features and context leave alive, late tables aside."""
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
        for operand, mask in self.context:
            passed = context.get(operand.name)
            alive &= mask(operand.default if passed is None else passed, now)
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


def look_late(alive: int, late: Iterable[Table], request: Request) -> int:
    """What is left of the conjunctions after the late tables."""
    for table in late:
        if alive & table.mentions:
            alive &= table.mask(request.raw(table.slot.source), request.now)
    return alive


def make_plan(start: int, tables: Iterable[Table]) -> Plan:
    """The plan that decides on the conjunctions of ``start``: tables that mention none of them are left out."""
    kinds: dict[str, list[Table]] = {name: [] for name in ("words", "numbers", "flags", "ages", "others", "context")}
    late: list[Table] = []
    for table in sorted(tables, key=lambda table: -(table.mentions & start).bit_count()):
        if table.mentions & start:
            kinds.get(_kind(table), late).append(table)
    return Plan(
        start,
        tuple(
            (_key(table), table.words, table.other, table.missing, table.mask)
            for table in kinds["words"]
            if isinstance(table, Words)
        ),
        tuple(
            (_key(table), table.edges, table.float_edges, table.cells, table.missing, table.mask)
            for table in kinds["numbers"]
            if isinstance(table, Steps)
        ),
        tuple((_key(table), table.present(True), table.present(False), table.missing) for table in kinds["flags"]),
        tuple(
            (_key(table), table.edges, table.cells, table.missing, table.mask)
            for table in kinds["ages"]
            if isinstance(table, Steps)
        ),
        tuple((_key(table), table.mask) for table in kinds["others"]),
        tuple(
            (table.slot.source, table.mask) for table in kinds["context"] if isinstance(table.slot.source, ContextRef)
        ),
        tuple(sorted(late, key=lambda table: cost(table.slot))),
    )


def _kind(table: Table) -> str:
    """Which loop of a plan looks at a table."""
    slot = table.slot
    if cost(slot) > 0:
        return "late"
    if isinstance(slot.source, ContextRef):
        return "context"
    if slot.reading is Reading.AGE:
        return "ages"
    if slot.reading is not Reading.PLAIN:
        return "others"
    if isinstance(table, Words):
        return "words"
    return {lines.NUMBERS: "numbers", lines.TRUTH: "flags"}.get(slot.line, "others") if slot.line else "others"


def cost(slot: Slot) -> int:
    """How dear a look is, compared with one into a table of a feature: 0 for those."""
    if isinstance(slot.source, SequenceNode):
        return 4
    if isinstance(slot.source, EventAggregate):
        return 3
    if slot.reading is Reading.TEST:
        return 2
    return 1 if isinstance(slot.source, ClockRef) else 0


def _key(table: Table) -> str:
    source = table.slot.source
    assert isinstance(source, FeatureRef), source
    return source.key
