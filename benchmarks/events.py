"""Events per second into states, next to bare pipelined writes to the same server, and to the same under WATCH."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

from benchmarks.timing import write
from rules_engine.clock import SECOND, to_micros
from rules_engine.events.encoding import decode_state, encode_state
from rules_engine.events.log import Logged
from rules_engine.events.pruning import prune
from rules_engine.events.state import empty_state, update
from rules_engine.events.store import CLOCK_SKEW, StateStore
from rules_engine.events.stream import FIELD, encode_raw, stream_key
from rules_engine.features.embedded import EmbeddedStore
from rules_engine.features.read_plan import Connection
from rules_engine.lifecycle.event_sink import EventSink, grouped
from rules_engine.lifecycle.worker import Worker
from rules_engine.project import Project
from rules_engine.sdk import SegmentClient
from rules_engine.sdk.rules import Rules
from rules_engine.sdk.tracking import open_states
from tests.event_shop import NOW, SEGMENTS, shop_plan

EVENTS, USERS, BATCH = 40_000, 4_000, 2_000


def segments() -> str:
    """Twenty segments: those of the tests, and windows of other lengths."""
    windows = [
        f"segment: viewed_{number}\nwhen: {{did: view, within: {number}h, count: {{at_least: {number}}}}}"
        for number in range(2, 13)
    ]
    return "---\n".join([SEGMENTS, *(window + "\n" for window in windows)])


def raw_events() -> list[dict[str, Any]]:
    entropy = random.Random(1)
    start = to_micros(NOW) - 86_400 * SECOND
    return [
        {
            "entity": f"user{entropy.randrange(USERS)}",
            "event": entropy.choice(["view", "view", "view", "cart", "purchase"]),
            "at": start + number * 2 * SECOND,
            "event_id": f"e{number}",
            "properties": {"page": entropy.choice("abcd"), "sku": entropy.choice("xyz"), "order": f"o{number}"},
        }
        for number in range(EVENTS)
    ]


def rate(work: Callable[[], object], number: int) -> tuple[float, float]:
    """Events per second by the wall clock, and by the CPU time of this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return number / (time.perf_counter() - wall), number / (time.process_time() - cpu)


def batches(events: list[Any]) -> list[list[Any]]:
    return [events[start : start + BATCH] for start in range(0, len(events), BATCH)]


def bare(client: Any, events: list[Logged]) -> None:
    """One HSET for each event, pipelined: what the server and redis-py can do."""
    for batch in batches(events):
        with client.pipeline(transaction=False) as pipeline:
            for entity, event in batch:
                pipeline.hset(f"bare:{entity}", event.name, b"x" * 60)
            pipeline.execute()


def written(states: StateStore, events: list[Logged], now: int) -> None:
    for batch in batches(events):
        states.update(grouped(batch), now)


def watched(client: Any, rules: Rules, events: list[Logged], now: int) -> None:
    """The same with WATCH, MULTI and EXEC, one entity at a time: WATCH fails for all that it watches."""
    needs = rules.events.requirements
    for batch in batches(events):
        for entity, some in grouped(batch).items():
            key = f"watched:{entity}"

            def change(pipeline: Any, key: str = key, some: list[Any] = some) -> None:
                raw = pipeline.get(key)
                state = empty_state(needs) if raw is None else decode_state(raw, needs)
                new = prune(update(state, some, needs), needs, now - CLOCK_SKEW)
                pipeline.multi()
                pipeline.set(key, encode_state(new, needs))

            client.transaction(change, key)


def main() -> None:
    rows: list[tuple[str, float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        project = Project(Path(folder))
        server = EmbeddedStore(project.root)
        server.ensure_running()
        try:
            plan = shop_plan(Connection("embedded"), segments())
            plan.save(project.read_plan)
            rows = measure(project, Rules(plan), server)
        finally:
            server.stop()
    print(f"{EVENTS:,} events of {USERS:,} users, 20 segments, batches of {BATCH:,}; events per second")
    for name, wall, cpu in rows:
        print(f"  {name:<58} {wall:>10,.0f} by the clock {cpu:>10,.0f} of CPU here")
    write("events", {name: {"per_second": wall, "per_cpu_second": cpu} for name, wall, cpu in rows})


def measure(project: Project, rules: Rules, server: EmbeddedStore) -> list[tuple[str, float, float]]:
    raws = raw_events()
    sink = EventSink(project, rules)
    client = redis.Redis.from_url(server.url)
    now = to_micros(NOW)
    events: list[Logged] = []
    rows = []

    def check() -> None:
        for raw in raws:
            found = sink.check(raw)
            assert isinstance(found, tuple), found
            events.append(found)

    rows.append(("check against events.yaml", *rate(check, EVENTS)))
    rows.append(("bare pipelined HSET", *rate(lambda: bare(client, events), EVENTS)))
    rows.append(
        ("states, compare-and-set in Lua", *rate(lambda: written(open_states(rules, client), events, now), EVENTS))
    )
    rows.append(("states, WATCH/MULTI/EXEC", *rate(lambda: watched(client, rules, events, now), EVENTS)))
    sizes = [client.strlen(key) for key in client.scan_iter(match=b"{*}:events:*", count=1000)]
    print(f"a state: {sum(sizes) / len(sizes):.0f} bytes on average, {max(sizes)} at most")
    client.flushall()
    for batch in batches(raws):
        with client.pipeline(transaction=False) as pipeline:
            for raw in batch:
                data = encode_raw(raw["entity"], raw["event"], raw["at"], raw["event_id"], raw["properties"])
                pipeline.xadd(stream_key("shop"), {FIELD: data})
            pipeline.execute()
    worker = Worker(project)
    rows.append(("the worker: stream, check, log, states, acknowledge", *rate(lambda: worker.run(once=True), EVENTS)))
    with SegmentClient(project) as shop:
        some = raws[:3_000]
        tracked = rate(
            lambda: [
                shop.track(raw["entity"], raw["event"], raw["properties"], event_id=raw["event_id"]) for raw in some
            ],
            len(some),
        )
        rows.append(("client.track, one after the other", *tracked))
        names = [raw["entity"] for raw in some]
        rows.append(
            ("client.lookup of all 20 segments", *rate(lambda: [shop.lookup(name) for name in names], len(names)))
        )
    sink.close()
    client.close()
    return rows


if __name__ == "__main__":
    main()
