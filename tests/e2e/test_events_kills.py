"""Writers, workers and the store are killed at random: in the end all is as a pass over the full log says."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from rules_engine.clock import to_micros
from rules_engine.events.state.requirements import DEFAULT_PIECE, requirements_of
from rules_engine.events.streams import stream_keys
from rules_engine.folders import Project
from rules_engine.read_plan import Connection, ReadPlan
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.sdk import SegmentClient, event_rules
from rules_engine.sdk.rules import Rules
from rules_engine.stream.event_sink import event_log
from rules_engine.stream.worker import Worker
from tests.event_shop import checked, instants, members, random_raw, shop_plan
from tests.stores import put_into_effect

#: Sends every line of a file, again and again until it is taken, as an application would after an error.
SENDER = """
import json, sys
from datetime import datetime
from pathlib import Path
from rules_engine.errors import StoreError
from rules_engine.folders import Project
from rules_engine.sdk import SegmentClient, event_rules
client = SegmentClient(Project(Path(sys.argv[1])))
for line in open(sys.argv[2]):
    entity, raw = json.loads(line)
    while True:
        try:
            client.track(entity, raw["event"], raw["properties"], at=datetime.fromisoformat(raw["at"]),
                         event_id=raw["event_id"])
            break
        except StoreError:
            pass
"""

#: A worker that takes few events at once, and puts older ones of a user into pieces of so many.
WORKER = """
import sys
from functools import partial
from pathlib import Path
from rules_engine.events.state.requirements import requirements_of
from rules_engine.folders import Project
from rules_engine.sdk import event_rules
from rules_engine.stream import worker
event_rules.requirements_of = partial(requirements_of, piece=int(sys.argv[2]))
worker.BATCH = 20
worker.Worker(Project(Path(sys.argv[1]))).run()
"""


Process = subprocess.Popen[bytes]


def spawn(program: str, *arguments: object) -> Process:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)], env=environment)


def kill_at_random(
    entropy: random.Random,
    server: EmbeddedStore,
    senders: list[Process],
    workers: list[Process],
    start: Callable[[], Process],
) -> None:
    """Until all is sent: SIGKILL for the store, or for a worker, which is replaced."""
    deadline = time.monotonic() + 240
    kills = 0
    while (any(sender.poll() is None for sender in senders) or kills < 6) and time.monotonic() < deadline:
        time.sleep(entropy.uniform(0.3, 0.8))
        if entropy.random() < 0.3:
            with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):  # it is being started
                os.kill(int((server.data_dir / "v.pid").read_text()), signal.SIGKILL)
        else:
            place = entropy.randrange(len(workers))
            workers[place].kill()
            workers[place].wait()
            workers[place] = start()
        kills += 1


def check_everything_counts_once(
    project: Project, server: EmbeddedStore, logs: Mapping[str, Sequence[dict[str, Any]]]
) -> None:
    """Work off what waits, and compare log and answers with the events that were sent, by entity."""
    Worker(project).run(once=True)
    with redis.Redis.from_url(server.url) as client:
        assert not any(client.xlen(key) for key in stream_keys("shop"))
    log = event_log(project)
    found = [(entity, event.id) for day in log.days() for entity, event in log.read(day, ["view", "cart", "purchase"])]
    assert len(found) == len(set(found))
    assert set(found) == {(entity, event.id) for entity, raws in logs.items() for event in checked(raws)}
    rules = Rules(ReadPlan.load(project.read_plan))
    with SegmentClient(project) as client:
        for at in instants():
            for one in client.lookup_many(list(logs), at=at):
                assert one.segments == members(rules, checked(logs[one.entity]), to_micros(at)), (one.entity, at)


@pytest.mark.parametrize(("seed", "piece"), [(0, DEFAULT_PIECE), (1, 2)])
def test_nothing_is_lost_and_nothing_counts_twice(
    make_store: Callable[..., EmbeddedStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, piece: int
) -> None:
    monkeypatch.setattr(event_rules, "requirements_of", partial(requirements_of, piece=piece))
    entropy = random.Random(seed)
    server = make_store(tmp_path / "shop")
    project = Project(server.root)
    put_into_effect(shop_plan(Connection("embedded")), project)
    logs = {f"u{number}": random_raw(entropy, 25) for number in range(20)}
    pairs = [(entity, raw) for entity, log in logs.items() for raw in log]
    entropy.shuffle(pairs)
    files = []
    for number in range(2):  # every event is sent by one of two processes, some by both
        mine = [pair for place, pair in enumerate(pairs) if place % 2 == number or place % 7 == 0]
        files.append(tmp_path / f"sender{number}.jsonl")
        files[-1].write_text("\n".join(json.dumps(pair) for pair in mine))
    senders = [spawn(SENDER, project.root, file) for file in files]
    start = partial(spawn, WORKER, project.root, piece)
    workers = [start() for _ in range(2)]
    try:
        kill_at_random(entropy, server, senders, workers, start)
        ended = [sender.wait(240) for sender in senders]
    finally:
        for process in [*workers, *senders]:
            process.kill()
            process.wait()
    assert ended == [0, 0]
    check_everything_counts_once(project, server, logs)
    with redis.Redis.from_url(server.url) as client:
        assert bool(client.keys("*:pieces")) is (piece < DEFAULT_PIECE)
