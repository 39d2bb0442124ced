"""Pieces: the older events of a state that has many, written once beside it and never changed.

A state that is written at every event has to be small, so what it holds itself are the newest events. Older ones lie in
pieces, which writers read once and remember. A late event stays in the state itself, so a piece and the events outside
it may overlap in time. What is worked out of the pieces of a state is remembered until there are other pieces.
docs/adr/0025-pieces.md says more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, compress, pairwise
from operator import is_

from rules_engine.events.state.sums import Block, blocks_of
from rules_engine.rules.types import Value

#: From the rows of a stream, in order, and the values of a column of all rows: the rows that decide.
Choice = Callable[[list[int], Sequence[Value], int | None], list[int]]


@dataclass(slots=True)
class EventRows:
    """Events of one name, as columns of equal length, ordered by instant and key. Do not change them.

    Attributes
    ----------
    ats, keys, masks
        of each event: its instant; its id or the digest of it; which streams it belongs to.
    columns
        by column of the requirement: the values, None where missing or not needed.
    """

    ats: tuple[int, ...] = ()
    keys: tuple[bytes, ...] = ()
    masks: tuple[int, ...] = ()
    columns: tuple[tuple[Value, ...], ...] = ()


@dataclass(slots=True)
class Piece(EventRows):
    """Events that lie in a piece; ``name`` is the digest of its bytes, empty until it is first encoded."""

    name: bytes = field(default=b"", compare=False)


class StreamRows:
    """The events of one stream among rows; ``bit`` is 0 if all events of the name are meant."""

    __slots__ = ("_columns", "_places", "_rows", "_selected", "ats")

    def __init__(self, rows: EventRows, bit: int) -> None:
        self._rows = rows
        self._selected = [mask & bit for mask in rows.masks] if bit else None
        self.ats = rows.ats if self._selected is None else tuple(compress(rows.ats, self._selected))
        self._columns: dict[int, tuple[Value, ...]] = {}
        self._places: tuple[int, Sequence[int]] = (-1, ())

    def places(self, start: int) -> Sequence[int]:
        """Return the places of the events among all rows, which are counted from ``start``."""
        if self._places[0] != start:
            places = range(start, start + len(self._rows.ats))
            self._places = start, places if self._selected is None else tuple(compress(places, self._selected))
        return self._places[1]

    def column(self, column: int | None) -> tuple[Value, ...]:
        """Return the values of a column; None for each event if there is none."""
        if column is None:
            return (None,) * len(self.ats)
        if self._selected is None:
            return self._rows.columns[column]
        values = self._columns.get(column)
        if values is None:
            values = self._columns[column] = tuple(compress(self._rows.columns[column], self._selected))
        return values


class Older:
    """The pieces of one name's events. Immutable, but for what it remembers.

    >>> older = Older((Piece((3, 5), (b"a", b"b"), (1, 1)), Piece((4,), (b"c",), (1,))))
    >>> older.number, older.rows.ats, older.ends
    (3, (3, 4, 5), (5, b'b'))
    """

    def __init__(self, pieces: tuple[Piece, ...] = ()) -> None:
        self.pieces = pieces
        self.number = sum(len(piece.ats) for piece in pieces)
        self._selections: dict[int, StreamRows] = {}
        self._chosen: dict[tuple[int, int, Choice], tuple[tuple[int, ...], tuple[Value, ...]]] = {}
        self._sums: dict[tuple[int, int], tuple[Block, ...]] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Older) and self.pieces == other.pieces

    def __hash__(self) -> int:
        return hash(self.number)

    def __repr__(self) -> str:
        return f"Older({self.pieces!r})"

    @cached_property
    def rows(self) -> EventRows:
        """Return the events of all pieces, in order."""
        return joined(self.pieces)

    @cached_property
    def keys(self) -> frozenset[bytes]:
        """Return the keys of all events."""
        return frozenset(self.rows.keys)

    @property
    def ends(self) -> tuple[int, bytes]:
        """Return the instant and key of the last event."""
        return self.rows.ats[-1], self.rows.keys[-1]

    def selection(self, bit: int) -> StreamRows:
        """Return the events of a stream."""
        selection = self._selections.get(bit)
        if selection is None:
            selection = self._selections[bit] = StreamRows(self.rows, bit)
        return selection

    def chosen(self, bit: int, column: int, choice: Choice) -> tuple[tuple[int, ...], tuple[Value, ...]]:
        """Return the instants and values of the events that decide, if no newer ones do."""
        key = bit, column, choice
        chosen = self._chosen.get(key)
        if chosen is None:
            selection = self.selection(bit)
            values = selection.column(column)
            rows = choice(list(range(len(values))), values, None)
            ats = selection.ats
            chosen = self._chosen[key] = tuple([ats[row] for row in rows]), tuple([values[row] for row in rows])
        return chosen

    def sums(self, bit: int, column: int) -> tuple[Block, ...]:
        """Return the sums of the values of a stream."""
        key = bit, column
        blocks = self._sums.get(key)
        if blocks is None:
            blocks = self._sums[key] = blocks_of(self.selection(bit).column(column))
        return blocks


NOTHING_OLDER = Older()


def joined(parts: Iterable[EventRows]) -> EventRows:
    """Return the events of several rows, in order."""
    some = sorted((part for part in parts if part.ats), key=lambda part: (part.ats[0], part.keys[0]))
    if not some:
        return EventRows()
    columns = tuple(tuple(chain.from_iterable(column)) for column in zip(*(part.columns for part in some), strict=True))
    whole = EventRows(
        tuple(chain.from_iterable(part.ats for part in some)),
        tuple(chain.from_iterable(part.keys for part in some)),
        tuple(chain.from_iterable(part.masks for part in some)),
        columns,
    )
    if all((part.ats[-1], part.keys[-1]) < (other.ats[0], other.keys[0]) for part, other in pairwise(some)):
        return whole
    order = sorted(range(len(whole.ats)), key=list(zip(whole.ats, whole.keys, strict=True)).__getitem__)
    return EventRows(
        tuple([whole.ats[row] for row in order]),
        tuple([whole.keys[row] for row in order]),
        tuple([whole.masks[row] for row in order]),
        tuple(tuple([column[row] for row in order]) for column in whole.columns),
    )


def picked(rows: EventRows, selectors: Sequence[object]) -> EventRows:
    """Return those rows whose selector is true."""
    return EventRows(
        tuple(compress(rows.ats, selectors)),
        tuple(compress(rows.keys, selectors)),
        tuple(compress(rows.masks, selectors)),
        tuple(tuple(compress(column, selectors)) for column in rows.columns),
    )


def cut(rows: EventRows, start: int, end: int | None) -> EventRows:
    """Return the rows from a place on, and before another one."""
    columns = tuple(column[start:end] for column in rows.columns)
    return EventRows(rows.ats[start:end], rows.keys[start:end], rows.masks[start:end], columns)


def repacked(older: Older, needed: EventRows, size: int) -> tuple[Older, EventRows]:
    """Divide the events that are still needed into pieces and the rest, which the state itself holds.

    A piece stays as it is as long as half of its events are needed. Where more than half as many again as a piece has
    are left over, the oldest of them become a piece.

    Parameters
    ----------
    older
        the pieces that there are.
    needed
        the events that are needed, those in pieces among them.
    size
        how many events a new piece has.
    """
    pieces: list[Piece] = []
    rest = needed
    if older.pieces:
        keys = frozenset(needed.keys)
        pieces = [piece for piece in older.pieces if 2 * len(keys.intersection(piece.keys)) >= len(piece.keys)]
        stored = frozenset(chain.from_iterable(piece.keys for piece in pieces))
        rest = picked(needed, [key not in stored for key in needed.keys])
    start = 0
    while len(rest.ats) - start > size + size // 2:
        piece = cut(rest, start, start + size)
        pieces.append(Piece(piece.ats, piece.keys, piece.masks, piece.columns))
        start += size
    if start:
        rest = cut(rest, start, None)
    unchanged = len(pieces) == len(older.pieces) and all(map(is_, pieces, older.pieces))
    return older if unchanged else Older(tuple(pieces)), rest
