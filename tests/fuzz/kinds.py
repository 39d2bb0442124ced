"""What is fuzzed: by kind a function that does one run, by its seed, on the project that all runs share."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from typer.testing import CliRunner

from rules_engine import SegmentClient
from rules_engine.cli.main import app
from rules_engine.errors import SegmentsError
from rules_engine.events.declarations.events_yaml import parse_events
from rules_engine.folders import Project
from rules_engine.project.catalog import project_catalog
from rules_engine.rules.load import load_text
from rules_engine.testing import evaluate
from tests.fuzz.damage import NASTY, ODD, damage_bytes, damage_json, damage_text

EVENTS = """\
events:
  view:
    properties:
      page: {type: string}
      seconds: {type: number, minimum: 0}
      tags: {type: array, items: {type: string}}
    retention: 30d
    features:
      views_1h: {count: , within: 1h}
      longest_view_1d: {max: seconds, within: 1d, where: {page: {not_equals: home}}}
  purchase:
    properties:
      order: {type: string}
      amount: {type: number}
      quantity: {type: integer}
      due: {type: string, format: date-time}
    required: [amount]
    id: order
    retention: ever
"""

SEGMENTS = """\
segment: mobile_shoppers
description: Mobile shoppers who linger
tags: [intent]
when:
  all:
    - {feature: u:device, equals: mobile, ignore_case: true}
    - {feature: u:age, between: [18, 65]}
    - {did: view, within: 1h, count: {at_least: 2}, where: {page: {matches: "^/p/[0-9]+$"}}}
    - {not_in_segment: buyers}
---
segment: buyers
when:
  any:
    - {sum: {event: purchase, of: amount}, within: 30d, greater_than: 100.5}
    - {last: {event: purchase, of: order}, within: ever, starts_with: A}
    - sequence: [{did: view}, {did: purchase, within: 30m}, {did_not: purchase, within: 1d}]
      within: 7d
---
segment: weekend
when:
  any:
    - {clock: day_of_week, in: [saturday, sunday], timezone: Europe/Oslo}
    - {context: device, equals: tv, default: tv}
---
trigger: recover
on_enter: buyers
delay: 10m
cooldown: 7d
cap: {max: 2, per: 30d}
quiet_hours: {from: "21:00", to: "08:00", timezone: Europe/Oslo, policy: defer}
holdout: {percent: 10}
send: [{stream: actions}]
payload: {spent: {sum: {event: purchase, of: amount}, within: 30d}, device: {feature: u:device}}
"""

VIEWS = """\
from pathlib import Path
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Int64, String
data = Path(__file__).resolve().parent / "data"
user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
u = FeatureView(
    name="u", entities=[user],
    source=FileSource(path=str(data / "u.parquet"), timestamp_field="at"),
    schema=[Field(name="device", dtype=String), Field(name="age", dtype=Int64)],
)
"""

STORE = """\
project: fuzz
provider: local
registry: ../.segments/registry.db
offline_store: {type: duckdb}
online_store: {type: rules_engine.features.online_store.EmbeddedOnlineStore}
batch_engine: {type: rules_engine.features.arrow_engine.ArrowEngine}
entity_key_serialization_version: 3
"""

AT = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Ground:
    """The applied project that all runs use, and what of it is damaged in copies."""

    root: Path
    catalog: Any
    plan: str


def make_ground(root: Path) -> Ground:
    """Make the project in an empty folder: applied, materialized, with some events."""
    for path, text in {
        "feature_repo/feature_store.yaml": STORE,
        "feature_repo/views.py": VIEWS,
        "feature_repo/events.yaml": EVENTS,
        "segments/all.yaml": SEGMENTS,
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    (root / "feature_repo/data").mkdir()
    users = pa.table(
        {
            "user_id": ["a", "b"],
            "at": pa.array([AT, AT]),
            "device": ["mobile", None],
            "age": pa.array([20, None], pa.int64()),
        }
    )
    pq.write_table(users, root / "feature_repo/data/u.parquet")
    for command in ("apply", "materialize"):
        done = CliRunner().invoke(app, [command, "--repo", str(root)])
        assert done.exit_code == 0, done.output
    plan = Project(root).read_plan.read_text(encoding="utf-8")
    return Ground(root, project_catalog(Project.open(root)), plan)


# --- one run of each kind -------------------------------------------------------------------------------------------


def definitions(ground: Ground, draw: random.Random) -> None:
    """Load damaged definitions; what loads is evaluated."""
    if draw.random() < 0.3:
        parse_events(damage_text(draw, EVENTS), "events.yaml")
        return
    loaded = load_text(damage_text(draw, SEGMENTS), ground.catalog)
    for segment in loaded.program.segments.values():
        assert segment.name


def conditions(ground: Ground, draw: random.Random) -> None:  # every kind takes the same
    """Evaluate conditions that are odd data and not YAML."""
    tree = {"all": [{"feature": "u:age", "at_least": 3}, {"did": "view", "within": "1h", "count": {"at_least": 1}}]}
    events = [{"event": "view", "at": AT, "seconds": 5}]
    evaluate(damage_json(draw, tree, 0.1), features={"u:age": draw.choice(ODD)}, events=events, now=AT)


def events(ground: Ground, draw: random.Random) -> None:
    """Ingest a damaged file."""
    ending, data = draw.choice(tuple(_FILES.items()))
    path = ground.root / f"in{ending}"
    path.write_bytes(damage_bytes(draw, data) if draw.random() < 0.7 else _damaged_text(draw, data))
    _command("ingest", str(path), "--repo", str(ground.root))


def plans(ground: Ground, draw: random.Random) -> None:
    """Open a client on a damaged read plan."""
    project = Project(ground.root)
    if draw.random() < 0.5:
        damaged = damage_text(draw, ground.plan)
    else:
        damaged = json.dumps(damage_json(draw, json.loads(ground.plan), 0.01))
    try:
        project.read_plan.write_text(damaged, encoding="utf-8", errors="surrogatepass")
        with SegmentClient.from_repo(ground.root) as client:
            client.lookup("a")
    finally:
        project.read_plan.write_text(ground.plan, encoding="utf-8")


def requests(ground: Ground, draw: random.Random) -> None:
    """Ask and report with odd arguments, of the types that a request of JSON can have."""
    with SegmentClient.from_repo(ground.root) as client:
        entity = draw.choice(("a", "b", *NASTY))
        context = {name: draw.choice(ODD) for name in draw.sample(("device", "x", "", "u:age"), 2)}
        client.lookup(entity, context=context, segments=draw.choice((None, ["buyers"], [draw.choice(NASTY)])))
        client.explain(entity, "mobile_shoppers", context=context)
        properties = damage_json(draw, {"page": "/p/1", "seconds": 3, "tags": ["a"]}, 0.2)
        at = draw.choice(
            (None, AT, AT - timedelta(days=400), datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC))
        )
        if isinstance(properties, dict):
            client.track(
                entity,
                draw.choice(("view", "purchase", *NASTY[:30])),
                properties,
                at=at,
                event_id=draw.choice((None, *NASTY)),
            )


def models(ground: Ground, draw: random.Random) -> None:
    """Use a project whose versions of clusters and models are damaged."""
    for folder in ("clusters", "models"):
        path = ground.root / ".segments" / folder / "groups"
        path.mkdir(parents=True, exist_ok=True)
        content = damage_json(
            draw, {"version": 1, "name": "groups", "kind": "kmeans", "centres": [[0.0, 1.0]], "checksum": "x"}, 0.2
        )
        (path / "v1.json").write_text(damage_text(draw, json.dumps(content)), encoding="utf-8", errors="surrogatepass")
    for noun in ("cluster", "model"):
        _command(noun, "list", "--repo", str(ground.root))


def _command(*arguments: str) -> None:
    """Run a command of ours: it may refuse, but not fall."""
    done = CliRunner().invoke(app, list(arguments))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert "Traceback" not in done.output


_ROWS = [
    {"entity": "a", "event": "view", "at": "2026-02-28T10:00:00Z", "event_id": "1", "page": "/p/1", "seconds": 3.5},
    {"entity": "b", "event": "purchase", "at": 1_772_300_000_000_000, "order": "A1", "amount": 12.5, "quantity": 2},
    {
        "entity": "a",
        "event": "purchase",
        "at": "2026-02-28T11:00:00+01:00",
        "order": "A2",
        "amount": 7,
        "due": "2026-03-01T00:00:00Z",
    },
]


def _csv() -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in _ROWS for name in row)))
    writer.writeheader()
    writer.writerows(_ROWS)
    return text.getvalue().encode()


def _parquet() -> bytes:
    buffer = pa.BufferOutputStream()
    rows = [{**row, "at": str(row["at"])} for row in _ROWS]
    pq.write_table(pa.Table.from_pylist(rows), buffer, compression="none")
    return bytes(buffer.getvalue())


_FILES: Mapping[str, bytes] = {
    ".jsonl": "".join(json.dumps(row) + "\n" for row in _ROWS * 3).encode(),
    ".csv": _csv(),
    ".parquet": _parquet(),
}


def _damaged_text(draw: random.Random, data: bytes) -> bytes:
    return damage_text(draw, data.decode("latin-1")).encode("utf-8", "surrogatepass")


KINDS: Mapping[str, Callable[[Ground, random.Random], None]] = {
    kind.__name__: kind for kind in (definitions, conditions, events, plans, requests, models)
}

#: What the product may answer with: its own errors, and Python's for arguments of a wrong type or value.
NAMED = (SegmentsError, TypeError, ValueError)

__all__ = ["KINDS", "NAMED", "Ground", "make_ground"]
