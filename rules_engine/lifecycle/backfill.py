"""States for definitions that keep other things than those before: rebuilt from the event log, then put to use.

States for other needs have other keys, so the new ones grow beside the old ones, and requests are answered from the
old ones until all is there. What comes in meanwhile is logged by the workers; a second look after the new definitions
took effect catches up with it. docs/adr/0008-events-online.md says why nothing is missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import orjson

from rules_engine.clock import DAY, MINUTE, now_micros
from rules_engine.events.log import EventLog
from rules_engine.events.store import BATCH, CLOCK_SKEW, state_name
from rules_engine.events.stream import FIELD, decode_raw, kept_key, stream_key
from rules_engine.features.read_plan import ReadPlan, write_atomically
from rules_engine.lifecycle.event_sink import EventSink, event_log, grouped
from rules_engine.project import Project
from rules_engine.rules.inputs import Event
from rules_engine.sdk.rules import Rules

#: Seconds for which states that are no longer asked for are kept: until then every client has noticed.
KEPT_FOR = 86_400

#: Clocks of workers may differ by so much.
_SKEW = MINUTE
_SCAN = 1_000
_STREAM_PIECE = 5_000


@dataclass(frozen=True, slots=True)
class BackfillProgress:
    """How far a backfill is: days of the log that are done, of how many, and how many events they had."""

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
        self._path = project.state_dir / "backfill.json"
        self._sink: EventSink | None = None
        self._began = now_micros()
        self._events = 0

    @property
    def is_needed(self) -> bool:
        """Whether the definitions read events, and the store is one that keeps them."""
        return bool(self._names) and self._rules.plan.connection.kind in ("embedded", "redis")

    @property
    def is_pending(self) -> bool:
        """Whether states are needed that are not complete yet.

        Raises
        ------
        StoreError
            if the store does not answer.
        """
        return self.is_needed and not self._is_kept()

    @property
    def events_read(self) -> list[str]:
        """The names of the events that the definitions read."""
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
        self._keep_alive()
        days = self._log.days()
        done = self._done()
        for number, day in enumerate(days, 1):
            if done is None or day > done:
                self._take_day(day)
                write_atomically(self._path, orjson.dumps({"name": self._name.decode(), "day": day}))
            self._report(BackfillProgress(number, len(days), self._events))

    def finish(self) -> None:
        """After the plan took effect: catch up with what came meanwhile, and let other states expire."""
        if not self.is_needed or self._is_kept():
            return
        for day in self._log.days():
            self._take_day(day, since=self._began - _SKEW)
        self._take_stream()
        self._expire_others()
        key = kept_key(self._rules.plan.project)
        sink = self._open()
        sink.on_store(lambda: sink.client.set(key, self._name))
        self._path.unlink(missing_ok=True)

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
        sink = self._open()
        key = kept_key(self._rules.plan.project)
        return bool(sink.on_store(lambda: sink.client.get(key)) == self._name)

    def _done(self) -> int | None:
        """The last day that an interrupted run did for the same needs."""
        try:
            content = orjson.loads(self._path.read_bytes())
            return int(content["day"]) if content["name"] == self._name.decode() else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _take_day(self, day: int, since: int | None = None) -> None:
        events = self._log.read(day, self._names, since)
        self._events += len(events)
        # All of the log up to the end of this day is read then, so states are pruned as of it; but not of the future.
        self._keep(grouped(events), min(self._open().now, (day + 1) * DAY + CLOCK_SKEW))

    def _keep(self, groups: dict[str, list[Event]], now: int) -> None:
        sink = self._open()
        entities = list(groups)
        for start in range(0, len(entities), BATCH):
            some = {entity: groups[entity] for entity in entities[start : start + BATCH]}
            sink.on_store(lambda some=some: sink.states.update(some, now))  # type: ignore[misc]

    def _take_stream(self) -> None:
        """What waits for a worker: it is in the stream or in the log, at every moment in one of them at least."""
        sink, start = self._open(), b"-"
        key = stream_key(self._rules.plan.project)
        while True:
            entries = sink.on_store(lambda start=start: sink.client.xrange(key, min=start, count=_STREAM_PIECE))  # type: ignore[misc]
            self._keep(grouped(self._checked(fields for _, fields in entries)), sink.now)
            if len(entries) < _STREAM_PIECE:
                return
            start = b"(" + entries[-1][0]

    def _checked(self, entries: Iterable[dict[bytes, bytes]]) -> Iterable[tuple[str, Event]]:
        for fields in entries:
            raw = decode_raw(fields.get(FIELD))
            found = None if isinstance(raw, str) else self._open().check(raw)
            if isinstance(found, tuple):
                yield found

    def _keep_alive(self) -> None:
        """States that were left to expire before are asked for again."""
        self._for_states(lambda pipeline, key, ours: pipeline.persist(key) if ours else None)

    def _expire_others(self) -> None:
        self._for_states(lambda pipeline, key, ours: None if ours else pipeline.expire(key, KEPT_FOR, nx=True))

    def _for_states(self, action: Callable[[Any, bytes, bool], object]) -> None:
        """Do something with every state of the project; ``action`` is told whether it is one of the new ones."""
        sink = self._open()
        project = self._rules.plan.project.encode()

        def act() -> None:
            cursor = sink.client.scan_iter(match=b"{*" + project + b"}:events:*", count=_SCAN)
            while keys := list(islice(cursor, _SCAN)):
                with sink.client.pipeline(transaction=False) as pipeline:
                    for key in keys:
                        action(pipeline, key, key.endswith(b"}:" + self._name))
                    pipeline.execute()

        sink.on_store(act)
