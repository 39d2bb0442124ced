"""Work out event conditions for all entities, as of an instant: from the offline log, some entities at a time.

Counting is array work. What needs the values of properties is done event by event with the plain evaluator's own
functions, on each different set of properties once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rules_engine.batch.piece_events import PieceEvents
from rules_engine.events.log.attribution import Attribution
from rules_engine.events.log.offline import EventPiece, Integers, OfflineEvents, Source
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.rules.aggregates import Aggregate
from rules_engine.rules.events import reduce_values
from rules_engine.rules.inputs import Event
from rules_engine.rules.nodes import EventMatch
from rules_engine.rules.nodes import Sequence as SequenceNode
from rules_engine.rules.program import Program
from rules_engine.rules.sequences import sequence_matches
from rules_engine.rules.types import Value
from rules_engine.rules.walk import event_sources
from rules_engine.stream.event_sink import event_log
from rules_engine.targets.columns.codes import Coded, EventColumn

_INT64 = range(-(2**63), 2**63)
#: Integers up to here are floats without loss.
_EXACT = 2**53


def sources_of(program: Program, names: Collection[str]) -> tuple[Source, ...]:
    """Return the event conditions that segments read, themselves or through others."""
    conditions = [program.segment(name).when for name in program.closure(names)]
    return tuple(dict.fromkeys(source for condition in conditions for source in event_sources(condition)))


@dataclass(frozen=True, eq=False, slots=True)
class EventFacts:
    """Hold what event conditions come to for each entity that did one of their events.

    Attributes
    ----------
    entities
        those users; who did such events only long ago is among them.
    columns
        by condition its values, in the order of ``entities``, and at the end that of everyone else.
    """

    entities: pa.Array
    columns: dict[Source, EventColumn]

    def of(self, places: Integers) -> dict[Source, EventColumn]:
        """Return the values of some users by their places in ``entities``; -1 stands for everyone else."""
        rows = pa.array(np.where(places < 0, len(self.entities), places))
        return {source: column.take(rows) for source, column in self.columns.items()}


class BatchEvents:
    """The event conditions of some rules, for everybody.

    Parameters
    ----------
    repo
        the project's Feast repository.
    sources
        the conditions.
    """

    def __init__(self, repo: FeastRepo, sources: Iterable[Source]) -> None:
        self._sources = tuple(dict.fromkeys(sources))
        self._log = OfflineEvents(event_log(repo.project), self._sources, repo.project.state_dir)

    def facts(self, as_of: int, keys: Sequence[str] | None = None) -> EventFacts:
        """Work out the conditions as of an instant, for all entities or for those with these keys.

        Raises
        ------
        ProjectError
            if the event log cannot be read.
        """
        chunks_by_source: dict[Source, list[Any]] = {source: [] for source in self._sources}
        entities = [pa.array([], pa.large_string())]
        for piece in self._log.pieces(as_of, keys):
            entities.append(piece.entities)
            reader = _PieceReader(piece, self._log.names, as_of)
            for source in self._sources:
                chunks_by_source[source].append(reader.values(source))
        recent = pa.concat_arrays(entities)
        all_entities = self.entities(as_of, keys)
        others = all_entities.filter(pc.invert(pc.is_in(all_entities, value_set=recent)))
        rest = len(others) + 1
        columns = {
            source: as_column([*chunks, [_of_nothing(source)] * rest]) for source, chunks in chunks_by_source.items()
        }
        return EventFacts(pa.concat_arrays([recent, others]), columns)

    def entities(self, as_of: int, keys: Sequence[str] | None = None) -> pa.Array:
        """Return the entities that did one of the events at or before the instant, however long ago."""
        return self._log.entities(as_of, keys)

    def first_seen(self, as_of: int) -> pa.Table:
        """Return the entities that did one of the events by the instant: ``entity``, and the first time, ``at``."""
        return self._log.first_seen(as_of)

    def rows(self, first: int, last: int) -> int:
        """Estimate how many events the conditions look at between two instants."""
        return self._log.rows(last, first)

    def history(self, first: int, last: int, keys: Sequence[str]) -> EventHistory:
        """Return the conditions for some users at any instant between two; their events are read once, into memory.

        Raises
        ------
        ProjectError
            if the event log cannot be read.
        """
        attribution = self._log.attribution(first, last)
        pieces = self._log.pieces(last, keys, first, attribution)
        return EventHistory(pieces, self._log.names, self._sources, attribution)

    def events(self, as_of: int, keys: Sequence[str]) -> dict[str, tuple[Event, ...]]:
        """Return the events of some users, in order, as far back as the conditions look. Who has none is absent."""
        by_entity: dict[str, tuple[Event, ...]] = {}
        for piece in self._log.pieces(as_of, keys):
            reader = _PieceReader(piece, self._log.names, as_of)
            for place, entity in enumerate(piece.entities.to_pylist()):
                by_entity[entity] = tuple(reader.events(place))
        return by_entity


class EventHistory:
    """Work out event conditions for some entities, as of any instant up to one.

    Parameters
    ----------
    pieces
        the users' events.
    names
        of the events, by the numbers in the pieces.
    sources
        the conditions.
    attribution
        for whom events count as of each instant.
    """

    def __init__(
        self,
        pieces: Iterable[EventPiece],
        names: Sequence[str],
        sources: Sequence[Source],
        attribution: Attribution,
    ) -> None:
        self._attribution = attribution
        self._readers = [_PieceReader(piece, names, 0) for piece in pieces]
        self._sources = sources
        no_keys = pa.array([], pa.large_string())
        self._entities = pa.concat_arrays([no_keys, *(reader.entities for reader in self._readers)])

    def at(self, as_of: int, entities: pa.Array) -> dict[Source, EventColumn]:
        """Return by condition the values for entities, whether or not they have events."""
        readers = [reader.at(as_of) for reader in self._readers]
        owners = self._attribution.owners(entities.cast(pa.large_string()), as_of)
        places = pc.index_in(owners, value_set=self._entities)
        rows = pc.fill_null(places, len(self._entities))
        columns = {}
        for source in self._sources:
            column = as_column([*(reader.values(source) for reader in readers), [_of_nothing(source)]])
            columns[source] = column.take(rows)
        return columns


def _of_nothing(source: Source) -> Value:
    """Return what a condition comes to without events."""
    return False if isinstance(source, SequenceNode) else reduce_values(source.function, ())


class _PieceReader:
    """The conditions' values for the users of one piece."""

    def __init__(self, piece: EventPiece, names: Sequence[str], as_of: int) -> None:
        self._piece = piece
        self._names = names
        self.as_of = as_of
        self.entities = piece.entities
        self._users = len(piece.entities)
        self._events = PieceEvents(piece, names)

    @cached_property
    def _starts(self) -> Integers:
        """Return where each entity's events begin, and behind them the end."""
        return np.searchsorted(self._piece.owners, np.arange(self._users + 1))

    def at(self, as_of: int) -> _PieceReader:
        """Return a reader of the same users at another instant, which shares what was computed of their events."""
        _ = self._starts
        other = copy(self)
        other.as_of = as_of
        return other

    def values(self, source: Source) -> Any:
        """Return the values of a condition, by user."""
        if isinstance(source, SequenceNode):
            return self._sequence(source)
        rows = self._rows(source.match, *source.bounds(self.as_of))
        owners = self._piece.owners[rows]
        if source.function is Aggregate.COUNT:
            return np.bincount(owners, minlength=self._users)
        assert source.of is not None, source
        values = self._events.values(source.of, source.of_type, rows)
        starts = np.searchsorted(owners, np.arange(self._users + 1)).tolist()
        function = source.function
        nothing = reduce_values(function, ())
        return [
            reduce_values(function, values[start:end], source.skip) if end > start else nothing
            for start, end in pairwise(starts)
        ]

    def _rows(self, match: EventMatch, after: int | None, until: int) -> Integers:
        """Return the events that a match means, later than an instant and not later than another."""
        meant = self._events.is_meant(match) & (self._piece.ats <= until)
        if after is not None:
            meant = meant & (self._piece.ats > after)
        return np.flatnonzero(meant)

    def _sequence(self, sequence: SequenceNode) -> list[bool]:
        after = None if sequence.within is None else self.as_of - sequence.within
        starting = self._piece.owners[self._rows(sequence.steps[0].match, after, self.as_of)]
        names = {self._names.index(step.match.event) for step in sequence.steps}
        answers = [False] * self._users
        for place in np.unique(starting).tolist():
            answers[place] = sequence_matches(sequence, list(self.events(place, names)), self.as_of)
        return answers

    def events(self, place: int, names: Collection[int] | None = None) -> Iterator[Event]:
        """Yield a user's events in order, or those with some names."""
        piece = self._piece
        start, end = int(self._starts[place]), int(self._starts[place + 1])
        rows = zip(
            piece.names[start:end].tolist(),
            piece.ats[start:end].tolist(),
            piece.ids[start:end].to_pylist(),
            self._events.codes[start:end].tolist(),
            strict=True,
        )
        for name, at, identity, code in rows:
            if at <= self.as_of and (names is None or name in names):
                yield Event(self._names[name], at, identity, self._events.documents[code])


# --- columns --------------------------------------------------------------------------------------------------------


def as_column(chunks: Sequence[Any]) -> EventColumn:
    """Return values as an Arrow column if it holds their one type exactly; else by the place of each value.

    >>> as_column([[1, None], [2.5]]).to_pylist()
    [1.0, None, 2.5]
    >>> as_column([[1], [2**53 + 1, 0.5]]).values
    (1, 9007199254740993, 0.5)
    """
    if all(isinstance(chunk, np.ndarray) for chunk in chunks[:-1]) and len(chunks) > 1:
        return pa.array(np.concatenate([np.asarray(chunk, dtype=np.int64) for chunk in chunks]))
    values = [value for chunk in chunks for value in chunk]
    kind = _arrow_type(values)
    return Coded.of(values) if kind is None else pa.array(values, kind)


def _arrow_type(values: Iterable[Value]) -> pa.DataType | None:
    types = {type(value) for value in values} - {type(None)}
    if types <= {int, float}:
        whole = [value for value in values if type(value) is int]
        if float not in types:
            return pa.int64() if all(value in _INT64 for value in whole) else None
        return pa.float64() if all(-_EXACT <= value <= _EXACT for value in whole) else None
    return {frozenset({str}): pa.large_string(), frozenset({bool}): pa.bool_()}.get(frozenset(types))
