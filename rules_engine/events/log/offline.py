"""Events as of an instant, from the offline log: entity by entity, in order, each event once, in bounded memory.

With DuckDB what is needed of the files is sorted outside of memory; without it it is held in memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rules_engine.clock import DAY
from rules_engine.errors import ProjectError, pass_interrupt
from rules_engine.events.log.event_log import EventLog
from rules_engine.events.log.sorting import SEEN, Files, InMemory, OutsideMemory, Since, quoted
from rules_engine.rules.nodes import EventAggregate
from rules_engine.rules.nodes import Sequence as SequenceNode

_MEMORY_LIMIT = "512MB"
_TRIES = 20

Integers = npt.NDArray[np.int64]

#: A condition that reads events.
Source = EventAggregate | SequenceNode


@dataclass(frozen=True, eq=False, slots=True)
class EventPiece:
    """The events of some entities, ordered by entity, instant and id.

    Attributes
    ----------
    entities
        the entities, sorted.
    owners
        for each event the place of its entity in ``entities``.
    names
        for each event the place of its name in the names that are read.
    ats, ids, properties
        for each event; properties as JSON.
    """

    entities: pa.Array
    owners: Integers
    names: Integers
    ats: Integers
    ids: pa.Array
    properties: pa.Array


def spans(sources: Iterable[Source]) -> dict[str, int | None]:
    """Return how far back some conditions look, in microseconds, by name of the event; None for ever.

    >>> from rules_engine.rules.nodes import EventMatch
    >>> from rules_engine.rules.aggregates import Aggregate
    >>> spans([EventAggregate(Aggregate.COUNT, EventMatch("view"), within) for within in (5, 7)])
    {'view': 7}
    """
    found: dict[str, int | None] = {}
    for source in sources:
        matches = [source.match] if isinstance(source, EventAggregate) else [step.match for step in source.steps]
        for name in (match.event for match in matches):
            known = found.get(name, 0)
            found[name] = None if known is None or source.within is None else max(known, source.within)
    return dict(sorted(found.items()))


class OfflineEvents:
    """The events that some conditions read, as of any instant.

    Parameters
    ----------
    log
        the offline event log.
    sources
        the conditions.
    spill
        a folder for what does not fit into memory.

    Attributes
    ----------
    names
        of the events that are read, sorted.
    """

    def __init__(self, log: EventLog, sources: Iterable[Source], spill: Path) -> None:
        self._log = log
        self._spans = spans(sources)
        self._spill = spill
        self.names = tuple(self._spans)

    def pieces(self, as_of: int, keys: Sequence[str] | None = None, first: int | None = None) -> Iterator[EventPiece]:
        """Yield the events of all entities, or of some, as far back as the conditions look.

        Nothing after the instant is seen. Of several deliveries of one id the first that was stored counts.

        Parameters
        ----------
        first
            an earlier instant, if the conditions are asked for as of that one too.

        Raises
        ------
        ProjectError
            if the log cannot be read.
        """
        earliest = as_of if first is None else first
        since = {name: None if span is None else earliest - span for name, span in self._spans.items()}
        with self._engine() as engine:
            batches = _retried(lambda: engine.events(self._files(since, as_of), since, as_of, keys))
            yield from _pieces(batches)

    def entities(self, as_of: int, keys: Sequence[str] | None = None) -> pa.Array:
        """Return the entities that did one of the events at or before the instant, all or those with one of some keys.

        Raises
        ------
        ProjectError
            if the log cannot be read.
        """
        ever = dict.fromkeys(self.names)
        with self._engine() as engine:
            batches = _retried(lambda: engine.entities(self._files(ever, as_of), as_of, keys))
            return pa.concat_arrays([_no_keys(), *(batch.column(0).cast(pa.large_string()) for batch in batches)])

    def first_seen(self, as_of: int) -> pa.Table:
        """Return the entities that did one of the events until the instant: ``entity``, and the first time, ``at``.

        Raises
        ------
        ProjectError
            if the log cannot be read.
        """
        ever = dict.fromkeys(self.names)
        with self._engine() as engine:
            batches = [*_retried(lambda: engine.first_seen(self._files(ever, as_of), as_of))]
        every = pa.Table.from_batches(batches, SEEN) if batches else SEEN.empty_table()
        return every.group_by("entity").aggregate([("at", "min")]).rename_columns(SEEN.names)

    def rows(self, as_of: int, first: int) -> int:
        """Estimate how many events :meth:`pieces` reads: those in its files."""
        since = {name: None if span is None else first - span for name, span in self._spans.items()}
        found = 0
        for file in chain.from_iterable(self._files(since, as_of).values()):
            with suppress(OSError):  # made one with others meanwhile
                found += pq.read_metadata(file).num_rows
        return found

    def _files(self, since: Since, as_of: int) -> Files:
        """Return the files that may hold such events, by name; a name without any is absent."""
        found = {
            name: self._log.files(name, None if start is None else start // DAY, as_of // DAY)
            for name, start in since.items()
        }
        return {name: files for name, files in found.items() if files}

    @contextmanager
    def _engine(self) -> Iterator[OutsideMemory | InMemory]:
        if find_spec("duckdb") is None:
            yield InMemory(self.names)
            return
        import duckdb

        self._spill.mkdir(parents=True, exist_ok=True)
        try:
            with tempfile.TemporaryDirectory(prefix="duckdb-", dir=self._spill) as folder, duckdb.connect() as made:
                made.execute(f"SET memory_limit = '{_MEMORY_LIMIT}'; SET temp_directory = {quoted(folder)}")
                made.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
                yield OutsideMemory(self.names, made)
        except duckdb.Error as error:
            raise _unreadable(error) from error


def _retried(read: Callable[[], Iterator[pa.RecordBatch]]) -> Iterator[pa.RecordBatch]:
    """Read batches, from the beginning if compaction takes a file away meanwhile.

    Everything is read before the first batch comes, as it is sorted.
    """
    problem: Exception | None = None
    for _ in range(_TRIES):
        try:
            batches = read()
            first = next(batches, None)
        except Exception as error:
            pass_interrupt(error)
            if not _is_missing_file(error):
                raise _unreadable(error) from error
            problem = error
        else:
            return chain([] if first is None else [first], batches)
    raise _unreadable(problem)


def _is_missing_file(error: Exception) -> bool:
    return isinstance(error, FileNotFoundError) or "No such file" in str(error) or "No files found" in str(error)


def _unreadable(error: Exception | None) -> ProjectError:
    return ProjectError(
        f"the event log cannot be read: {error}", hint="is a file in feature_repo/data/events damaged or locked?"
    )


# --- pieces ---------------------------------------------------------------------------------------------------------


def _pieces(batches: Iterable[pa.RecordBatch]) -> Iterator[EventPiece]:
    """Cut sorted rows between entities."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        if not batch.num_rows:
            continue
        end = _last_start(batch)
        if end or (waiting and waiting[-1]["entity"][-1].as_py() != batch["entity"][0].as_py()):
            if complete := [*waiting, batch.slice(0, end)] if end else waiting:
                yield _piece(pa.Table.from_batches(complete))
            waiting = []
        waiting.append(batch.slice(end))
    if waiting:
        yield _piece(pa.Table.from_batches(waiting))


def _last_start(batch: pa.RecordBatch) -> int:
    """Return the row at which those of the last entity begin."""
    last = batch["entity"][-1]
    return int(pc.index(batch["entity"], last).as_py())


def _piece(rows: pa.Table) -> EventPiece:
    found = pa.table({name: _plain(rows[name]) for name in rows.column_names})
    owners, entities = _runs(found["entity"].combine_chunks())
    first = _first_deliveries(owners, found)
    if first is not None:
        found, owners = found.take(pa.array(first)), owners[first]
    return EventPiece(
        entities,
        owners,
        found["name"].to_numpy(),
        found["at"].to_numpy(),
        found["event_id"].combine_chunks(),
        found["properties"].combine_chunks(),
    )


def _plain(column: pa.ChunkedArray) -> pa.Array:
    """Return a column in one chunk, with texts in a layout that Arrow can encode, whatever DuckDB's version gives."""
    kind = column.type
    return column.combine_chunks() if pa.types.is_integer(kind) else column.cast(pa.large_string()).combine_chunks()


def _runs(entities: pa.Array) -> tuple[Integers, pa.Array]:
    """Return, of sorted entities, the place of each and each once."""
    encoded = entities.dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary


def _first_deliveries(owners: Integers, rows: pa.Table) -> Integers | None:
    """Return the rows to keep, in order: of each entity's id the first stored; None if no id comes twice."""
    ids = rows["event_id"].combine_chunks().dictionary_encode()
    together = owners * len(ids.dictionary) + ids.indices.to_numpy()
    if len(np.unique(together)) == len(together):
        return None
    order = np.lexsort((rows["line"].to_numpy(), rows["stored"].to_numpy(), together))
    starts = np.flatnonzero(np.diff(together[order], prepend=-1))
    return np.sort(order[starts])


def _no_keys() -> pa.Array:
    return pa.array([], pa.large_string())


__all__ = ["EventPiece", "OfflineEvents", "Source", "spans"]
