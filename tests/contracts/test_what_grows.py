"""Test what a project keeps: keys and files are in the tables of docs/events.md, and more events make no more."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from rules_engine.deploy.definitions import apply_project
from rules_engine.deploy.materialize import materialize
from rules_engine.folders import Project
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.sdk import SegmentClient
from rules_engine.stream.worker import Worker

PAGE = (Path(__file__).parents[2] / "docs/events.md").read_text(encoding="utf-8").partition("## What grows")[2]
#: What the first columns of the tables name: `events` for `events:0` and for `{KEY}:events:...`.
LISTED = {
    code.removeprefix("{KEY}:").partition(":")[0]
    for row in re.findall(r"^\| (.*?) \|", PAGE, re.MULTILINE)
    for code in re.findall(r"`([^`]+)`", row)
}

VIEWS = """\
from pathlib import Path
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Int64
user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
source = FileSource(path=str(Path(__file__).parent / "profile.parquet"), timestamp_field="at")
profile = FeatureView(name="profile", entities=[user], source=source, schema=[Field(name="age", dtype=Int64)])
"""
EVENTS = "events:\n  view: {properties: {page: {type: string}}, retention: 30d}\n"
SEGMENTS = """\
project: shop
sinks: {audit: {file: actions.jsonl}}
---
segment: keen
when: {did: view, within: 1h, count: {at_least: 3}}
---
segment: adults
when: {all: [{feature: profile:age, at_least: 18}, {did: view, within: 1d}]}
---
trigger: greet
on_event: {did: view, where: {page: a}}
send: [{stream: greetings}, {file: audit}]
---
trigger: later
on_enter: keen
delay: 1h
send: [{file: audit}]
"""
USERS = [f"u{number:02d}" for number in range(40)]


@pytest.fixture
def project(make_project: Callable[..., Project]) -> Project:
    files = {"feature_repo/views.py": VIEWS, "feature_repo/events.yaml": EVENTS, "segments/all.yaml": SEGMENTS}
    project = make_project(files)
    at = pa.array([datetime(2026, 1, 1, tzinfo=UTC)] * len(USERS))
    table = pa.table({"user_id": USERS, "at": at, "age": [20] * len(USERS)})
    pq.write_table(table, project.feature_repo / "profile.parquet")
    apply_project(project)
    materialize(project)
    return project


def work(project: Project, rounds: int, start: int) -> None:
    """Track some events of everybody, half an hour apart by their own clocks, and work them off."""
    now = datetime.now(UTC)
    with SegmentClient(project) as client:
        for number in range(start, start + rounds):
            for user in USERS:
                at = now - timedelta(seconds=(start + rounds - number) * 20)
                client.track(user, "view", {"page": "ab"[number % 2]}, at=at, event_id=f"{user}-{number}")
    Worker(project).run(once=True)


def keys(project: Project) -> set[bytes]:
    with redis.Redis.from_url(EmbeddedStore(project.root).url) as client:
        return set(client.scan_iter(count=1_000))


def name_of(key: bytes) -> str:
    """Return what the tables call a key; the row of an entity in Feast's own format has no name."""
    _, is_ours, name = key.rpartition(b"}:")
    return name.split(b":")[0].decode() if is_ours else ""


def test_every_key_and_file_is_in_the_tables_and_more_events_make_no_more_of_them(project: Project) -> None:
    work(project, 5, start=0)
    first = keys(project)
    files = {path.name for path in project.state_dir.iterdir()}
    work(project, 50, start=5)
    grown = {key for key in keys(project) - first if name_of(key) != "sent"}
    assert grown == set()
    assert {path.name for path in project.state_dir.iterdir()} == files
    names = {name_of(key) for key in first} - {""}
    assert names >= {"events", "triggers", "due", "held", "actions", "sent", "swept"}, "or little was tried"
    assert names <= LISTED, "a key that docs/events.md does not list"
    assert files <= LISTED, "a file or folder that docs/events.md does not list"
