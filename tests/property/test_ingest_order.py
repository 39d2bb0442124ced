"""Whatever the order of files, the size of batches, and when definitions were applied: the answers are the log's."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rules_engine.clock import DAY, MINUTE, from_micros, to_micros
from rules_engine.deploy.backfill import Backfill
from rules_engine.events.declarations.events_yaml import parse_events
from rules_engine.events.state import store as state_store
from rules_engine.events.state.requirements import requirements_of
from rules_engine.folders import Project
from rules_engine.read_plan import Connection, ReadPlan
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.evaluate import Evaluation
from rules_engine.rules.events import aggregate_value
from rules_engine.rules.inputs import Event, Inputs, in_order
from rules_engine.rules.load import load_text
from rules_engine.sdk import SegmentClient, event_rules
from rules_engine.sdk.rules import Rules, encode_definitions
from rules_engine.stream import rebuilding
from rules_engine.stream.event_sink import EventSink
from rules_engine.stream.files import ingest as event_files
from rules_engine.stream.files.ingest import ingest_file
from tests.event_shop import NOW
from tests.stores import put_into_effect

EVENTS = """\
events:
  line:
    properties: {amount: {type: number}, kind: {type: string}}
    retention: ever
    features:
      spent: {sum: amount, within: ever}
      mean: {avg: amount, within: ever}
      lines: {count: , within: ever}
      large: {sum: amount, within: ever, where: {kind: a}}
      first_kind: {first: kind, within: ever}
"""
SEGMENTS = """\
segment: spender
when: {sum: {event: line, of: amount}, within: ever, at_least: 20}
---
segment: of_late
when: {did: line, within: 30d, count: {at_least: 2}}
---
segment: once
when: {did_not: line, within: 90d, where: {kind: b}}
"""
NOTHING = "segment: nobody\nwhen: {clock: time_of_day, between: ['00:00', '00:01']}\n"
DECLARED = parse_events(EVENTS)


def plan(connection: Connection, segments: str, events: str = EVENTS) -> ReadPlan:
    declared = parse_events(events)
    catalog = Catalog(events=declared.types, event_features=declared.features)
    definitions = encode_definitions(load_text(segments, catalog), declared)
    return ReadPlan("shop", "user", "user_id", 3, connection, (), definitions, 0, to_micros(NOW))


@dataclass
class Trial:
    """A log that is cut into files, and what is done with them in which order."""

    seed: int
    users: int
    rows: int
    days: int
    order: str
    files: int
    batch: int
    group: int
    bound: int
    applied: int  # after how many files the definitions are applied
    again: bool


@st.composite
def trials(draw: st.DrawFn) -> Trial:
    files = draw(st.integers(1, 4))
    return Trial(
        seed=draw(st.integers(0, 2**20)),
        users=draw(st.sampled_from([1, 2, 7, 40])),
        rows=draw(st.sampled_from([1, 12, 60, 250])),
        days=draw(st.sampled_from([1, 6, 30, 400])),
        order=draw(st.sampled_from(["time", "reverse", "user", "random"])),
        files=files,
        batch=draw(st.sampled_from([1, 3, 10, 50, 1_000])),
        group=draw(st.sampled_from([1, 3, 500])),
        bound=draw(st.sampled_from([2, 5, 1_000])),
        applied=draw(st.integers(0, files)),
        again=draw(st.booleans()),
    )


def rows_of(trial: Trial) -> list[dict[str, Any]]:
    entropy = random.Random(trial.seed)
    rows = []
    for number in range(trial.rows):
        ago = int(entropy.random() * trial.days * DAY / MINUTE) * MINUTE
        rows.append(
            {
                "entity": f"u{entropy.randrange(trial.users)}",
                "event": "line",
                "at": from_micros(to_micros(NOW) - ago).isoformat(),
                "event_id": str(number),
                "properties": {"amount": entropy.choice([1, 0.1, 2.5]), "kind": entropy.choice("ab")},
            }
        )
    keys = {
        "time": lambda row: row["at"],
        "reverse": lambda row: -to_micros(_at(row)),
        "user": lambda row: (row["entity"], row["at"]),
        "random": lambda row: entropy.random(),
    }
    return sorted(rows, key=keys[trial.order])


def _at(row: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(row["at"])


@pytest.fixture
def server(store_server: EmbeddedStore) -> Connection:
    return Connection("redis", store_server.connection_string)


def run_trial(trial: Trial, connection: Connection, url: str) -> int:
    """Do what a trial says, and compare with the log; returns how many states were rebuilt."""
    with redis.Redis.from_url(url) as client:
        client.flushall()
    root = Path(tempfile.mkdtemp())
    (root / "segments").mkdir()
    (root / "feature_repo").mkdir()
    (root / "feature_repo/feature_store.yaml").touch()
    project = Project(root)
    shrunk = partial(requirements_of, bound=trial.bound)
    try:
        with (
            patch.object(event_files, "BATCH", trial.batch),
            patch.object(state_store, "BATCH", trial.group),
            patch.object(rebuilding, "BATCH", trial.group),
            patch.object(event_rules, "requirements_of", shrunk),
        ):
            rows = rows_of(trial)
            rebuilt = take(project, connection, trial, rows)
            compare(project, rows)
            return rebuilt
    finally:
        shutil.rmtree(root)


def take(project: Project, connection: Connection, trial: Trial, rows: list[dict[str, Any]]) -> int:
    before = EVENTS.partition("    features:")[0]
    put_into_effect(plan(connection, NOTHING, before), project)
    size = -(-len(rows) // trial.files)
    rebuilt = 0
    for number in range(trial.files + 1):
        if number == trial.applied:
            apply(project, plan(connection, SEGMENTS))
        path = project.root / f"{number}.jsonl"
        path.write_text("\n".join(json.dumps(row) for row in rows[number * size : (number + 1) * size]))
        for _ in range(1 + trial.again):
            sink = EventSink(project, Rules(ReadPlan.load(project.read_plan)))
            rebuilt += ingest_file(project, sink, path).rebuilt
            sink.close()
    return rebuilt


def apply(project: Project, new: ReadPlan) -> None:
    backfill = Backfill(project, new)
    backfill.prepare()
    new.save(project.read_plan)
    backfill.finish()
    backfill.close()


def compare(project: Project, rows: list[dict[str, Any]]) -> None:
    rules = Rules(ReadPlan.load(project.read_plan))
    now = to_micros(NOW)
    logs: dict[str, list[Event]] = {}
    for row in rows:
        event = Event("line", to_micros(_at(row)), f"line:{row['event_id']}", row["properties"])
        logs.setdefault(row["entity"], []).append(event)
    names = [f"events:{name}" for name in DECLARED.features]
    with SegmentClient(project) as client:
        for found in client.lookup_many(list(logs)):
            log = in_order(logs[found.entity])
            evaluation = Evaluation(rules.program, Inputs(events=log), now)
            assert found.segments == {name for name in rules.program.names if evaluation.segment(name)}
            values = {f"events:{name}": aggregate_value(of, log, now) for name, of in DECLARED.features.items()}
            assert client.features(found.entity, names) == values


@given(trials())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=25)
def test_state_does_not_depend_on_batches_files_or_when_definitions_were_applied(
    server: Connection, store_server: EmbeddedStore, trial: Trial
) -> None:
    run_trial(trial, server, store_server.url)


LARGE = Trial(
    seed=7, users=60, rows=12_500, days=360, order="time", files=1, batch=5_000, group=500, bound=1_000, applied=0,
    again=False,
)  # fmt: skip


@pytest.mark.parametrize(
    "trial",
    [
        pytest.param(LARGE, id="a file of several batches after apply"),
        pytest.param(replace(LARGE, order="random", files=3), id="several files in no order"),
        pytest.param(
            replace(LARGE, users=1, rows=6_500, days=5, order="random"), id="more events of one user than a state keeps"
        ),
    ],
)
def test_large_logs_are_whole_by_the_bounds_that_the_code_has(
    trial: Trial, server: Connection, store_server: EmbeddedStore
) -> None:
    assert trial.rows > event_files.BATCH
    assert run_trial(trial, server, store_server.url) > 0, "no total had to be rebuilt: the trial is too small"


def test_a_log_of_before_the_definitions_is_whole_without_rebuilding(
    server: Connection, store_server: EmbeddedStore
) -> None:
    assert run_trial(replace(LARGE, applied=1), server, store_server.url) == 0
