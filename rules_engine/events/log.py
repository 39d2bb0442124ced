"""The offline event log: Parquet files by event and day, to which whole files are added.

::

    feature_repo/data/events/event=purchase/day=2026-03-01/00001772323200000000-3f9c1e2a.parquet

Columns: ``entity``, ``event_id``, ``at``, ``stored_at``, and ``properties`` as JSON with the values as rules read them
(instants are microseconds). A file appears whole or not at all. An event that was delivered twice may lie there twice:
readers take the first that was stored, and so does compaction, which makes one file of many.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from rules_engine.clock import DAY, from_micros
from rules_engine.rules.inputs import Event

#: An event with the entity that did it.
Logged = tuple[str, Event]

#: So many files of one event and day are made one.
MANY_FILES = 64

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
_SUFFIX = ".parquet"
_TRIES = 20


class EventLog:
    """The log of one project.

    Parameters
    ----------
    folder
        where it lies; made when the first event comes.
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
            _write(folder, _table(part, stored_at), stored_at)
            if sum(1 for _ in folder.glob(f"*{_SUFFIX}")) >= MANY_FILES:
                self._compact(folder)

    def days(self) -> list[int]:
        """The days that have events, as days since 1970, in order."""
        names = {path.name for path in self.folder.glob("event=*/day=*")}
        return sorted(_day_of(name) for name in names)

    def files(self, name: str, first: int | None, last: int) -> list[Path]:
        """The files of an event's days from ``first`` (None: from the beginning) to ``last``, as of now.

        Compaction may take them away at any time; what was in them is in others then.
        """
        found: list[Path] = []
        for folder in sorted((self.folder / f"event={name}").glob("day=*")):
            day = _day_of(folder.name)
            if day <= last and (first is None or day >= first):
                found += _files(folder)
        return found

    def read(self, day: int, names: Iterable[str], since: int | None = None) -> list[Logged]:
        """The events of a day, each once, in the order in which they were stored.

        Parameters
        ----------
        names
            the events that are wanted.
        since
            only what was stored from then on, or shortly before, in microseconds.
        """
        found: dict[tuple[str, str], Logged] = {}
        for name in sorted(names):
            for table in _stable(self._folder(name, day), since):
                for entity, event in _rows(table, name):
                    found.setdefault((entity, event.id), (entity, event))
        return list(found.values())

    def _folder(self, name: str, day: int) -> Path:
        return self.folder / f"event={name}" / f"day={from_micros(day * DAY):%Y-%m-%d}"

    def _compact(self, folder: Path) -> None:
        """Make one file of the files of a folder, unless another process is at it."""
        with (self.folder / ".compaction").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            files = _files(folder)
            if len(files) < 2:
                return
            merged = pa.concat_tables([pq.read_table(file, partitioning=None) for file in files])
            seen: set[tuple[str, str]] = set()
            pairs = zip(merged["entity"].to_pylist(), merged["event_id"].to_pylist(), strict=True)
            fresh = [not (pair in seen or seen.add(pair)) for pair in pairs]  # type: ignore[func-returns-value]
            # Named as the last of them: who reads what was stored since then finds all of it.
            _write(folder, merged.filter(pa.array(fresh)), _stored_at(files[-1]))
            for file in files:
                file.unlink()


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
    """Properties as rules read them, from the column ``properties``.

    >>> decode_properties('{"sku": "A1", "sizes": [1, 2]}')
    {'sku': 'A1', 'sizes': (1, 2)}
    """
    return {key: _value(value) for key, value in orjson.loads(text).items()}


def _value(value: Any) -> Any:
    return tuple(map(_value, value)) if isinstance(value, list) else value


def _write(folder: Path, table: pa.Table, stored_at: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    digest = blake2b("\n".join(table["event_id"].to_pylist()).encode("utf-8", "replace"), digest_size=4)
    digest.update(os.urandom(4))
    path = folder / f"{stored_at:020d}-{digest.hexdigest()}{_SUFFIX}"
    temporary = folder / f".{path.name}.{os.getpid()}"
    try:
        with temporary.open("wb") as file:
            pq.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _files(folder: Path) -> list[Path]:
    """The files in the order in which they were stored."""
    return sorted(path for path in folder.glob(f"*{_SUFFIX}") if not path.name.startswith("."))


def _stored_at(file: Path) -> int:
    return int(file.name.partition("-")[0])


def _stable(folder: Path, since: int | None) -> list[pa.Table]:
    """The tables of a folder at one moment: if compaction takes a file away meanwhile, all are read again."""
    for _ in range(_TRIES):
        files = [file for file in _files(folder) if since is None or _stored_at(file) >= since]
        with contextlib.suppress(FileNotFoundError):
            return [pq.read_table(file, partitioning=None) for file in files]
    raise FileNotFoundError(f"files in {folder} keep disappearing")


def _day_of(name: str) -> int:
    start = datetime.strptime(name.removeprefix("day="), "%Y-%m-%d").replace(tzinfo=UTC)
    return int(start.timestamp()) * 1_000_000 // DAY
