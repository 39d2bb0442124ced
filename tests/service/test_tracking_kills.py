"""Batches arrive while service, workers and store are killed at random: none is lost, and none counts twice.

``SEGMENTS_KILLS=100`` makes a longer run of it.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from rules_engine.folders import Project
from rules_engine.read_plan import Connection
from rules_engine.redis.embedded import EmbeddedStore
from tests.e2e.test_events_kills import WORKER, check_everything_counts_once, spawn
from tests.event_shop import random_raw, shop_plan
from tests.service.conftest import RunningService, start
from tests.stores import put_into_effect

KILLS = int(os.environ.get("SEGMENTS_KILLS", "6"))
BATCH = 20


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Victims:
    """The processes that are killed, and what takes their place."""

    def __init__(self, project: Project, server: EmbeddedStore, logs: Path) -> None:
        self.port = free_port()
        self.project, self.server, self._logs = project, server, logs
        self._services = 0
        self.service = self._start_service()
        self.workers = [spawn(WORKER, project.root, 2) for _ in range(2)]

    def _start_service(self) -> RunningService:
        self._services += 1
        log = self._logs / f"service{self._services}.log"
        return start(self.project.root, log, ("--dev", "--port", str(self.port)), {})

    def kill_one(self, entropy: random.Random) -> None:
        """Kill the store, the service or a worker; the store is started by whoever needs it."""
        victim = entropy.choice(["store", "service", "worker"])
        if victim == "store":
            with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):  # it is being started
                os.kill(int((self.server.data_dir / "v.pid").read_text()), signal.SIGKILL)
        elif victim == "service":
            self.service.process.kill()
            self.service.process.wait()
            self.service.client.close()
            self.service = self._start_service()
        else:
            place = entropy.randrange(len(self.workers))
            self.workers[place].kill()
            self.workers[place].wait()
            self.workers[place] = spawn(WORKER, self.project.root, 2)

    def end(self) -> None:
        for process in [self.service.process, *self.workers]:
            process.kill()
            process.wait()
        self.service.client.close()


def batches(entropy: random.Random, logs: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """All events as messages, in batches; some in two of them."""
    messages = [
        {
            "type": "track",
            "userId": entity,
            "event": raw["event"],
            "timestamp": raw["at"],
            "messageId": raw["event_id"],
            "properties": raw["properties"],
        }
        for entity, log in logs.items()
        for raw in log
    ]
    messages += entropy.sample(messages, len(messages) // 7)
    entropy.shuffle(messages)
    return [{"batch": messages[start : start + BATCH]} for start in range(0, len(messages), BATCH)]


def send_until_taken(port: int, batch: dict[str, Any]) -> None:
    """Send a batch as an SDK does: the same once more after no answer, or one that asks to wait."""
    while True:
        try:
            answer = httpx.post(f"http://127.0.0.1:{port}/v1/batch", json=batch, timeout=10, trust_env=False)
        except httpx.TransportError:
            time.sleep(0.02)
            continue
        if answer.status_code == 200:
            assert answer.json()["refused"] == 0
            return
        assert answer.status_code == 503, answer.text
        assert answer.headers["retry-after"] == "1"
        time.sleep(0.05)


@pytest.fixture
def victims(make_store: Callable[..., EmbeddedStore], tmp_path: Path) -> Iterator[Victims]:
    server = make_store(tmp_path / "shop")
    project = Project(server.root)
    put_into_effect(shop_plan(Connection("embedded")), project)
    processes = Victims(project, server, tmp_path)
    yield processes
    processes.end()


def test_no_batch_is_lost_and_none_counts_twice(victims: Victims) -> None:
    entropy = random.Random(KILLS)
    logs = {f"u{number}": random_raw(entropy, 25) for number in range(20)}
    waiting = batches(entropy, logs)
    sent = 0
    failures: list[BaseException] = []
    finished = threading.Event()

    def send(place: int) -> None:
        nonlocal sent
        try:
            while not finished.is_set():  # all of them, over and over: whatever comes once more must change nothing
                for batch in waiting[place::2]:
                    send_until_taken(victims.port, batch)
                    sent += 1
        except BaseException as error:
            failures.append(error)
            raise

    senders = [threading.Thread(target=send, args=(place,)) for place in range(2)]
    for sender in senders:
        sender.start()
    try:
        for _ in range(KILLS):
            before = sent
            time.sleep(entropy.uniform(0.05, 0.4))
            victims.kill_one(entropy)
            deadline = time.monotonic() + 60
            while sent <= before and not failures and time.monotonic() < deadline:
                time.sleep(0.01)
    finally:
        finished.set()
        for sender in senders:
            sender.join()
    assert failures == []
    assert sent >= len(waiting)
    victims.end()
    print(f"{KILLS} kills, {sent} batches of {BATCH} events taken")
    check_everything_counts_once(victims.project, victims.server, logs)
