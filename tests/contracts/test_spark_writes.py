"""Materialization by Feast's Spark engine, in local mode: what our workers write, against what Feast's write.

Needs Java and the package ``pyspark``; without them it is skipped.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from rules_engine.deploy.apply import apply
from rules_engine.deploy.materialize import materialize
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.features.feast_import import quiet
from rules_engine.folders import Project
from rules_engine.redis.embedded import EmbeddedStore

pyspark = pytest.importorskip("pyspark.sql")
if shutil.which("java") is None:
    pytest.skip("Java is not installed", allow_module_level=True)

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

AT = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
USERS = 3_000

FEASTS = ("redis", "spark.engine")
OURS = (
    "rules_engine.features.online_store.BulkRedisOnlineStore",
    "rules_engine.features.spark_engine.SparkArrowEngine",
)
YAML = """\
project: shop
provider: local
registry: ../.segments/registry.db
entity_key_serialization_version: 3
offline_store:
  type: spark
  spark_conf: {{spark.master: "local[2]", spark.ui.enabled: "false", spark.sql.session.timeZone: UTC}}
batch_engine: {{type: {engine}, partitions: 2}}
online_store:
  type: {store}
  connection_string: "{address}"
"""
DEFINITIONS = """\
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureView, Field, ValueType
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
from feast.types import Array, Bool, Float64, Int64, String, UnixTimestamp

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
path = str(Path(__file__).parent / "v.parquet")
source = SparkSource(name="v", path=path, file_format="parquet", timestamp_field="event_timestamp")
v = FeatureView(
    name="v", entities=[user], ttl=timedelta(0), source=source,
    schema=[
        Field(name="points", dtype=Int64), Field(name="amount", dtype=Float64), Field(name="word", dtype=String),
        Field(name="flag", dtype=Bool), Field(name="words", dtype=Array(String)),
        Field(name="seen", dtype=UnixTimestamp),
    ],
)
"""


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[Any]:
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = pyspark.SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    builder = builder.config("spark.sql.session.timeZone", "UTC").config("spark.sql.shuffle.partitions", "2")
    made = builder.getOrCreate()
    yield made
    made.stop()


def write_rows(project: Project, points: int, at: datetime) -> None:
    """A row of each user, and an older one of every third."""
    users = [*range(USERS), *range(0, USERS, 3)]
    old = [number >= USERS for number in range(len(users))]
    kind = pa.timestamp("us", "UTC")
    columns = {
        "user_id": [f"user {user} \U0001f6d2" for user in users],
        "event_timestamp": pa.array([at - timedelta(days=is_old) for is_old in old], kind),
        "points": [0 if is_old else points + user for user, is_old in zip(users, old, strict=True)],
        "amount": [user / 7 for user in users],
        "word": [None if user % 5 == 0 else f"word {user % 11}" for user in users],
        "flag": [user % 2 == 0 for user in users],
        "words": [["a", "ü"][: user % 3] for user in users],
        "seen": pa.array([AT - timedelta(seconds=user) for user in users], kind),
    }
    pq.write_table(pa.table(columns), project.feature_repo / "v.parquet")


def make(make_project: Callable[..., Project], server: EmbeddedStore, number: int, sides: tuple[str, str]) -> Project:
    store, engine = sides
    yaml = YAML.format(store=store, engine=engine, address=f"{server.connection_string},db={number}")
    files = {"feature_repo/feature_store.yaml": yaml, "feature_repo/definitions.py": DEFINITIONS}
    return make_project(files, name=f"p{number}")


def dump(store: EmbeddedStore, number: int) -> dict[bytes, dict[bytes, bytes]]:
    with redis.Redis.from_url(f"{store.url}?db={number}") as client:
        return {key: client.hgetall(key) for key in client.scan_iter(count=1000)}


def test_spark_workers_write_what_feasts_write(make_project: Callable[..., Project], store: EmbeddedStore) -> None:
    for number, sides in enumerate([FEASTS, OURS]):
        project = make(make_project, store, number, sides)
        write_rows(project, 2**40, AT)
        repo = FeastRepo(project)
        repo.apply()
        with quiet():
            repo.store.materialize(AT - timedelta(days=1_000), AT + timedelta(days=1))
    feasts, ours = dump(store, 0), dump(store, 1)
    assert len(ours) == USERS
    assert ours == feasts


def test_our_command_on_spark_never_puts_an_older_row_over_a_newer(
    make_project: Callable[..., Project], store: EmbeddedStore
) -> None:
    project = make(make_project, store, 0, OURS)
    write_rows(project, 1_000, AT)
    apply(project, {})
    assert materialize(project).rows == USERS
    pushed = pd.DataFrame(
        {"user_id": ["user 7 \U0001f6d2"], "event_timestamp": [AT + timedelta(days=1)], "points": [1]}
    )
    repo = FeastRepo(project)
    with quiet():
        repo.store.write_to_online_store("v", pushed.assign(amount=0.5, word="w", flag=True, words=[["x"]], seen=AT))
    write_rows(project, 5_000, AT)  # corrections of the same instant
    assert materialize(project, full=True).rows == USERS
    with quiet():
        users = [{"user_id": f"user {number} \U0001f6d2"} for number in (6, 7, 8)]
        found = repo.store.get_online_features(["v:points", "v:words"], users).to_dict()
    assert found["points"] == [5_006, 1, 5_008]
    assert found["words"] == [[], ["x"], ["a", "ü"]]


def test_an_error_of_a_worker_is_the_commands(make_project: Callable[..., Project], store: EmbeddedStore) -> None:
    project = make(make_project, store, 0, OURS)
    write_rows(project, 0, AT)
    path = Path(project.feature_repo / "v.parquet")
    table = pq.read_table(path)
    pq.write_table(table.set_column(2, "points", pa.array(["no number"] * table.num_rows)), path)
    repo = FeastRepo(project)
    repo.apply()
    with quiet(), pytest.raises(Exception, match="points"):
        repo.store.materialize(AT - timedelta(days=1_000), AT + timedelta(days=1))
