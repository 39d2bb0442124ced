"""Apply and materialize, on a real server: what arrives, what is left alone, and what a kill leaves behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from rules_engine.clock import DAY, parse_instant, to_micros
from rules_engine.deploy.apply import apply
from rules_engine.deploy.materialize import ViewProgress, materialize
from rules_engine.errors import (
    NotAppliedError,
    ProjectError,
    StoreDataError,
    StoreUnavailableError,
    UnknownNameError,
)
from rules_engine.features.feast.registry import RegistryChange
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.features.feast_import import import_feast, quiet
from rules_engine.features.online.opening import open_reader
from rules_engine.features.online.selection import EntityFeatures
from rules_engine.folders import Project
from rules_engine.project.lock import project_lock
from rules_engine.read_plan import ReadPlan
from rules_engine.redis.embedded import EmbeddedStore

import_feast()

START = datetime(2026, 1, 1, tzinfo=UTC)
CDNOW_NOW = parse_instant("1998-07-01T00:00:00Z")

DEFINITIONS = """\
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, Int64, String

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)


def view(name, *fields):
    path = str(Path(__file__).parent / f"{name}.parquet")
    source = FileSource(name=name, path=path, timestamp_field="event_timestamp")
    return FeatureView(name=name, entities=[user], ttl=timedelta(0), source=source, schema=list(fields))


spending = view("spending", Field(name="total", dtype=Float64), Field(name="orders", dtype=Int64))
visits = view("visits", Field(name="page", dtype=String))
"""

CONFIGURATION = """\
project: shop
provider: local
registry: ../.segments/registry.db
offline_store: {type: duckdb}
online_store: {type: rules_engine.features.online_store.EmbeddedOnlineStore}
entity_key_serialization_version: 3
materialization: {pull_latest_features: true, online_write_batch_size: 500}
"""


def write_rows(project: Project, view: str, rows: list[tuple[Any, ...]], columns: dict[str, pa.DataType]) -> None:
    """Rows of (user, instant, values...) as the view's Parquet file."""
    schema = pa.schema([("user_id", pa.string()), ("event_timestamp", pa.timestamp("us", tz="UTC")), *columns.items()])
    arrays = [pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), schema, strict=True)]
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), project.feature_repo / f"{view}.parquet")


SPENDING = {"total": pa.float64(), "orders": pa.int64()}
VISITS = {"page": pa.string()}


@pytest.fixture
def shop(make_project: Callable[..., Project]) -> Project:
    """Two views over three days; nothing applied yet."""
    project = make_project(
        {"feature_repo/definitions.py": DEFINITIONS, "feature_repo/feature_store.yaml": CONFIGURATION}
    )
    rows = [
        (f"u{number}", START + timedelta(days=day), 10.0 * day + number, day)
        for day in range(3)
        for number in range(day + 1)
    ]
    write_rows(project, "spending", rows, SPENDING)
    write_rows(project, "visits", [("u0", START, "home")], VISITS)
    return project


def read(project: Project, *users: str) -> list[EntityFeatures]:
    reader = open_reader(ReadPlan.load(project.read_plan), project.root)
    try:
        return reader.read(users)
    finally:
        reader.close()


def day(number: int) -> int:
    return to_micros(START) + number * DAY


def in_process(project: Project, code: str, **environment: str) -> subprocess.Popen[str]:
    """Run code in another process; it finds the project as ``project``."""
    head = f"""\
        from rules_engine.folders import Project
        from rules_engine.deploy.apply import apply
        from rules_engine.deploy.materialize import materialize
        project = Project.open({str(project.root)!r})
        """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


# --- apply -----------------------------------------------------------------------------------------------------------


def test_apply_writes_the_plan_and_says_what_changed(shop: Project) -> None:
    first = apply(shop, {"vip": 1}, now=5)
    assert first.registry == RegistryChange(("spending", "visits"), (), ())
    assert (first.previous, first.changed) == (None, True)
    assert ReadPlan.load(shop.read_plan) == first.plan
    assert (first.plan.definitions, first.plan.now, first.plan.project) == ({"vip": 1}, 5, "shop")
    again = apply(shop, {"vip": 1}, now=5)
    assert again.previous == first.plan
    assert not again.registry
    assert not again.changed
    assert apply(shop, {"vip": 2}, now=5).changed
    grown = DEFINITIONS.replace('Field(name="page"', 'Field(name="count", dtype=Int64), Field(name="page"')
    (shop.feature_repo / "definitions.py").write_text(grown)
    assert apply(shop, {"vip": 2}, now=5).registry == RegistryChange((), ("visits",), ())
    (shop.feature_repo / "definitions.py").write_text(grown.replace("visits = view", "_ = lambda *_: None; _"))
    assert apply(shop, {"vip": 2}, now=5).registry == RegistryChange((), (), ("visits",))


def test_a_refused_apply_changes_nothing(shop: Project) -> None:
    apply(shop, {"vip": 1})
    before = {path.name: path.read_bytes() for path in shop.state_dir.iterdir() if path.is_file()}
    broken = DEFINITIONS.replace("ValueType.STRING", "ValueType.INT64")
    (shop.feature_repo / "definitions.py").write_text(broken)
    with pytest.raises(Exception, match="entity keys are strings"):
        apply(shop, {"vip": 2})
    assert {path.name: path.read_bytes() for path in shop.state_dir.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05])
def test_a_killed_apply_leaves_the_old_plan_or_the_new_one(shop: Project, delay: float) -> None:
    apply(shop, {"vip": 1})
    process = in_process(
        shop,
        """
        from rules_engine.features.feast.repo import FeastRepo
        repo = FeastRepo(project)
        print("ready", flush=True)
        apply(project, {"vip": 2}, repo=repo)
        """,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(delay)
    process.kill()
    process.communicate()
    assert ReadPlan.load(shop.read_plan).definitions in ({"vip": 1}, {"vip": 2})
    assert apply(shop, {"vip": 2}).plan.definitions == {"vip": 2}
    assert ReadPlan.load(shop.read_plan).definitions == {"vip": 2}


# --- what arrives ----------------------------------------------------------------------------------------------------


def test_it_is_incremental_and_knows_nothing_of_later(shop: Project) -> None:
    apply(shop, {})
    calls: list[ViewProgress] = []
    first = materialize(shop, end=day(1), progress=calls.append)
    assert [(view.view, view.start, view.reason, view.rows) for view in first.views] == [
        ("spending", None, "first run", 2),
        ("visits", None, "first run", 1),
    ]
    assert calls[0] == ViewProgress("spending", 1, 2, 2)
    assert calls[-1] == ViewProgress("visits", 2, 2, 1, done=True)
    u0, u1, u2 = read(shop, "u0", "u1", "u2")
    assert u0.values == {"spending:total": 10.0, "spending:orders": 1, "visits:page": "home"}
    assert u0.updated_at == {"spending": day(1), "visits": day(0)}
    assert u1.values == {"spending:total": 11.0, "spending:orders": 1}
    assert not u2.is_known  # comes on the next day

    second = materialize(shop, end=day(2))
    assert [(view.view, view.start, view.reason, view.rows) for view in second.views] == [
        ("spending", day(1), "since the last run", 3),
        ("visits", day(1), "since the last run", 0),
    ]
    assert [found.values.get("spending:total") for found in read(shop, "u0", "u1", "u2")] == [20.0, 21.0, 22.0]
    earlier = materialize(shop, end=day(1))
    assert earlier.views[0].reason == "already materialized up to 2026-01-03T00:00:00Z"
    assert earlier.rows == 0


def test_it_ends_where_the_project_says_that_now_is(shop: Project) -> None:
    apply(shop, {}, now=day(1))
    assert {view.end for view in materialize(shop).views} == {day(1)}
    apply(shop, {})
    before = to_micros(datetime.now(tz=UTC))
    assert materialize(shop).views[0].end >= before


def test_the_end_is_exact_in_any_time_zone(shop: Project) -> None:
    """DuckDB converts between zones by the session's; a row at the end counts, one a microsecond later does not."""
    end = datetime(2026, 3, 8, 7, 0, tzinfo=UTC)  # when New York's clocks go forward
    rows = [("at", end, 1.0, 1), ("after", end + timedelta(microseconds=1), 1.0, 1)]
    write_rows(shop, "spending", rows, SPENDING)
    code = f"apply(project, {{}}); print(materialize(project, end={to_micros(end)}).rows)"
    process = in_process(shop, code, TZ="America/New_York")
    out, err = process.communicate()
    assert (process.returncode, out, err) == (0, "2\n", "")  # and one of visits
    at, after = read(shop, "at", "after")
    assert at.updated_at == {"spending": to_micros(end)}
    assert not after.is_known


def test_nothing_is_printed(shop: Project) -> None:
    process = in_process(shop, "apply(project, {}); materialize(project); materialize(project, full=True)")
    out, err = process.communicate()
    assert (process.returncode, out, err) == (0, "", "")


def test_some_views(shop: Project) -> None:
    apply(shop, {})
    assert [view.view for view in materialize(shop, views=["visits", "visits"]).views] == ["visits"]
    assert read(shop, "u0")[0].values == {"visits:page": "home"}
    with pytest.raises(UnknownNameError) as caught:
        materialize(shop, views=["visit"])
    assert caught.value.hint == "did you mean `visits`?"


def test_large_integers_beside_nulls(shop: Project) -> None:
    """Feast's own engine takes columns with nulls through floats; ours does not."""
    with shop.feature_store_yaml.open("a", encoding="utf-8") as file:
        file.write("batch_engine: {type: rules_engine.features.arrow_engine.ArrowEngine}\n")
    write_rows(shop, "spending", [("a", START, 1.0, 2**60 + 1), ("b", START, 1.0, None)], SPENDING)
    apply(shop, {})
    materialize(shop)
    assert read(shop, "a")[0].values["spending:orders"] == 2**60 + 1


# --- corrections, and stores that are not what they were --------------------------------------------------------------


def test_a_full_run_takes_up_what_replaced_the_rows_of_a_source(shop: Project) -> None:
    apply(shop, {})
    materialize(shop, end=day(3))
    rows = [("u0", START + timedelta(days=2), 99.0, 9), ("late", START, 1.0, 1)]
    write_rows(shop, "spending", rows, SPENDING)
    materialize(shop, end=day(4))
    assert read(shop, "u0")[0].values["spending:total"] == 20.0  # before what this run covers
    report = materialize(shop, end=day(4), full=True)
    assert {view.reason for view in report.views} == {"asked for in full"}
    u0, late = read(shop, "u0", "late")
    assert u0.values["spending:total"] == 99.0
    assert late.is_known


def test_an_older_row_never_replaces_a_newer_one(shop: Project) -> None:
    """An application pushed a newer value; the offline store has not got it yet."""
    repo = FeastRepo(shop)
    apply(shop, {}, repo=repo)
    pushed = pd.DataFrame(
        {"user_id": ["u0"], "event_timestamp": [START + timedelta(days=30)], "total": [500.0], "orders": [50]}
    )
    with quiet():
        repo.store.write_to_online_store("spending", pushed)
    for full in (False, True):
        materialize(shop, end=day(40), full=full, repo=repo)
        u0, u1 = read(shop, "u0", "u1")
        assert u0.values["spending:total"] == 500.0
        assert u0.updated_at["spending"] == day(30)
        assert u1.values["spending:total"] == 21.0


def test_a_feature_that_is_added_arrives_for_everybody(shop: Project) -> None:
    """Feast's own run would read new rows only, and drop them where the timestamp is the stored one."""
    apply(shop, {})
    materialize(shop, end=day(2))
    rows = [(f"u{number}", START + timedelta(days=2), 1.0, 1, f"c{number}") for number in range(3)]
    write_rows(shop, "spending", rows, {**SPENDING, "city": pa.string()})
    grown = DEFINITIONS.replace('Field(name="total"', 'Field(name="city", dtype=String), Field(name="total"')
    (shop.feature_repo / "definitions.py").write_text(grown)
    apply(shop, {})
    report = materialize(shop, end=day(3))
    assert [view.reason for view in report.views] == ["the view's features changed", "since the last run"]
    assert [found.values["spending:city"] for found in read(shop, "u0", "u1", "u2")] == ["c0", "c1", "c2"]


@pytest.mark.parametrize("written_since", [None, "segments:{shop}:leases", "anything"])
def test_a_store_that_was_emptied_is_filled_again(shop: Project, written_since: str | None) -> None:
    apply(shop, {})
    materialize(shop, end=day(2))
    with redis.Redis.from_url(EmbeddedStore(shop.root).url) as client:
        client.flushall()
        if written_since is not None:
            client.set(written_since, "by a worker, an apply or an application")
    with pytest.raises(StoreDataError, match="holds nothing of the feature views") as caught:
        read(shop, "u0")
    assert "segments materialize" in str(caught.value.hint)
    report = materialize(shop, end=day(2))
    assert {view.reason for view in report.views} == {"the online store does not hold it"}
    assert read(shop, "u0")[0].values["spending:total"] == 20.0
    assert not read(shop, "nobody")[0].is_known


def test_a_store_that_went_back_in_time_is_brought_up_from_there(shop: Project) -> None:
    """As after a crash with the last seconds lost, or from a copy made yesterday: the mark goes back with the data."""
    apply(shop, {})
    materialize(shop, end=day(1))
    with redis.Redis.from_url(EmbeddedStore(shop.root).url) as client:
        copy = {key: client.dump(key) for key in client.scan_iter()}
        materialize(shop, end=day(2))
        client.flushall()
        for key, content in copy.items():
            client.restore(key, 0, content)
    report = materialize(shop, end=day(2))
    assert {view.start for view in report.views} == {day(1)}
    assert read(shop, "u0")[0].values["spending:total"] == 20.0


def test_another_store_is_filled_from_the_start(shop: Project, store: EmbeddedStore) -> None:
    """The one-line change from the embedded store to a server of one's own."""
    apply(shop, {})
    materialize(shop, end=day(2))
    with redis.Redis.from_url(store.url) as client:
        client.set("somebody", "else's")
    other = f'{{type: redis, connection_string: "{store.connection_string}"}}'
    mine = "{type: rules_engine.features.online_store.EmbeddedOnlineStore}"
    shop.feature_store_yaml.write_text(CONFIGURATION.replace(mine, other))
    apply(shop, {})
    report = materialize(shop, end=day(2))
    assert {view.reason for view in report.views} == {"the online store does not hold it"}
    assert read(shop, "u0")[0].values["spending:total"] == 20.0


# --- killed ----------------------------------------------------------------------------------------------------------

MANY = 6_000


@pytest.fixture
def crowd(shop: Project) -> Project:
    """Enough users that a kill hits the middle; materialized once, so that Feast's mark matters."""
    for view, columns in (("spending", SPENDING), ("visits", VISITS)):
        values = (0.0, 0) if view == "spending" else ("old",)
        write_rows(shop, view, [(f"u{number}", START, *values) for number in range(MANY)], columns)
    apply(shop, {})
    materialize(shop, end=day(0))
    write_rows(shop, "spending", [(f"u{n}", START + timedelta(days=1), float(n), n) for n in range(MANY)], SPENDING)
    write_rows(shop, "visits", [(f"u{n}", START + timedelta(days=1), f"p{n}") for n in range(MANY)], VISITS)
    return shop


def new_rows(project: Project, view: str) -> int:
    """How many of a hundred users have the new row."""
    users = [f"u{number}" for number in range(0, MANY, MANY // 100)]
    return sum(found.updated_at.get(view) == day(1) for found in read(project, *users))


def kill_in_the_middle(process: subprocess.Popen[str], project: Project) -> None:
    deadline = time.monotonic() + 300
    while new_rows(project, "spending") == 0:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert 0 < new_rows(project, "spending") < 100
    assert new_rows(project, "visits") == 0


def everything_arrived(project: Project) -> None:
    users = [f"u{number}" for number in range(MANY)]
    for number, found in enumerate(read(project, *users)):
        assert found.values == {
            "spending:total": float(number),
            "spending:orders": number,
            "visits:page": f"p{number}",
        }
        assert found.updated_at == {"spending": day(1), "visits": day(1)}


def feast_serves(repo: FeastRepo) -> dict[str, Any]:
    with quiet():
        found: dict[str, Any] = repo.store.get_online_features(
            features=["spending:total", "visits:page"], entity_rows=[{"user_id": "u7"}]
        ).to_dict()
    return found


def test_a_killed_run_is_completed_by_the_next(crowd: Project) -> None:
    process = in_process(crowd, f"materialize(project, end={day(1)})")
    kill_in_the_middle(process, crowd)
    assert feast_serves(FeastRepo(crowd))["total"]  # others read on
    report = materialize(crowd, end=day(1))
    assert [(view.start, view.rows) for view in report.views] == [(day(0), MANY), (day(0), MANY)]
    everything_arrived(crowd)
    assert materialize(crowd, end=day(1)).views[0].start == day(1)


def test_a_killed_run_of_feasts_own_command_is_healed(crowd: Project) -> None:
    """Feast marks the view, and then refuses to serve it; a killed run leaves the mark."""
    command = [Path(sys.executable).with_name("feast"), "-c", str(crowd.feature_repo), "materialize"]
    process = subprocess.Popen(
        [*command, "2026-01-01T00:00:00", "2026-01-02T00:00:00", "-v", "spending", "-v", "visits"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    kill_in_the_middle(process, crowd)
    repo = FeastRepo(crowd)
    with pytest.raises(ValueError, match="is in state 'MATERIALIZING'"):
        feast_serves(repo)
    apply(crowd, {}, repo=repo)
    with pytest.raises(ValueError, match="is in state 'MATERIALIZING'"):
        feast_serves(repo)
    assert read(crowd, "u7")[0].values  # our reader asks no registry
    materialize(crowd, end=day(1), repo=repo)
    everything_arrived(crowd)
    assert feast_serves(repo) == {"user_id": ["u7"], "total": [7.0], "page": ["p7"]}


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_nothing_applied(shop: Project) -> None:
    with pytest.raises(NotAppliedError) as caught:
        materialize(shop)
    assert "segments apply" in str(caught.value.hint)


def test_a_source_that_is_not_there_is_named(shop: Project) -> None:
    apply(shop, {})
    (shop.feature_repo / "visits.parquet").unlink()
    with pytest.raises(ProjectError) as caught:
        materialize(shop, end=day(2))
    assert "`visits`" in str(caught.value)
    assert "Errno" not in str(caught.value)
    assert "visits.parquet" in str(caught.value)
    assert read(shop, "u0")[0].values["spending:total"] == 20.0  # the view before it is done, and stays
    write_rows(shop, "visits", [("u0", START, "home")], VISITS)
    assert [view.reason for view in materialize(shop, end=day(2)).views] == ["since the last run", "first run"]


def test_a_store_that_is_down(shop: Project) -> None:
    text = CONFIGURATION.replace(
        "{type: rules_engine.features.online_store.EmbeddedOnlineStore}",
        '{type: redis, connection_string: "127.0.0.1:1"}',
    )
    shop.feature_store_yaml.write_text(text)
    apply(shop, {})
    with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1:1"):
        materialize(shop, end=day(2))


def test_one_at_a_time(shop: Project) -> None:
    with project_lock(shop):
        process = in_process(
            shop,
            """
            from rules_engine.project.lock import project_lock
            with project_lock(project, wait=0.1):
                pass
            """,
        )
        _, err = process.communicate()
    assert process.returncode == 1
    assert "another command is applying or materializing" in err
    with project_lock(shop, wait=0), pytest.raises(ProjectError), project_lock(shop, wait=0):
        pass


# --- the demo --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, FeastRepo]]:
    """The demo's own repository, built, applied and materialized."""
    root = tmp_path_factory.mktemp("demo")
    source = Path(__file__).parents[2] / "feature_repo"
    shutil.copytree(source, root / "feature_repo", ignore=shutil.ignore_patterns("data", "__pycache__"))
    (root / "segments").mkdir()
    subprocess.run([sys.executable, str(root / "feature_repo" / "build.py")], check=True, capture_output=True)
    project = Project.open(root)
    repo = FeastRepo(project)
    apply(project, {}, now=CDNOW_NOW, repo=repo)
    report = materialize(project, repo=repo)
    assert {view.view: view.rows for view in report.views} == {
        "purchase_history": 23_570,
        "purchase_propensity": 0,
        "rfm": 23_570,
        "user_clusters": 0,
    }
    yield project, repo
    EmbeddedStore(root).stop()


def test_the_demo_serves_every_customers_latest_row(demo: tuple[Project, FeastRepo]) -> None:
    project, _ = demo
    expected: dict[str, dict[str, Any]] = {}
    for view in ("purchase_history", "rfm"):
        frame = pd.read_parquet(project.feature_repo / "data" / f"{view}.parquet")
        latest = frame.sort_values("event_timestamp").drop_duplicates("user_id", keep="last")
        for row in latest.drop(columns="event_timestamp").to_dict("records"):
            values = expected.setdefault(str(row.pop("user_id")), {})
            for name, value in row.items():
                if isinstance(value, pd.Timestamp):
                    values[f"{view}:{name}"] = to_micros(value.to_pydatetime())
                elif not pd.isna(value):
                    values[f"{view}:{name}"] = value
    users = [f"{number:05d}" for number in range(1, 23_571)]
    found = read(project, *users, "00000", "23571")
    assert {row.entity: row.values for row in found[:-2]} == expected
    assert not found[-2].is_known
    assert not found[-1].is_known
    assert {row.updated_at["rfm"] for row in found[:-2]} == {CDNOW_NOW}
    assert {row.expires_at["rfm"] for row in found[:-2]} == {CDNOW_NOW + 40 * DAY + 1}


def test_the_demos_history_is_point_in_time_correct(demo: tuple[Project, FeastRepo]) -> None:
    """Feast's own join as of random instants, against the purchases up to then."""
    project, repo = demo
    history = pd.read_parquet(project.feature_repo / "data" / "purchase_history.parquet")
    asked = history.sample(300, random_state=3)[["user_id", "event_timestamp"]].reset_index(drop=True)
    asked["event_timestamp"] += pd.to_timedelta([(-1, 0, 1, 86_400)[i % 4] for i in range(300)], unit="s")
    with quiet():
        joined = repo.store.get_historical_features(
            entity_df=asked, features=["purchase_history:frequency", "purchase_history:monetary_value"]
        ).to_df()
    assert len(joined) == 300
    by_user = dict(iter(history.groupby("user_id")))
    unknown = 0
    for row in joined.itertuples():
        past = by_user[row.user_id][by_user[row.user_id]["event_timestamp"] <= row.event_timestamp]
        if past.empty:
            unknown += 1
            assert pd.isna(row.frequency)
        else:
            assert row.frequency == past["frequency"].iloc[-1]
            assert row.monetary_value == past["monetary_value"].iloc[-1]
    assert 0 < unknown < 150  # one second before a first purchase nothing is known
