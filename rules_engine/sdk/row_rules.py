"""Rules on rows as the store has them: from a feature's stored bytes straight to what the rules say of it.

Most features take few values. For those a table, filled as values come by, goes from the stored bytes to the mask of
the conjunctions that allow the value, so that neither is the value decoded nor looked up in the index. Event conditions
are read from the entity's outlook. What costs more than a look into a table is decoded and goes the usual way.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from struct import Struct
from typing import Any

from rules_engine.clock import LAST_INSTANT, from_micros
from rules_engine.events.state.outlook import FOREVER, Outlook, read_outlook
from rules_engine.features.online.decode import Decoder
from rules_engine.features.online.row_layout import Row, RowInstants, RowLayout
from rules_engine.rules.decisions.choosing import Chooser, Course
from rules_engine.rules.inputs import Inputs
from rules_engine.rules.nodes import ClockRef, FeatureRef, Predicate
from rules_engine.rules.nodes import Sequence as SequenceNode
from rules_engine.rules.types import STRING, Value
from rules_engine.sdk.assignment import Assignment, assignments_of
from rules_engine.sdk.membership import Membership
from rules_engine.targets.index.event_values import LoggedEvents
from rules_engine.targets.index.foreseen import AnswerMasks, Following, Foreseen
from rules_engine.targets.index.plan import Late, Plan, look_late, make_plan
from rules_engine.targets.index.request import Request, unexpired
from rules_engine.targets.index.rule_index import RuleIndex
from rules_engine.targets.index.slots import Reading
from rules_engine.targets.index.tables import Table
from rules_engine.targets.index.texts import group_strings
from rules_engine.targets.stepwise.outlooks import Outlooks

#: Values that are remembered for each feature, and how long one may be.
_VALUES_KEPT = 512
_LONGEST_KEPT = 32

_DOUBLE_TAG = 0x29
_DOUBLE = Struct("<d").unpack_from

#: From a value to the mask of the conjunctions that allow it.
_Mask = Callable[[Value], int]


class _NotToldError(Exception):
    """Raised inside where an outlook ends before the instant that is looked at."""


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

#: A time: where it is, what decodes it, its name, and of each table the edges, the cells and what a missing one allows.
_Time = tuple[int, Decoder, str, list[tuple[list[int], Sequence[int], int]]]

#: A view: where its timestamp is, its ttl, the mask if it has no row or is past its ttl, and its features.
_View = tuple[int, int | None, int, list[tuple[int, _Masks]], list[_Double], list[_Time]]

#: An answer to the event conditions: at the instant of the request, and the outlook if anything changes later.
_Answers = tuple[bytes, Outlook | None]


class RowRules:
    """The segments of a question, on rows that a layout describes. Threads may share it: it only remembers.

    Parameters
    ----------
    index
        the compiled rules, ``by_answers``.
    segments
        those that are asked for; None is all.
    layout
        how rows lie: the features that the segments read. With the name of an event state, rows end with the end of
        the state.
    outlooks
        what the outlooks of events are of; None if the segments read no events.
    """

    def __init__(
        self, index: RuleIndex, segments: frozenset[str] | None, layout: RowLayout, outlooks: Outlooks | None = None
    ) -> None:
        self.layout = layout
        self._index = index
        self._layout = index.layout
        self._segments = segments
        start = index.layout.everything if segments is None else index.layout.bits_of(segments)
        plan = make_plan(start, index.tables, group_strings(index.tables))
        self._start = start
        self._instants = RowInstants()
        masks = _masks_of(plan)
        doubles = {key: (edges, cells, missing) for key, _, edges, cells, missing, _ in plan.numbers}
        times: dict[str, list[tuple[list[int], Sequence[int], int]]] = {}
        for key, edges, cells, missing, _ in plan.ages:
            times.setdefault(key, []).append((edges, cells, missing))
        self._views = [_view(masks, doubles, times, start, *described) for described in layout.described()]
        self._outlooks = outlooks
        tables = [table for table in index.tables if table.mentions & start]
        events = [table for table in tables if _is_of_events(table)]
        self._answers = AnswerMasks(events, outlooks.places) if outlooks is not None else None
        late = tuple(table for table in plan.late if not _is_of_events(table))
        #: What is not in the tables above.
        self._rest = replace(plan, words=(), texts=(), numbers=(), flags=(), ages=(), late=late)
        self._reads_values = bool(plan.others)
        self._is_simple = not (plan.others or plan.context or late)
        clocks = [table for table in tables if isinstance(table.slot.source, ClockRef)]
        self._clocks = 0
        for table in clocks:
            self._clocks |= table.mentions
        timed = [table for table in tables if table.slot.varies and table not in events and table not in clocks]
        #: Whether nothing changes with time but what is seen from the row's bytes, clocks aside.
        self._is_plain = all(_is_age(table) for table in timed)
        still = tuple(table for table in late if not isinstance(table.slot.source, ClockRef))
        self._still = replace(self._rest, late=still)

    def match(self, row: Row, context: Mapping[str, Any], now: int) -> frozenset[str]:
        """Return the names of exactly the segments whose answer is true, of segments that read no events.

        Raises
        ------
        StoreDataError
            if a value is not what the plan says.
        """
        return self._names("", self._alive(row, now), row, context, now, None)

    def membership(
        self, entity: str, row: Row, context: Mapping[str, Any], now: int, at: datetime
    ) -> Membership | None:
        """Return which segments an entity is in; None if the row does not tell, because events have to be looked at.

        Raises
        ------
        StoreDataError
            if a value is not what the plan says.
        """
        answers = None
        if self._answers is not None:
            answers = self._read_answers(row[-1], now)
            if answers is None:
                return None
        segments = self._names(entity, self._alive(row, now), row, context, now, answers)
        if answers is not None and answers[1] is not None and answers[1].ends_at != FOREVER:
            change = self.change(entity, row, context, now, answers)
            if change is None or change >= answers[1].ends_at:
                return None
            return Membership(entity, segments, at, from_micros(change))
        return Membership(entity, segments, at, partial(self._changes_at, entity, row, context, now, answers))

    def assignments(
        self, choosers: Sequence[Chooser], entity: str, row: Row, context: Mapping[str, Any], now: int, at: datetime
    ) -> list[Assignment] | None:
        """Return which variants an entity gets; None if the row does not tell, because events have to be looked at.

        Raises
        ------
        StoreDataError
            if a value is not what the plan says.
        """
        outlook, ends_at = None, FOREVER
        if self._answers is not None:
            answers = self._read_answers(row[-1], now)
            if answers is None:
                return None
            outlook = answers[1]
            ends_at = FOREVER if outlook is None else outlook.ends_at
        course = Course(
            lambda instant: self._at(entity, row, context, instant, self._answers_at(outlook, instant, ends_at)),
            lambda instant: self.change(entity, row, context, instant, self._answers_at(outlook, instant, ends_at)),
        )
        assignments = assignments_of(choosers, entity, course, now, at)
        return assignments if ends_at == FOREVER or _are_told(assignments, from_micros(ends_at)) else None

    def _at(
        self, entity: str, row: Row, context: Mapping[str, Any], now: int, answers: _Answers | None
    ) -> frozenset[str]:
        return self._names(entity, self._alive(row, now), row, context, now, answers)

    def _answers_at(self, outlook: Outlook | None, now: int, ends_at: int) -> _Answers | None:
        """Return what the outlook of a row says at an instant."""
        if self._outlooks is None:
            return None
        if now >= ends_at:
            raise _NotToldError
        return (self._outlooks.of_nothing, None) if outlook is None else (outlook.at(now), outlook)

    def _changes_at(
        self, entity: str, row: Row, context: Mapping[str, Any], now: int, answers: _Answers | None
    ) -> datetime | None:
        change = self.change(entity, row, context, now, answers)
        return None if change is None else from_micros(change)

    def _read_answers(self, kept: bytes | None, now: int) -> _Answers | None:
        """Return what the end of what is kept of events says at an instant; None if it does not tell."""
        outlooks = self._outlooks
        assert outlooks is not None
        if not kept:
            return outlooks.of_nothing, None
        outlook = read_outlook(kept, outlooks.stamp, len(outlooks.conditions))
        if outlook is None or not outlook.begins_at <= now < outlook.ends_at:
            return None
        return outlook.at(now), outlook

    def _names(
        self, entity: str, alive: int, row: Row, context: Mapping[str, Any], now: int, answers: _Answers | None
    ) -> frozenset[str]:
        if answers is not None and alive:
            assert self._answers is not None
            alive = self._answers.narrow(alive, answers[0])
        if alive and not self._is_simple:
            alive = self._narrowed(entity, self._rest, alive, row, context, now)
        return self._layout.names_of(self._layout.fold(alive))

    def _alive(self, row: Row, now: int) -> int:
        """Return what features that are looked up by their bytes, and the age of times, leave of the conjunctions."""
        alive = self._start
        for timestamp, ttl, missing, remembered, doubles, times in self._views:
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
            for position, decode, name, tables in times:
                raw = row[position]
                moment = decode(raw, name) if raw else None
                for ages, steps, gone in tables:
                    alive &= gone if moment is None else steps[bisect_right(ages, now - moment)]
        return alive

    def _narrowed(self, entity: str, plan: Plan, alive: int, row: Row, context: Mapping[str, Any], now: int) -> int:
        """Return what is left after the context, and what is asked only while it matters."""
        features: Mapping[str, Value] = self._values(row, now) if self._reads_values else {}
        alive &= plan.alive(features, context, now)
        if alive and plan.late:
            if not self._reads_values:
                features = self._values(row, now)
            alive = look_late(alive, plan.late, Request(features, context, LoggedEvents(()), now, entity))
        return alive

    def _values(self, row: Row, now: int) -> Mapping[str, Value]:
        return unexpired(self.inputs("", row, {}), now)

    def inputs(self, entity: str, row: Row, context: Mapping[str, Any]) -> Inputs:
        """Return a row as the evaluator takes it."""
        features = self.layout.decode(entity, row)
        return Inputs(features.values, context, (), features.updated_at, features.expires_at, entity)

    # --- time -------------------------------------------------------------------------------------------------------

    def change(
        self, entity: str, row: Row, context: Mapping[str, Any], now: int, answers: _Answers | None
    ) -> int | None:
        """Return the first instant after now at which other segments are true, by time alone; None if there is none.

        Between two instants at which anything looked up can change, nothing does. So each of them is looked at, in
        order, until the segments differ.
        """
        if not self._is_plain:
            return self._general_change(entity, row, context, now, answers)
        following = None
        if self._answers is not None and answers is not None:
            outlook = answers[1]
            following = Following(self._answers, answers[0], () if outlook is None else outlook.changes(now))
        still = not (self._still.others or self._still.context or self._still.late)
        first = None
        for at in (now, *self._instants_after(row, now, following)):
            alive = self._alive(row, at)
            if following is not None:
                alive = following.narrow(alive, at)
            if alive and not still:
                alive = self._narrowed(entity, self._still, alive, row, context, at)
            if alive & self._clocks:
                return self._general_change(entity, row, context, now, answers)
            members = self._layout.fold(alive)
            if first is None:
                first = members
            elif members != first:
                return at
        return None

    def _instants_after(self, row: Row, now: int, following: Following | None) -> list[int]:
        """Return the instants after now at which a view expires, a time gets to an edge, or an answer changes."""
        instants = set() if following is None else set(following.instants)
        for timestamp, ttl, _, _, _, times in self._views:
            seen = row[timestamp]
            if seen is None:
                continue
            if ttl is not None:
                instants.add(self._instants[seen] + ttl + 1)
            for position, decode, name, tables in times:
                raw = row[position]
                moment = decode(raw, name) if raw else None
                if moment is not None:
                    for ages, _, _ in tables:
                        instants.update([moment + age for age in ages])
        return sorted([at for at in instants if now < at <= LAST_INSTANT])

    def _general_change(
        self, entity: str, row: Row, context: Mapping[str, Any], now: int, answers: _Answers | None
    ) -> int | None:
        """Return the same, where local time or what is asked late changes too."""
        events = None
        if self._outlooks is not None and answers is not None:
            events = Foreseen(self._outlooks.places, *answers)
        return self._index.match_until(self.inputs(entity, row, context), now, self._segments, events=events)[1]


def _are_told(assignments: Sequence[Assignment], ends_at: datetime) -> bool:
    """Say whether all assignments change before their outlook ends: later than that it does not tell."""
    try:
        return all(assignment.changes_at is not None and assignment.changes_at < ends_at for assignment in assignments)
    except _NotToldError:
        return False


def _is_of_events(table: Late) -> bool:
    return isinstance(table.slot.source, Predicate | SequenceNode)


def _is_age(table: Table) -> bool:
    """Say whether a table is of the time since a feature, which rows are looked at for."""
    slot = table.slot
    return isinstance(slot.source, FeatureRef) and slot.reading is Reading.AGE and slot.type != STRING


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
    times: Mapping[str, list[tuple[list[int], Sequence[int], int]]],
    start: int,
    timestamp: int,
    ttl: int | None,
    features: Sequence[tuple[int, str, Decoder]],
) -> _View:
    missing = start
    remembered: list[tuple[int, _Masks]] = []
    numbers: list[_Double] = []
    moments: list[_Time] = []
    for position, name, decode in features:
        if name in times:
            moments.append((position, decode, name, times[name]))
            for _, _, gone in times[name]:
                missing &= gone
        if name not in masks:
            continue
        table = _Masks(decode, name, masks[name])
        missing &= table[None]
        if decode.feast_type == "Float64" and name in doubles and len(masks[name]) == 1:
            numbers.append((position, *doubles[name], table))
        else:
            remembered.append((position, table))
    return timestamp, ttl, missing, remembered, numbers, moments
