"""Features that are pushed into the online store start transitions, as events do."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
import redis

from rules_engine import SegmentClient
from rules_engine.deploy.definitions import apply_project
from rules_engine.deploy.materialize import materialize
from rules_engine.events import looks
from rules_engine.events.looks import request_looks, sweeps_key
from rules_engine.events.streams import stream_keys
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.features.feast_import import quiet
from rules_engine.folders import Project
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.stream.worker import Worker
from tests.commands import good

DEFINITIONS = """\
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureView, Field, FileSource, PushSource, ValueType
from feast.types import Float64

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)


def view(name):
    batch = FileSource(
        name=name + "_file", path=str(Path(__file__).parent / f"data/{name}.parquet"), timestamp_field="event_timestamp"
    )
    source = PushSource(name=name + "_live", batch_source=batch)
    schema = [Field(name="score", dtype=Float64)]
    return FeatureView(name=name, entities=[user], ttl=timedelta(days=3650), schema=schema, source=source)


live, other = view("live"), view("other")
"""

SEGMENTS = """\
segment: big
when: {feature: live:score, at_least: 100}
---
segment: quiet
when: {none: [{feature: live:score, at_least: 100, or_missing: true}]}
---
trigger: greet
on_enter: big
send: [{stream: greetings}]
"""


def rows(**scores: float) -> pd.DataFrame:
    at = pd.Timestamp(datetime.now(UTC)).floor("us")
    return pd.DataFrame(
        {"user_id": list(scores), "event_timestamp": [at] * len(scores), "score": list(scores.values())}
    )


@pytest.fixture
def project(make_project: Callable[..., Project]) -> Project:
    files = {"feature_repo/definitions.py": DEFINITIONS, "segments/a.yaml": SEGMENTS}
    project = make_project(files)
    (project.feature_repo / "data").mkdir()
    for name in ("live", "other"):
        old = rows(first=1.0).assign(event_timestamp=pd.Timestamp(datetime.now(UTC) - timedelta(days=1)))
        old.to_parquet(project.feature_repo / f"data/{name}.parquet")
    apply_project(project)
    with quiet():
        materialize(project)
    Worker(project).run(once=True)  # looks at everybody once
    return project


def history(root: Path, user: str) -> list[tuple[str, str, str]]:
    printed = good("history", user, "--format", "json", "--repo", root)
    return sorted((one["segment"], one["change"], one["cause"]) for one in json.loads(printed))


def test_a_push_starts_a_transition_and_a_trigger(project: Project) -> None:
    store = FeastRepo(project).store
    with quiet():
        store.push("live_live", rows(u1=500.0, u2=5.0))
    with SegmentClient(project) as client:
        assert client.lookup("u1").segments == {"big"}
    progress = Worker(project).run(once=True)
    assert (progress.looked, progress.fired) == (2, 1)
    assert history(project.root, "u1") == [("big", "enter", "push")]
    with quiet():
        store.write_to_online_store("live", rows(u1=5.0))
    Worker(project).run(once=True)
    assert [one[:2] for one in history(project.root, "u1")] == [("big", "enter"), ("big", "exit"), ("quiet", "enter")]


def test_a_view_that_no_rule_reads_starts_nothing(project: Project) -> None:
    with quiet():
        FeastRepo(project).store.push("other_live", rows(u9=500.0))
    Worker(project).run(once=True)
    assert history(project.root, "u9") == []


def test_more_looks_than_are_kept_become_one_look_at_everybody(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "MAX_WAITING_LOOKS", 3)
    monkeypatch.setattr(looks, "MAX_ENTITIES", 10)
    store = FeastRepo(project).store
    with redis.Redis.from_url(EmbeddedStore(project.root).url) as client:
        asked = client.xlen(sweeps_key("shop"))
        with quiet():
            for _ in range(5):
                store.push("live_live", rows(u1=500.0))
        assert sum(client.xlen(key) for key in stream_keys("shop")) == 3
        assert client.xlen(sweeps_key("shop")) == asked + 2
        request_looks(client, "shop", [f"u{number}" for number in range(11)], "push", ["live"])
        assert sum(client.xlen(key) for key in stream_keys("shop")) == 3
        assert client.xlen(sweeps_key("shop")) == asked + 3
    Worker(project).run(once=True)
    assert history(project.root, "u1") == [("big", "enter", "push")]


def test_nothing_is_kept_where_no_worker_has_ever_run(client: redis.Redis) -> None:
    request_looks(client, "other", ["u1"], "push", ["live"])
    assert client.keys("*") == []
