"""Events from files: JSON lines, CSV, Parquet. Read in pieces, checked, logged and kept; an interrupted run goes on."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from rules_engine.errors import DataError
from rules_engine.events.declarations.validation import Rejection
from rules_engine.events.log.event_log import Logged
from rules_engine.events.streams import encode_raw
from rules_engine.files import write_atomically
from rules_engine.folders import Project
from rules_engine.rules.types import Kind, ValueType
from rules_engine.stream.event_sink import EventSink, Refused
from rules_engine.stream.rebuilding import rebuild_noted
from rules_engine.stream.reevaluation import look_again

#: Rows that are taken at once.
BATCH = 5_000

#: What a number of the ``at`` column counts, in microseconds.
UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1}

_FORMATS = (".jsonl", ".ndjson", ".csv", ".parquet")


@dataclass(frozen=True, slots=True)
class Mapped:
    """Where a row has the parts of an event.

    Attributes
    ----------
    entity, event, at, event_id
        the columns. A row without an id gets one from its content: the same row is the same event.
    properties
        the column that holds all properties; where a row has none of that name, its other columns are the properties.
    name
        the event that every row is; then no column says it.
    names
        what a word in the column ``event`` stands for.
    renamed
        by column: the property that it holds.
    at_unit
        what a number in the column ``at`` counts.
    """

    entity: str = "entity"
    event: str = "event"
    at: str = "at"
    event_id: str = "event_id"
    properties: str = "properties"
    name: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    at_unit: str = "us"


@dataclass(slots=True)
class IngestReport:
    """What became of a file's rows. ``skipped`` were taken by an earlier run that was interrupted."""

    rows: int = 0
    accepted: int = 0
    refused: int = 0
    skipped: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    rebuilt: int = 0


def ingest_file(
    project: Project,
    sink: EventSink,
    path: Path,
    mapped: Mapped | None = None,
    progress: Callable[[IngestReport], None] | None = None,
    *,
    live: bool = False,
) -> IngestReport:
    """Take the events of a file. Taking a file again changes nothing.

    Parameters
    ----------
    live
        put them into the streams, as if they were reported now: workers judge them, and triggers start. By default they
        are history, and go into log and states at once.

    Raises
    ------
    DataError
        if the file cannot be read, or has no column of a name that it should have.
    StoreError
        if the store cannot be written; run it again to go on.
    """
    mapped = mapped or Mapped()
    place = project.state_dir / "ingest" / f"{_identity(path, mapped)}.json"
    report = _earlier(place)
    report.skipped = report.rows
    rows = islice(event_rows(path, mapped, sink.property_types), report.rows, None)
    while batch := list(islice(rows, BATCH)):
        _take(sink, batch, path.name, report, live=live)
        # Only now: a run that is killed before does these rows again, which changes nothing.
        write_atomically(place, orjson.dumps(asdict(report)))
        if progress is not None:
            progress(report)
    if report.accepted and not live:
        report.rebuilt = rebuild_noted(project, sink)
    place.unlink(missing_ok=True)
    if report.accepted and not live:
        look_again(project, "ingest")
    return report


def _take(
    sink: EventSink, batch: Sequence[Mapping[str, Any]], source: str, report: IngestReport, *, live: bool
) -> None:
    events: list[Logged] = []
    raws: list[tuple[str, bytes]] = []
    refused: list[Refused] = []
    for row in batch:
        found = sink.check(row)
        if isinstance(found, Rejection):
            refused.append(Refused(orjson.dumps(row, default=str), found))
            report.reasons[found.code] = report.reasons.get(found.code, 0) + 1
        else:
            events.append(found)
            if live:
                parts = row["event"], row["at"], row["event_id"], row["properties"]
                raws.append((found[0], encode_raw(found[0], *parts)))
    if raws:
        sink.report(raws)
    elif events:
        sink.take(events)
    sink.refuse(refused, source)
    report.rows += len(batch)
    report.accepted += len(events)
    report.refused += len(refused)


def _identity(path: Path, mapped: Mapped) -> str:
    """Tells this file, as it is now and read this way, from any other."""
    try:
        found = path.stat()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    facts = [str(path.resolve()), found.st_size, found.st_mtime_ns, asdict(mapped)]
    return blake2b(orjson.dumps(facts), digest_size=12).hexdigest()


def _earlier(place: Path) -> IngestReport:
    try:
        return IngestReport(**orjson.loads(place.read_bytes()))
    except (OSError, ValueError, TypeError):
        return IngestReport()


# --- rows -----------------------------------------------------------------------------------------------------------


def event_rows(
    path: Path, mapped: Mapped, property_types: Mapping[str, Mapping[str, ValueType]]
) -> Iterator[dict[str, Any]]:
    """The rows of a file as events' senders would give them, unchecked.

    Raises
    ------
    DataError
        if the file cannot be read, or its name says of no format that is known.
    """
    read = {".jsonl": _json_lines, ".ndjson": _json_lines, ".csv": _csv_rows, ".parquet": _parquet_rows}
    if path.suffix not in read:
        raise DataError(f"{path} is no file of events", hint=f"it may end in {', '.join(_FORMATS)}")
    types = property_types if path.suffix == ".csv" else None
    try:
        for row in read[path.suffix](path):
            yield _event_of(row, mapped, types)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def _json_lines(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                try:
                    yield orjson.loads(line)
                except ValueError:
                    yield line.decode("utf-8", "replace").strip()


def _csv_rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            yield {name: value for name, value in row.items() if name is not None and value not in (None, "")}


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        for batch in pq.ParquetFile(path).iter_batches(BATCH):
            yield from batch.to_pylist()
    except pa.ArrowInvalid as error:
        raise DataError(f"cannot read {path}: {error}") from error


def _event_of(row: Any, mapped: Mapped, types: Mapping[str, Mapping[str, ValueType]] | None) -> dict[str, Any]:
    """A row as an event's sender would give it; what is no row is left for the check to refuse."""
    if not isinstance(row, dict):
        return {"entity": None, "row": row}
    name = mapped.name or row.get(mapped.event)
    name = mapped.names.get(str(name), name)
    entity = row.get(mapped.entity)
    if isinstance(entity, int) and not isinstance(entity, bool):
        entity = str(entity)  # files keep keys as numbers where the feature store has strings
    event = {"entity": entity, "event": name, "at": _at(row.get(mapped.at), mapped.at_unit)}
    properties = row.get(mapped.properties)
    if not isinstance(properties, dict):
        known = {mapped.entity, mapped.at, mapped.event_id} | ({mapped.event} if mapped.name is None else set())
        given = {mapped.renamed.get(key, key): value for key, value in row.items() if key not in known}
        properties = given if types is None else _typed(given, types.get(str(name), {}))
    event["event_id"] = row.get(mapped.event_id) or _content_id(event, properties)
    event["properties"] = properties
    return event


def _at(value: Any, unit: str) -> Any:
    if isinstance(value, str) and value.lstrip("-").isdigit():
        value = int(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return int(value * UNITS[unit])
    return value


def _content_id(event: Mapping[str, Any], properties: Mapping[str, Any]) -> str:
    content = orjson.dumps([event, properties], default=str, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    return blake2b(content, digest_size=12).hexdigest()


def _typed(given: Mapping[str, Any], types: Mapping[str, ValueType]) -> dict[str, Any]:
    """CSV knows texts only: a declared property is read as its type, if its text is one."""
    return {name: _as_type(value, types.get(name)) for name, value in given.items()}


def _as_type(value: Any, value_type: ValueType | None) -> Any:
    if value_type is None or not isinstance(value, str):
        return value
    if value_type.is_list or value_type.kind is Kind.BOOLEAN:
        try:
            return orjson.loads(value.lower() if value_type.kind is Kind.BOOLEAN else value)
        except ValueError:
            return value
    if value_type.kind.is_number:
        for number in (int, float):
            try:
                return number(value)
            except ValueError:
                continue
    return value
