"""How late timers fire: many wait, events flow all the time, one worker.

``TIMERS`` in the environment says how many wait, ``SPREAD`` in how many seconds they come due, ``WATCHED`` how many of
those seconds are watched.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import orjson
import redis

from benchmarks.event_project import DELAYED, encoded, plan
from benchmarks.timing import write
from rules_engine.clock import parse_instant
from rules_engine.delivery.queues import queue_key
from rules_engine.events.streams import FIELD, partition_of, stream_key, stream_keys
from rules_engine.folders import Project
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.stream.timers import timers_key
from tests.stores import put_into_effect

TIMERS, SPREAD = int(os.environ.get("TIMERS", "100000")), int(os.environ.get("SPREAD", "500"))
WATCHED = int(os.environ.get("WATCHED", "60"))

#: Events that flow each second while timers come due.
FLOW = 200

WORKER = """
import sys
from pathlib import Path
from rules_engine.stream.worker import Worker, tune_process
from rules_engine.folders import Project
tune_process()
Worker(Project(Path(sys.argv[1]))).run()
"""


def fill(client: Any, number: int, start: int) -> None:
    """One view for each user; their arrivals are spread evenly from ``start`` on, in milliseconds."""
    with client.pipeline(transaction=False) as pipeline:
        for place in range(number):
            arrival = start + place * SPREAD * 1000 // number
            entity = f"u{place}"
            raw = {
                "entity": entity,
                "event": "view",
                "at": arrival * 1000,
                "event_id": f"e{place}",
                "properties": {},
            }
            key = stream_key("shop", partition_of(entity))
            pipeline.execute_command("XADD", key, f"{arrival}-{place + 1}", FIELD, encoded(raw))
            if place % 5_000 == 4_999:
                pipeline.execute()
        pipeline.execute()


def flow(client: Any, ended: threading.Event) -> None:
    """Events of other users, evenly."""
    place = 0
    while not ended.wait(0.02):
        for _ in range(FLOW // 50):
            place += 1
            entity = f"other{place % 5_000}"
            raw: dict[str, object] = {"entity": entity, "event": "cart", "at": time.time_ns() // 1000}
            raw |= {"event_id": f"o{place}", "properties": {"value": 1}}
            client.execute_command("XADD", stream_key("shop", partition_of(entity)), "*", FIELD, encoded(raw))


def lateness(client: Any) -> list[float]:
    """For each action the seconds from the instant it was due to the instant it was in its stream."""
    found = []
    start = b"-"
    while entries := client.xrange(queue_key("shop", "stream:actions"), start, "+", count=10_000):
        start = b"(" + entries[-1][0]
        for identity, fields in entries:
            due = parse_instant(orjson.loads(fields[b"action"])["at"]) // 1000
            found.append((int(identity.partition(b"-")[0]) - due) / 1000)
    return sorted(found)


def measure(server: EmbeddedStore) -> dict[str, Any]:
    project = Project(server.root)
    room = 60 + TIMERS // 1_500  # seconds in which the worker takes all that arrived, before the first is due
    text = DELAYED % (SPREAD + room) + "send: [{stream: actions}]\n"
    put_into_effect(plan(text), project)
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(server.root)])
    ended = threading.Event()
    try:
        with redis.Redis.from_url(server.url) as client:
            start = time.time_ns() // 1_000_000 - SPREAD * 1000
            fill(client, TIMERS, start)
            while any(client.xlen(key) for key in stream_keys("shop")):
                time.sleep(0.2)
            taken = time.time_ns() // 1_000_000 - start - SPREAD * 1000
            pending = sum(client.zcard(timers_key("shop", partition)) for partition in range(16))
            thread = threading.Thread(target=flow, args=(client, ended))
            thread.start()
            time.sleep(max(0.0, (start + (SPREAD + room + WATCHED) * 1000) / 1000 - time.time()))
            ended.set()
            thread.join()
            found = lateness(client)
    finally:
        ended.set()
        worker.terminate()
        worker.wait()
    return {
        "pending": pending,
        "taken_in_seconds": round(taken / 1000, 1),
        "fired": len(found),
        "due_each_second": TIMERS // SPREAD,
        "events_each_second": FLOW,
        "p50": found[len(found) // 2],
        "p99": found[len(found) * 99 // 100],
        "worst": found[-1],
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedStore(Path(folder))
        server.ensure_running()
        try:
            figures = measure(server)
        finally:
            server.stop()
    print(f"{figures['pending']:,} timers wait, {figures['due_each_second']:,} are due each second, {FLOW} events flow")
    print(f"  fired {figures['fired']:,}; late by {figures['p50']:.3f} s (p50), {figures['p99']:.3f} s (p99)")
    print(f"  the latest {figures['worst']:.3f} s")
    write("timers", figures)


if __name__ == "__main__":
    main()
