"""The project that all runs use, and the sound input that they damage copies of."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from typer.testing import CliRunner

from rules_engine.cli.main import app
from rules_engine.folders import Project
from rules_engine.ml.clusters.fitting import fit as fit_clusters
from rules_engine.ml.clusters.model import CLUSTERS
from rules_engine.ml.propensity.fit import fit as fit_model
from rules_engine.ml.propensity.model import MODELS
from rules_engine.ml.versions.kinds import ModelKind
from rules_engine.project.catalog import project_catalog
from rules_engine.rules.load import Definitions, load_text
from tests import cluster_data, model_data

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

CASES = """\
test: buyers
cases:
  - name: a large purchase
    at: 2026-02-01T12:00:00Z
    events:
      - {event: purchase, at: 2026-02-01T11:00:00Z, amount: 120, order: B1}
    expect: true
    then: [{at: 2026-03-04T12:00:00Z, expect: false}, {after: 1h, expect: true}]
    exits: [{at: 2026-03-03T11:00:00Z}]
---
test: {trigger: recover}
cases:
  - name: in the morning, as the evening is quiet
    at: 2026-02-01T12:00:00Z
    features: {u:device: mobile}
    events:
      - {event: purchase, after: 9h, amount: 120, order: A1}
    fires: [{at: 2026-02-02T07:00:00Z, payload: {spent: 120}}]
"""

CLUSTERS_YAML = """\
clusters: groups
description: Ages
features:
  - {feature: u:age, scale: log, low: young, high: old}
  - {feature: u:visits, low: quiet, high: active}
order_by: u:age
k: {from: 2, to: 4}
max_moved: 20%
names: [{cluster: 1, label: elders}]
"""

MODELS_YAML = """\
model: next_purchase
target: {did: purchase, within: 30d}
features: [u:age, u:device, {feature: u:visits, scale: log}]
cuts: {count: 8, every: 30d}
test_cuts: 2
algorithms: {logistic_regression: {C: [0.01, 1]}}
search: {folds: 3, rows: 30000}
calibration: sigmoid
baseline: {recency: u:age, frequency: u:age}
"""

VIEWS = """\
from pathlib import Path
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, Int64, String

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)


def view(name, **fields):
    path = Path(__file__).resolve().parent / "data" / f"{name}.parquet"
    schema = [Field(name=field, dtype=dtype) for field, dtype in fields.items()]
    source = FileSource(path=str(path), timestamp_field="at")
    return FeatureView(name=name, entities=[user], source=source, schema=schema)


u = view("u", device=String, age=Int64, visits=Int64)
groups = view("groups", label=String, cluster=Int64, distance=Float64, model_version=String)
next_purchase = view("next_purchase", score=Float64, percentile=Float64, model_version=String)
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

#: The columns of labels and scores, by view.
_LEARNED = {
    "groups": {"label": pa.string(), "cluster": pa.int64(), "distance": pa.float64(), "model_version": pa.string()},
    "next_purchase": {"score": pa.float64(), "percentile": pa.float64(), "model_version": pa.string()},
}

AT = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass(frozen=True)
class StoredVersion:
    """A file of a version of clusters or of a model."""

    kind: ModelKind[Any]
    name: str
    file: bytes


@dataclass(frozen=True)
class Ground:
    """The applied project that all runs use, and what of it is damaged in copies."""

    root: Path
    catalog: Any
    plan: dict[str, Any]
    definitions: Definitions
    versions: tuple[StoredVersion, ...]

    @property
    def project(self) -> Project:
        return Project(self.root)


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
            "visits": [3, 0],
        }
    )
    pq.write_table(users, root / "feature_repo/data/u.parquet")
    for name, columns in _LEARNED.items():
        empty = pa.schema([*users.schema][:2] + [pa.field(column, kind) for column, kind in columns.items()])
        pq.write_table(empty.empty_table(), root / f"feature_repo/data/{name}.parquet")
    (root / "sound.jsonl").write_bytes(EVENT_FILES[".jsonl"])
    for command in (["apply"], ["materialize"], ["ingest", str(root / "sound.jsonl")]):
        done = CliRunner().invoke(app, [*command, "--repo", str(root)])
        assert done.exit_code == 0, done.output
    plan = json.loads(Project(root).read_plan.read_bytes())
    catalog = project_catalog(Project.open(root))
    return Ground(root, catalog, plan, load_text(SEGMENTS, catalog), _stored_versions())


def _stored_versions() -> tuple[StoredVersion, ...]:
    clusters = fit_clusters(cluster_data.definition(), cluster_data.four_groups(60), cluster_data.NOW)
    model = fit_model(model_data.definition(), model_data.material(200), model_data.NOW)
    return (
        StoredVersion(CLUSTERS, clusters.name, CLUSTERS.encode(clusters.numbered("v1", cluster_data.NOW))),
        StoredVersion(MODELS, model.name, MODELS.encode(model.numbered("v1", model_data.NOW))),
    )


# --- files of events ------------------------------------------------------------------------------------------------

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
_NAMES = list(dict.fromkeys(name for row in _ROWS for name in row))


def _separated(separator: str) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, _NAMES, delimiter=separator)
    writer.writeheader()
    writer.writerows(_ROWS)
    return text.getvalue().encode()


def _parquet(compression: str) -> bytes:
    buffer = pa.BufferOutputStream()
    columns = {name: [row.get(name) for row in _ROWS] for name in _NAMES}
    columns["at"] = [str(at) for at in columns["at"]]
    pq.write_table(pa.table(columns), buffer, compression=compression)
    return bytes(buffer.getvalue())


_LINES = b"".join(orjson.dumps(row) + b"\n" for row in _ROWS * 3)

#: A sound file of events by the ending of its name, before it is compressed.
EVENT_FILES: Mapping[str, bytes] = {
    ".jsonl": _LINES,
    ".ndjson.gz": _LINES,
    ".jsonl.zst": _LINES,
    ".csv": _separated(","),
    ".csv.gz": _separated(";"),
    ".tsv": _separated("\t"),
    ".tsv.zst": _separated("\t"),
    ".parquet": _parquet("none"),
    ".PARQUET": _parquet("zstd"),
}
