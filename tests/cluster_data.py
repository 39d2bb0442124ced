"""Data of known structure for the tests of clusters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from rules_engine.clock import from_micros, parse_instant
from rules_engine.folders import Project
from rules_engine.ml.clusters.definition import ClusterDefinition

NOW = parse_instant("2026-03-01T00:00:00Z")


def definition(**changes: Any) -> ClusterDefinition:
    content = {
        "clusters": "user_clusters",
        "features": [
            {"feature": "habits:orders", "scale": "log", "low": "rare", "high": "frequent"},
            {"feature": "habits:basket", "low": "small basket", "high": "big basket"},
        ],
        "k": {"from": 2, "to": 6},
    }
    return ClusterDefinition.from_plain({**content, **changes})


def four_groups(users: int = 400, seed: int = 1) -> pd.DataFrame:
    """Four groups far apart: few or many orders, small or big baskets."""
    random = np.random.default_rng(seed)
    orders = np.where(np.arange(users) % 2 == 0, random.integers(1, 3, users), random.integers(60, 80, users))
    basket = np.where(np.arange(users) // 2 % 2 == 0, random.normal(10, 1, users), random.normal(90, 4, users))
    index = pd.Index([f"u{number:04d}" for number in range(users)], name="user_id")
    return pd.DataFrame({"habits:orders": orders, "habits:basket": basket}, index=index)


# --- a project with the view `v` of some users' features, and a view of their labels --------------------------------

VIEWS = """\
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Bool, Float64, Int64, String

DATA = Path(__file__).parent / "data"
user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
def view(name, **columns):
    source = FileSource(name=name, path=str(DATA / f"{name}.parquet"), timestamp_field="event_timestamp")
    fields = [Field(name=column, dtype=kind) for column, kind in columns.items()]
    return FeatureView(name=name, entities=[user], ttl=timedelta(0), source=source, schema=fields)
v = view("v", COLUMNS)
user_clusters = view("user_clusters", label=String, cluster=Int64, distance=Float64, model_version=String, MORE)
"""
LABELS = {"label": pa.string(), "cluster": pa.int64(), "distance": pa.float64(), "model_version": pa.string()}
_KEYS = {"user_id": pa.string(), "event_timestamp": pa.timestamp("us", tz="UTC")}


def project_files(frame: pd.DataFrame, clusters: str, more: str = "") -> dict[str, str]:
    """The files of a project that groups the users of a frame, whose columns are ``v:...``; ``more`` label columns."""
    columns = ", ".join(f"{name.partition(':')[2]}=Float64" for name in frame.columns)
    views = VIEWS.replace("COLUMNS", columns).replace("MORE", more)
    return {"feature_repo/views.py": views, "feature_repo/clusters.yaml": clusters}


def write_features(project: Project, frame: pd.DataFrame, instant: int = NOW) -> None:
    """Make these the features that users have had since an instant."""
    data = project.feature_repo / "data"
    data.mkdir(exist_ok=True)
    frame = frame.rename(columns=lambda name: name.partition(":")[2]).rename_axis("user_id")
    frame = frame.assign(event_timestamp=pd.Timestamp(from_micros(instant)).as_unit("us"))
    pq.write_table(pa.Table.from_pandas(frame.reset_index(), preserve_index=False), data / "v.parquet")
    if not (data / "user_clusters.parquet").exists():
        pq.write_table(pa.schema({**_KEYS, **LABELS}).empty_table(), data / "user_clusters.parquet")
