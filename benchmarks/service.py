"""Requests per second of the service, beside Feast's own feature server and a bare ASGI echo on the same server.

Another process sends over sixteen connections that stay open. What counts is the processor time that the server
spends, so that the sender, the store and other work on the machine do not: requests per second of one core.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.request_project import COLUMNS, USERS, make
from benchmarks.timing import Limit, write

FEATURES, SEGMENTS = 30, 100
CONNECTIONS, SECONDS = 16, 8.0
_JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Load:
    """Hold what was sent for some seconds, and what it cost the server."""

    name: str
    requests: int
    requests_per_second: float
    per_core: float
    p50_ms: float
    p99_ms: float


async def echo(scope: dict[str, object], receive: object, send: object) -> None:
    """Answer with the body: what the server itself costs."""
    assert scope["type"] == "http"
    body = (await receive())["body"]  # type: ignore[operator]
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})  # type: ignore[operator]
    await send({"type": "http.response.body", "body": body})  # type: ignore[operator]


# --- the sender: this module as a program ---------------------------------------------------------------------------


async def _one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> float:
    """Send a request and read its answer; the seconds that it took."""
    start = time.perf_counter()
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(head.decode())
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(length.partition(b":")[2]))
    return time.perf_counter() - start


async def send(port: int, path: str, bodies: Sequence[str], seconds: float, pause: float) -> list[float]:
    """Send for some seconds over all connections, each with a pause between answers; the seconds of every answer."""
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    requests = [f"{head}content-length: {len(body)}\r\n\r\n{body}".encode() for body in bodies]
    end = time.perf_counter() + seconds

    async def connection(first: int) -> list[float]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        times, number = [], first
        while time.perf_counter() < end:
            times.append(await _one(reader, writer, requests[number % len(requests)]))
            number += 1
            if pause:
                await asyncio.sleep(pause)
        writer.close()
        return times

    return [took for times in await asyncio.gather(*map(connection, range(CONNECTIONS))) for took in times]


def _sent(given: str) -> None:
    """Send what the benchmark says, and print the seconds of every answer."""
    times = asyncio.run(send(*json.loads(given)))
    print(json.dumps(sorted(times)))


# --- the servers ----------------------------------------------------------------------------------------------------


@contextmanager
def serving(command: Sequence[str], port: int) -> Iterator[psutil.Process]:
    """Run a server until the end of the block, and yield its process once it listens."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 120
            while True:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                if time.monotonic() > deadline or process.poll() is not None:
                    raise RuntimeError(f"it does not listen: {command}")
                time.sleep(0.1)
            yield psutil.Process(process.pid)
        finally:
            process.terminate()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def load(name: str, command: Sequence[str], port: int, path: str, bodies: Sequence[str], pause: float = 0.0) -> Load:
    """Start a server, send to it from another process, and measure both."""
    with serving(command, port) as server:
        first = httpx.post(f"http://127.0.0.1:{port}{path}", content=bodies[0], headers=_JSON, timeout=60)
        first.raise_for_status()
        _run_sender(port, path, bodies, 1.0, pause)  # once, so that all is loaded and compiled
        before = _cpu_seconds(server)
        times = _run_sender(port, path, bodies, SECONDS, pause)
        cpu = _cpu_seconds(server) - before
    at = [times[int(len(times) * share)] * 1_000 for share in (0.5, 0.99)]
    return Load(name, len(times), len(times) / SECONDS, len(times) / cpu, *at)


def _cpu_seconds(server: psutil.Process) -> float:
    """CPU time of a server and of the processes that it started."""
    times = [process.cpu_times() for process in (server, *server.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def _run_sender(port: int, path: str, bodies: Sequence[str], seconds: float, pause: float) -> list[float]:
    given = json.dumps([port, path, bodies, seconds, pause])
    command = [sys.executable, "-m", "benchmarks.service"]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2_000:])
    times: list[float] = json.loads(done.stdout)
    return times


def measure(root: Path, feast_repo: Path) -> list[Load]:
    """Measure the service at full speed and at half of it, the echo, and Feast's server."""
    names = [f"{column.view}:{column.name}" for column in COLUMNS[:FEATURES]]
    users = [str(number) for number in range(0, USERS, 7)]
    single = [json.dumps({"context": {"targetingKey": user}}) for user in users]
    flag = "/ofrep/v1/evaluate/flags/segment_0000"
    ask = [json.dumps({"features": names, "entities": {"user_id": [user]}}) for user in users]
    loads = []
    for name, path, pause in (
        ("one segment", flag, 0.0),
        ("one segment, at half the speed", flag, 0.004),
        (f"all {SEGMENTS} segments", "/ofrep/v1/evaluate/flags", 0.0),
    ):
        port = free_port()
        command = [sys.executable, "-m", "rules_engine", "serve", "--dev", "--repo", str(root), "--port", str(port)]
        loads.append(load(name, command, port, path, single, pause))
    port = free_port()
    server = ["--port", str(port), "--log-level", "error", "--no-access-log"]
    loads.append(
        load("bare echo", [sys.executable, "-m", "uvicorn", "benchmarks.service:echo", *server], port, "/", single)
    )
    port = free_port()
    feast = [sys.executable, "-c", "from feast.cli.cli import cli; cli()", "-c", str(feast_repo), "serve"]
    # Its processes are otherwise replaced, and connections cut, after a thousand requests.
    command = [*feast, "--port", str(port), "--no-access-log", "--max-requests", "1000000"]
    loads.append(load(f"Feast's server, {FEATURES} features", command, port, "/get-online-features", ask))
    return loads


def main() -> None:
    """Measure, print and write down."""
    made = make()
    root = made.with_rules(FEATURES, SEGMENTS)
    loads = measure(root, made.project.feature_repo)
    table = Table("server", "requests/s", "per core", "p50 ms", "p99 ms")
    for one in loads:
        numbers = (f"{one.requests_per_second:,.0f}", f"{one.per_core:,.0f}", f"{one.p50_ms:.2f}", f"{one.p99_ms:.2f}")
        table.add_row(one.name, *numbers)
    Console().print(table)
    single, half, *_, feast = loads
    limits = [
        Limit("requests per second of one core", single.per_core, at_least=5_000),
        Limit("times Feast's feature server", single.per_core / feast.per_core, at_least=5),
        Limit("p99 at half the speed, ms", half.p99_ms, at_most=50),
    ]
    for limit in limits:
        print(limit)
    path = write("service", {"loads": [asdict(one) for one in loads], "load_average": os.getloadavg()[0]})
    print(f"written to {path}")


if __name__ == "__main__":
    _sent(sys.stdin.read())
