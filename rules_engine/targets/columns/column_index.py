"""Evaluates the compiled rule index over columns: the answers of :class:`RuleIndex` for a whole record batch.

Needs numpy and pyarrow, which lookups of one entity do not load.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rules_engine.errors import DataError, UnsupportedError
from rules_engine.rules.nodes import (
    BucketRef,
    ClockRef,
    Composite,
    ContextRef,
    EventAggregate,
    FeatureRef,
    Operand,
    Sequence,
)
from rules_engine.rules.types import Value
from rules_engine.rules.walk import parts
from rules_engine.targets.columns.arrays import Flags, micros, python_values
from rules_engine.targets.columns.buckets import bucket_column
from rules_engine.targets.columns.codes import (
    Coded,
    ColumnTable,
    DictionaryMasks,
    EventColumn,
    Lookup,
    Words64,
    look_up_distinct,
    to_words,
)
from rules_engine.targets.columns.comparisons import compared_rows
from rules_engine.targets.columns.narrowing import Narrowing
from rules_engine.targets.index.event_values import LoggedEvents
from rules_engine.targets.index.request import Request
from rules_engine.targets.index.rule_index import RuleIndex
from rules_engine.targets.index.slots import Slot, Source
from rules_engine.targets.index.tables import Table

#: About how many bytes of masks are worked on at once: as many as stay in a processor's cache.
_CHUNK_BYTES = 1 << 22

Rows = npt.NDArray[np.intp]

#: The bits of each byte, by its value, the lowest first.
_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").astype(np.int64)

EventColumns = Mapping[EventAggregate | Sequence, EventColumn]


@dataclass(frozen=True, eq=False)
class Matches:
    """The segments of each row of a batch.

    Attributes
    ----------
    names
        the segments, by the position of their bit, without those that can never be true.
    bits
        for each row the segments' bits, the lowest first.
    """

    names: tuple[str, ...]
    bits: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.bits)

    def members(self, name: str) -> Flags:
        """Return for each row whether it is in a segment."""
        if name not in self.names:
            return np.zeros(len(self), dtype=np.bool_)
        position = self.names.index(name)
        return (self.bits[:, position // 8] >> (position % 8) & 1).astype(np.bool_)

    def counts(self) -> dict[str, int]:
        """Return how many rows are in each segment."""
        totals: list[int] = []
        for column in range(self.bits.shape[1]):
            of_values = np.bincount(self.bits[:, column], minlength=256)
            totals += (of_values @ _BITS).tolist()
        return dict(zip(self.names, totals, strict=False))

    def matrix(self) -> Flags:
        """Return a matrix of flags: rows by ``names``."""
        return np.unpackbits(self.bits, axis=1, count=len(self.names), bitorder="little").view(np.bool_)

    def segments(self) -> Iterator[frozenset[str]]:
        """Yield for each row the names of its segments."""
        for row in self.matrix():
            yield frozenset(self.names[position] for position in np.flatnonzero(row))

    def lists(self) -> pa.ListArray:
        """Return for each row the names of its segments, as an Arrow column."""
        rows, positions = np.nonzero(self.matrix())
        offsets = np.searchsorted(rows, np.arange(len(self) + 1)).astype(np.int32)
        names = pa.array(self.names, pa.string()).take(pa.array(positions))
        return pa.ListArray.from_arrays(pa.array(offsets), names)


class ColumnIndex:
    """Evaluates a :class:`RuleIndex` over record batches. Immutable, and safe to share between threads.

    Parameters
    ----------
    index
        the compiled rules.
    segments
        the only segments to answer; None for all.

    Attributes
    ----------
    features
        the columns that a batch has to have, ``"view:name"``.
    event_sources
        the aggregates and sequences whose values have to be passed with a batch.

    >>> from rules_engine.rules.nodes import Predicate, Segment
    >>> from rules_engine.rules.program import Program
    >>> from rules_engine.rules.types import INTEGER
    >>> adult = Segment("adult", Predicate(FeatureRef("user", "age"), "at_least", 18, INTEGER))
    >>> columns = ColumnIndex(RuleIndex(Program({"adult": adult})))
    >>> list(columns.match_many(pa.record_batch({"user:age": [17, None, 40]}), now=0).segments())
    [frozenset(), frozenset(), frozenset({'adult'})]
    """

    def __init__(self, index: RuleIndex, segments: Collection[str] | None = None) -> None:
        self._layout = index.layout
        for name in segments or ():
            index.program.segment(name)
        self._start = self._layout.everything if segments is None else self._layout.bits_of(segments)
        self._words = self._layout.width // 64 + 1
        relevant = [table for table in index.tables if table.mentions & self._start]
        self._constant = [table for table in relevant if _is_constant(table.slot)]
        varying = [ColumnTable(table, self._words) for table in relevant if not _is_constant(table.slot)]
        # Tables with few lines come first: several of them are combined into one look-up.
        self._tables = sorted(varying, key=lambda table: (not table.is_cheap, table.lines))
        sources = [table.table.slot.source for table in varying]
        self.features = tuple(sorted({key for source in sources for key in _feature_keys(source)}))
        self._seeds = sorted({source.seed for source in sources if isinstance(source, BucketRef)})
        read = (part for source in sources for part in _parts(source))
        self.event_sources = tuple(
            dict.fromkeys(source for source in read if isinstance(source, EventAggregate | Sequence))
        )

    def match_many(
        self,
        batch: pa.RecordBatch,
        now: int,
        *,
        context: Mapping[str, Any] | None = None,
        expires_at: Mapping[str, pa.Array] | None = None,
        events: EventColumns | None = None,
        key: str | None = None,
    ) -> Matches:
        """Return the segments of each row, as of one instant.

        Parameters
        ----------
        batch
            with a column for each of ``features``; null and NaN are missing values.
        now
            in microseconds.
        context
            the same for all rows.
        expires_at
            for each view, the first instant at which a row's values are past their ttl; null for never.
        events
            the values of each of ``event_sources``, row by row.
        key
            the column of the entities' keys, by which samples are drawn; without it they are unknown.

        Raises
        ------
        DataError
            if a column is missing.
        UnsupportedError
            if the values of an event condition are not given.
        """
        self._check(batch, events or {})
        start = self._start
        request = Request({}, context or {}, LoggedEvents(()), now)
        for table in self._constant:
            start &= table.mask(request.raw(table.slot), now)
        expired = {view: _is_expired(column, now) for view, column in (expires_at or {}).items()}
        rows = max(1, _CHUNK_BYTES // (8 * self._words))
        buckets = {}
        if key is not None and self._seeds:
            keys = batch.column(key)
            buckets = {seed: pa.array(bucket_column(seed, keys), mask=_nulls(keys)) for seed in self._seeds}
        work = _Batch(batch, now, events or {}, expired, {}, buckets, context or {})
        chunks = [self._fold(self._alive(start, work.slice(offset, rows))) for offset in range(0, batch.num_rows, rows)]
        width = (len(self._layout.names) + 7) // 8
        return Matches(self._layout.names, np.concatenate([np.zeros((0, width), dtype=np.uint8), *chunks]))

    def _check(self, batch: pa.RecordBatch, events: EventColumns) -> None:
        absent = sorted(set(self.features) - set(batch.schema.names))
        if absent:
            raise DataError(
                f"the batch has no column for {', '.join(f'`{key}`' for key in absent)}",
                hint="pass a column of nulls for a feature that no entity has",
            )
        unknown = [source for source in self.event_sources if source not in events]
        if unknown:
            raise UnsupportedError(
                f"columns hold no events, and these conditions read them: {', '.join(map(str, unknown))}",
                hint="pass their values as `events`, or answer these segments entity by entity or in SQL",
            )

    def _alive(self, start: int, work: _Batch) -> Words64:
        """Return the conjunctions that are true, as words for each row."""
        alive = np.asfortranarray(np.tile(to_words(start, self._words), (work.rows, 1)))
        together: Narrowing | None = None
        for table in self._tables:
            if table.is_cheap or work.is_coded(table):
                narrowing = Narrowing(table.mentions, *work.look_up(table))
                both = None if together is None else together.and_also(narrowing)
                if together is not None and both is None:
                    together.narrow(alive)
                together = both or narrowing
                continue
            if together is not None:
                together.narrow(alive)
                together = None
            rows = np.flatnonzero((alive & table.mentions).any(axis=1))
            if len(rows):
                masks, codes = work.look_up(table, rows)
                alive[rows] &= masks[codes]
        if together is not None:
            together.narrow(alive)
        return alive

    def _fold(self, alive: Words64) -> npt.NDArray[np.uint8]:
        """Return the segments of which a conjunction is true, as bits for each row."""
        for part in self._layout.parts:
            is_false = ~(alive & to_words(part.own, self._words)).any(axis=1)
            alive[is_false] &= to_words(part.without, self._words)
        number = len(self._layout.names)
        segments = np.zeros((len(alive), number // 64 + 1), dtype=np.uint64, order="F")
        for offset, ones in self._layout.layers:
            mask = to_words(ones, segments.shape[1])
            for word in np.flatnonzero(mask):
                segments[:, word] |= _word_from(alive, offset + 64 * int(word)) & mask[word]
        as_bytes = np.ascontiguousarray(segments, dtype="<u8").view(np.uint8)
        return as_bytes[:, : (number + 7) // 8]


@dataclass(frozen=True, eq=False, slots=True)
class _Batch:
    """Some rows of a batch with the values of their event conditions, and flags of the rows whose views are expired.

    ``buckets`` are those of the rows' entities, by seed; there are none where the entities are not known.
    """

    batch: pa.RecordBatch
    now: int
    events: EventColumns
    expired: Mapping[str, Flags]
    dictionaries: DictionaryMasks
    buckets: Mapping[str, pa.Array]
    context: Mapping[str, Any]

    @property
    def rows(self) -> int:
        return int(self.batch.num_rows)

    def slice(self, offset: int, rows: int) -> _Batch:
        events = {source: column.slice(offset, rows) for source, column in self.events.items()}
        expired = {view: flags[offset : offset + rows] for view, flags in self.expired.items()}
        buckets = {seed: column.slice(offset, rows) for seed, column in self.buckets.items()}
        batch = self.batch.slice(offset, rows)
        return _Batch(batch, self.now, events, expired, self.dictionaries, buckets, self.context)

    def is_coded(self, table: ColumnTable) -> bool:
        """Tell whether a table's column is dictionary-encoded, with no more distinct values than rows."""
        source = table.table.slot.source
        if not isinstance(source, FeatureRef):
            return False
        column = self.batch.column(source.key)
        return bool(pa.types.is_dictionary(column.type)) and len(column.dictionary) <= self.rows

    def look_up(self, table: ColumnTable, rows: Rows | None = None) -> Lookup:
        """Return the masks of a table for these rows of the batch, or for all."""
        source = table.table.slot.source
        if isinstance(source, EventAggregate | Sequence):
            return self._look_up_events(table, self.events[source], rows)
        if isinstance(source, ClockRef):
            return self._look_up_clock(table.table, source, table.words, rows)
        if isinstance(source, BucketRef):
            buckets = self.buckets.get(source.seed)
            buckets = pa.nulls(self.rows, pa.int64()) if buckets is None else buckets
            return table.look_up(_take(buckets, rows), self.now, self.dictionaries)
        if isinstance(source, Composite):
            return self._compared(source, rows).look_up(table.table, self.now, table.words)
        assert isinstance(source, FeatureRef), source
        lookup = table.look_up(_take(self.batch.column(source.key), rows), self.now, self.dictionaries)
        return self._expire(source.view, lookup, rows)

    def _look_up_events(self, table: ColumnTable, column: EventColumn, rows: Rows | None) -> Lookup:
        if not isinstance(column, Coded):
            return table.look_up(_take(column, rows), self.now, self.dictionaries)
        chosen = column if rows is None else column.take(pa.array(rows))
        return chosen.look_up(table.table, self.now, table.words)

    def _look_up_clock(self, table: Table, clock: ClockRef, words: int, rows: Rows | None) -> Lookup:
        assert isinstance(clock.timezone, FeatureRef), clock
        zone = clock.timezone

        def mask(name: Any) -> int:
            request = Request({zone.key: name}, {}, LoggedEvents(()), self.now)
            return table.mask(request.raw(table.slot), self.now)

        lookup = look_up_distinct(_take(self.batch.column(zone.key), rows), mask, table.missing, words)
        return self._expire(zone.view, lookup, rows)

    def _compared(self, comparison: Composite, rows: Rows | None) -> Coded:
        """Return how two sides compare, row by row."""
        read = [part for part in parts(comparison) if not isinstance(part, ContextRef)]
        columns: dict[Operand, list[Value]] = {part: self._values(part, rows) for part in read}
        return compared_rows(comparison, columns, self.context, self.rows if rows is None else len(rows))

    def _values(self, part: Operand, rows: Rows | None) -> list[Value]:
        """Return the values of an operand as rules read them, None where its view is past its ttl."""
        if isinstance(part, EventAggregate):
            column = self.events[part]
            if isinstance(column, Coded):
                return (column if rows is None else column.take(pa.array(rows))).to_pylist()
            return python_values(_take(column, rows))
        assert isinstance(part, FeatureRef), part
        values = python_values(_take(self.batch.column(part.key), rows))
        expired = self.expired.get(part.view)
        if expired is None:
            return values
        gone = expired if rows is None else expired[rows]
        return [None if is_gone else value for value, is_gone in zip(values, gone.tolist(), strict=True)]

    def _expire(self, view: str, lookup: Lookup, rows: Rows | None) -> Lookup:
        """Return the look-up with the line of a missing value where the view is past its ttl."""
        if view not in self.expired:
            return lookup
        masks, codes = lookup
        expired = self.expired[view] if rows is None else self.expired[view][rows]
        return masks, np.where(expired, 0, codes)


def _word_from(words: Words64, bit: int) -> npt.NDArray[np.uint64]:
    """Return for each row the 64 bits that begin at ``bit``."""
    word, shift = divmod(bit, 64)
    bits: npt.NDArray[np.uint64] = words[:, word] >> np.uint64(shift)
    if shift and word + 1 < words.shape[1]:
        bits |= words[:, word + 1] << np.uint64(64 - shift)
    return bits


def _take(column: pa.Array, rows: Rows | None) -> pa.Array:
    if pa.types.is_string_view(column.type):  # Arrow can neither take from nor encode a column of this type
        column = column.cast(pa.large_string())
    return column if rows is None else column.take(pa.array(rows))


def _parts(source: Source) -> tuple[Source, ...]:
    return parts(source) if isinstance(source, Composite) else (source,)


def _is_constant(slot: Slot) -> bool:
    """Tell whether a slot has the same value for all rows."""
    if isinstance(slot.source, Composite):
        return all(isinstance(part, ContextRef) for part in parts(slot.source))
    return isinstance(slot.source, ContextRef) or (
        isinstance(slot.source, ClockRef) and isinstance(slot.source.timezone, str)
    )


def _feature_keys(source: Source) -> Iterator[str]:
    if isinstance(source, Composite):
        yield from (part.key for part in parts(source) if isinstance(part, FeatureRef))
    elif isinstance(source, FeatureRef):
        yield source.key
    elif isinstance(source, ClockRef) and isinstance(source.timezone, FeatureRef):
        yield source.timezone.key


def _nulls(column: pa.Array) -> Flags:
    flags: Flags = column.is_null().to_numpy(zero_copy_only=False)
    return flags


def _is_expired(column: pa.Array, now: int) -> Flags:
    instants = micros(column) if not pa.types.is_integer(column.type) else column.fill_null(0).to_numpy(False)
    expired: Flags = column.is_valid().to_numpy(zero_copy_only=False) & (instants <= now)
    return expired
