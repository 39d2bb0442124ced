"""The event state of one entity: the least of its events that answers every loaded definition as the whole log would.

Plain data and pure functions. A worker decodes a state, calls :func:`update` with a batch of events and then ``prune``
with the time, and encodes the result; a reader decodes it and asks
:class:`rules_engine.events.state.reading.StateReader`.
docs/adr/0004-event-state.md says why it is exact, and what its bounds are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from operator import itemgetter

from rules_engine.events.state.pieces import NOTHING_OLDER, EventRows, Older, joined
from rules_engine.events.state.requirements import EventRequirement, StateRequirements
from rules_engine.events.state.totals import Total
from rules_engine.rules.inputs import VIA, Event
from rules_engine.rules.one_event import read_value
from rules_engine.rules.types import Value, conform

DIGEST_SIZE = 8

#: One kept event: its instant, its key, its mask, and the values of the columns.
Row = tuple[int, bytes, int, *tuple[Value, ...]]

#: The same with the place of its event's requirement.
PlacedRow = tuple[int, Row]

_order = itemgetter(0, 1)


@dataclass(slots=True)
class Kept(EventRows):
    """The kept events of one name: the newest ones, and the older ones that lie in pieces.

    Do not change it. It is not frozen because that costs a microsecond, and every event makes a new one.

    Attributes
    ----------
    lost
        by place of a need: the latest instant of an event that was dropped because of the bound. Windows that reach
        back to it are incomplete.
    settled
        events up to this instant are in the totals, or too late to enter them; None before the first.
    totals
        one for each need for a total.
    late
        how many events came for a total that was already settled: too late, or for a second time.
    older
        the events that lie in pieces.
    """

    lost: Mapping[int, int] = field(default_factory=dict)
    settled: int | None = None
    totals: tuple[Total, ...] = ()
    late: int = 0
    older: Older = NOTHING_OLDER

    @property
    def number(self) -> int:
        """Return how many events are kept."""
        return len(self.ats) + self.older.number

    @property
    def rows(self) -> EventRows:
        """Return all kept events, in order."""
        return joined([self.older.rows, self]) if self.older.pieces else self

    @property
    def is_in_order(self) -> bool:
        """Say whether there are events in pieces, and all of them come before all others."""
        return bool(self.older.pieces) and (not self.ats or self.older.ends < (self.ats[0], self.keys[0]))

    def has(self, key: bytes) -> bool:
        """Say whether the event with this key is kept."""
        return key in self.keys or (bool(self.older.pieces) and key in self.older.keys)

    def with_rows(self, rows: EventRows) -> Kept:
        """Return the same with these events in the place of those that lie in no piece."""
        return Kept(
            rows.ats, rows.keys, rows.masks, rows.columns, self.lost, self.settled, self.totals, self.late, self.older
        )


@dataclass(slots=True)
class EventState:
    """The kept events of one entity, for the requirements with this fingerprint. Do not change it.

    Attributes
    ----------
    fingerprint
        of the requirements.
    kept
        by place of the requirement.
    pruned_at
        events that are not needed from this instant on were dropped, so earlier instants cannot be answered; None:
        nothing was dropped.
    joined
        the ids whose events are among them, with the instants of their joins: the newest hundred.
    """

    fingerprint: int
    kept: tuple[Kept, ...]
    pruned_at: int | None = None
    joined: Mapping[str, int] = field(default_factory=dict)


def empty_state(requirements: StateRequirements) -> EventState:
    """Return the state of an entity without events."""
    return EventState(requirements.fingerprint, tuple(map(nothing_kept, requirements.events)))


def nothing_kept(requirement: EventRequirement) -> Kept:
    """Return the state of a name without events."""
    return Kept(columns=((),) * len(requirement.columns), totals=(Total(),) * len(requirement.totals))


def changed_places(old: EventState, new: EventState) -> frozenset[int]:
    """Return the places of the requirements of which events were added to a state; it was not pruned in between."""
    pairs = zip(old.kept, new.kept, strict=True)
    return frozenset(place for place, (before, after) in enumerate(pairs) if before is not after)


def update(state: EventState, events: Iterable[Event], requirements: StateRequirements) -> EventState:
    """Add events to a state, in any order. Those that it already has change nothing.

    >>> from rules_engine.rules.nodes import EventAggregate, EventMatch
    >>> from rules_engine.rules.aggregates import Aggregate
    >>> from rules_engine.rules.program import Program
    >>> from rules_engine.events.state.requirements import requirements_of
    >>> requirements = requirements_of(Program({}), {"views": EventAggregate(Aggregate.COUNT, EventMatch("view"), 10)})
    >>> state = update(empty_state(requirements), [Event("view", 5, "b"), Event("view", 3, "a")], requirements)
    >>> state.kept[0].ats, update(state, [Event("view", 3, "a")], requirements) == state
    ((3, 5), True)
    """
    placed = (placed_row(event, requirements) for event in events)
    return add_rows(state, (row for row in placed if row is not None), requirements)


def placed_row(event: Event, requirements: StateRequirements) -> PlacedRow | None:
    """Return an event as it is kept; None if nothing needs it."""
    place = requirements.places.get(event.name)
    if place is None:
        return None
    row = _row(event, requirements.events[place])
    return None if row is None else (place, row)


def add_rows(state: EventState, placed: Iterable[PlacedRow], requirements: StateRequirements) -> EventState:
    """Add events to a state, in any order, as :func:`placed_row` gave them. It stays the same if it has all of them."""
    rows: dict[int, list[Row]] = {}
    for place, row in placed:
        rows.setdefault(place, []).append(row)
    if not rows:
        return state
    kept = list(state.kept)
    is_changed = False
    for place, new_rows in rows.items():
        before = kept[place]
        kept[place] = after = _with_rows(before, new_rows, requirements.events[place])
        is_changed = is_changed or after is not before
    return EventState(state.fingerprint, tuple(kept), state.pruned_at, state.joined) if is_changed else state


def _row(event: Event, requirement: EventRequirement) -> Row | None:
    """Return the event as it is kept; None if nothing needs it."""
    mask = 0
    for match, bit in requirement.bits.items():
        if event.is_meant_by(match):
            mask |= bit
    if not mask:
        return None
    properties, at = event.properties, event.at
    values = [
        conform(read_value(column.name, properties, at), column.type) if mask & bits else None
        for column, bits in requirement.columns_with_bits
    ]
    return (event.at, event_key(event, requirement), mask, *values)


def event_key(event: Event, requirement: EventRequirement) -> bytes:
    """Return the stored form of the event's id: all of it if ids decide which of two events is first, else a digest."""
    own, *via = event.id.split(VIA)
    whole = own.encode("utf-8", "surrogatepass")
    key = whole if requirement.whole_ids else digest_of(whole)
    for entity in via:
        key = handed_on_key(key, entity, requirement)
    return key


def handed_on_key(key: bytes, entity: str, requirement: EventRequirement) -> bytes:
    """Return the stored form of an id when an entity's event is handed on to the person to whom that is joined."""
    whole = key + f"{VIA}{entity}".encode("utf-8", "surrogatepass")
    return whole if requirement.whole_ids else digest_of(whole)


def digest_of(key: bytes) -> bytes:
    """Return the digest that stands for an id where ids are only compared for equality."""
    return blake2b(key, digest_size=DIGEST_SIZE).digest()


def _fresh(kept: Kept, rows: Sequence[Row]) -> Sequence[Row]:
    """Return the rows that are not there yet, each once."""
    if len(rows) == 1:
        return () if kept.has(rows[0][1]) else rows
    seen = set(kept.keys)
    older = kept.older.keys if kept.older.pieces else ()
    fresh: list[Row] = []
    for row in rows:
        if row[1] not in seen and row[1] not in older:
            seen.add(row[1])
            fresh.append(row)
    return fresh


def _with_rows(kept: Kept, rows: Sequence[Row], requirement: EventRequirement) -> Kept:
    totalled = requirement.total_bits
    fresh = _fresh(kept, rows)
    if not fresh:
        return kept
    if kept.settled is not None and totalled:
        late = sum(at <= kept.settled and mask & totalled > 0 for at, _, mask, *_ in fresh)
        if late:
            kept = replace(kept, late=kept.late + late)
    if len(fresh) == 1 and (not kept.ats or fresh[0][:2] > (kept.ats[-1], kept.keys[-1])):  # as most events come
        at, key, mask, *values = fresh[0]
        columns = tuple([(*column, value) for column, value in zip(kept.columns, values, strict=True)])
        return kept.with_rows(EventRows((*kept.ats, at), (*kept.keys, key), (*kept.masks, mask), columns))
    stored = zip(kept.ats, kept.keys, kept.masks, *kept.columns, strict=True)
    ats, keys, masks, *sorted_columns = zip(*sorted([*stored, *fresh], key=_order), strict=True)
    return kept.with_rows(EventRows(ats, keys, masks, tuple(sorted_columns)))
