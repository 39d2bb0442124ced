"""Rules on rows as the store has them: from a feature's stored bytes straight to what the rules say of it.

Most features take few values. For those a table, filled as values come by, goes from the stored bytes to the mask of
the conjunctions that allow the value, so that neither is the value decoded nor looked up in the index. What depends on
the time, or costs more than a look into a table, is decoded and goes the usual way.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from struct import Struct
from typing import Any

from rules_engine.features.online.decode import Decoder
from rules_engine.features.online.row_layout import Row, RowInstants, RowLayout
from rules_engine.rules.inputs import Inputs
from rules_engine.rules.types import Value
from rules_engine.targets.index.event_values import LoggedEvents
from rules_engine.targets.index.plan import Plan, look_late, make_plan
from rules_engine.targets.index.request import Request, unexpired
from rules_engine.targets.index.rule_index import RuleIndex
from rules_engine.targets.index.texts import group_strings

#: Values that are remembered for each feature, and how long one may be.
_VALUES_KEPT = 512
_LONGEST_KEPT = 32

_DOUBLE_TAG = 0x29
_DOUBLE = Struct("<d").unpack_from

#: From a value to the mask of the conjunctions that allow it.
_Mask = Callable[[Value], int]


class _Masks(dict[bytes | None, int]):
    """The masks of one feature by its stored bytes; None is a missing value."""

    __slots__ = ("_decode", "_masks", "_name")

    def __init__(self, decode: Decoder, name: str, masks: Sequence[_Mask]) -> None:
        self._decode = decode
        self._name = name
        self._masks = masks
        super().__init__({None: self._of(None)})

    def _of(self, value: Value) -> int:
        allowed = -1
        for mask in self._masks:
            allowed &= mask(value)
        return allowed

    def __missing__(self, raw: bytes | None) -> int:
        if raw is None:  # another thread just cleared the table
            return self._of(None)
        allowed = self._of(self._decode(raw, self._name))
        if len(raw) <= _LONGEST_KEPT:
            if len(self) >= _VALUES_KEPT:
                missing = self[None]
                self.clear()  # what is frequent is soon back
                self[None] = missing
            self[raw] = allowed
        return allowed


#: A double: where it is, its cells, what a missing one allows, and how anything else is looked up.
_Double = tuple[int, list[float], Sequence[int], int, _Masks]

#: A view: where its timestamp is, its ttl, the mask if it has no row or is past its ttl, and its features.
_View = tuple[int, int | None, int, list[tuple[int, _Masks]], list[_Double]]


class RowRules:
    """The segments of a question, on rows that a layout describes. Threads may share it: it only remembers.

    Parameters
    ----------
    index
        the compiled rules.
    segments
        those that are asked for; None is all.
    layout
        how rows lie: the features that the segments read, and no event state.
    """

    def __init__(self, index: RuleIndex, segments: frozenset[str] | None, layout: RowLayout) -> None:
        self.layout = layout
        self._layout = index.layout
        start = index.layout.everything if segments is None else index.layout.bits_of(segments)
        plan = make_plan(start, index.tables, group_strings(index.tables))
        self._start = start
        self._instants = RowInstants()
        masks = _masks_of(plan)
        doubles = {key: (edges, cells, missing) for key, _, edges, cells, missing, _ in plan.numbers}
        self._views = [_view(masks, doubles, start, *described) for described in layout.described()]
        #: What is not in the tables above.
        self._rest = replace(plan, words=(), texts=(), numbers=(), flags=())
        self._reads_values = bool(plan.ages or plan.others)
        self._is_simple = not (plan.ages or plan.others or plan.context or plan.late)

    def match(self, row: Row, context: Mapping[str, Any], now: int) -> frozenset[str]:
        """Return the names of exactly the segments whose answer is true.

        Raises
        ------
        StoreDataError
            if a value is not what the plan says.
        """
        alive = self._start
        for timestamp, ttl, missing, remembered, doubles in self._views:
            seen = row[timestamp]
            if seen is None or (ttl is not None and now > self._instants[seen] + ttl):
                alive &= missing
                continue
            for position, masks in remembered:
                alive &= masks[row[position]]
            for position, edges, cells, gone, masks in doubles:
                raw = row[position]
                if raw and raw[0] == _DOUBLE_TAG and len(raw) == 9:
                    value = _DOUBLE(raw, 1)[0]
                    alive &= cells[bisect_right(edges, value)] if value == value else gone  # NaN differs from itself
                else:
                    alive &= masks[raw]
        if alive and not self._is_simple:
            alive = self._look_further(alive, row, context, now)
        return self._layout.names_of(self._layout.fold(alive))

    def _look_further(self, alive: int, row: Row, context: Mapping[str, Any], now: int) -> int:
        """Return what is left after the time, the context, and what is asked only while it matters."""
        rest = self._rest
        features: Mapping[str, Value] = self._values(row, now) if self._reads_values else {}
        alive &= rest.alive(features, context, now)
        if alive and rest.late:
            if not self._reads_values:
                features = self._values(row, now)
            alive = look_late(alive, rest.late, Request(features, context, LoggedEvents(()), now))
        return alive

    def _values(self, row: Row, now: int) -> Mapping[str, Value]:
        return unexpired(self.inputs("", row, {}), now)

    def inputs(self, entity: str, row: Row, context: Mapping[str, Any]) -> Inputs:
        """Return a row as the evaluator takes it."""
        features = self.layout.decode(entity, row)
        return Inputs(features.values, context, (), features.updated_at, features.expires_at)


def _masks_of(plan: Plan) -> dict[str, list[_Mask]]:
    """Return what the tables that depend on nothing but a feature's value say, by feature."""
    masks: dict[str, list[_Mask]] = {}

    def add(key: str, mask: _Mask) -> None:
        masks.setdefault(key, []).append(mask)

    for key, *_, mask in plan.words:
        add(key, _at_any_time(mask))
    for key, _, look in plan.texts:
        add(key, look)
    for key, *_, mask in plan.numbers:
        add(key, _at_any_time(mask))
    for key, yes, no, missing in plan.flags:
        add(key, _flag(yes, no, missing))
    return masks


def _at_any_time(mask: Callable[[Value, int], int]) -> _Mask:
    return lambda value: mask(value, 0)


def _flag(yes: int, no: int, missing: int) -> _Mask:
    return lambda value: yes if value is True else no if value is False else missing


def _view(
    masks: Mapping[str, Sequence[_Mask]],
    doubles: Mapping[str, tuple[list[float], Sequence[int], int]],
    start: int,
    timestamp: int,
    ttl: int | None,
    features: Sequence[tuple[int, str, Decoder]],
) -> _View:
    missing = start
    remembered: list[tuple[int, _Masks]] = []
    numbers: list[_Double] = []
    for position, name, decode in features:
        if name not in masks:
            continue
        table = _Masks(decode, name, masks[name])
        missing &= table[None]
        if decode.feast_type == "Float64" and name in doubles and len(masks[name]) == 1:
            numbers.append((position, *doubles[name], table))
        else:
            remembered.append((position, table))
    return timestamp, ttl, missing, remembered, numbers
