"""Events per second through ``POST /v1/batch``, and how soon open streams hear of transitions.

The first figure is events for each second of CPU time of the service's process; the load comes from this one.
The second is the time from the announcement of a transition in the store to the message at its reader. ``EVENTS`` and
``STREAMS`` in the environment set the sizes: for 10,000 streams, two processes need as many open files.
"""

from __future__ import annotations

import os
import resource
import selectors
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import orjson
import redis

from benchmarks.event_project import plan, raw_events, segments
from benchmarks.timing import Limit, write
from rules_engine.clock import format_instant
from rules_engine.folders import Project
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.triggers.record import MembershipChange, Transition
from rules_engine.triggers.transition_stream import announce
from tests.service.conftest import end, start
from tests.stores import put_into_effect

EVENTS, USERS, BATCH = int(os.environ.get("EVENTS", "50000")), 2_000, 100
STREAMS, TRANSITIONS = int(os.environ.get("STREAMS", "10000")), 2_000


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """CPU time that a process has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def bodies() -> list[bytes]:
    """Batches of messages, as SDKs send them."""
    messages = [
        {
            "type": "track",
            "userId": raw["entity"],
            "event": raw["event"],
            "timestamp": format_instant(raw["at"]),
            "messageId": raw["event_id"],
            "properties": raw["properties"],
            "context": {"library": {"name": "analytics-python", "version": "2.3.4"}},
            "integrations": {},
        }
        for raw in raw_events(EVENTS, USERS)
    ]
    return [orjson.dumps({"batch": messages[start : start + BATCH]}) for start in range(0, EVENTS, BATCH)]


def batches(service: Any) -> float:
    """Events for each second of CPU time of the service."""
    parts = bodies()
    before = cpu_seconds(service.process)
    for body in parts:
        answer = service.client.post("/v1/batch", content=body).json()
        if answer["taken"] != BATCH:
            raise SystemExit(f"not all of a batch was taken: {answer}")
    return EVENTS / (cpu_seconds(service.process) - before)


def open_streams(url: str) -> selectors.DefaultSelector:
    """Open the streams of the entities ``s0`` to ``sN``, each when the one before has begun."""
    host, _, port = url.removeprefix("http://").partition(":")
    selector = selectors.DefaultSelector()
    for number in range(STREAMS):
        connection = socket.create_connection((host, int(port)))
        connection.sendall(f"GET /v1/users/s{number}/stream HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        received = b""
        while b": open" not in received:
            received += connection.recv(10_000)
        selector.register(connection, selectors.EVENT_READ, number)
    return selector


def latencies(selector: selectors.DefaultSelector, client: Any) -> list[float]:
    """Milliseconds from an announcement to its reader, one after the other; signs of life come in between."""
    found = []
    for number in range(TRANSITIONS):
        place = number * 7919 % STREAMS
        began = time.perf_counter()
        announce(client, "shop", [(f"s{place}", Transition("vip", MembershipChange.ENTER, number, "timer"))])
        while not any(told == place for told in heard(selector)):
            pass
        found.append((time.perf_counter() - began) * 1e3)
    return sorted(found)


def heard(selector: selectors.DefaultSelector) -> list[int]:
    """The streams that were told of a transition, of those that have something to read."""
    ready = [(key.data, key.fileobj.recv(10_000)) for key, _ in selector.select(10)]  # type: ignore[union-attr]
    return [place for place, received in ready if b"event: enter" in received]


def main() -> None:
    """Measure both, and write down what was measured."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "shop"
        root.mkdir()
        store = EmbeddedStore(root)
        project = Project(root)
        try:
            put_into_effect(plan(segments()), project)
            service = start(root, Path(folder) / "service.log", ("--dev",), {})
            try:
                rate = batches(service)
                store_client = redis.Redis.from_url(store.url)
                memory = resident(service.process)
                selector = open_streams(service.url)
                times = latencies(selector, store_client)
                each = (resident(service.process) - memory) / STREAMS
            finally:
                end(service)
        finally:
            store.stop()
    middle, late = times[len(times) // 2], times[len(times) * 99 // 100]
    print(f"/v1/batch: {rate:,.0f} events per second of CPU, in batches of {BATCH}")
    print(
        f"{STREAMS:,} open streams, {each:.1f} KB each: a transition arrives after {middle:.1f} ms, p99 {late:.1f} ms"
    )
    print(Limit("events per second of CPU through /v1/batch", rate, at_least=5_000))
    print(Limit("ms from the announcement to the reader, p99", late, at_most=1_000))
    write("tracking", {"batch_events_per_cpu_second": rate, "streams": STREAMS, "median_ms": middle, "p99_ms": late})


def resident(process: subprocess.Popen[bytes]) -> float:
    """Memory of a process in kilobytes."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith("VmRSS")))
