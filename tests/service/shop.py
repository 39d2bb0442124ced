"""A shop with features, events and keys, applied and materialized by Feast: what the tests of the service ask about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pandas as pd

from rules_engine.deploy.definitions import apply_project
from rules_engine.deploy.materialize import materialize
from rules_engine.features.feast_import import quiet
from rules_engine.folders import Project

#: By role, the key that the project knows; ``ENVIRONMENT`` holds them as the settings name them.
KEYS = {role: f"{role}-key-of-the-shop" for role in ("evaluate", "track", "read", "admin")}
ENVIRONMENT = {f"SHOP_{role.upper()}_KEY": key for role, key in KEYS.items()}

_DEFINITIONS = """\
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureView, Field, FileSource, PushSource, ValueType
from feast.types import Float64, Int64, String

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
profile = FeatureView(
    name="profile",
    entities=[user],
    ttl=timedelta(days=3650),
    schema=[Field(name="country", dtype=String), Field(name="age", dtype=Int64), Field(name="spent", dtype=Float64)],
    source=PushSource(
        name="profile_push",
        batch_source=FileSource(
            name="profile_file",
            path=str(Path(__file__).parent / "data" / "profile.parquet"),
            timestamp_field="event_timestamp",
        ),
    ),
)
"""

_EVENTS = """\
events:
  view:
    properties: {page: {type: string}}
    retention: 30d
    features: {views_1h: {count: , within: 1h}}
  purchase:
    properties: {sku: {type: string}, amount: {type: number}, order_id: {type: string}}
    aliases: [Order Completed, com.example.order.completed]
    retention: 30d
    features:
      orders: {count: , within: 30d}
      spend: {sum: amount, within: 30d}
      last_order: {last: order_id, within: 30d}
  page:
    properties: {name: {type: string}, url: {type: string}}
    retention: 30d
    features: {last_page: {last: name, within: 30d}}
traits: profile
"""

SEGMENTS = """\
project: shop
service:
  keys:
    evaluate: ["${SHOP_EVALUATE_KEY}"]
    track: ["${SHOP_TRACK_KEY}"]
    read: ["${SHOP_READ_KEY}"]
    admin: ["${SHOP_ADMIN_KEY}"]
  cors: ["https://shop.example"]
---
segment: adults
description: People of age
public: true
when: {feature: profile:age, at_least: 18}
---
segment: norwegians
when: {feature: profile:country, equals: NO}
---
segment: keen
public: true
when: {did: view, within: 1h, count: {at_least: 2}}
---
segment: mobile
public: true
when: {context: device, equals: mobile}
---
segment: leaves_soon
when: {context: departure, in_next: 2h}
---
decision: banner
public: true
variants: {none: {value: null}, adult: {value: {text: Hello}}, halves: {value: {text: Half}}}
rules:
  - {when: {in_segment: adults}, serve: adult}
  - {when: {context: device, equals: mobile}, serve: {none: 50, halves: 50}}
default: none
---
decision: discount
variants: {low: {value: 5}, high: {value: 12.5}}
rules: [{when: {in_segment: norwegians}, serve: high}]
default: low
"""

FILES = {"feature_repo/definitions.py": _DEFINITIONS, "feature_repo/events.yaml": _EVENTS, "segments/a.yaml": SEGMENTS}


def rows(**users: tuple[str | None, int | None, float]) -> pd.DataFrame:
    """Rows of the view ``profile`` as of an hour ago, by user: country, age and spent."""
    at = pd.Timestamp(datetime.now(UTC) - timedelta(hours=1)).floor("us")
    frame = pd.DataFrame.from_dict(users, orient="index", columns=["country", "age", "spent"])
    return frame.astype({"age": "Int64"}).rename_axis("user_id").reset_index().assign(event_timestamp=at)


def put_into_effect(project: Project) -> None:
    """Write the shop's rows, and apply and materialize the project."""
    (project.feature_repo / "data").mkdir()
    people = rows(ada=("NO", 36, 120.5), bob=("DE", 17, 0.0), cyd=(None, None, 3.0), **{"a/b c": ("NO", 50, 1.0)})
    people.to_parquet(project.feature_repo / "data" / "profile.parquet")
    with quiet():
        apply_project(project)
        materialize(project)
