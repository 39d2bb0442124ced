"""Events from Kafka: taken from a topic and put into the streams of the online store, each exactly once.

The script that adds events to the streams also moves the partition's offset, which is stored next to them. So each
event is added once, even if a process dies or two bridges read a partition at the same time. A bridge that takes over a
partition goes on at the stored offset, not at the one that Kafka has for the group. That one is only updated for those
who monitor the group.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from rules_engine.errors import MissingExtraError, ProjectError, StoreError
from rules_engine.events.streams import (
    MAX_REFUSED,
    MAX_WAITING,
    refused_key,
    stream_keys,
)
from rules_engine.folders import Project
from rules_engine.redis.feast_layout import project_key
from rules_engine.sdk.applied import Applied
from rules_engine.sinks.kinds.kafka import PEM
from rules_engine.sinks.variables import expand
from rules_engine.stream.event_sink import EventSink
from rules_engine.stream.kafka_messages import entry_of, offset_of
from rules_engine.stream.kafka_source import OWN_OPTIONS, KafkaSource

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Message, TopicPartition

    from rules_engine.delivery.metrics import MetricsRegistry

_T = TypeVar("_T")

#: The number of messages that are taken at once.
BATCH = 1_000

#: The number of events in the streams at which the bridge pauses until they are fewer.
FULL = MAX_WAITING // 4

_LONGEST_PAUSE = 5.0

#: KEYS: the offsets, the refused events, the streams. ARGV: the partition; the offset from which on this bridge has all
#: messages; the next offset; the most refused events to keep; and for each message its offset, the number of its stream
#: (0: refused), the event, and the reason. Returns how many messages were added, how many of these refused, and how
#: many events wait; or only the offset at which to go on, if a message before this batch is missing.
_TAKE = """\
local done = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or ARGV[2])
if done < tonumber(ARGV[2]) then return {done} end
local added, refused = 0, 0
for i = 5, #ARGV, 4 do
  if tonumber(ARGV[i]) >= done then
    local place = tonumber(ARGV[i + 1])
    if place == 0 then
      redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], '*', 'event', ARGV[i + 2], 'reason', ARGV[i + 3])
      refused = refused + 1
    else
      redis.call('XADD', KEYS[2 + place], '*', 'event', ARGV[i + 2])
    end
    added = added + 1
  end
end
if tonumber(ARGV[3]) > done then redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) end
local waiting = 0
for place = 3, #KEYS do waiting = waiting + redis.call('XLEN', KEYS[place]) end
return {added, refused, waiting}"""

_log = logging.getLogger("rules_engine.kafka")


@dataclass(slots=True)
class BridgeProgress:
    """The number of messages that a bridge added to the streams, refused, and skipped as they were added before."""

    taken: int = 0
    refused: int = 0
    repeated: int = 0


def offsets_key(project: str, topic: str, group: str) -> bytes:
    """Return the key of a hash with the next offset of each partition."""
    return project_key(project, f"kafka:{topic}:{group}")


class KafkaBridge:
    """Takes events from a topic.

    A message is a JSON object as :func:`rules_engine.events.streams.encode_raw` makes it. If it has no ``entity``, that
    is the message's key; no ``at``, the message's timestamp; no ``event_id``, its topic, partition and offset.

    Parameters
    ----------
    project
        the project; it was applied.
    source
        the brokers and the topic.
    metrics
        the metrics to update.

    Raises
    ------
    NotAppliedError
        if nothing was applied yet.
    MissingExtraError
        if the package for Kafka is not installed.
    ProjectError
        if librdkafka does not know an option, or an environment variable is not set.
    """

    def __init__(self, project: Project, source: KafkaSource, metrics: MetricsRegistry | None = None) -> None:
        try:
            import confluent_kafka
        except ImportError:
            raise MissingExtraError("confluent-kafka", "kafka", "taking events from Kafka") from None
        self._kafka = confluent_kafka
        rules = Applied(project.read_plan).rules
        self._name = rules.plan.project
        group = source.group or f"feast-segments-{self._name}"
        self._source = KafkaSource(source.brokers, source.topic, group, source.options)
        self._consumer = self._open(self._source)
        self._store = EventSink(project, rules)
        self._keys = [
            offsets_key(self._name, self._source.topic, group),
            refused_key(self._name),
            *stream_keys(self._name),
        ]
        self._metrics = metrics
        self._next: dict[int, int] = {}  # by assigned partition: the first offset that is not stored yet
        self._ends: dict[int, bool] = {}  # by assigned partition: whether its end was reached
        self._is_full = False
        self._stopping = threading.Event()
        self.progress = BridgeProgress()

    def _open(self, source: KafkaSource) -> Consumer:
        own = sorted(OWN_OPTIONS & source.options.keys())
        if own:
            raise ProjectError(f"the bridge sets `{own[0]}` itself", hint="remove it from the options")
        options: dict[str, Any] = {
            "auto.offset.reset": "earliest",
            "partition.assignment.strategy": "range",
            "session.timeout.ms": 10_000,
            **{name: expand(value, "the bridge", lines=name in PEM) for name, value in source.options.items()},
            "bootstrap.servers": expand(source.brokers, "the bridge"),
            "group.id": source.group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "logger": logging.getLogger("rules_engine.librdkafka"),
        }
        try:
            return self._kafka.Consumer(options)
        except (self._kafka.KafkaException, ValueError) as error:
            hint = "look at the brokers and the options"
            raise ProjectError(f"the consumer of Kafka cannot be opened: {error}", hint=hint) from None

    def stop(self) -> None:
        """End after the batch that is under way. May be called from a signal handler or another thread."""
        self._stopping.set()

    def run(self, *, once: bool = False, timeout: float = 30.0) -> BridgeProgress:
        """Take messages until :meth:`stop`; with ``once`` until the end of every assigned partition.

        Raises
        ------
        ProjectError
            if the consumer cannot go on; with ``once`` also if none is assigned within ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        try:
            self._consumer.subscribe([self._source.topic], on_assign=self._assigned, on_revoke=self._revoked)
            while not self._stopping.is_set():
                self._step()
                if once and self._ends and all(self._ends.values()):
                    break
                if once and not self._ends and time.monotonic() > deadline:
                    hint = f"is there a topic `{self._source.topic}`, and are the brokers reachable?"
                    raise ProjectError("Kafka gave no partition of the topic to the bridge", hint=hint)
        finally:
            self._consumer.close()
            self._store.close()
        return self.progress

    # --- partitions -------------------------------------------------------------------------------------------------

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Go on at the stored offsets. Kafka's may be behind, if a bridge died before it updated them."""
        stored = self._patiently(lambda: self._store.client.hgetall(self._keys[0]))
        if stored is None:
            return  # stopped
        done = {int(partition): int(offset) for partition, offset in stored.items()}
        for place in partitions:
            place.offset = done.get(place.partition, place.offset)
        self._next = {place.partition: done[place.partition] for place in partitions if place.partition in done}
        self._ends = {place.partition: False for place in partitions}
        consumer.assign(partitions)
        if self._is_full:
            consumer.pause(partitions)
        _log.info("took over %d partitions", len(partitions), extra={"topic": self._source.topic})

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # All messages that were taken are stored, so there is nothing to finish.
        for partition in partitions:
            self._next.pop(partition.partition, None)
            self._ends.pop(partition.partition, None)
            if self._metrics is not None:
                self._metrics.kafka_lag(partition.partition, 0)
        consumer.unassign()

    # --- messages ---------------------------------------------------------------------------------------------------

    def _step(self) -> None:
        messages = self._consumer.consume(BATCH, timeout=0.1)
        if self._is_full:
            self._look_whether_full()
        batches: dict[int, list[Message]] = {}
        for message in messages:
            error, partition = message.error(), message.partition()
            assert partition is not None, "a consumer's messages and errors are about a partition"
            if error is None:
                self._ends[partition] = False
                batches.setdefault(partition, []).append(message)
            elif error.code() == self._kafka.KafkaError._PARTITION_EOF:  # noqa: SLF001 - it has no other name
                self._ends[partition] = True
            else:
                self._failed(error)
        for partition, batch in batches.items():
            self._take(partition, batch)

    def _failed(self, error: Any) -> None:
        if error.fatal():
            raise ProjectError(f"Kafka cannot be read any more: {error.str()}", hint="start the bridge again")
        _log.warning("Kafka: %s", error.name(), extra={"topic": self._source.topic, "code": error.name()})
        if self._metrics is not None:
            self._metrics.error("kafka")
        self._stopping.wait(0.5)

    def _take(self, partition: int, batch: Sequence[Message]) -> None:
        """Store a batch, with the offset behind it."""
        first, following = offset_of(batch[0]), offset_of(batch[-1]) + 1
        begun = self._next.get(partition, first)
        arguments: list[bytes | str | int] = [partition, begun, following, MAX_REFUSED]
        for message in batch:
            arguments += [offset_of(message), *entry_of(message)]
        answer = self._patiently(lambda: self._store.client.eval(_TAKE, len(self._keys), *self._keys, *arguments))
        if answer is None:
            return  # stopped while the store was down: nothing is stored, and nothing is noted
        if len(answer) == 1:
            self._go_back(partition, int(answer[0]))
            return
        added, refused, waiting = map(int, answer)
        self._next[partition] = following
        self._count(added - refused, refused, len(batch) - added)
        self._note(partition, following)
        if waiting >= FULL and not self._is_full:
            self._is_full = True
            self._consumer.pause(self._consumer.assignment())
            _log.warning("%d events wait for a worker; no more are taken until they are fewer", waiting)

    def _go_back(self, partition: int, offset: int) -> None:
        """Go back to the stored offset: another bridge has or had the partition, and was not as far as this one."""
        _log.warning("went back to what was stored", extra={"topic": self._source.topic, "partition": partition})
        self._next[partition] = offset
        place = self._kafka.TopicPartition(self._source.topic, partition, offset)
        if any(assigned.partition == partition for assigned in self._consumer.assignment()):
            self._consumer.seek(place)

    def _note(self, partition: int, offset: int) -> None:
        """Commit the offset to Kafka for those who monitor the group; no bridge relies on it."""
        place = self._kafka.TopicPartition(self._source.topic, partition, offset)
        try:
            self._consumer.commit(offsets=[place], asynchronous=True)
            if self._metrics is not None:
                _, high = self._consumer.get_watermark_offsets(place, cached=True)
                self._metrics.kafka_lag(partition, max(0, high - offset))
        except self._kafka.KafkaException:
            _log.info("the group's offset was not noted", extra={"topic": self._source.topic, "partition": partition})

    def _count(self, taken: int, refused: int, repeated: int) -> None:
        self.progress.taken += taken
        self.progress.refused += refused
        self.progress.repeated += repeated
        if self._metrics is not None:
            self._metrics.kafka(taken, refused, repeated)

    # --- the store --------------------------------------------------------------------------------------------------

    def _look_whether_full(self) -> None:
        """Resume when the workers have caught up somewhat. A paused bridge stays in the consumer group."""
        waiting = self._patiently(lambda: sum(self._store.client.xlen(key) for key in self._keys[2:]))
        if waiting is not None and waiting < FULL * 3 // 4:
            self._is_full = False
            self._consumer.resume(self._consumer.assignment())

    def _patiently(self, action: Any) -> Any:
        """Do something with the store; retry while it is down. Return None if the bridge was stopped first."""
        pause = 0.1
        while not self._stopping.is_set():
            try:
                return self._store.on_store(action)
            except StoreError as error:
                _log.warning("the store cannot be used, trying again in %.1f s: %s", pause, type(error).__name__)
                if self._metrics is not None:
                    self._metrics.error("store")
                self._stopping.wait(pause)
                pause = min(_LONGEST_PAUSE, pause * 2)
        return None


def run_beside(bridge: KafkaBridge, work: Callable[[], _T], stop: Callable[[], None]) -> _T:
    """Take events from Kafka in a thread while a worker works; whichever ends, ends the other.

    Parameters
    ----------
    bridge
        takes the events.
    work, stop
        what the worker does, and what ends it.

    Raises
    ------
    ProjectError
        if the bridge could not go on.
    """
    failures: list[Exception] = []

    def take() -> None:
        try:
            bridge.run()
        except Exception as error:  # noqa: BLE001 - raised below, in the thread that waits for it
            failures.append(error)
        finally:
            stop()

    thread = threading.Thread(target=take, name="kafka", daemon=True)
    thread.start()
    try:
        done = work()
    finally:
        bridge.stop()
        thread.join()
    if failures:
        raise failures[0]
    return done
