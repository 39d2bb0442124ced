"""The worker: takes events from the stream, logs them, and puts them into the states.

Any number of workers share the stream. Each entry is given to one of them, and taken over by another if that one does
not finish it. An entry is ended only when its event is in the log and in the state; a worker that is killed before
leaves it for the next, and doing it twice changes nothing.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import orjson

from rules_engine.errors import StoreError
from rules_engine.events.log import Logged
from rules_engine.events.stream import FIELD, GROUP, MAX_REFUSED, decode_raw, refused_key, stream_key
from rules_engine.events.validation import Rejection
from rules_engine.lifecycle.event_sink import EventSink, Refused, grouped
from rules_engine.project import Project
from rules_engine.rules.inputs import Event
from rules_engine.sdk.applied import Applied

#: Entries that are taken at once.
BATCH = 2_000

#: Seconds after which an entry that another worker took and did not finish is taken over.
TAKE_OVER_AFTER = 30.0

_WAIT_MILLISECONDS = 500
_LONGEST_PAUSE = 5.0

#: Ends an entry, once: whoever ends it sets a refused event aside and counts.
_END = """\
for i = 4, #ARGV, 3 do
  if redis.call('XACK', KEYS[1], ARGV[1], ARGV[i]) == 1 then
    redis.call('XDEL', KEYS[1], ARGV[i])
    if ARGV[i + 2] ~= '' then
      redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', ARGV[3], ARGV[i + 1], 'reason', ARGV[i + 2])
    end
  end
end"""

_log = logging.getLogger("rules_engine.worker")


@dataclass(slots=True)
class Progress:
    """What a worker did so far."""

    accepted: int = 0
    refused: int = 0
    taken_over: int = 0


@dataclass(frozen=True, slots=True)
class _Entries:
    """A batch, checked: the ids of its entries, and what they are."""

    ids: list[bytes] = field(default_factory=list)
    events: list[Logged] = field(default_factory=list)
    refused: dict[bytes, Refused] = field(default_factory=dict)


class Worker:
    """Processes the stream of one project.

    Parameters
    ----------
    project
        the project; it was applied.
    take_over_after
        seconds after which another worker's unfinished entries are taken over.
    after
        called with the events of a batch by entity when log and states have them and before the entries are ended. So
        it is called at least once for every event. What it raises ends the worker.

    Raises
    ------
    NotAppliedError
        if nothing was applied yet.
    """

    def __init__(
        self,
        project: Project,
        *,
        take_over_after: float = TAKE_OVER_AFTER,
        after: Callable[[Mapping[str, Sequence[Event]]], None] | None = None,
    ) -> None:
        self.progress = Progress()
        self._project = project
        self._idle = int(take_over_after * 1000)
        self._after = after
        self._applied = Applied(project.read_plan)
        self._sink = EventSink(project, self._applied.rules)
        self._name = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}".encode()
        self._key = stream_key(self._applied.rules.plan.project)
        self._looked = -float("inf")
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End after the batch that is under way. May be called from a signal handler."""
        self._stopping.set()

    def run(self, *, once: bool = False) -> Progress:
        """Process what comes until :meth:`stop`; with ``once`` until nothing waits any more.

        While the store is down the worker waits for it, unless ``once`` is set.

        Raises
        ------
        StoreError
            with ``once``, if the store cannot be used.
        """
        pause = 0.1
        try:
            while not self._stopping.is_set():
                try:
                    worked = self.step(wait=not once)
                    pause = 0.1
                except StoreError as error:
                    if once:
                        raise
                    _log.warning("the store cannot be used, trying again in %.1f s: %s", pause, error)
                    self._stopping.wait(pause)
                    pause = min(_LONGEST_PAUSE, pause * 2)
                    continue
                if once and not worked:
                    break
            self._leave()
        finally:
            self._sink.close()
        return self.progress

    def step(self, *, wait: bool = False) -> int:
        """Process one batch; gives how many entries it had."""
        self._take_new_definitions()
        entries = self._sink.on_store(lambda: self._taken_over() or self._fresh(wait))
        if entries:
            self._process(entries)
        return len(entries)

    def _take_new_definitions(self) -> bool:
        self._applied.load()  # looks at the file every time: a batch is rare enough, and must not miss a change
        if self._applied.rules is self._sink.rules:
            return False
        self._sink.close()
        self._sink = EventSink(self._project, self._applied.rules)
        return True

    # --- entries ----------------------------------------------------------------------------------------------------

    def _fresh(self, wait: bool) -> list[tuple[bytes, Any]]:
        command = ["XREADGROUP", "GROUP", GROUP, self._name, "COUNT", BATCH]
        command += ["BLOCK", _WAIT_MILLISECONDS] if wait else []
        answer = self._grouped(lambda: self._sink.client.execute_command(*command, "STREAMS", self._key, ">"))
        return list(answer[0][1]) if answer else []

    def _taken_over(self) -> list[tuple[bytes, Any]]:
        """Entries that another worker took and did not finish. Looked for now and then."""
        if time.monotonic() < self._looked + self._idle / 2000:
            return []
        answer = self._grouped(
            lambda: self._sink.client.execute_command(
                "XAUTOCLAIM", self._key, GROUP, self._name, self._idle, "0-0", "COUNT", BATCH
            )
        )
        if not answer[1]:
            self._looked = time.monotonic()
        self.progress.taken_over += len(answer[1])
        return [(identity, fields) for identity, fields in answer[1] if fields is not None]

    def _grouped(self, command: Callable[[], Any]) -> Any:
        """A command for the group, which the first worker makes; it starts with what waits already."""
        from redis.exceptions import ResponseError

        try:
            return command()
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
        try:
            self._sink.client.xgroup_create(self._key, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
        return command()

    def _process(self, entries: list[tuple[bytes, Any]]) -> None:
        batch = self._checked(entries)
        groups = self._sink.take(batch.events) if batch.events else {}
        # Definitions that were applied meanwhile have states of their own. Applying looks into the log after it took
        # effect, and the events are there: so either it saw them, or we see it here.
        if self._take_new_definitions() and groups:
            self._sink.keep(groups)
        if self._after is not None and groups:
            self._after(groups)
        self._end(batch)
        self.progress.accepted += len(batch.events)
        self.progress.refused += len(batch.refused)

    def _checked(self, entries: list[tuple[bytes, Any]]) -> _Entries:
        batch = _Entries()
        for identity, fields in entries:
            raw = dict(zip(fields[::2], fields[1::2], strict=True)) if isinstance(fields, list) else fields
            data = raw.get(FIELD, b"")
            content = decode_raw(data)
            found = Rejection("invalid-event", content) if isinstance(content, str) else self._sink.check(content)
            batch.ids.append(identity)
            if isinstance(found, Rejection):
                batch.refused[identity] = Refused(data, found)
            else:
                batch.events.append(found)
        return batch

    def _end(self, batch: _Entries) -> None:
        arguments: list[Any] = [GROUP, MAX_REFUSED, FIELD]
        for identity in batch.ids:
            refused = batch.refused.get(identity)
            fields = refused.fields("stream") if refused is not None else [FIELD, b"", b"reason", b""]
            arguments += [identity, fields[1], fields[3]]
        key = refused_key(self._sink.rules.plan.project)
        self._sink.on_store(lambda: self._sink.client.eval(_END, 2, self._key, key, *arguments))

    def _leave(self) -> None:
        """Take the worker's name off the group, unless something is left in its hands."""
        client = self._sink.client

        def leave() -> None:
            pending = client.xpending_range(self._key, GROUP, "-", "+", 1, consumername=self._name)
            if not pending:
                client.xgroup_delconsumer(self._key, GROUP, self._name)

        try:
            self._sink.on_store(leave)
        except StoreError as error:
            _log.warning("the worker's name stays in the group: %s", error)


def replay_refused(sink: EventSink) -> tuple[int, int]:
    """Check refused events again, by the definitions of now; gives how many were taken and how many remain."""
    key = refused_key(sink.rules.plan.project)
    entries: list[tuple[bytes, dict[bytes, bytes]]] = sink.on_store(lambda: sink.client.xrange(key))
    taken = 0
    for start in range(0, len(entries), BATCH):
        good: dict[bytes, Logged] = {}
        for identity, fields in entries[start : start + BATCH]:
            content = decode_raw(fields.get(FIELD))
            found = None if isinstance(content, str) else sink.check(content)
            if isinstance(found, tuple):
                good[identity] = found
        if good:
            sink.take(list(good.values()))
            sink.on_store(lambda ids=list(good): sink.client.xdel(key, *ids))  # type: ignore[misc]
        taken += len(good)
    return taken, len(entries) - taken


def refused_events(sink: EventSink, limit: int) -> tuple[int, list[dict[str, Any]]]:
    """How many refused events are kept, and the newest of them."""
    key = refused_key(sink.rules.plan.project)
    total, newest = sink.on_store(lambda: (sink.client.xlen(key), sink.client.xrevrange(key, count=limit)))
    shown = []
    for identity, fields in newest:
        content = decode_raw(fields.get(FIELD))
        reason = orjson.loads(fields[b"reason"])
        event = content if isinstance(content, dict) else fields.get(FIELD, b"").decode("utf-8", "replace")
        shown.append({"id": identity.decode(), **reason, "event": event})
    return int(total), shown


__all__ = ["BATCH", "TAKE_OVER_AFTER", "Progress", "Worker", "grouped", "refused_events", "replay_refused"]
