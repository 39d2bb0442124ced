"""Senders that join ids, workers and the store are killed at random: in the end all is as a pass over the log says."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import redis

from rules_engine.clock import to_micros
from rules_engine.events.streams import stream_keys
from rules_engine.folders import Project
from rules_engine.read_plan import Connection, ReadPlan
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.sdk import SegmentClient
from rules_engine.sdk.rules import Rules
from rules_engine.stream.event_sink import event_log
from rules_engine.stream.worker import Worker
from tests.e2e.test_events_kills import WORKER, Process, spawn
from tests.event_shop import NOW, checked, instants, members, random_raw, shop_plan
from tests.reference_joins import Joined, log_of, path
from tests.stores import put_into_effect

#: Sends every line of a file, again and again until it is taken.
SENDER = """
import json, sys
from datetime import datetime
from pathlib import Path
from rules_engine.errors import DataError, StoreError
from rules_engine.folders import Project
from rules_engine.sdk import SegmentClient
client = SegmentClient(Project(Path(sys.argv[1])))
for line in open(sys.argv[2]):
    entity, raw = json.loads(line)
    while True:
        try:
            at = datetime.fromisoformat(raw["at"])
            if "person" in raw:
                client.alias(entity, raw["person"], at=at)
            else:
                client.track(entity, raw["event"], raw["properties"], at=at, event_id=raw["event_id"])
            break
        except DataError:
            break
        except StoreError:
            pass
"""


def kill_at_random(
    entropy: random.Random, server: EmbeddedStore, senders: list[Process], workers: list[Process], project: Project
) -> int:
    """Until all is sent: SIGKILL for the store, or for a worker, which is replaced."""
    deadline, kills = time.monotonic() + 240, 0
    while (any(sender.poll() is None for sender in senders) or kills < 8) and time.monotonic() < deadline:
        time.sleep(entropy.uniform(0.3, 0.8))
        if entropy.random() < 0.3:
            with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):  # it is being started
                os.kill(int((server.data_dir / "v.pid").read_text()), signal.SIGKILL)
        else:
            place = entropy.randrange(len(workers))
            workers[place].kill()
            workers[place].wait()
            workers[place] = spawn(WORKER, project.root)
        kills += 1
    return kills


def test_joined_ids_count_once_for_their_persons(make_store: Callable[..., EmbeddedStore], tmp_path: Path) -> None:
    entropy = random.Random(3)
    server = make_store(tmp_path / "shop")
    project = Project(server.root)
    put_into_effect(shop_plan(Connection("embedded")), project)
    ids = [f"anon{number}" for number in range(16)] + [f"u{number}" for number in range(8)]
    logs = {entity: random_raw(entropy, 14) for entity in ids}
    lines: list[tuple[str, dict[str, object]]] = [(entity, raw) for entity, log in logs.items() for raw in log]
    for _ in range(30):
        entity, person = entropy.sample(ids, 2)
        at = NOW.timestamp() - entropy.randrange(90_000)
        lines.append((entity, {"person": person, "at": NOW.fromtimestamp(at, NOW.tzinfo).isoformat()}))
    entropy.shuffle(lines)
    senders = []
    for number in range(2):  # every line is sent by one of two processes, some by both
        file = tmp_path / f"sender{number}.jsonl"
        mine = [line for place, line in enumerate(lines) if place % 2 == number or place % 7 == 0]
        file.write_text("\n".join(map(json.dumps, mine)))
        senders.append(spawn(SENDER, project.root, file))
    workers = [spawn(WORKER, project.root) for _ in range(2)]
    try:
        assert kill_at_random(entropy, server, senders, workers, project) >= 8
        ended = [sender.wait(240) for sender in senders]
    finally:
        for process in [*workers, *senders]:
            process.kill()
            process.wait()
    assert ended == [0, 0]
    Worker(project).run(once=True)
    with redis.Redis.from_url(server.url) as client:
        assert not any(client.xlen(key) for key in stream_keys("shop"))
    joins = [Joined(join.entity, join.person, join.at) for join in event_log(project).joins()]
    assert len(joins) >= 8
    assert len({join.entity for join in joins}) == len(joins)
    assert max(len(path(join.entity, joins)) for join in joins) > 2, "there are joins of joins"
    log = [(entity, event) for entity, raws in logs.items() for event in checked(raws)]
    rules = Rules(ReadPlan.load(project.read_plan))
    with SegmentClient(project) as asked:
        for at in instants():
            for membership in asked.lookup_many(ids, at=at):
                want = members(rules, log_of(membership.entity, log, joins), to_micros(at))
                assert membership.segments == want, (membership.entity, at)
