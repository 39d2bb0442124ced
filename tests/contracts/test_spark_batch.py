"""Everyone on Spark, in local mode: what the plain evaluator finds, over Parquet and over Feast's Spark store.

Needs Java and the package ``pyspark``; without them it is skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rules_engine.batch.engine import BatchProject, BatchRules
from rules_engine.batch.evaluate import evaluate
from rules_engine.clock import to_micros
from rules_engine.errors import DataError, ProjectError
from rules_engine.folders import Project
from rules_engine.rules.inputs import Event
from rules_engine.stream.event_sink import event_log
from tests.batch_shop import NOW, VIEWS, History, history, make_shop

pyspark = pytest.importorskip("pyspark.sql")
if shutil.which("java") is None:
    pytest.skip("Java is not installed", allow_module_level=True)

from rules_engine.batch.spark.conversions import as_declared as in_spark  # noqa: E402  # only where PySpark is there
from rules_engine.batch.spark.engine import SparkBatch  # noqa: E402
from rules_engine.features.column_values import as_declared as in_arrow  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

_SPARK_VIEWS = VIEWS.replace(
    "from feast import Entity, FeatureView, Field, FileSource, ValueType",
    "from feast import Entity, FeatureView, Field, ValueType\n"
    "from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource",
)
for _name in ("facts", "fresh"):
    _SPARK_VIEWS = _SPARK_VIEWS.replace(
        "FileSource(path", f'SparkSource(name="{_name}_rows", file_format="parquet", path', 1
    )


@pytest.fixture(scope="module")
def happened() -> History:
    return history(seed=5)


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[Any]:
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = pyspark.SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    made = builder.config("spark.sql.shuffle.partitions", "1").getOrCreate()
    yield made
    made.stop()


@pytest.fixture
def shop(make_project: Callable[..., Project], happened: History) -> BatchProject:
    return BatchProject.open(make_shop(make_project, happened))


def answers(batch: SparkBatch, as_of: int) -> dict[str, frozenset[str]]:
    with batch._settings():
        rows = [row.asDict() for row in batch.answers(as_of).collect()]
    return {row["entity"]: frozenset(name for name in batch.names if row[name]) for row in rows}


def test_everyone_is_answered_as_by_the_whole_history(shop: BatchProject, happened: History) -> None:
    batch = SparkBatch(shop)
    as_of = to_micros(happened.instants(seed=2, number=1)[2])  # an edge of a window
    assert answers(batch, as_of) == happened.members(shop.program, as_of)
    sizes = batch.evaluate(to_micros(NOW))
    local = evaluate(BatchRules(shop.repo, shop.program), to_micros(NOW))
    assert (sizes.users, sizes.members) == (local.users, local.members)
    assert max(sizes.members.values()) > 3


def test_feasts_spark_store_is_read_as_well(make_project: Callable[..., Project], happened: History) -> None:
    project = make_shop(make_project, happened)
    store = project.feature_repo / "feature_store.yaml"
    store.write_text(store.read_text().replace("offline_store: {type: duckdb}", "offline_store: {type: spark}"))
    (project.feature_repo / "views.py").write_text(_SPARK_VIEWS)
    opened = BatchProject.open(project)
    assert answers(SparkBatch(opened), to_micros(NOW)) == happened.members(opened.program, to_micros(NOW))


def test_without_a_log_nobody_did_anything(shop: BatchProject, happened: History) -> None:
    shutil.rmtree(shop.repo.project.feature_repo / "data" / "events")
    want = History(happened.rows, {}).members(shop.program, to_micros(NOW))
    assert answers(SparkBatch(shop), to_micros(NOW)) == want


def test_a_property_of_another_type_than_it_is_now_is_missing(shop: BatchProject) -> None:
    log, now = event_log(shop.repo.project), to_micros(NOW)
    odd = {"number": {"page": 5, "seconds": 1}, "text": {"page": "a", "seconds": "5"}, "list": {"page": ["a"]}}
    for user, properties in odd.items():
        log.append([(user, Event("view", now, f"view:{user}", properties))], stored_at=now)
    on_spark = answers(SparkBatch(shop), now)
    for answered in BatchRules(shop.repo, shop.program).answers(now, list(odd)):
        here = dict(zip(answered.entities.to_pylist(), answered.matches.segments(), strict=True))
    assert {user: on_spark[user] for user in odd} == here
    assert "ended_on_a" in here["text"]


@pytest.mark.parametrize("as_matrix", [False, True])
@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl"])
def test_answers_are_written(shop: BatchProject, tmp_path: Path, ending: str, as_matrix: bool, session: Any) -> None:
    names, out = ["idle", "keen"], tmp_path / f"out{ending}"
    sizes = SparkBatch(shop, names).evaluate(to_micros(NOW), str(out), as_matrix=as_matrix)
    read = {".parquet": session.read.parquet, ".jsonl": session.read.json}
    frame = read.get(ending, session.read.option("header", True).option("inferSchema", True).csv)(str(out))
    rows = [row.asDict() for row in frame.collect()]
    if as_matrix:
        assert len(rows) == sizes.users
        counts = {name: sum(row[name] for row in rows) for name in names}
    else:
        counts = {name: sum(row["segment"] == name for row in rows) for name in names}
    assert counts == sizes.members
    assert set(rows[0]) == {"user_id", *(names if as_matrix else ["segment"])}


def test_what_cannot_be_read_says_so(shop: BatchProject) -> None:
    path = shop.repo.project.feature_repo / "data" / "facts.parquet"
    table = pq.read_table(path)
    amounts = pa.array([str(number) for number in range(table.num_rows)])
    pq.write_table(table.set_column(table.column_names.index("amount"), "amount", amounts), path)
    with pytest.raises(DataError, match="`facts:amount` is declared Int64, and its source holds string"):
        SparkBatch(shop, ["rich_and_idle"]).evaluate(to_micros(NOW))
    path.write_bytes(b"PAR1 is not all of it")
    with pytest.raises(ProjectError, match="Spark cannot answer"):
        SparkBatch(shop, ["rich_and_idle"]).evaluate(to_micros(NOW))


def test_the_command_has_an_engine(shop: BatchProject) -> None:
    from typer.testing import CliRunner

    from rules_engine.cli import main

    arguments = ["evaluate", "--repo", str(shop.repo.project.root), "--format", "json", "--segment", "rich_and_idle"]
    done, here = (CliRunner().invoke(main.app, [*arguments, "--engine", engine]) for engine in ("spark", "local"))
    assert json.loads(done.stdout) == json.loads(here.stdout)
    assert json.loads(here.stdout)["segments"]["rich_and_idle"]["users"] > 0


def test_the_table_of_types_gives_the_same_values_in_spark(tmp_path: Path, session: Any) -> None:
    columns = {
        "whole": (pa.array([2**53 + 1, None, -(2**63)]), "Int64"),
        "floats": (pa.array([3.0, float("nan"), -1.0]), "Int64"),
        "decimals": (pa.array([Decimal("3.00"), None, Decimal("-7.00")]), "Int32"),
        "real": (pa.array([Decimal("0.1"), None, Decimal("-1.50")], pa.decimal128(38, 20)), "Float64"),
        "wide": (pa.array([2**53, None, 0]), "Float64"),
        "time": (pa.array([NOW + timedelta(microseconds=7), None, NOW], pa.timestamp("us", "UTC")), "UnixTimestamp"),
        "epoch": (pa.array([1_700_000_000, None, -1]), "UnixTimestamp"),
        "day": (pa.array([NOW.date(), None, NOW.date()]), "UnixTimestamp"),
        "tags": (pa.array([["a", None], None, []], pa.list_(pa.string())), "Array(String)"),
    }
    pq.write_table(pa.table({name: column for name, (column, _) in columns.items()}), tmp_path / "t.parquet")
    rows = session.read.parquet(str(tmp_path / "t.parquet"))
    rows.createOrReplaceTempView("typed")
    held_as = dict(rows.dtypes)
    written = [f"{in_spark(name, held_as[name], f'v:{name}', kind)} AS {name}" for name, (_, kind) in columns.items()]
    session.conf.set("spark.sql.session.timeZone", "UTC")
    found = [row.asDict() for row in session.sql(f"SELECT {', '.join(written)} FROM typed").collect()]
    expected = {}
    for name, (column, kind) in columns.items():
        values = in_arrow(column, f"v:{name}", kind)
        expected[name] = (values.cast(pa.int64()) if kind == "UnixTimestamp" else values).to_pylist()
    assert found == [dict(zip(expected, row, strict=True)) for row in zip(*expected.values(), strict=True)]
    for values, kind in (([1.5], "Int64"), ([2**53 + 1], "Float64"), ([2**31], "Int32"), ([10**12], "UnixTimestamp")):
        session.createDataFrame([(value,) for value in values], ["x"]).createOrReplaceTempView("odd")
        column = in_spark("x", dict(session.table("odd").dtypes)["x"], "v:x", kind)
        with pytest.raises(Exception, match=f"feature `v:x` is declared {kind}"):
            session.sql(f"SELECT {column} FROM odd").collect()
