"""The worker: takes events from the streams, logs them, and works out what follows from them.

Events are divided into partitions, and each partition belongs to one worker at a time
(:mod:`rules_engine.stream.leases`). A round reads the waiting events and due timers of the worker's partitions, writes
the events to the log, takes the entities through their steps (:mod:`rules_engine.stream.entity_steps`), and only then
deletes the entries. A worker that is killed leaves them to the next one, and repeating any of it changes nothing.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from rules_engine.clock import now_micros
from rules_engine.delivery.dispatch import Delivery
from rules_engine.errors import StoreDataError, StoreError
from rules_engine.events.log.event_log import Logged
from rules_engine.events.streams import PARTITIONS
from rules_engine.folders import Project
from rules_engine.redis.eviction import check_eviction
from rules_engine.redis.pipe import Pipe
from rules_engine.redis.server import RedisServer, event_server
from rules_engine.rules.inputs import Event
from rules_engine.rules.settings.codec import decode_sinks
from rules_engine.sdk.applied import Applied
from rules_engine.stream.desk import Desk
from rules_engine.stream.entity_steps import StepsTaken
from rules_engine.stream.event_sink import grouped
from rules_engine.stream.intake import Checked, PartitionWork, checked
from rules_engine.stream.joining import with_joins_decided
from rules_engine.stream.leases import Leases
from rules_engine.stream.work import works_of
from rules_engine.stream.worker_metrics import WorkerMetrics

if TYPE_CHECKING:
    from rules_engine.delivery.metrics import MetricsRegistry

#: The number of entries and timers that are taken at once.
BATCH = 16_000

_WAIT_MILLISECONDS = 500
_LONGEST_PAUSE = 5.0
#: Seconds after which the worker reports that the states of new definitions are missing.
_STATES_WAIT = 30.0

_T = TypeVar("_T")

_log = logging.getLogger("rules_engine.worker")


@dataclass(slots=True)
class Progress:
    """Counts of what a worker did so far.

    Attributes
    ----------
    accepted, refused
        events.
    timers
        entities of which a timer was due.
    looked
        entities that were looked at because something other than events changed.
    transitions, fired
        memberships that began or ended, and triggers that fired.
    late
        events that came too late for a total; `segments ingest --rebuild` counts them.
    """

    accepted: int = 0
    refused: int = 0
    timers: int = 0
    looked: int = 0
    transitions: int = 0
    fired: int = 0
    late: int = 0


def tune_process() -> None:
    """Tune Python's garbage collector for a worker, which caches many entities and makes no reference cycles.

    Without it, searching for cycles takes a fifth of a worker's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


class Worker:
    """Processes the streams of one project.

    Parameters
    ----------
    project
        the project; it was applied.
    after
        called with the events of a round, by entity, after they are in log and states and before their entries are
        deleted: at least once for every event. Its exceptions end the worker.
    metrics
        the metrics to update.

    Raises
    ------
    NotAppliedError
        if nothing was applied yet.
    """

    def __init__(
        self,
        project: Project,
        *,
        after: Callable[[Mapping[str, Sequence[Event]]], None] | None = None,
        metrics: MetricsRegistry | None = None,
    ) -> None:
        self.progress = Progress()
        self._project = project
        self._after = after
        self._applied = Applied(project.read_plan)
        self._name = self._applied.rules.plan.project
        self._leases = Leases(self._open_pipe, self._name)
        self._desk = Desk(project, self._applied.rules, self._open_pipe())
        self._stopping = threading.Event()
        self._client = self._open_client()
        self._delivery = Delivery(self._client, self._name, project.root, metrics)
        self._metrics = WorkerMetrics(metrics, self._name, self._desk.latest is None)
        self._last_leases: frozenset[bytes] = frozenset()
        self._unready_since: float | None = None
        self._warned = 0.0

    def _open_pipe(self) -> Pipe:
        return self._server().pipe()

    def _open_client(self) -> Any:
        return self._server().client()

    def _server(self) -> RedisServer:
        return event_server(self._applied.rules.plan.connection, self._project.root)

    def stop(self) -> None:
        """End after the present round. May be called from a signal handler."""
        self._stopping.set()

    def run(self, *, once: bool = False) -> Progress:
        """Process events and timers until :meth:`stop`.

        With ``once`` it ends when all events that came before the call and all timers that were due are done, by this
        worker or by others, and every action was tried. While the store is down the worker waits for it, unless
        ``once`` is set.

        Raises
        ------
        StoreError
            with ``once``, if the store cannot be used.
        ProjectError
            if the store evicts keys when its memory is full.
        StoreDataError
            with ``once``, if the store does not hold the event states: it was emptied, or an apply was interrupted.
        """
        pause = 0.1
        until = now_micros() if once else None
        try:
            while not self._stopping.is_set():
                try:
                    self._start()
                    if self.round(wait=not once) == 0 and until is not None and self._is_done(until):
                        break
                    pause = 0.1
                except StoreError as error:
                    if once:
                        raise
                    self._metrics.store_failed()
                    _log.warning("the store cannot be used, trying again in %.1f s: %s", pause, error)
                    self._desk.steps.forget()
                    self._stopping.wait(pause)
                    pause = min(_LONGEST_PAUSE, pause * 2)
        finally:
            self._end(once=once)
        return self.progress

    def _start(self) -> None:
        if not self._leases.is_started:
            check_eviction(self._server())
            self._on_store(self._leases.beat)
            self._leases.start()
            self._delivery.serve(decode_sinks(self._applied.rules.plan.definitions))

    def _end(self, *, once: bool) -> None:
        if once and self._leases.is_started:
            left = self._delivery.drain()
            if left:
                _log.warning("actions that still wait for their sinks: %d", left)
        self._delivery.stop()
        try:
            self._on_store(self._leases.leave)
        except StoreError as error:
            _log.warning("the partitions are free for other workers in a few seconds: %s", error)
        self._desk.close()
        self._client.close()

    def _on_store(self, action: Callable[[], _T]) -> _T:
        return self._desk.sink.on_store(action)

    # --- a round ----------------------------------------------------------------------------------------------------

    def round(self, *, wait: bool = False) -> int:
        """Do the work that waits, and return how much that was. With ``wait`` it waits half a second for some."""
        if not self._take_new_definitions():
            self._wait_for_states(wait=wait)
            return 1
        self._unready_since = None
        leases = self._partitions()
        self._metrics.waiting(self._client, len(leases), self._on_store)
        if not leases:
            if wait:
                self._stopping.wait(_WAIT_MILLISECONDS / 1000)
            return 0
        desk = self._desk
        self._on_store(lambda: desk.sweeper.take(leases))
        count = max(1, BATCH // len(leases))
        waiting: dict[int, PartitionWork] = self._on_store(
            lambda: desk.intake.look(sorted(leases), count, now_micros(), desk.latest)
        )
        done = self._process(waiting, leases)
        swept = self._on_store(
            lambda: desk.sweeper.step({place: work.until for place, work in waiting.items()}, leases)
        )
        self.progress.looked += swept
        if not done and not swept and wait:
            self._wait(waiting)
        self._leases.give_back_surplus()
        return done + swept

    def _wait_for_states(self, *, wait: bool) -> None:
        """Wait for the states: a moment, unless `segments apply` was killed or the store was emptied.

        Nothing is taken from the streams meanwhile: without states, all entities would seem to have no events.
        """
        now = time.monotonic()
        lost = self._on_store(self._desk.states_are_lost)
        if self._unready_since is None:
            self._unready_since, self._warned = now, now - _STATES_WAIT if lost else now
        if now - self._warned >= _STATES_WAIT:
            message = "the online store does not hold the event states of the applied definitions"
            why = "the store was emptied or replaced" if lost else "the last `segments apply` was interrupted"
            if not wait and (lost or now - self._unready_since >= _STATES_WAIT):
                raise StoreDataError(message, hint=f"{why}: run `segments apply`")
            _log.warning("%s; waiting for `segments apply`: %s", message, why)
            self._warned = now
        self._desk.steps.forget()
        self._stopping.wait(0.05)

    def _partitions(self) -> Mapping[int, bytes]:
        """Return the present leases, and empty the cache if other workers may have changed its entities."""
        leases = self._leases.partitions()
        if not frozenset(leases.values()) <= self._last_leases:
            self._desk.steps.forget()
        self._last_leases = frozenset(leases.values())
        return leases

    def _wait(self, waiting: Mapping[int, PartitionWork]) -> None:
        """Wait until an event comes or a timer is due."""
        dues = [work.next_due for work in waiting.values() if work.next_due is not None]
        ahead = (min(dues) - now_micros()) // 1000 + 1 if dues and self._desk.latest is None else _WAIT_MILLISECONDS
        milliseconds = min(_WAIT_MILLISECONDS, max(1, ahead))
        self._on_store(lambda: self._desk.intake.wait(sorted(waiting), milliseconds))

    def _process(self, waiting: Mapping[int, PartitionWork], leases: Mapping[int, bytes]) -> int:
        desk, began = self._desk, time.perf_counter()
        received = desk.sink.received
        batches = {
            partition: checked(partition, work.entries, desk.sink.check, received, desk.latest)
            for partition, work in waiting.items()
        }
        with_joins_decided(desk.sink, batches.values())
        works = works_of(waiting, batches, desk.steps.rules)
        if not works and not any(batch.ids for batch in batches.values()):
            return 0
        logged: list[Logged] = [event for batch in batches.values() for event in batch.logged]
        desk.sink.log(logged)
        # If definitions were applied meanwhile, their new states were made from the log without these events. So the
        # events stay in the stream, and the next round processes them by the new definitions.
        self._applied.load()
        if self._applied.rules is not desk.rules:
            return len(logged) or 1
        outcome = self._on_store(lambda: desk.steps.do(works, desk.sweeper.segments))
        if self._after is not None and logged:
            self._after(grouped(logged))
        for partition, batch in batches.items():
            dues = outcome.dues.get(partition, {})
            if dues or batch.ids:
                self._settle(partition, leases[partition], dues, batch)
        self._count(waiting, batches, outcome, time.perf_counter() - began)
        return len(works) + sum(len(batch.ids) for batch in batches.values())

    def _settle(self, partition: int, lease: bytes, dues: Mapping[str, int | None], batch: Checked) -> None:
        refused = [(identity, *event.content("stream")) for identity, event in batch.refused]
        bad = {identity for identity, _ in batch.refused}
        good = [identity for identity in batch.ids if identity not in bad] if bad else batch.ids
        timers = self._desk.timers
        if not self._on_store(lambda: timers.settle(partition, lease, dues, good, refused)):
            self._desk.steps.forget()  # another worker has the partition by now, and repeats the work

    def _count(
        self, waiting: Mapping[int, PartitionWork], batches: Mapping[int, Checked], outcome: StepsTaken, seconds: float
    ) -> None:
        progress = self.progress
        accepted = sum(not arrived.is_handed_on for batch in batches.values() for arrived in batch.events)
        refused = sum(len(batch.refused) for batch in batches.values())
        published = outcome.published
        self._metrics.round(seconds, accepted, refused, published)
        progress.accepted += accepted
        progress.refused += refused
        progress.timers += sum(len(work.due) for work in waiting.values())
        progress.looked += sum(len(look.entities) for batch in batches.values() for look in batch.looks)
        transitions, fired = self._desk.publisher.counted(published)
        progress.transitions += transitions
        progress.fired += fired
        progress.late += len(outcome.late)
        if outcome.late:
            _log.warning(
                "%d events came too late for a total; `segments ingest --rebuild` counts them",
                len(outcome.late),
                extra={"number": len(outcome.late)},
            )

    def _take_new_definitions(self) -> bool:
        """Use the definitions that were applied last. False while their states are not complete yet."""
        self._applied.load()  # reads the file's status in every round, so that no change is missed
        if self._applied.rules is not self._desk.rules:
            self._desk.close()
            self._desk = Desk(self._project, self._applied.rules, self._open_pipe())
            if self._leases.is_started:
                self._delivery.serve(decode_sinks(self._applied.rules.plan.definitions))
        desk = self._desk
        if self._leases.using != desk.states_name:
            self._leases.using = desk.states_name
            self._on_store(self._leases.beat)
        return self._on_store(desk.states_are_complete)  # in every round: a store may be emptied at any time

    def _is_done(self, until: int) -> bool:
        """Say whether no partition has an event from before an instant, a due timer, or a sweep that is left."""
        desk = self._desk
        others = [partition for partition in range(PARTITIONS) if partition not in self._leases.partitions()]
        waiting = self._on_store(lambda: desk.intake.look(others, 1, now_micros(), desk.latest)) if others else {}
        waits = any(
            work.due or (work.entries and int(work.entries[0][0].partition(b"-")[0]) * 1000 <= until)
            for work in waiting.values()
        )
        waits = waits or not self._on_store(lambda: desk.sweeper.is_done_by(others))
        if waits:
            self._stopping.wait(0.1)
        return not waits
