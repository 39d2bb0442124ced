"""The time of one request, side by side with the bare store and with Feast, in the same minutes on the same data.

Wall-clock time, because waiting for the store is part of a request. What is compared takes turns, so that other work on
the machine meets all alike; medians are what counts.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import redis
import redis.asyncio
from rich.console import Console
from rich.table import Table

from benchmarks import request_plots
from benchmarks.peers import zen_list
from benchmarks.request_project import COLUMNS, USERS, Made, make, program
from benchmarks.timing import Limit, machine, write
from rules_engine.clock import from_micros
from rules_engine.features.feast_import import quiet
from rules_engine.features.online.row_layout import RowLayouts
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.redis.feast_layout import KeyMaker
from rules_engine.rules.evaluate import Evaluation
from rules_engine.rules.inputs import Inputs
from rules_engine.sdk import AsyncSegmentClient, SegmentClient

FEATURES = (10, 50, 100)
SEGMENTS = (10, 100, 1_000)
#: Users, features and segments of the cells that the limits are about.
TARGET = [(1, 30, 100), (100, 30, 100)]

#: Calls of the fast ones and of Feast, for 1 and for 100 users.
CALLS = {1: (1_000, 150), 100: (60, 8)}
TARGET_CALLS = {1: (5_000, 500), 100: (200, 25)}

#: In how many turns they are made.
TURNS = 20

SECONDS = 2.0
PEER = "zen-engine"

Work = Callable[[int], object]


@dataclass(frozen=True)
class Times:
    """Milliseconds of one kind of call."""

    p50: float
    p99: float
    calls: int

    @classmethod
    def of(cls, nanoseconds: list[int]) -> Times:
        ordered = sorted(nanoseconds)
        last = len(ordered) - 1
        return cls(ordered[last // 2] / 1e6, ordered[int(last * 0.99)] / 1e6, len(ordered))


@dataclass(frozen=True)
class Cell:
    """What one combination took, by what was called."""

    users: int
    features: int
    segments: int
    times: Mapping[str, Times] = field(default_factory=dict)


def take_turns(works: Mapping[str, tuple[Work, int]]) -> dict[str, Times]:
    """Time calls, some of each in turn, so that each finds the processor's caches as its own calls left them."""
    found: dict[str, list[int]] = {name: [] for name in works}
    for work, _ in works.values():
        work(0)
    for start in range(TURNS):
        for name, (work, calls) in works.items():
            for turn in range(start, calls, TURNS):
                began = time.perf_counter_ns()
                work(turn)
                found[name].append(time.perf_counter_ns() - began)
    return {name: Times.of(taken) for name, taken in found.items()}


class Bench:
    """Everything that is called, on one project."""

    def __init__(self, made: Made) -> None:
        self.made = made
        self.address = made.plan.connection.connection_string.partition("unix_socket_path=")[2]
        self.redis: Any = redis.Redis(unix_socket_path=self.address)
        self.key = KeyMaker(made.plan.project, made.plan.join_key, made.plan.key_version)
        assert find_spec("hiredis") is not None

    def people(self, number: int, turn: int) -> list[str]:
        return [str((turn * 7 + offset) % USERS) for offset in range(number)]

    def hmget(self, features: int) -> tuple[list[bytes], list[str]]:
        """The hash fields and names of the first so many features; the fields with the timestamps of their views."""
        names = [column.ref.key for column in COLUMNS[:features]]
        return RowLayouts(self.made.plan).of(names).fields, names

    def measure(self, users: int, features: int, segments: int, calls: tuple[int, int]) -> Cell:
        root = self.made.with_rules(features, segments)
        fields, names = self.hmget(features)
        checked = program(features, segments)
        keys = {str(user): self.key(str(user)) for user in range(USERS)}
        with SegmentClient.from_repo(root) as client:
            current = client._now()  # noqa: SLF001 (its parts are timed)
            rules, reader = current[0], client._reader(current).undecoded  # noqa: SLF001
            assert reader is not None
            question = rules.question(None)
            assert set(question.features) == set(names), "the segments read exactly the features"
            self._check(client, users)
            on_rows = rules.on_rows(question)
            assert on_rows is not None
            read = {turn: reader.rows(on_rows.layout, self.people(users, turn)) for turn in range(16)}

            def bare(turn: int) -> object:
                with self.redis.pipeline(transaction=False) as pipeline:
                    for user in self.people(users, turn):
                        pipeline.hmget(keys[user], fields)
                    return pipeline.execute()

            def lookup(turn: int) -> object:
                if users == 1:
                    return client.lookup(self.people(1, turn)[0])
                return client.lookup_many(self.people(users, turn))

            def ours_read(turn: int) -> object:
                return reader.rows(on_rows.layout, self.people(users, turn))

            def ours_rules(turn: int) -> object:
                return [on_rows.membership("", row, {}, 0, from_micros(0)) for row in read[turn % 16]]

            def feast(turn: int) -> dict[str, list[Any]]:
                rows = [{"user_id": user} for user in self.people(users, turn)]
                found: dict[str, list[Any]] = self.made.repo.store.get_online_features(names, rows).to_dict()
                return found

            many, few = calls
            works: dict[str, tuple[Work, int]] = {
                "redis-py HMGET": (bare, many),
                "lookup": (lookup, many),
                "our read": (ours_read, many),
                "our rules": (ours_rules, many),
                "Feast": (feast, few),
            }
            if find_spec("zen") is not None:
                match = zen_list(checked)
                columns = [name.partition(":")[2] for name in names]

                def feast_and_peer(turn: int) -> object:
                    found = feast(turn)
                    return [match({name: found[name][at] for name in columns}) for at in range(users)]

                expected = [one.segments for one in client.lookup_many(self.people(users, 0))]
                assert feast_and_peer(0) == expected, "the peer gives the same answers"
                works[f"Feast + {PEER}"] = (feast_and_peer, few)
            with quiet():
                times = take_turns(works)
        return Cell(users, features, segments, times)

    def _check(self, client: SegmentClient, users: int) -> None:
        """Our answers against Feast's values and the plain evaluator."""
        names = [column.ref.key for column in COLUMNS]
        people = self.people(min(users, 5), 0)
        found = self.made.repo.store.get_online_features(names, [{"user_id": user} for user in people]).to_dict()
        for at, user in enumerate(people):
            values = {name: found[name.partition(":")[2]][at] for name in names}
            evaluation = Evaluation(client.program, Inputs(values), 0)
            expected = {name for name in client.program.names if evaluation.segment(name) is True}
            assert client.lookup(user).segments == expected, user


# --- requests per second --------------------------------------------------------------------------------------------


def per_second(work: Work, threads: int) -> float:
    """Calls per second from so many threads."""
    counts = [0] * threads
    start = threading.Barrier(threads + 1)
    end = threading.Event()

    def run(offset: int) -> None:
        start.wait()
        turn = offset * 61
        while not end.is_set():
            work(turn)
            turn += 1
            counts[offset] += 1

    workers = [threading.Thread(target=run, args=(offset,)) for offset in range(threads)]
    for worker in workers:
        worker.start()
    start.wait()
    began = time.perf_counter()
    time.sleep(SECONDS)
    end.set()
    total = sum(counts)
    took = time.perf_counter() - began
    for worker in workers:
        worker.join()
    return total / took


async def per_second_async(ask: Callable[[int], Any], tasks: int) -> float:
    """Calls per second of so many tasks."""
    count = 0
    until = time.perf_counter() + SECONDS

    async def run(offset: int) -> None:
        nonlocal count
        turn = offset * 61
        while time.perf_counter() < until:
            await ask(turn)
            turn += 1
            count += 1

    await ask(0)
    began = time.perf_counter()
    until = began + SECONDS
    await asyncio.gather(*(run(offset) for offset in range(tasks)))
    return count / (time.perf_counter() - began)


def throughput(bench: Bench, root: Path) -> dict[str, dict[str, float]]:
    """Requests per second of one user each: 30 features, 100 segments."""
    fields, _ = bench.hmget(30)
    key = bench.key

    def bare(turn: int) -> object:
        with bench.redis.pipeline(transaction=False) as pipeline:
            pipeline.hmget(key(str(turn % USERS)), fields)
            return pipeline.execute()

    found: dict[str, dict[str, float]] = {"lookup": {}, "redis-py HMGET": {}}
    with SegmentClient.from_repo(root) as client:
        for threads in (1, 4, 16):
            name = f"{threads} thread{'s' if threads > 1 else ''}"
            found["lookup"][name] = per_second(lambda turn: client.lookup(str(turn % USERS)), threads)
            found["redis-py HMGET"][name] = per_second(bare, threads)
    for tasks in (1, 16, 64):
        name = f"asyncio, {tasks} task{'s' if tasks > 1 else ''}"
        found["lookup"][name], found["redis-py HMGET"][name] = asyncio.run(_async(bench, root, fields, tasks))
    return found


async def _async(bench: Bench, root: Path, fields: Sequence[bytes], tasks: int) -> tuple[float, float]:
    async with AsyncSegmentClient.from_repo(root) as client:
        ours = await per_second_async(lambda turn: client.lookup(str(turn % USERS)), tasks)
    connection: Any = redis.asyncio.Redis(unix_socket_path=bench.address)

    async def bare(turn: int) -> object:
        async with connection.pipeline(transaction=False) as pipeline:
            pipeline.hmget(bench.key(str(turn % USERS)), fields)
            return await pipeline.execute()

    theirs = await per_second_async(bare, tasks)
    await connection.aclose()
    return ours, theirs


# --- starting up ----------------------------------------------------------------------------------------------------

_IMPORT = """
import time; began = time.perf_counter()
import rules_engine
{more}
print((time.perf_counter() - began) * 1000)
"""

_FIRST = """
import sys, time
import psutil
import rules_engine.sdk
before = psutil.Process().memory_info().rss
began = time.perf_counter()
with rules_engine.sdk.SegmentClient.from_repo(sys.argv[1]) as client:
    client.lookup("5")
    print((time.perf_counter() - began) * 1000)
    print((psutil.Process().memory_info().rss - before) / 2**20)
"""


def starting_up(bench: Bench, root: Path) -> dict[str, float]:
    """Milliseconds of what every process pays once, each in processes of its own; and megabytes."""

    def run(*arguments: str) -> list[float]:
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
        return [float(line) for line in done.stdout.splitlines()]

    def median(found: Sequence[float]) -> float:
        return sorted(found)[len(found) // 2]

    def process(*arguments: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
        return (time.perf_counter() - began) * 1000

    thousand = bench.made.with_rules(100, 1_000)
    first = [run("-c", _FIRST, str(root)) for _ in range(9)]
    first_large = [run("-c", _FIRST, str(thousand)) for _ in range(5)]
    command = ["-m", "rules_engine", "lookup", "5", "--repo", str(root)]
    return {
        "import rules_engine, ms": median([run("-c", _IMPORT.format(more=""))[0] for _ in range(9)]),
        "the same, and SegmentClient, ms": median(
            [run("-c", _IMPORT.format(more="rules_engine.SegmentClient"))[0] for _ in range(9)]
        ),
        "from_repo to first answer, ms": median([one[0] for one in first]),
        "the same, 1,000 segments, ms": median([one[0] for one in first_large]),
        "memory of the client, MB": median([one[1] for one in first]),
        "the same, 1,000 segments, MB": median([one[1] for one in first_large]),
        "segments lookup, a process, ms": median([process(*command) for _ in range(9)]),
    }


# --- limits ---------------------------------------------------------------------------------------------------------


def limits(cells: Sequence[Cell], start: Mapping[str, float]) -> list[Limit]:
    """Return what the read path may take, beside what was measured."""
    times = {(cell.users, cell.features, cell.segments): cell.times for cell in cells}
    single, hundred = times[TARGET[0]], times[TARGET[1]]
    return [
        Limit("lookup / redis-py HMGET, 1 user", single["lookup"].p50 / single["redis-py HMGET"].p50, at_most=1),
        Limit("Feast / lookup, 1 user", single["Feast"].p50 / single["lookup"].p50, at_least=8),
        Limit("Feast / lookup, 100 users", hundred["Feast"].p50 / hundred["lookup"].p50, at_least=8),
        Limit("import rules_engine, ms", start["import rules_engine, ms"], at_most=100),
        Limit("from_repo to first answer, ms", start["from_repo to first answer, ms"], at_most=300),
        Limit("segments lookup, ms", start["segments lookup, a process, ms"], at_most=600),
    ]


def show(cells: Sequence[Cell], rates: Mapping[str, Mapping[str, float]], start: Mapping[str, float]) -> None:
    """Print everything."""
    console = Console(width=140)
    names = list(cells[0].times)
    table = Table(title="Milliseconds of a request, p50 (p99)")
    for heading in ("users", "features", "segments", *names):
        table.add_column(heading, justify="right")
    for cell in cells:
        row = [f"{cell.times[name].p50:.3f} ({cell.times[name].p99:.2f})" for name in names]
        table.add_row(str(cell.users), str(cell.features), f"{cell.segments:,}", *row)
    console.print(table)
    table = Table(title="Requests per second: 1 user, 30 features, 100 segments")
    table.add_column("")
    for name in rates:
        table.add_column(name, justify="right")
    for way in rates["lookup"]:
        table.add_row(way, *(f"{rates[name][way]:,.0f}" for name in rates))
    console.print(table)
    for name, value in start.items():
        console.print(f"{name}: {value:,.1f}")


def main() -> None:
    """Measure, print, write down and draw; the server is stopped, and keeps the data for the next run."""
    made = make()
    try:
        run(Bench(made))
    finally:
        EmbeddedStore(made.project.root).stop()


def run(bench: Bench) -> None:
    """Measure, print, write down and draw."""
    # Feast's first read imports and caches what later ones use; it is not counted.
    cells = [bench.measure(*combination, TARGET_CALLS[combination[0]]) for combination in TARGET]
    for users in (1, 100):
        cells += [
            bench.measure(users, features, segments, CALLS[users]) for features in FEATURES for segments in SEGMENTS
        ]
    root = bench.made.with_rules(30, 100)
    rates = throughput(bench, root)
    start = starting_up(bench, root)
    measured = limits(cells, start)
    show(cells, rates, start)
    print(*measured, sep="\n")
    if find_spec("zen") is None:
        print(f"{PEER} is not installed, so Feast was measured without rules (`make bench` installs it)")
    versions = {name: version(name) for name in ("feast", "redis", "hiredis")}
    figures = {
        "versions": versions,
        "cells": [asdict(cell) for cell in cells],
        "requests_per_second": rates,
        "starting_up": start,
        "limits": [asdict(limit) for limit in measured],
    }
    path = write("requests", figures)
    print(f"Written to benchmarks/results/{path.name}; on {machine()['processor']}, {versions}")
    for drawn in request_plots.draw(cells, rates):
        print(f"Drawn to {drawn}")


if __name__ == "__main__":
    main()
