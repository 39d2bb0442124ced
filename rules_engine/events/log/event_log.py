"""The offline event log: Parquet files by event and day, to which whole files are added.

::

    feature_repo/data/events/event=purchase/day=2026-03-01/00001772323200000000-3f9c1e2a.parquet

Columns: ``entity``, ``event_id``, ``at``, ``stored_at``, and ``properties`` as JSON with the values as rules read them
(instants are microseconds). A file appears whole or not at all. An event that was delivered twice may be stored twice:
readers and compaction, which merges small files, take the one that was stored first.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from rules_engine.clock import DAY, LAST_INSTANT, from_micros, to_micros
from rules_engine.events.joins import JOIN, Joins, join_of
from rules_engine.events.log.day_files import add_file, compact, files_of, stable_tables
from rules_engine.files import entries
from rules_engine.rules.inputs import Event

#: An event with the entity that did it.
Logged = tuple[str, Event]

_INSTANT = pa.timestamp("us", tz="UTC")
_SCHEMA = pa.schema(
    [
        ("entity", pa.string()),
        ("event_id", pa.string()),
        ("at", _INSTANT),
        ("stored_at", _INSTANT),
        ("properties", pa.string()),
    ]
)

#: The columns of a file of the log.
COLUMNS = tuple(_SCHEMA.names)

_log = logging.getLogger("rules_engine.events")


class EventLog:
    """The log of one project.

    Parameters
    ----------
    folder
        where it lies; created with the first event.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def append(self, events: Iterable[Logged], stored_at: int) -> None:
        """Add events. When it returns they are on disk; if it is killed, some files may be there and others not.

        Parameters
        ----------
        stored_at
            the time now, in microseconds.
        """
        parts: dict[tuple[str, int], list[Logged]] = {}
        for entity, event in events:
            parts.setdefault((event.name, event.at // DAY), []).append((entity, event))
        for (name, day), part in parts.items():
            folder = self._folder(name, day)
            add_file(folder, _table(part, stored_at), stored_at)
            compact(folder, self.folder / ".compaction", ("entity", "event_id"))

    def days(self) -> list[int]:
        """Return the days that have events, as days since 1970, in order."""
        days = {_day_of(path) for event in entries(self.folder, "event=*") for path in entries(event, "day=*")}
        return sorted(day for day in days if day is not None)

    def files(self, name: str, first: int | None, last: int) -> list[Path]:
        """Return the present files of an event's days from ``first`` (None: from the beginning) to ``last``.

        Compaction may delete them at any time, after it has copied their events to another file.
        """
        files: list[Path] = []
        for folder in entries(self.folder / f"event={name}", "day=*"):
            day = _day_of(folder)
            if day is not None and day <= last and (first is None or day >= first):
                files += files_of(folder)
        return files

    def read(
        self, day: int, names: Iterable[str], stored_from: int | None = None, skip: Collection[Path] = ()
    ) -> list[Logged]:
        """Return the events of a day, each once, in the order in which they were stored.

        Parameters
        ----------
        names
            the names of the events to read.
        stored_from
            only events that were stored from this instant on, in microseconds; some stored before may be among them.
        skip
            files that are not read, as :meth:`all_files` returned them.
        """
        first: dict[tuple[str, str], Logged] = {}
        for name in sorted(names):
            for table in stable_tables(self._folder(name, day), stored_from, skip):
                for entity, event in _rows(table, name):
                    first.setdefault((entity, event.id), (entity, event))
        return list(first.values())

    def ids(self, name: str, day: int) -> set[tuple[str, str]]:
        """Return the entity and the id of each event that the log has of a day."""
        tables = stable_tables(self._folder(name, day), columns=["entity", "event_id"])
        pairs = (zip(table["entity"].to_pylist(), table["event_id"].to_pylist(), strict=True) for table in tables)
        return set(chain.from_iterable(pairs))

    def joins(self, stored_until: int = LAST_INSTANT) -> Joins:
        """Return all joins, or those that were stored up to an instant, in microseconds."""
        rows: list[tuple[int, Logged]] = []
        for folder in entries(self.folder / f"event={JOIN}", "day=*"):
            for table in stable_tables(folder):
                stored = table["stored_at"].cast(pa.int64()).to_pylist()
                rows += zip(stored, _rows(table, JOIN), strict=True)
        rows.sort(key=lambda row: row[0])
        return Joins(join_of(entity, event) for stored, (entity, event) in rows if stored <= stored_until)

    def all_files(self, names: Iterable[str]) -> set[Path]:
        """Return the present files of some events, of all days."""
        return {file for name in names for file in self.files(name, None, LAST_INSTANT // DAY)}

    def added(self, names: Sequence[str], skip: Collection[Path]) -> Iterator[Logged]:
        """Yield the events in files that were added later; events of older files may be among them, after compaction.

        Parameters
        ----------
        skip
            the older files, as :meth:`all_files` returned them.
        """
        for day in self.days():
            for name in names:
                for table in stable_tables(self._folder(name, day), skip=skip):
                    yield from _rows(table, name)

    def _folder(self, name: str, day: int) -> Path:
        return self.folder / f"event={name}" / f"day={from_micros(day * DAY).date().isoformat()}"


def _table(part: Sequence[Logged], stored_at: int) -> pa.Table:
    columns = [
        [entity for entity, _ in part],
        [event.id for _, event in part],
        [event.at for _, event in part],
        [stored_at] * len(part),
        [orjson.dumps(event.properties).decode() for _, event in part],
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=_SCHEMA)


def _rows(table: pa.Table, name: str) -> Iterator[Logged]:
    ats = table["at"].cast(pa.int64()).to_pylist()
    columns = [table[column].to_pylist() for column in ("entity", "event_id", "properties")]
    for entity, identity, properties, at in zip(*columns, ats, strict=True):
        yield entity, Event(name, at, identity, decode_properties(properties))


def decode_properties(text: str) -> dict[str, Any]:
    """Return properties as rules read them, from the column ``properties``.

    >>> decode_properties('{"sku": "A1", "sizes": [1, 2]}')
    {'sku': 'A1', 'sizes': (1, 2)}
    """
    return {key: _value(value) for key, value in orjson.loads(text).items()}


def _value(value: Any) -> Any:
    return tuple(map(_value, value)) if isinstance(value, list) else value


def _day_of(folder: Path) -> int | None:
    """Return the day whose events a folder holds; None, with a warning, if its name is not a day."""
    try:
        start = datetime.strptime(folder.name.removeprefix("day="), "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        _warn_of(folder)
        return None
    return to_micros(start) // DAY


@cache
def _warn_of(folder: Path) -> None:
    _log.warning("%s is left out: its name is no day, such as day=2026-01-31", folder)
