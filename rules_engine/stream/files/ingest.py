"""Takes the events of a file in pieces: checks and logs them and puts them into the states. Goes on after a kill."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from itertools import islice
from pathlib import Path

import orjson

from rules_engine.clock import DAY
from rules_engine.errors import DataError
from rules_engine.events.declarations.validation import Rejection
from rules_engine.events.joins import JOIN
from rules_engine.events.log.event_log import EventLog, Logged
from rules_engine.events.refused import Refused, as_bytes
from rules_engine.events.streams import encode_raw
from rules_engine.files import write_atomically
from rules_engine.folders import Project
from rules_engine.rules.inputs import Event
from rules_engine.stream.event_sink import EventSink, event_log
from rules_engine.stream.files.mapping import FileEvent, Mapped, file_events
from rules_engine.stream.files.rows import BadRow
from rules_engine.stream.joining import decide, join_entry
from rules_engine.stream.rebuilding import rebuild_noted
from rules_engine.stream.reevaluation import look_again

#: The number of rows that are taken at once.
BATCH = 5_000

#: Seconds after which the progress of an interrupted run is deleted; the file is then taken from its beginning.
ABANDONED = 30 * 86_400

#: The number of the log's events whose ids are kept in memory.
REMEMBERED = 500_000


@dataclass(slots=True)
class IngestReport:
    """Counts of a file's rows.

    Attributes
    ----------
    rows, accepted, refused
        all rows, those that are valid events, and the others; ``reasons`` counts the refused ones by code.
    known
        the accepted rows that the log had already, or that came twice in the file.
    without_id
        the accepted rows that had no id, and got one from their content.
    skipped
        the rows that an earlier, interrupted run had taken.
    rebuilt
        the entities whose state was rebuilt from the log, because events came late for a total.
    """

    rows: int = 0
    accepted: int = 0
    refused: int = 0
    known: int = 0
    without_id: int = 0
    skipped: int = 0
    rebuilt: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


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
        put them into the streams, as if they were reported now: workers process them, and triggers start. By default
        they are history, and go directly into log and states.

    Raises
    ------
    DataError
        if the file cannot be read, or lacks a column; nothing is taken then.
    StoreError
        if the store cannot be written; run it again to go on.
    """
    mapped = mapped or Mapped()
    place = project.state_dir / "ingest" / f"{_identity(path, mapped)}.json"
    _forget_abandoned(place.parent)
    report = _earlier(place)
    report.skipped = report.rows
    rows = islice(file_events(path, mapped, sink.declarations.events), report.rows, None)
    taking = _Taking(sink, event_log(project), path.name, report, live=live)
    while batch := list(islice(rows, BATCH)):
        taking.take(batch)
        # Only after the rows are taken: a run that is killed before this repeats them, which changes nothing.
        write_atomically(place, orjson.dumps(asdict(report)))
        if progress is not None:
            progress(report)
    if report.accepted and not live:
        report.rebuilt = rebuild_noted(project, sink)
    place.unlink(missing_ok=True)
    if report.accepted and not live:
        look_again(project, "ingest")
    return report


class _Taking:
    """Takes the rows of one file, and counts them in the report."""

    def __init__(self, sink: EventSink, log: EventLog, source: str, report: IngestReport, *, live: bool) -> None:
        self._sink = sink
        self._source = source
        self._report = report
        self._live = live
        self._logged = _LoggedEvents(log)

    def take(self, batch: Sequence[FileEvent | BadRow]) -> None:
        """Take some rows. Repeating it changes nothing."""
        report, sink = self._report, self._sink
        events: list[Logged] = []
        raws: list[tuple[str, bytes]] = []
        refused: list[Refused] = []
        for row in batch:
            outcome = row.rejection if isinstance(row, BadRow) else sink.check(row.raw)
            if isinstance(outcome, Rejection):
                refused.append(Refused(row.raw if isinstance(row, BadRow) else as_bytes(row.raw), outcome))
                continue
            assert isinstance(row, FileEvent), "a row that is accepted was read"
            events.append(outcome)
            report.without_id += not row.had_id
            if self._live:
                parts = (row.raw[part] for part in ("event", "at", "event_id", "properties"))
                raws.append((outcome[0], encode_raw(outcome[0], *parts)))
        if raws:
            sink.report(raws)
        elif events:
            events = self._with_joins_decided(events, refused)
            new = self._logged.new(events)
            report.known += len(events) - len(new)
            sink.take(events, new)
            self._logged.add(new)
        sink.refuse(refused, self._source)
        for event in refused:
            report.reasons[event.rejection.code] = report.reasons.get(event.rejection.code, 0) + 1
        report.rows += len(batch)
        report.accepted += len(events)
        report.refused += len(refused)

    def _with_joins_decided(self, events: Sequence[Logged], refused: list[Refused]) -> list[Logged]:
        """Return the events with the joins as they count; workers hear of them, and states are rebuilt from the log."""
        sink = self._sink
        joins = [(entity, _dated(event, sink.now)) for entity, event in events if event.name == JOIN]
        outcomes = decide(sink, joins, to_stream=True)
        refused += [
            Refused(join_entry(*join), outcome)
            for join, outcome in zip(joins, outcomes, strict=True)
            if isinstance(outcome, Rejection)
        ]
        decided = [outcome for outcome in outcomes if not isinstance(outcome, Rejection)]
        sink.note_to_rebuild(entity for entity, _ in decided)
        return [*(logged for logged in events if logged[1].name != JOIN), *decided]


def _dated(join: Event, now: int) -> Event:
    return replace(join, at=min(join.at, now))


class _LoggedEvents:
    """The ids of the log's events, read day by day as needed, so that taking a file again adds nothing to the log."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._days: OrderedDict[tuple[str, int], set[int]] = OrderedDict()
        self._number = 0

    def new(self, events: Sequence[Logged]) -> list[Logged]:
        """Return the events that the log does not have, each once."""
        new: dict[tuple[str, str], Logged] = {}
        for entity, event in events:
            key = entity, event.id
            if key not in new and hash(key) not in self._day(event.name, event.at // DAY):
                new[key] = entity, event
        return list(new.values())

    def add(self, events: Sequence[Logged]) -> None:
        """Note events that the log has by now."""
        for entity, event in events:
            self._day(event.name, event.at // DAY).add(hash((entity, event.id)))
        self._number += len(events)
        while self._number > REMEMBERED and self._days:
            self._number -= len(self._days.popitem(last=False)[1])

    def _day(self, name: str, day: int) -> set[int]:
        ids = self._days.get((name, day))
        if ids is None:
            ids = self._days[name, day] = set(map(hash, self._log.ids(name, day)))
            self._number += len(ids)
        else:
            self._days.move_to_end((name, day))
        return ids


def _identity(path: Path, mapped: Mapped) -> str:
    """Return a text that identifies the present content of a file and the way it is read."""
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    facts = [str(path.resolve()), status.st_size, status.st_mtime_ns, asdict(mapped)]
    return blake2b(orjson.dumps(facts), digest_size=12).hexdigest()


def _forget_abandoned(folder: Path) -> None:
    """Delete the stored progress of abandoned runs."""
    oldest = time.time() - ABANDONED
    for place in folder.glob("*.json"):
        with suppress(FileNotFoundError):
            if place.stat().st_mtime < oldest:
                place.unlink()


def _earlier(place: Path) -> IngestReport:
    try:
        return IngestReport(**orjson.loads(place.read_bytes()))
    except (OSError, ValueError, TypeError):
        return IngestReport()
