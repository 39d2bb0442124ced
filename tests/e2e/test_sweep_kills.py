"""A worker is killed in the middle of a sweep: the next one goes on from there, and nobody is left out."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import orjson
import pytest
import redis

from benchmarks.event_project import plan, send
from rules_engine.events.looks import swept_key
from rules_engine.events.streams import PARTITIONS
from rules_engine.folders import Project
from rules_engine.read_plan import ReadPlan
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.redis.feast_layout import KeyMaker, sibling_key
from rules_engine.sdk.rules import Rules
from rules_engine.stream import leases, sweep
from rules_engine.stream.commit import RECORD
from rules_engine.stream.worker import Worker
from rules_engine.triggers.encoding import decode_record
from rules_engine.triggers.rules import TriggerRules
from tests.stores import put_into_effect

SEGMENT = "segment: looked\nwhen: {did: view, within: 30d}\n"
NEW = "---\nsegment: often\nwhen: {did: view, within: 7d}\n"
USERS, CHUNK, CHUNKS = 2_000, 40, 20

#: Ends itself as a machine does that loses its power, after so many chunks of a sweep.
WORKER = f"""
import os, signal, sys
from pathlib import Path
from rules_engine.folders import Project
from rules_engine.stream import leases, sweep
from rules_engine.stream.entity_steps import EntitySteps
from rules_engine.stream.worker import Worker
sweep.CHUNK, leases.LIFETIME, leases.BEAT = {CHUNK}, 0.5, 0.1
chunks, do = [], EntitySteps.do
def counted(self, works, swept):
    taken = do(self, works, swept)
    chunks.append(len(works))
    if len(chunks) == {CHUNKS}:
        os.kill(os.getpid(), signal.SIGKILL)
    return taken
EntitySteps.do = counted
Worker(Project(Path(sys.argv[1]))).run()
"""


@pytest.fixture
def project(store: EmbeddedStore) -> Project:
    """A project whose worker has seen an event of everybody, and to which a segment was added."""
    project = Project(store.root)
    put_into_effect(plan(SEGMENT), project)
    Worker(project).run(once=True)
    at = time.time_ns() // 1_000 - 1_000_000
    raws = [
        {"entity": f"u{number}", "event": "view", "at": at, "event_id": f"e{number}", "properties": {}}
        for number in range(USERS)
    ]
    with redis.Redis.from_url(store.url) as client:
        send(client, raws)
    assert Worker(project).run(once=True).accepted == USERS
    put_into_effect(plan(SEGMENT + NEW), project)
    return project


def killed(project: Project) -> None:
    done = subprocess.run([sys.executable, "-c", WORKER, str(project.root)], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL


def members(client: redis.Redis, plan: ReadPlan) -> set[str]:
    """Those who were looked at by the definitions of now, and are in the new segment."""
    key, rules = KeyMaker(plan.project, plan.join_key, plan.key_version), TriggerRules.of(Rules(plan))
    records = {f"u{n}": decode_record(client.get(sibling_key(key(f"u{n}"), RECORD))) for n in range(USERS)}
    return {
        entity for entity, record in records.items() if record.rules == rules.fingerprint and "often" in record.members
    }


def test_a_sweep_goes_on_where_a_killed_worker_was(
    project: Project, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "CHUNK", CHUNK)
    monkeypatch.setattr(leases, "LIFETIME", 0.5)
    killed(project)
    places = {orjson.loads(data)[-1] for data in client.hgetall(swept_key("shop")).values()}
    assert len(places) == 1, "all partitions are equally far"
    assert places != {0}
    already = len(members(client, ReadPlan.load(project.read_plan)))
    assert 0 < already < USERS
    looked = Worker(project).run(once=True).looked
    assert looked < USERS - already / 2, "what was done is not done again, but for the last chunk"
    assert members(client, ReadPlan.load(project.read_plan)) == {f"u{number}" for number in range(USERS)}
    places = [orjson.loads(data)[3:] for data in client.hgetall(swept_key("shop")).values()]
    assert places == [[]] * PARTITIONS, "no sweep is under way"


def test_after_a_restart_of_the_server_a_sweep_begins_anew(
    project: Project, store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "CHUNK", CHUNK)
    monkeypatch.setattr(leases, "LIFETIME", 0.5)
    killed(project)
    store.stop()
    store.ensure_running()
    assert Worker(project).run(once=True).looked >= USERS
    with redis.Redis.from_url(store.url) as client:
        assert len(members(client, ReadPlan.load(project.read_plan))) == USERS
