"""The events of one stream of a state, those in pieces and the others together."""

from __future__ import annotations

from collections.abc import Sequence

from rules_engine.events.state.entity_state import Kept
from rules_engine.events.state.pieces import Choice, StreamRows
from rules_engine.events.state.sums import Sums, blocks_of
from rules_engine.rules.types import Value


class Stream:
    """The events of one stream, as columns; ``ats`` are their instants, in order."""

    __slots__ = ("_bit", "_columns", "_newer", "_older", "_place", "_sums", "ats", "kept")

    def __init__(self, kept: Kept, place: int, bit: int) -> None:
        self.kept = kept
        self._place = place
        #: The events in pieces; None if there are none, or if events outside of them are among them in time.
        self._older = kept.older.selection(bit) if kept.is_in_order else None
        self._newer = StreamRows(kept if self._older is not None else kept.rows, bit)
        self.ats = self._newer.ats if self._older is None else self._older.ats + self._newer.ats
        self._bit = bit
        self._columns: dict[int | None, tuple[Value, ...]] = {}
        self._sums: dict[int, Sums] = {}

    @property
    def ids(self) -> Sequence[int]:
        """Return what tells each event from all other kept events of the entity, whatever their names."""
        return self.ids_from(0)

    def ids_from(self, first: int) -> Sequence[int]:
        """Return the same of the events from a place on."""
        start = self._place << 32
        if self._older is None:
            return self._newer.places(start)[first:]
        newer = self._newer.places(start + self.kept.older.number)
        number = len(self._older.ats)
        return newer[first - number :] if first >= number else (*self._older.places(start)[first:], *newer)

    def column(self, column: int | None) -> tuple[Value, ...]:
        """Return the values of a column; None for each event if there is none."""
        if self._older is None:
            return self._newer.column(column)
        values = self._columns.get(column)
        if values is None:
            values = self._columns[column] = self._older.column(column) + self._newer.column(column)
        return values

    def sums(self, column: int) -> Sums:
        """Return the sums of the values of a column."""
        sums = self._sums.get(column)
        if sums is None:
            older = () if self._older is None else self.kept.older.sums(self._bit, column)
            blocks = older + blocks_of(self._newer.column(column))
            sums = self._sums[column] = Sums(self.column(column), blocks)
        return sums

    def decisive(self, column: int, choice: Choice, now: int) -> tuple[tuple[int, ...], tuple[Value, ...]]:
        """Return the instants and values of the events without such that no instant from now on needs.

        ``choice`` chooses those that are needed. It is made once of the events in pieces.
        """
        if self._older is None or self.kept.older.ends[0] > now:
            return self.ats, self.column(column)
        ats, values = self.kept.older.chosen(self._bit, column, choice)
        return ats + self._newer.ats, values + self._newer.column(column)
