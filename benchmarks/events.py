"""Events per second, end to end: the worker, beside a bare pipelined write and a Python stream processor.

The figures are events for each second of CPU time of the process, so that the store's own work and that of others on
the machine count less. ``EVENTS``, ``USERS`` in the environment set the size; ``MEMORY_EVENTS`` how many go through the
worker in a second part that watches its memory; ``BYTEWAX`` the interpreter that has the stream processor.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

from benchmarks.event_project import BATCH, TRIGGERS, encoded, plan, raw_events, segments, send
from benchmarks.timing import write
from rules_engine.events.streams import stream_keys
from rules_engine.folders import Project
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.sdk import SegmentClient
from rules_engine.sdk.rules import Rules
from rules_engine.stream.event_sink import EventSink
from rules_engine.stream.worker import Worker, tune_process
from tests.stores import put_into_effect

EVENTS, USERS = int(os.environ.get("EVENTS", "100000")), int(os.environ.get("USERS", "2000"))
MEMORY_EVENTS = int(os.environ.get("MEMORY_EVENTS", "1000000"))

#: One windowed count by user, on the same events: what the peer does.
PEER = """
import sys, time
from datetime import datetime, timedelta, timezone
import orjson
import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.operators.windowing import EventClock, TumblingWindower, count_window
from bytewax.testing import TestingSink, TestingSource, run_main

lines = open(sys.argv[1], "rb").read().splitlines()
out = []
flow = Dataflow("count")
events = op.map("parse", op.input("in", flow, TestingSource(lines, batch_size=2000)), orjson.loads)
clock = EventClock(
    ts_getter=lambda event: datetime.fromtimestamp(event["at"] / 1e6, timezone.utc),
    wait_for_system_duration=timedelta(0),
)
windower = TumblingWindower(align_to=datetime(2020, 1, 1, tzinfo=timezone.utc), length=timedelta(hours=1))
counted = count_window("count", events, clock, windower, key=lambda event: event["entity"])
op.output("out", counted.down, TestingSink(out))
began = time.process_time()
run_main(flow)
print(len(lines) / (time.process_time() - began))
"""


def rate(work: Callable[[], object], number: int) -> tuple[float, float]:
    """Events per second by the clock, and by the CPU time of this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return number / (time.perf_counter() - wall), number / (time.process_time() - cpu)


def bare(client: Any, raws: list[dict[str, Any]]) -> None:
    """One HSET for each event, pipelined: what the server and redis-py can do."""
    for start in range(0, len(raws), BATCH):
        with client.pipeline(transaction=False) as pipeline:
            for raw in raws[start : start + BATCH]:
                pipeline.hset(f"bare:{raw['entity']}", raw["event"], b"x" * 60)
            pipeline.execute()


def worked(server: EmbeddedStore, text: str, raws: list[dict[str, Any]]) -> tuple[tuple[float, float], Any]:
    """The worker over events that wait, in a store that is emptied before."""
    project = Project(server.root)
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
        put_into_effect(plan(text), project)
        Worker(project).run(once=True)  # everything is imported, and nobody is to be swept
        send(client, raws)
    worker = Worker(project)
    return rate(lambda: worker.run(once=True), len(raws)), worker.progress


def peer(raws: list[dict[str, Any]], folder: Path) -> float | None:
    """Events per second of CPU time of bytewax; None if it is not there."""
    python = os.environ.get("BYTEWAX", sys.executable)
    if subprocess.run([python, "-c", "import bytewax"], capture_output=True, check=False).returncode:
        return None
    path = folder / "events.jsonl"
    path.write_bytes(b"\n".join(map(encoded, raws)))
    return float(subprocess.run([python, "-c", PEER, str(path)], capture_output=True, check=True, text=True).stdout)


FEEDER = """
import sys, time
import redis
from benchmarks.event_project import raw_events, send
from rules_engine.events.streams import stream_keys
client, number, users = redis.Redis.from_url(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
piece = []
for raw in raw_events(number, users, seed=2):
    piece.append(raw)
    if len(piece) == 5000:
        while sum(client.xlen(key) for key in stream_keys("shop")) > 50_000:
            time.sleep(0.05)
        send(client, piece)
        piece.clear()
send(client, piece)
"""


def memory(server: EmbeddedStore, number: int, users: int) -> tuple[tuple[float, float], list[int]]:
    """The worker over many events that come as it can take them: its rate, and its memory in MB at each tenth."""
    project = Project(server.root)
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    put_into_effect(plan(segments() + TRIGGERS), project)
    sizes: list[int] = []
    feeder = subprocess.Popen([sys.executable, "-c", FEEDER, server.url, str(number), str(users)])
    worker = Worker(project, after=lambda _: look())

    def look() -> None:
        if worker.progress.accepted >= (len(sizes) + 1) * number // 10:
            sizes.append(_resident())

    def stop() -> None:
        feeder.wait()
        with redis.Redis.from_url(server.url) as client:
            while any(client.xlen(key) for key in stream_keys("shop")):
                time.sleep(0.2)
        worker.stop()

    thread = threading.Thread(target=stop)
    thread.start()
    found = rate(worker.run, number)
    thread.join()
    return found, [*sizes, _resident()]


def _resident() -> int:
    """Memory of this process in MB."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) // 1024


def main() -> None:
    tune_process()  # as `segments run` does
    raws = list(raw_events(EVENTS, USERS))
    figures: dict[str, Any] = {"events": EVENTS, "users": USERS}
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedStore(Path(folder))
        server.ensure_running()
        try:
            rows = measure(server, raws, Path(folder), figures)
        finally:
            server.stop()
    print(f"{EVENTS:,} events of {USERS:,} users; events per second")
    for name, wall, cpu in rows:
        by_clock = "" if wall is None else f"{wall:>10,.0f} by the clock"
        print(f"  {name:<66} {by_clock:<24} {cpu:>10,.0f} of CPU")
    figures["per_second"] = {name: {"by_clock": wall, "of_cpu": cpu} for name, wall, cpu in rows}
    print(json.dumps({key: value for key, value in figures.items() if key != "per_second"}))
    write("events", figures)


def measure(
    server: EmbeddedStore, raws: list[dict[str, Any]], folder: Path, figures: dict[str, Any]
) -> list[tuple[str, float | None, float]]:
    rows: list[tuple[str, float | None, float]] = []
    project = Project(server.root)
    put_into_effect(plan(segments()), project)
    with redis.Redis.from_url(server.url) as client:
        rows.append(("bare pipelined HSET", *rate(lambda: bare(client, raws), len(raws))))
    sink = EventSink(project, Rules(plan(segments())))
    rows.append(("check against events.yaml", *rate(lambda: [sink.check(raw) for raw in raws], len(raws))))
    sink.close()
    found, progress = worked(server, segments() + TRIGGERS, raws)
    rows.append(("the worker, 20 segments and 5 triggers", *found))
    figures["transitions"], figures["fired"] = progress.transitions, progress.fired
    found, _ = worked(server, segments() + TRIGGERS, list(raw_events(EVENTS, EVENTS // 10)))
    rows.append(("the same, ten events a user: nearly everyone is new", *found))
    found, _ = worked(server, segments(), raws)
    rows.append(("the worker, 20 segments", *found))
    counted = peer(raws, folder)
    if counted is not None:
        rows.append(("bytewax: one windowed count", None, counted))
    with SegmentClient(project) as shop:
        some = raws[:5_000]
        rows.append(
            ("client.track, one after the other", *rate(lambda: [_track(shop, raw) for raw in some], len(some)))
        )
        rows.append(
            ("client.lookup of 20 segments", *rate(lambda: [shop.lookup(raw["entity"]) for raw in some], 5_000))
        )
    if MEMORY_EVENTS:
        found, sizes = memory(server, MEMORY_EVENTS, MEMORY_EVENTS // 50)
        rows.append((f"the worker, {MEMORY_EVENTS:,} events as they come", *found))
        figures["megabytes_at_each_tenth"] = sizes
    return rows


def _track(shop: SegmentClient, raw: dict[str, Any]) -> str:
    return shop.track(raw["entity"], raw["event"], raw["properties"], event_id=raw["event_id"])


if __name__ == "__main__":
    main()
