"""A worker on the command line: events from Kafka, triggers, a webhook, a file and a stream; metrics, and logs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
import redis

from rules_engine import SegmentClient
from rules_engine.deploy.definitions import apply_project
from rules_engine.deploy.new_project import new_project
from rules_engine.folders import Project
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.stream.worker import Worker
from tests.commands import good
from tests.e2e.conftest import agreeing
from tests.e2e.test_cli_project import segments
from tests.kafka_cluster import Cluster
from tests.receivers import Receiver, receiver, wait_until

EVENTS = """\
events:
  view: {properties: {page: {type: string}}, retention: 30d}
  purchase: {properties: {amount: {type: number}}, retention: 30d}
"""

PROJECT = """\
project: shop
sinks:
  crm: {{webhook: "{url}", secret: "${{CRM_SECRET}}", timeout: 5s, allow: [127.0.0.1]}}
  audit: {{file: actions.jsonl}}
"""

SEGMENTS = """\
segment: keen
when: {did: view, within: 1h, count: {at_least: 2}}
---
trigger: greet
on_enter: keen
cooldown: 1h
send: [{webhook: crm}, {stream: greetings}, {file: audit}]
payload: {page: {last: {event: view, of: page}}, campaign: {value: spring}}
---
trigger: thank
on_event: {did: purchase, where: {amount: {at_least: 100}}}
send: [{file: audit}]
payload: {amount: {last: {event: purchase, of: amount}}}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, server: Receiver) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("run") / "shop"
    new_project(root)
    for path in (root / "segments").rglob("*.yaml"):
        path.unlink()
    (root / "feature_repo/events.yaml").write_text(EVENTS)
    (root / "segments/project.yaml").write_text(PROJECT.format(url=server.url))
    (root / "segments/keen.yaml").write_text(SEGMENTS)
    apply_project(Project.open(root))  # in this process, which has loaded Feast
    Worker(Project.open(root)).run(once=True)  # looks at everybody once: who comes later enters
    with agreeing(root):
        yield root


@pytest.fixture
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRM_SECRET", "hunter2")


def lines(root: Path) -> list[dict[str, object]]:
    path = root / "actions.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.usefixtures("_secret")
def test_events_of_kafka_become_actions(root: Path, server: Receiver) -> None:
    cluster, topic = Cluster(), f"t{uuid4().hex[:8]}"
    now = datetime.now(UTC).isoformat()
    messages = [
        ("ada", {"event": "view", "at": now, "properties": {"page": "a"}}),
        ("ada", {"event": "view", "at": now, "properties": {"page": "b"}}),
        ("bob", {"event": "view", "at": now, "properties": {"page": "c"}}),
        ("bob", {"event": "purchase", "at": now, "properties": {"amount": 120}}),
        ("bob", {"event": "purchase", "at": now, "properties": {"amount": 20}}),
    ]
    cluster.write(topic, [(key, json.dumps(value).encode()) for key, value in messages])
    cluster.write(topic, [("ada", b"nonsense")])
    command = ("run", "--once", "--from-kafka", cluster.brokers, "--topic", topic, "--repo", root, "--format", "json")
    done = json.loads(good(*command))
    assert (done["accepted"], done["refused"], done["fired"]) == (5, 0, 2)
    assert done["kafka"] == {"taken": 5, "refused": 1, "repeated": 0}
    [request] = [one for one in server.accepted() if one.action["entity"] == "ada"]
    action = request.action
    assert (action["trigger"], action["entity"], action["cause"], action["segment"]) == (
        "greet",
        "ada",
        "enter",
        "keen",
    )
    assert action["payload"] == {"page": "b", "campaign": "spring"}
    assert request.headers["webhook-signature"].startswith("v1,")
    assert {(one["trigger"], one["entity"]) for one in lines(root)} >= {("greet", "ada"), ("thank", "bob")}
    assert json.loads(good("ingest", "--dead-letters", "--repo", root, "--format", "json"))["total"] == 1
    with redis.Redis.from_url(EmbeddedStore(root).url) as client:
        entries: Any = client.xrange("segments:{shop}:actions:greetings")
    greeted = [json.loads(fields[b"action"]) for _, fields in entries]
    assert [one["payload"] for one in greeted if one["entity"] == "ada"] == [action["payload"]]

    # Everything was done, and is not done again.
    again = json.loads(good("run", "--once", "--repo", root, "--format", "json"))
    assert (again["accepted"], again["fired"]) == (0, 0)
    assert len([one for one in server.accepted() if one.action["entity"] == "ada"]) == 1


@pytest.mark.usefixtures("_secret")
def test_a_worker_answers_prometheus_and_logs_nothing_of_people(root: Path, server: Receiver) -> None:
    EmbeddedStore(root).stop()  # the worker starts it
    command = [sys.executable, "-m", "rules_engine", "run", "--metrics-port", "0", "--json-logs", "--repo", str(root)]
    worker = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    said: list[str] = []
    assert worker.stderr is not None
    while "working" not in (said or [""])[-1]:
        said.append(worker.stderr.readline())
        assert said[-1], said
    port = re.search(r"http://127\.0\.0\.1:(\d+)/metrics", "".join(said))
    assert port is not None

    def metrics() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port[1]}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    before = len(server.accepted())
    with SegmentClient.from_repo(root) as client:
        for page in ("secret-page", "other-page"):
            client.track("carol-the-secret", "view", {"page": page})
    server.wait_for(before + 1)
    wait_until(lambda: 'segments_actions_total{result="delivered",sink="webhook:crm"} 1.0' in metrics())
    wait_until(lambda: 'segments_events_total{result="accepted"} 2.0' in metrics())
    text = metrics()
    assert 'segments_transitions_total{change="enter",segment="keen"} 1.0' in text
    assert 'segments_trigger_steps_total{reason="",state="fired",trigger="greet"} 1.0' in text
    assert 'segments_sink_circuit{sink="webhook:crm",state="closed"} 1.0' in text
    assert "segments_timers_pending" in text
    assert "segments_timer_lateness_seconds_bucket" in text
    assert "segments_partitions 16.0" in text
    assert_no_secret_is_seen_from_outside(worker.pid, root)
    os.kill(worker.pid, signal.SIGTERM)
    rest = worker.stderr.read()
    assert worker.wait(timeout=20) == 0
    assert worker.stdout is not None
    assert "2 events" in worker.stdout.read()
    worker.stdout.close()
    worker.stderr.close()
    logged = [json.loads(line) for line in rest.splitlines() if line.startswith("{")]
    assert all({"at", "level", "logger", "message"} <= line.keys() for line in logged)
    assert [line["message"] for line in logged if line["logger"] == "rules_engine.worker"][-1] == "the worker ended"
    for word in ("carol-the-secret", "secret-page", "hunter2"):
        assert word not in text + rest


def assert_no_secret_is_seen_from_outside(worker: int, root: Path) -> None:
    """Look at the processes of a project as a list of processes shows them; the server, which stays, has no secret."""
    server = EmbeddedStore(root).status().pid
    own = {worker, server, *(child.pid for child in psutil.Process(worker).children(recursive=True))}
    shown = {process.pid: process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])}
    started = [line for pid, line in shown.items() if pid in own or any(str(root) in part for part in line)]
    assert len(started) >= 3, "the worker, the server, and the guard of its folder"
    assert not any("hunter2" in part for line in started for part in line)
    assert "hunter2" in psutil.Process(worker).environ().values()
    assert "hunter2" not in psutil.Process(server).environ().values()


def test_a_secret_that_is_not_set_is_said_and_the_action_waits(root: Path, server: Receiver) -> None:
    before = len(server.accepted())
    with SegmentClient.from_repo(root) as client:
        for page in ("a", "b"):
            client.track("dora", "view", {"page": page})
    done = segments("run", "--once", "--repo", root)
    assert done.returncode == 0
    assert "the sink does not work: the sink `crm` uses ${CRM_SECRET}, which is not set" in done.stderr
    assert "actions that still wait for their sinks: 1" in done.stderr
    assert len(server.accepted()) == before
