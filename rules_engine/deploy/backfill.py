"""Builds the event states that new definitions need from the event log, then puts them to use.

States for different needs have different keys, so the new ones are built next to the old ones, which answer requests
until the new ones are complete. Workers log the events that come meanwhile; once the new definitions are in effect,
a second pass over the log adds these. Workers that see the new definitions wait for that, so that no entity is
evaluated on an incomplete state. docs/adr/0008-events-online.md says why no event is missed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from rules_engine.clock import DAY, MINUTE, now_micros
from rules_engine.events.join_registry import JoinRegistry
from rules_engine.events.joins import Joins
from rules_engine.events.log.event_log import EventLog, Logged
from rules_engine.events.state.store import BATCH, CLOCK_SKEW, state_name
from rules_engine.events.state.stored import pieces_key
from rules_engine.events.state.waiting import waiting_events
from rules_engine.events.streams import ENTITY, FIELD, HANDED_ON, decode_raw, stream_keys
from rules_engine.folders import Project
from rules_engine.read_plan import ReadPlan
from rules_engine.redis.server import is_direct
from rules_engine.redis.store_mark import StoreMark
from rules_engine.rules.inputs import Event
from rules_engine.sdk.rules import Rules
from rules_engine.stream.event_sink import EventSink, event_log, grouped
from rules_engine.stream.joining import decide
from rules_engine.stream.leases import LIFETIME, using_key, workers_key
from rules_engine.stream.rebuilding import rebuild_noted

#: Seconds for which states of earlier definitions are kept. By then every client uses the new definitions.
KEPT_FOR = 86_400

#: The most by which the clocks of workers may differ.
_SKEW = MINUTE
_SCAN = 1_000
#: Seconds to wait for workers to use new definitions. They check several times a second.
_WORKERS_WAIT = 15.0
_STREAM_PIECE = 5_000

#: The last day of a build that has begun and has not finished a day.
_NO_DAY = -1

_T = TypeVar("_T")

_log = logging.getLogger("rules_engine.apply")


@dataclass(frozen=True, slots=True)
class BackfillProgress:
    """Report the days of the log that are done, of how many, and how many events they had."""

    done: int
    days: int
    events: int


Report = Callable[[BackfillProgress], None]


def _silent(_: BackfillProgress) -> None:
    pass


class Backfill:
    """Brings the states of a new read plan up to date, before and after it takes effect.

    Parameters
    ----------
    project
        the project.
    plan
        the new plan.
    progress
        called after every day of the log.
    """

    def __init__(self, project: Project, plan: ReadPlan, progress: Report | None = None) -> None:
        self._project = project
        self._rules = Rules(plan)
        self._report = progress or _silent
        self._log: EventLog = event_log(project)
        self._names = sorted(requirement.event for requirement in self._rules.events.requirements.events)
        self._name = state_name(self._rules.events.requirements)
        self._sink: EventSink | None = None
        self._began = now_micros()
        self._events = 0
        self._joins: Joins | None = None
        self._waiting: set[tuple[str, str]] = set()
        self._files_before: set[Path] = set()

    @property
    def is_needed(self) -> bool:
        """Tell whether the definitions read events, and the store is one that keeps them."""
        return bool(self._names) and is_direct(self._rules.plan.connection)

    @property
    def is_pending(self) -> bool:
        """Tell whether states are needed that are not complete yet.

        Raises
        ------
        StoreError
            if the store does not answer.
        """
        return self.is_needed and not self._is_kept()

    @property
    def events_read(self) -> list[str]:
        """Return the names of the events that the definitions read."""
        return list(self._names)

    def prepare(self) -> None:
        """Build the states that are not complete yet. An interrupted run goes on where it ended.

        Raises
        ------
        StoreError
            if the store cannot be written.
        """
        if not self.is_needed or self._is_kept():
            return
        done = self._done()
        if done is None:
            self._begin()
        days = self._log.days()
        for number, day in enumerate(days, 1):
            if done is None or day > done:
                self._take_day(day)
                self._note(day)
            self._report(BackfillProgress(number, len(days), self._events))

    def finish(self) -> None:
        """Catch up, once the plan is in effect, with events that came meanwhile, and let other states expire."""
        if not self.is_needed or self._is_kept():
            return
        self._await_workers()
        self._restore_joins()
        self._take_stream()
        for day in self._log.days():
            self._take_day(day, stored_from=self._began - _SKEW)
        self._note_new_joins()
        rebuild_noted(self._project, self._open())
        self._expire_others()
        self._on_mark(lambda mark: mark.note_states(self._name))  # last of all, as it says that the states are complete

    def close(self) -> None:
        """Close the connection."""
        if self._sink is not None:
            self._sink.close()

    # --- steps ------------------------------------------------------------------------------------------------------

    def _open(self) -> EventSink:
        if self._sink is None:
            self._sink = EventSink(self._project, self._rules)
        return self._sink

    def _is_kept(self) -> bool:
        return self._on_mark(lambda mark: mark.states) == self._name

    def _on_mark(self, action: Callable[[StoreMark], _T]) -> _T:
        """Do something with the mark in the store that says what the store holds."""
        sink = self._open()
        return sink.on_store(lambda: action(StoreMark(sink.client, self._rules.plan.project)))

    def _done(self) -> int | None:
        """Return the last day that an interrupted run for the same needs finished, and take over its starting time."""
        building = self._on_mark(lambda mark: mark.building(self._name))
        if building is None:
            return None
        day, began = building
        self._began = min(self._began, began)
        return day

    def _note(self, day: int) -> None:
        """Note the last day that is done."""
        self._on_mark(lambda mark: mark.note_building(self._name, day, self._began))

    def _begin(self) -> None:
        """Delete remains of such states, which cannot be trusted in a store that has lost their mark."""
        self._note(_NO_DAY)
        self._for_states(lambda pipeline, key, ours: pipeline.unlink(key) if ours else None)
        self._files_before = self._log.all_files(self._names)

    def _take_day(self, day: int, stored_from: int | None = None) -> None:
        skip = self._files_before if stored_from is not None else ()
        events = self._log.read(day, self._names, stored_from, skip)
        self._events += len(events)
        joins = self._joins_of_before()
        attributed = (joins.attributed(entity, event) for entity, event in self._not_waiting(events))
        groups = grouped(self._not_waiting(attributed))
        # The log is read up to the end of this day, so states are pruned as of then, but not as of the future.
        self._keep(groups, min(self._open().now, (day + 1) * DAY + CLOCK_SKEW))

    def _not_waiting(self, events: Iterable[Logged]) -> Iterable[Logged]:
        return (logged for logged in events if (logged[0], logged[1].id) not in self._waiting)

    def _keep(self, groups: dict[str, list[Event]], now: int) -> None:
        sink, joins = self._open(), self._joins_of_before()
        entities = list(groups)
        for start in range(0, len(entities), BATCH):
            some = {entity: groups[entity] for entity in entities[start : start + BATCH]}
            sink.keep(some, now, {entity: joins.into(entity) for entity in some} if joins else None)

    # --- joins ------------------------------------------------------------------------------------------------------

    def _joins_of_before(self) -> Joins:
        """Return the joins that were logged before the states were begun, also after an interruption."""
        if self._joins is None:
            self._joins = self._log.joins(stored_until=self._began)
        return self._joins

    def _note_new_joins(self) -> None:
        """Note to be rebuilt whoever was joined meanwhile: the state was handed over for the old definitions."""
        earlier, joins = self._joins_of_before(), self._log.joins()
        self._open().note_to_rebuild(join.entity for join in joins if join.entity not in earlier)

    def _restore_joins(self) -> None:
        """Put the joins into a store that lost them, and into the streams, so that workers make nobody of the ids."""
        sink, joins = self._open(), self._log.joins()
        registry = JoinRegistry(self._rules.plan.project)
        if sink.on_store(lambda: sink.client.execute_command(*registry.count())) < len(joins):
            decide(sink, [(join.entity, join.event) for join in joins], to_stream=True)

    def _await_workers(self) -> None:
        """Wait until no worker uses the old definitions: then every event is in the streams or in the log."""
        sink, project = self._open(), self._rules.plan.project
        deadline = time.monotonic() + _WORKERS_WAIT
        while True:
            used = sink.on_store(lambda: _used_by_workers(sink.client, project))
            late = sorted(name for name, using in used.items() if using != self._name)
            if not late:
                return
            if time.monotonic() > deadline:
                _log.warning("these workers have not seen the new definitions yet: %s", b", ".join(late).decode())
                return
            time.sleep(0.05)

    def _take_stream(self) -> None:
        """Append the events in the streams to the states, like reported events: lookups see them before workers do."""
        sink = self._open()
        for key in stream_keys(self._rules.plan.project):
            start: bytes | None = b"-"
            while start is not None:
                start = sink.on_store(partial(self._take_piece, sink, key, start))

    def _take_piece(self, sink: EventSink, key: bytes, start: bytes) -> bytes | None:
        """Take some entries; return where the next piece starts."""
        entries = sink.client.xrange(key, start, count=_STREAM_PIECE)
        events = list(self._checked(fields for _, fields in entries))
        self._waiting.update((entity, event.id) for entity, event in events)
        self._append(events)
        return None if len(entries) < _STREAM_PIECE else b"(" + entries[-1][0]

    def _append(self, events: Iterable[Logged]) -> None:
        sink = self._open()
        with sink.client.pipeline(transaction=False) as pipeline:
            for entity, event in events:
                for command in sink.states.reported(entity, event):
                    pipeline.execute_command(*command)
            pipeline.execute()

    def _checked(self, entries: Iterable[dict[bytes, bytes]]) -> Iterable[Logged]:
        """Yield the events; a state that was handed over was kept for the old definitions."""
        for fields in entries:
            handed_on = fields.get(HANDED_ON)
            if handed_on:
                yield from (
                    (fields[ENTITY].decode(), event) for event in waiting_events(handed_on) if isinstance(event, Event)
                )
                continue
            raw = decode_raw(fields.get(FIELD))
            event = None if isinstance(raw, str) else self._open().check(raw)
            if isinstance(event, tuple):
                yield event

    def _expire_others(self) -> None:
        self._for_states(lambda pipeline, key, ours: None if ours else pipeline.expire(key, KEPT_FOR, lt=True))

    def _for_states(self, action: Callable[[Any, bytes, bool], object]) -> None:
        """Do something with every state of the project, and with its pieces.

        The last argument of ``action`` says whether it is new.
        """
        sink = self._open()
        project = self._rules.plan.project.encode()
        ours = b"}:" + self._name

        def act() -> None:
            cursor = sink.client.scan_iter(match=b"{*" + project + b"}:events:*", count=_SCAN)
            while keys := list(islice(cursor, _SCAN)):
                with sink.client.pipeline(transaction=False) as pipeline:
                    for key in keys:
                        action(pipeline, key, key.endswith((ours, pieces_key(ours))))
                    pipeline.execute()

        sink.on_store(act)


def _used_by_workers(client: Any, project: str) -> dict[bytes, bytes]:
    """Return the name of the event states that each live worker uses."""
    seconds, microseconds = client.time()
    oldest = (seconds - LIFETIME) * 1000 + microseconds // 1000
    alive = client.zrangebyscore(workers_key(project), oldest, "+inf")
    using = client.hgetall(using_key(project))
    return {name: using.get(name, b"") for name in alive}
