"""Two ways to read files of the event log in order: sorted by DuckDB on disk, or by Arrow in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

#: The number of events that are worked on at once, about: events of one entity always stay together.
PIECE = 262_144

#: By name of an event: its files, and the last instant that is too old (None: none is).
Files = dict[str, list[Path]]
Starts = dict[str, int | None]

#: The schema of what :meth:`OutsideMemory.first_seen` yields.
SEEN = pa.schema([("entity", pa.large_string()), ("at", pa.int64())])

_ORDER = [(name, "ascending") for name in ("entity", "at", "event_id", "stored", "line")]
_READ = ["entity", "event_id", "at", "stored_at", "properties"]


class OutsideMemory:
    """Sorts with DuckDB, on disk where needed."""

    # `keys` are entities as they were reported. `attributed` says for whom the events of entities count that are not
    # here; None: all events count for whom they were reported.

    def __init__(self, names: Sequence[str], connection: Any) -> None:
        self._names = names
        self._connection = connection

    def events(
        self,
        files: Files,
        starts: Starts,
        as_of: int,
        keys: Sequence[str] | None,
        attributed: pa.Table | None = None,
    ) -> Iterator[pa.RecordBatch]:
        parts = [
            f'SELECT entity, {self._names.index(name)}::BIGINT AS name, epoch_us("at") AS "at", event_id, properties, '  # noqa: S608  # texts are quoted
            f"epoch_us(stored_at) AS stored, file_row_number AS line FROM {_files_sql(paths)} "
            f"WHERE {_when(starts[name], as_of)} AND {_which(keys)}"
            for name, paths in files.items()
        ]
        rows = " UNION ALL ".join(parts)
        if attributed is not None:
            self._connection.register("attributed", attributed)
            rows = (
                "SELECT coalesce(owner, entity) AS entity, name, \"at\", event_id || coalesce(suffix, '') AS event_id, "  # noqa: S608  # no text of others
                f"properties, stored, line FROM ({rows}) LEFT JOIN attributed ON entity = reported"
            )
        return self._run(parts and [rows], 'ORDER BY entity, "at", event_id, stored, line', keys)

    def entities(
        self, files: Files, as_of: int, keys: Sequence[str] | None, attributed: pa.Table | None = None
    ) -> Iterator[pa.RecordBatch]:
        every = chain.from_iterable(files.values())
        which = f"{_when(None, as_of)} AND {_which(keys)}"
        parts = [f"SELECT DISTINCT entity FROM {_files_sql(every)} WHERE {which}"] if files else []  # noqa: S608  # texts are quoted
        if attributed is not None and parts:
            self._connection.register("attributed", attributed)
            owned = "SELECT DISTINCT coalesce(owner, entity) AS entity"
            parts = [f"{owned} FROM ({parts[0]}) LEFT JOIN attributed ON entity = reported"]
        return self._run(parts, "ORDER BY entity", keys)

    def first_seen(self, files: Files, as_of: int) -> Iterator[pa.RecordBatch]:
        seen = 'SELECT entity, min(epoch_us("at")) AS "at"'
        parts = [
            f"{seen} FROM {_files_sql(paths)} WHERE {_when(None, as_of)} GROUP BY entity" for paths in files.values()
        ]
        return (batch.cast(SEEN) for batch in self._run(parts, "", None))

    def _run(self, parts: list[str], order: str, keys: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        if not parts:
            return iter(())
        if keys is not None:
            self._connection.register("selected", pa.table({"entity": pa.array(keys, pa.string())}))
        result = self._connection.execute(f"{' UNION ALL '.join(parts)} {order}")
        stream = getattr(result, "to_arrow_reader", None) or result.fetch_record_batch  # by DuckDB's version
        batches: Iterator[pa.RecordBatch] = iter(stream(PIECE))
        return batches


def _files_sql(files: Iterable[Path]) -> str:
    listed = ", ".join(quoted(str(file)) for file in files)
    return f"read_parquet([{listed}], file_row_number = true, hive_partitioning = false)"


def _when(start: int | None, as_of: int) -> str:
    until = f'"at" <= make_timestamptz({as_of})'
    return until if start is None else f'"at" > make_timestamptz({start}) AND {until}'


def _which(keys: Sequence[str] | None) -> str:
    return "true" if keys is None else "entity IN (SELECT entity FROM selected)"


def quoted(text: str) -> str:
    """Return a text as a literal of SQL.

    >>> quoted("it's")
    "'it''s'"
    """
    return "'" + text.replace("'", "''") + "'"


class InMemory:
    """Sorts with Arrow."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def events(
        self,
        files: Files,
        starts: Starts,
        as_of: int,
        keys: Sequence[str] | None,
        attributed: pa.Table | None = None,
    ) -> Iterator[pa.RecordBatch]:
        tables = []
        for name, paths in files.items():
            number = self._names.index(name)
            tables += [_read(file, number, starts[name], as_of, keys) for file in paths]
        if not tables:
            return iter(())
        return iter(_attributed(pa.concat_tables(tables), attributed).sort_by(_ORDER).to_batches(PIECE))

    def entities(
        self, files: Files, as_of: int, keys: Sequence[str] | None, attributed: pa.Table | None = None
    ) -> Iterator[pa.RecordBatch]:
        every = [_read(file, 0, None, as_of, keys) for paths in files.values() for file in paths]
        if not every:
            return iter(())
        owners = _attributed(pa.concat_tables(every), attributed)["entity"]
        return iter([pa.record_batch({"entity": pc.unique(owners).sort()})])

    def first_seen(self, files: Files, as_of: int) -> Iterator[pa.RecordBatch]:
        for paths in files.values():
            for file in paths:
                read = _read(file, 0, None, as_of, None).group_by("entity").aggregate([("at", "min")])
                yield from read.rename_columns(SEEN.names).cast(SEEN).to_batches()


def _attributed(rows: pa.Table, attributed: pa.Table | None) -> pa.Table:
    """Return events with for whom they count, and with the ids that they have there."""
    if attributed is None:
        return rows
    joined = rows.join(attributed, keys="entity", right_keys="reported", join_type="left outer")
    owners = pc.coalesce(joined["owner"], joined["entity"])
    ids = pc.binary_join_element_wise(joined["event_id"], pc.fill_null(joined["suffix"], ""), "")
    joined = joined.set_column(joined.schema.get_field_index("entity"), "entity", owners)
    return joined.set_column(joined.schema.get_field_index("event_id"), "event_id", ids).select(rows.column_names)


def _read(file: Path, name: int, start: int | None, as_of: int, keys: Sequence[str] | None) -> pa.Table:
    """Read a file as :class:`OutsideMemory` reads it."""
    table = pq.read_table(file, columns=_READ, partitioning=None)
    table = table.set_column(table.schema.get_field_index("at"), "at", table["at"].cast(pa.int64()))
    selected = pc.less_equal(table["at"], as_of)
    if start is not None:
        selected = pc.and_(selected, pc.greater(table["at"], start))
    if keys is not None:
        selected = pc.and_(selected, pc.is_in(table["entity"], value_set=pa.array(keys, pa.string())))
    rows = table.num_rows
    columns = {
        "entity": table["entity"],
        "name": pa.array(np.full(rows, name, dtype=np.int64)),
        "at": table["at"],
        "event_id": table["event_id"],
        "properties": table["properties"],
        "stored": table["stored_at"].cast(pa.int64()),
        "line": pa.array(np.arange(rows, dtype=np.int64)),
    }
    return pa.table(columns).filter(selected)
