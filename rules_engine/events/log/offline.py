"""Events as of an instant, from the offline log: entity by entity, in order, each event once, in bounded memory.

With DuckDB the files are sorted on disk; without it they are sorted in memory.
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
from rules_engine.events.joins import Joins
from rules_engine.events.log.attribution import Attribution
from rules_engine.events.log.event_log import EventLog
from rules_engine.events.log.sorting import SEEN, Files, InMemory, OutsideMemory, Starts, quoted
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
    """Return how far back some conditions look, in microseconds, by name of the event; None: to the beginning.

    >>> from rules_engine.rules.nodes import EventMatch
    >>> from rules_engine.rules.aggregates import Aggregate
    >>> spans([EventAggregate(Aggregate.COUNT, EventMatch("view"), within) for within in (5, 7)])
    {'view': 7}
    """
    by_event: dict[str, int | None] = {}
    for source in sources:
        matches = [source.match] if isinstance(source, EventAggregate) else [step.match for step in source.steps]
        for name in (match.event for match in matches):
            span = by_event.get(name, 0)
            by_event[name] = None if span is None or source.within is None else max(span, source.within)
    return dict(sorted(by_event.items()))


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
    joins
        the joins that the log has.
    """

    def __init__(self, log: EventLog, sources: Iterable[Source], spill: Path) -> None:
        self._log = log
        self._spans = spans(sources)
        self._spill = spill
        self.names = tuple(self._spans)
        self.joins: Joins = log.joins()

    def attribution(self, first: int, last: int) -> Attribution:
        """Return for whom events count as of each instant between two."""
        return Attribution(self.joins, first, last)

    def pieces(
        self,
        as_of: int,
        keys: Sequence[str] | None = None,
        first: int | None = None,
        attribution: Attribution | None = None,
    ) -> Iterator[EventPiece]:
        """Yield the events of all entities, or of some, as far back as the conditions look.

        Events after the instant are left out. Of several deliveries of one id the first that was stored counts.

        Parameters
        ----------
        first
            an earlier instant, if the conditions are evaluated as of that one too.
        attribution
            for whom events count; by default for those for whom they count as of the instant.

        Raises
        ------
        ProjectError
            if the log cannot be read.
        """
        earliest = as_of if first is None else first
        starts = {name: None if span is None else earliest - span for name, span in self._spans.items()}
        owned = attribution or self.attribution(as_of, as_of)
        reported = None if keys is None else owned.reported(keys)
        table = owned.table(keys)
        with self._engine() as engine:
            batches = _retried(lambda: engine.events(self._files(starts, as_of), starts, as_of, reported, table))
            yield from _pieces(batches)

    def entities(self, as_of: int, keys: Sequence[str] | None = None) -> pa.Array:
        """Return the entities for whom one of the events counts at or before the instant: all, or those in ``keys``.

        Raises
        ------
        ProjectError
            if the log cannot be read.
        """
        ever = dict.fromkeys(self.names)
        owned = self.attribution(as_of, as_of)
        reported = None if keys is None else owned.reported(keys)
        table = owned.table(keys)
        with self._engine() as engine:
            batches = _retried(lambda: engine.entities(self._files(ever, as_of), as_of, reported, table))
            return pa.concat_arrays([_no_keys(), *(batch.column(0).cast(pa.large_string()) for batch in batches)])

    def first_seen(self, as_of: int) -> pa.Table:
        """Return for whom one of the events counts by the instant (``entity``), and from when on (``at``).

        An id that was joined to a person by then is among them, from its own first event on.

        Raises
        ------
        ProjectError
            if the log cannot be read.
        """
        ever = dict.fromkeys(self.names)
        with self._engine() as engine:
            batches = [*_retried(lambda: engine.first_seen(self._files(ever, as_of), as_of))]
        every = pa.Table.from_batches(batches, SEEN) if batches else SEEN.empty_table()
        every = pa.concat_tables([every, self._seen_by_joins(every, as_of)])
        return every.group_by("entity").aggregate([("at", "min")]).rename_columns(SEEN.names)

    def _seen_by_joins(self, seen: pa.Table, as_of: int) -> pa.Table:
        """Return who has an event because of a join, from when on."""
        joined = seen.filter(pc.is_in(seen["entity"], value_set=pa.array(self.joins.joined(as_of), pa.large_string())))
        rows = [
            (owner, max(row["at"], begin))
            for row in joined.to_pylist()
            for owner, _, begin in self.joins.stations(row["entity"])[1:]
            if begin <= as_of
        ]
        columns = zip(*rows, strict=True) if rows else ((), ())
        return pa.table(
            [pa.array(column, field.type) for column, field in zip(columns, SEEN, strict=True)], schema=SEEN
        )

    def rows(self, as_of: int, first: int) -> int:
        """Estimate how many events :meth:`pieces` reads: those in its files."""
        starts = {name: None if span is None else first - span for name, span in self._spans.items()}
        rows = 0
        for file in chain.from_iterable(self._files(starts, as_of).values()):
            with suppress(OSError):  # compaction deleted the file meanwhile
                rows += pq.read_metadata(file).num_rows
        return rows

    def _files(self, starts: Starts, as_of: int) -> Files:
        """Return the files that may hold such events, by name of the event; names without files are absent."""
        by_name = {
            name: self._log.files(name, None if start is None else start // DAY, as_of // DAY)
            for name, start in starts.items()
        }
        return {name: files for name, files in by_name.items() if files}

    @contextmanager
    def _engine(self) -> Iterator[OutsideMemory | InMemory]:
        if find_spec("duckdb") is None:
            yield InMemory(self.names)
            return
        import duckdb

        self._spill.mkdir(parents=True, exist_ok=True)
        try:
            with (
                tempfile.TemporaryDirectory(prefix="duckdb-", dir=self._spill) as folder,
                duckdb.connect() as connection,
            ):
                connection.execute(f"SET memory_limit = '{_MEMORY_LIMIT}'; SET temp_directory = {quoted(folder)}")
                connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
                yield OutsideMemory(self.names, connection)
        except duckdb.Error as error:
            raise _unreadable(error) from error


def _retried(read: Callable[[], Iterator[pa.RecordBatch]]) -> Iterator[pa.RecordBatch]:
    """Read batches; start over if compaction deletes a file meanwhile.

    Sorting reads all files before it gives the first batch, so after that batch no file can be missed.
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
    """Cut sorted rows into pieces, each with all events of its entities."""
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
    """Return the first row of the last entity."""
    last = batch["entity"][-1]
    return int(pc.index(batch["entity"], last).as_py())


def _piece(rows: pa.Table) -> EventPiece:
    columns = pa.table({name: _plain(rows[name]) for name in rows.column_names})
    owners, entities = _runs(columns["entity"].combine_chunks())
    first = _first_deliveries(owners, columns)
    if first is not None:
        columns, owners = columns.take(pa.array(first)), owners[first]
    return EventPiece(
        entities,
        owners,
        columns["name"].to_numpy(),
        columns["at"].to_numpy(),
        columns["event_id"].combine_chunks(),
        columns["properties"].combine_chunks(),
    )


def _plain(column: pa.ChunkedArray) -> pa.Array:
    """Return a column in one chunk, with texts in a layout that Arrow can encode, whatever DuckDB's version gives."""
    kind = column.type
    return column.combine_chunks() if pa.types.is_integer(kind) else column.cast(pa.large_string()).combine_chunks()


def _runs(entities: pa.Array) -> tuple[Integers, pa.Array]:
    """Return the number of each row's entity, and the distinct entities, from sorted entities."""
    encoded = entities.dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary


def _first_deliveries(owners: Integers, rows: pa.Table) -> Integers | None:
    """Return the rows to keep, in order: the first stored of each entity and id; None if all rows differ."""
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
