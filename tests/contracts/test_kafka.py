"""The bridge from Kafka, against a cluster that speaks the real protocol: each message once, whoever dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import orjson
import pytest
import redis

from rules_engine.delivery.metrics import MetricsRegistry
from rules_engine.errors import ProjectError
from rules_engine.events.streams import partition_of, refused_key, stream_keys
from rules_engine.folders import Project
from rules_engine.stream import kafka_bridge
from rules_engine.stream.kafka_bridge import BridgeProgress, KafkaBridge, offsets_key
from rules_engine.stream.kafka_source import KafkaSource, kafka_options
from tests.event_shop import shop_plan
from tests.kafka_cluster import Cluster
from tests.receivers import wait_until
from tests.stores import put_into_effect


@pytest.fixture
def project(make_project: Callable[..., Project]) -> Project:
    from rules_engine.read_plan import Connection

    made = make_project()
    put_into_effect(shop_plan(Connection("embedded"), now=None), made)
    return made


@pytest.fixture
def streams(project: Project) -> Iterator[Streams]:
    found = Streams(project)
    yield found
    found.client.close()


class Streams:
    """What is in the streams of a project."""

    def __init__(self, project: Project) -> None:
        from rules_engine.redis.embedded import EmbeddedStore

        store = EmbeddedStore(project.root)
        store.ensure_running()
        self.client: Any = redis.Redis.from_url(store.url)

    def events(self) -> list[dict[str, Any]]:
        """All events, those of a stream in its order."""
        found = []
        for place, key in enumerate(stream_keys("shop")):
            for _, fields in self.client.xrange(key):
                event = orjson.loads(fields[b"event"])
                assert partition_of(event["entity"]) == place
                found.append(event)
        return found

    def refused(self) -> list[tuple[bytes, dict[str, Any]]]:
        entries = self.client.xrange(refused_key("shop"))
        return [(fields[b"event"], orjson.loads(fields[b"reason"])) for _, fields in entries]


def event(number: int, entity: str | None = None) -> bytes:
    raw = {"entity": entity or f"u{number % 50}", "event": "view", "at": "2026-03-01T00:00:00Z"}
    return orjson.dumps({**raw, "event_id": f"e{number}", "properties": {"page": "a", "number": number}})


def messages(number: int, start: int = 0) -> list[tuple[str | bytes | None, bytes | None]]:
    return [(f"u{one % 50}", event(one)) for one in range(start, start + number)]


def source_of(kafka: Cluster) -> KafkaSource:
    """A topic and a group of one's own: the cluster takes long to give a group that everybody left another member."""
    name = uuid4().hex[:10]
    return KafkaSource(kafka.brokers, f"t{name}", f"g{name}")


def ids(found: list[dict[str, Any]]) -> Counter[str]:
    return Counter(one["event_id"] for one in found)


def in_order(found: list[dict[str, Any]]) -> bool:
    by_entity: dict[str, list[int]] = {}
    for one in found:
        by_entity.setdefault(one["entity"], []).append(one["properties"]["number"])
    return all(numbers == sorted(numbers) for numbers in by_entity.values())


# --- what is taken --------------------------------------------------------------------------------------------------


def test_every_message_is_taken_once_and_in_order(kafka: Cluster, project: Project, streams: Streams) -> None:
    source, metrics = source_of(kafka), MetricsRegistry()
    bad: list[tuple[str | bytes | None, bytes | None]] = [
        ("a", b"{nonsense"),
        ("a", b"[1, 2]"),
        ("a", None),
        (None, orjson.dumps({"event": "view"})),
        (b"\xff\xfe", orjson.dumps({"event": "view"})),
        ("a", orjson.dumps({"entity": 42, "event": "view"})),
    ]
    before = datetime.now(UTC)
    bare = [("ada", orjson.dumps({"event": "view", "properties": {"number": 0}}))]
    kafka.write(source.topic, [*messages(1_500), *bad, *bare, *messages(1_500, start=1_500)])
    assert KafkaBridge(project, source, metrics).run(once=True) == BridgeProgress(taken=3_001, refused=6)
    assert metrics.value("segments_kafka_messages_total", result="taken") == 3_001
    found = streams.events()
    [completed] = [one for one in found if one["entity"] == "ada"]
    assert [one for one in found if one["event_id"] == "e7"] == [orjson.loads(event(7))]

    # What a message lacks comes from around it.
    assert (completed["event"], completed["properties"]) == ("view", {"number": 0})
    assert abs((datetime.fromisoformat(completed["at"]) - before).total_seconds()) < 60
    name, partition, offset = completed["event_id"].split(":")
    assert (name, partition in "0123", offset.isdigit()) == (source.topic, True, True)

    # What is no event is set aside, with its place.
    assert Counter(reason["code"] for _, reason in streams.refused()) == {"invalid-event": 3, "missing-entity": 3}
    assert sorted(raw for raw, _ in streams.refused()) == sorted(value or b"" for _, value in bad)
    assert all(reason["source"].startswith(f"kafka {source.topic} ") for _, reason in streams.refused())

    # The offsets in the store count, and not what Kafka knows of a group: here nothing. The store lost a little.
    other = KafkaSource(source.brokers, source.topic, source.group + "2")
    stored = streams.client.hgetall(offsets_key("shop", source.topic, source.group))
    assert sum(map(int, stored.values())) == 3_007
    for place, offset in stored.items():
        streams.client.hset(offsets_key("shop", source.topic, other.group), place, max(0, int(offset) - 5))
    kafka.write(source.topic, messages(500, start=3_000))
    again = sum(min(5, int(offset)) for offset in stored.values())
    progress = KafkaBridge(project, other).run(once=True)
    assert progress.taken + progress.refused == 500 + again
    found = streams.events()
    assert set(ids(found)) >= {f"e{number}" for number in range(3_500)}
    assert sum(ids(found).values()) <= 3_501 + again


def test_a_bridge_that_lost_its_partition_adds_nothing_twice(
    kafka: Cluster, project: Project, streams: Streams
) -> None:
    """Two believe that they have a partition, as when one was stopped a while. And the store loses data, and dies."""
    source = source_of(kafka)
    kafka.write(source.topic, messages(200))
    bridge = KafkaBridge(project, source)
    inner = bridge._store.client.eval
    slow = True

    def late(*arguments: Any) -> Any:
        return (inner(*arguments), inner(*arguments))[-1] if slow else inner(*arguments)  # another was faster

    bridge._store.client.eval = late
    thread = threading.Thread(target=bridge.run)
    thread.start()
    wait_until(lambda: bridge.progress.repeated == 200)
    assert bridge.progress == BridgeProgress(repeated=200)
    assert ids(streams.events()) == Counter({f"e{number}": 1 for number in range(200)})

    # The store was restarted, and had lost all of it: what is missing in between is taken again.
    slow = False
    streams.client.delete(*stream_keys("shop"))
    streams.client.hset(offsets_key("shop", source.topic, source.group), mapping=dict.fromkeys(range(4), 0))
    kafka.write(source.topic, messages(40, start=200))
    wait_until(lambda: len(streams.events()) >= 240)
    assert ids(streams.events()) == Counter({f"e{number}": 1 for number in range(240)})

    # The store goes away; the bridge waits for it, and starts it, as everything does that needs it.
    streams.client.shutdown(save=False)
    kafka.write(source.topic, messages(100, start=240))
    wait_until(lambda: bridge.progress.taken >= 340)
    bridge.stop()
    thread.join()
    with closing(Streams(project).client) as back:
        later = [orjson.loads(fields[b"event"]) for key in stream_keys("shop") for _, fields in back.xrange(key)]
    assert set(ids(later)) >= {f"e{number}" for number in range(240, 340)}


# --- who dies, and who comes ----------------------------------------------------------------------------------------

BRIDGE = """
import sys
from pathlib import Path
from rules_engine.stream import kafka_bridge
from rules_engine.folders import Project
kafka_bridge.BATCH = 50
options = {"session.timeout.ms": "4000", "heartbeat.interval.ms": "300"}
source = kafka_bridge.KafkaSource(sys.argv[2], sys.argv[3], sys.argv[3], options)
kafka_bridge.KafkaBridge(Project(Path(sys.argv[1])), source).run()
"""


@pytest.fixture
def bridge(kafka: Cluster, project: Project) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Starts bridges in processes of their own."""
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", BRIDGE, str(project.root), kafka.brokers, name]
        started.append(subprocess.Popen(command))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_killed_bridge_and_two_at_once_take_every_message_once(
    kafka: Cluster, project: Project, streams: Streams, bridge: Callable[[str], subprocess.Popen[bytes]]
) -> None:
    name, total = source_of(kafka).topic, 0

    def write(number: int) -> None:
        nonlocal total
        kafka.write(name, messages(number, start=total))
        total += number

    def stored() -> int:
        return sum(streams.client.xlen(key) for key in stream_keys("shop"))

    write(20_000)
    first = bridge(name)
    wait_until(lambda: stored() > 1_000)
    os.kill(first.pid, signal.SIGKILL)
    assert stored() < total  # it was in the middle of it
    bridge(name)
    wait_until(lambda: stored() > 5_000, timeout=40)
    bridge(name)  # a second one: they share the partitions from now on
    write(3_000)
    wait_until(lambda: stored() >= total, timeout=60)
    write(1_000)
    wait_until(lambda: stored() >= total, timeout=30)
    time.sleep(0.5)
    found = streams.events()
    assert ids(found) == Counter({f"e{number}": 1 for number in range(total)})
    assert in_order(found)


def test_a_bridge_waits_while_too_much_waits(
    kafka: Cluster, project: Project, streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_bridge, "FULL", 400)
    monkeypatch.setattr(kafka_bridge, "BATCH", 50)
    source = source_of(kafka)
    kafka.write(source.topic, messages(700))
    bridge = KafkaBridge(project, source)
    thread = threading.Thread(target=bridge.run)
    thread.start()
    wait_until(lambda: bridge.progress.taken >= 400)
    time.sleep(0.5)
    assert bridge.progress.taken < 700
    for key in stream_keys("shop"):  # a worker takes what is there
        streams.client.delete(key)
    wait_until(lambda: bridge.progress.taken == 700)
    bridge.stop()
    thread.join()
    assert set(ids(streams.events()).values()) == {1}


# --- what cannot be -------------------------------------------------------------------------------------------------


def test_nothing_to_connect_to_is_an_error_once(project: Project) -> None:
    bridge = KafkaBridge(project, KafkaSource("127.0.0.1:1", "t"))
    with pytest.raises(ProjectError, match="gave no partition"):
        bridge.run(once=True, timeout=1.0)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (KafkaSource("127.0.0.1:1", "t", options={"no.such.option": "1"}), "cannot be opened"),
        (KafkaSource("127.0.0.1:1", "t", options={"enable.auto.commit": "true"}), "sets `enable.auto.commit` itself"),
        (KafkaSource("127.0.0.1:1", "t", options={"sasl.password": "${NOT_SET}"}), "NOT_SET.*is not set"),
    ],
)
def test_a_wrong_option_is_said(project: Project, source: KafkaSource, message: str) -> None:
    with pytest.raises(ProjectError, match=message):
        KafkaBridge(project, source)


def test_options_of_a_command_line() -> None:
    assert kafka_options(["a=b=c", "d="]) == {"a": "b=c", "d": ""}
    with pytest.raises(ProjectError, match="no option"):
        kafka_options(["a"])
