"""A project with a model on disk: habits at the first of each month, orders that follow them, and a view of scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from rules_engine.clock import parse_instant
from rules_engine.deploy.apply import apply
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.folders import Project
from rules_engine.ml.propensity.fit import fit
from rules_engine.ml.propensity.model import PropensityModel
from rules_engine.ml.propensity.project import ModelProject
from tests.model_data import CUTS, plain

TIME = pa.timestamp("us", tz="UTC")
USERS = [f"u{number:04d}" for number in range(300)]
SPRING = [parse_instant(cut) for cut in CUTS]
NOW = parse_instant("2026-06-15T00:00:00Z")

VIEWS = """\
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.data_format import ParquetFormat
from feast.types import Bool, Float64, Int64, String, UnixTimestamp
from tests.warehouse import Warehouse

DATA = Path(__file__).parent / "data"
user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)


def view(name, ttl, schema, kind=FileSource):
    return FeatureView(
        name=name, entities=[user], ttl=timedelta(days=ttl), schema=schema,
        source=kind(
            name=name, path=str(DATA / f"{name}.parquet"), timestamp_field="event_timestamp",
            file_format=ParquetFormat(),
        ),
    )


habits = view("habits", 45, [
    Field(name="recency", dtype=Int64), Field(name="orders", dtype=Int64), Field(name="basket", dtype=Float64),
    Field(name="city", dtype=String), Field(name="member", dtype=Bool), Field(name="joined", dtype=UnixTimestamp),
])
orders = view("orders", 0, [Field(name="amount", dtype=Float64)])
propensity = view("propensity", 0, [
    Field(name="score", dtype=Float64), Field(name="percentile", dtype=Float64),
    Field(name="model_version", dtype=String),
], {source})
"""
EVENTS = """\
events:
  purchase:
    properties: {amount: {type: number}}
    retention: 400d
"""


def habits(seed: int = 0) -> pd.DataFrame:
    """Everyone's habits at the first of each month, January to June."""
    random = np.random.default_rng(seed)
    parts = []
    for month in range(1, 7):
        at = pd.Timestamp(f"2026-0{month}-01", tz="UTC")
        size = len(USERS)
        parts.append(
            pd.DataFrame(
                {
                    "user_id": USERS,
                    "event_timestamp": at,
                    "recency": random.integers(0, 100, size),
                    "orders": 1 + np.arange(size) % 7,
                    "basket": np.where(np.arange(size) % 5 == 0, np.nan, random.gamma(2, 20, size)),
                    "city": np.where(np.arange(size) % 3 == 0, "oslo", "bergen"),
                    "member": np.arange(size) % 2 == 0,
                    "joined": at - pd.to_timedelta(np.arange(size), unit="D"),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def orders(seed: int = 1) -> pd.DataFrame:
    """Who ordered often orders more: a few orders of each of them, at any time of the half year."""
    random = np.random.default_rng(seed)
    counts = random.poisson(0.4 + (np.arange(len(USERS)) % 7) * 0.5)
    users = np.repeat(USERS, counts)
    days = random.uniform(0, 165, len(users))
    at = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(days * 86_400 // 1, unit="s")
    return pd.DataFrame({"user_id": users, "event_timestamp": at, "amount": random.gamma(2, 20, len(users))})


HABITS = pa.schema(
    [
        ("user_id", pa.string()),
        ("event_timestamp", TIME),
        ("recency", pa.int64()),
        ("orders", pa.int64()),
        ("basket", pa.float64()),
        ("city", pa.string()),
        ("member", pa.bool_()),
        ("joined", TIME),
    ]
)
ORDERS = pa.schema([("user_id", pa.string()), ("event_timestamp", TIME), ("amount", pa.float64())])
SCORES = pa.schema(
    [
        ("user_id", pa.string()),
        ("event_timestamp", TIME),
        ("score", pa.float64()),
        ("percentile", pa.float64()),
        ("model_version", pa.string()),
    ]
)


def write(project: Project, name: str, frame: pd.DataFrame, schema: pa.Schema) -> None:
    table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
    pq.write_table(table, project.feature_repo / "data" / name)


def shop_maker(make_project: Callable[..., Project]) -> Callable[..., Project]:
    """What makes such a shop: with other segments, and other entries of the definition."""

    def make(source: str = "FileSource", segments: Mapping[str, str] | None = None, **changes: Any) -> Project:
        project = make_project(
            {
                "feature_repo/views.py": VIEWS.replace("{source}", source),
                "feature_repo/models.yaml": yaml.safe_dump(plain(**changes), sort_keys=False),
                "feature_repo/events.yaml": EVENTS,
                "segments/project.yaml": "project: shop\nnow: 2026-06-15T00:00:00Z\n",
                **(segments or {}),
            }
        )
        (project.feature_repo / "data").mkdir()
        write(project, "habits.parquet", habits(), HABITS)
        write(project, "orders.parquet", orders(), ORDERS)
        pq.write_table(SCORES.empty_table(), project.feature_repo / "data" / "propensity.parquet")
        return project

    return make


def opened(project: Project) -> ModelProject:
    repo = FeastRepo(project)
    apply(project, {}, repo=repo, now=NOW)
    return ModelProject.open(project)


def fitted(shop: ModelProject, version: str = "v1") -> PropensityModel:
    model = fit(shop.definition, shop.material(), shop.now)
    return replace(model, version=version, scorer=replace(model.scorer, version=version))
