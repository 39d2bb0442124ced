"""Labels: what attaching a model writes through Feast into both stores, real ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from rules_engine.clock import DAY, SECOND, from_micros, parse_instant
from rules_engine.deploy.apply import apply
from rules_engine.errors import DataError, ProjectError, StoreUnavailableError
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.folders import Project
from rules_engine.ml.clusters.fitting import fit
from rules_engine.ml.clusters.labelling.attach import attach
from rules_engine.ml.clusters.labelling.labels import label, unknown_labels
from rules_engine.ml.clusters.model import ClusterModel
from rules_engine.ml.offline import features_as_of, latest_rows
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.load import load_text
from tests.cluster_data import NOW, definition, four_groups

# --- segments that look for labels ----------------------------------------------------------------------------------


def test_segments_that_wait_for_a_label_in_vain_are_named() -> None:
    model = fit(definition(), four_groups(), NOW)
    known = model.labels[0]
    text = "\n---\n".join(
        f"segment: {name}\nwhen: {{feature: user_clusters:label, {condition}}}"
        for name, condition in {
            "good": f"equals: '{known}'",
            "typo": "equals: frequent",
            "listed": f"in: ['{known}', gone]",
            "other": "not_equals: gone",
        }.items()
    )
    program = load_text(text, Catalog(closed=False)).program
    assert unknown_labels(program, model) == {"listed": ["gone"], "typo": ["frequent"]}


# --- attaching, with Feast and a real store -------------------------------------------------------------------------

VIEWS = """\
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.data_format import ParquetFormat
from feast.types import Float64, Int64, String
from tests.warehouse import Warehouse

DATA = Path(__file__).parent / "data"
user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
habits = FeatureView(
    name="habits", entities=[user], ttl=timedelta(days=40),
    source=FileSource(name="habits", path=str(DATA / "habits.parquet"), timestamp_field="event_timestamp"),
    schema=[Field(name="orders", dtype=Int64), Field(name="basket", dtype=Float64)],
)
user_clusters = FeatureView(
    name="user_clusters", entities=[user], ttl=timedelta(0),
    source={source}(
        name="labels", path=str(DATA / "labels.parquet"), timestamp_field="event_timestamp", file_format=ParquetFormat()
    ),
    schema=[
        Field(name="label", dtype=String), Field(name="cluster", dtype=Int64),
        Field(name="distance", dtype=Float64), Field(name="model_version", dtype=String),
    ],
)
"""
LABEL_FILE = "labels.parquet"
TIME = pa.timestamp("us", tz="UTC")
LABELS = pa.schema(
    [
        ("user_id", pa.string()),
        ("event_timestamp", TIME),
        ("label", pa.string()),
        ("cluster", pa.int64()),
        ("distance", pa.float64()),
        ("model_version", pa.string()),
    ]
)
LAST_MONTH = parse_instant("2026-02-01T00:00:00Z")


def _habits(*months: tuple[int, pd.DataFrame]) -> pa.Table:
    frames = [
        frame.rename(columns=lambda name: name.partition(":")[2])
        .assign(event_timestamp=from_micros(instant))
        .reset_index()
        for instant, frame in months
    ]
    schema = pa.schema(
        [("user_id", pa.string()), ("event_timestamp", TIME), ("orders", pa.int64()), ("basket", pa.float64())]
    )
    return pa.Table.from_pandas(pd.concat(frames), schema=schema, preserve_index=False)


@pytest.fixture
def make_shop(make_project: Callable[..., Project]) -> Callable[..., Project]:
    """A shop with 400 users, whose habits were measured at the first of February and, differently, of March."""

    def make(source: str = "FileSource") -> Project:
        project = make_project({"feature_repo/views.py": VIEWS.replace("{source}", source)})
        data = project.feature_repo / "data"
        data.mkdir()
        table = _habits((LAST_MONTH, four_groups(400, seed=8)), (NOW, four_groups(400, seed=1)))
        pq.write_table(table, data / "habits.parquet")
        pq.write_table(LABELS.empty_table(), data / LABEL_FILE)
        return project

    return make


def _open(project: Project) -> FeastRepo:
    repo = FeastRepo(project)
    apply(project, {}, repo=repo)
    return repo


def _fitted(repo: FeastRepo, at: int = NOW, version: str = "v1", **changes: Any) -> ClusterModel:
    wanted = definition(**changes)
    return replace(fit(wanted, features_as_of(repo, wanted.keys, at), at), version=version)


def _online(repo: FeastRepo, users: list[str]) -> list[tuple[Any, ...]]:
    names = ["label", "cluster", "model_version"]
    rows = [{"user_id": user} for user in users]
    found = repo.store.get_online_features([f"user_clusters:{name}" for name in names], rows).to_dict()
    return list(zip(*(found[name] for name in names), strict=True))


def _offline(repo: FeastRepo, users: list[str]) -> list[tuple[Any, ...]]:
    frame = latest_rows(repo, "user_clusters").loc[users]
    return list(frame[["label", "cluster", "model_version"]].itertuples(index=False, name=None))


def test_features_are_read_as_of_an_instant_and_what_came_later_is_not_seen(make_shop: Callable[..., Project]) -> None:
    project = make_shop()
    repo = _open(project)
    keys = definition().keys
    february = features_as_of(repo, keys, NOW - 1)
    assert february["habits:basket"].tolist() == four_groups(400, seed=8)["habits:basket"].tolist()
    assert features_as_of(repo, keys, NOW)["habits:basket"].tolist() == four_groups()["habits:basket"].tolist()
    # A leak would show here: another March, and nothing of February may move.
    path = project.feature_repo / "data" / "habits.parquet"
    pq.write_table(_habits((LAST_MONTH, four_groups(400, seed=8)), (NOW, four_groups(400) * 1000)), path)
    assert features_as_of(repo, keys, NOW - 1).equals(february)
    with pytest.raises(DataError, match=r"`habits` has no row that was valid at 2026-04-11") as refused:
        features_as_of(repo, keys, NOW + 41 * DAY)
    assert refused.value.hint is not None


def test_labels_reach_both_stores_and_a_refit_replaces_them_at_once(make_shop: Callable[..., Project]) -> None:
    repo = _open(make_shop())
    users = [f"u{number:04d}" for number in range(400)]
    first = _fitted(repo)
    counted: list[tuple[str, int, int]] = []
    done = attach(repo, first, NOW, lambda what, so_far, total: counted.append((what, so_far, total)))
    assert (done.users, done.added, done.moved, done.left_out) == (400, 400, 0, 0)
    assert counted[-1] == ("Writing labels", 400, 400)
    assert done.sizes == dict.fromkeys(first.labels, 100)
    expected = list(
        label(first, four_groups())[0][["label", "cluster", "model_version"]].itertuples(index=False, name=None)
    )
    assert _online(repo, users) == _offline(repo, users) == expected

    second = _fitted(repo, version="v2", k={"from": 2, "to": 2})
    done = attach(repo, second, NOW)
    assert done.added == 400
    renamed = [old[0] != new[0] for old, new in zip(expected, _online(repo, users), strict=True)]
    assert done.moved == sum(renamed) > 0
    assert {version for *_, version in _online(repo, users)} == {"v2"}
    assert _online(repo, users) == _offline(repo, users)
    assert len(latest_rows(repo, "user_clusters")) == 400


def test_attaching_the_same_again_adds_nothing_and_mends_the_online_store(make_shop: Callable[..., Project]) -> None:
    project = make_shop()
    repo = _open(project)
    model = _fitted(repo)
    attach(repo, model, NOW)
    path = project.feature_repo / "data" / "labels.parquet"
    before = path.read_bytes()
    with redis.Redis.from_url(EmbeddedStore(project.root).url) as store:
        store.flushall()
    assert _online(repo, ["u0001"]) == [(None, None, None)]
    assert attach(repo, model, NOW).added == 0
    assert path.read_bytes() == before
    assert _online(repo, ["u0001"]) == _offline(repo, ["u0001"]) != [(None, None, None)]


def test_a_store_that_is_down_is_said_and_the_next_run_completes(make_shop: Callable[..., Project]) -> None:
    project = make_shop()
    config = project.feature_store_yaml
    embedded = config.read_text()
    here = "type: rules_engine.features.online_store.EmbeddedOnlineStore"
    config.write_text(embedded.replace(here, 'type: redis\n  connection_string: "localhost:1"'))
    repo = _open(project)
    model = _fitted(repo)
    with pytest.raises(StoreUnavailableError, match="localhost:1"):
        attach(repo, model, NOW)
    assert len(latest_rows(repo, "user_clusters")) == 400
    config.write_text(embedded)
    repo = _open(project)
    assert attach(repo, model, NOW).added == 0
    assert _online(repo, ["u0001"]) == _offline(repo, ["u0001"])


def test_labels_are_a_history_and_an_earlier_one_cannot_undo_a_later_one(make_shop: Callable[..., Project]) -> None:
    project = make_shop()
    repo = _open(project)
    attach(repo, _fitted(repo, LAST_MONTH), LAST_MONTH)
    attach(repo, _fitted(repo, NOW, "v2"), NOW)
    rows = pq.read_table(project.feature_repo / "data" / "labels.parquet")
    assert rows.num_rows == 800
    assert rows.schema.equals(LABELS)
    then = features_as_of(repo, ["user_clusters:model_version"], NOW - 1)
    now = features_as_of(repo, ["user_clusters:model_version"], NOW)
    assert set(then["user_clusters:model_version"]) == {"v1"}
    assert set(now["user_clusters:model_version"]) == {"v2"}
    with pytest.raises(DataError, match=r"labels of 2026-03-01T00:00:00Z already"):
        attach(repo, _fitted(repo, LAST_MONTH, "v3"), LAST_MONTH)
    assert {version for *_, version in _online(repo, ["u0001", "u0002"])} == {"v2"}


def test_a_source_that_can_only_be_added_to_gets_strictly_newer_rows(make_shop: Callable[..., Project]) -> None:
    """What is no plain Parquet file is written by Feast itself, as a table in a warehouse is."""
    project = make_shop("Warehouse")
    repo = _open(project)
    attach(repo, _fitted(repo), NOW)
    attach(repo, _fitted(repo, version="v2", k={"from": 2, "to": 2}), NOW)
    rows = pq.read_table(project.feature_repo / "data" / LABEL_FILE).to_pandas()
    instants = sorted({instant.value // 1000 for instant in rows["event_timestamp"]})
    assert (len(rows), instants) == (800, [NOW, NOW + 1])
    assert instants[-1] - NOW < SECOND
    assert {version for *_, version in _online(repo, ["u0001"]) + _offline(repo, ["u0001"])} == {"v2"}


def test_users_without_features_now_keep_their_label_and_get_no_new_one(make_shop: Callable[..., Project]) -> None:
    project = make_shop()
    repo = _open(project)
    attach(repo, _fitted(repo, LAST_MONTH), LAST_MONTH)
    gone = _habits((LAST_MONTH, four_groups(400, seed=8)), (NOW + 30 * DAY, four_groups(400).iloc[:300]))
    pq.write_table(gone, project.feature_repo / "data" / "habits.parquet")
    later = NOW + 30 * DAY
    assert attach(repo, _fitted(repo, later, "v2"), later).users == 300
    assert [row[2] for row in _online(repo, ["u0299", "u0300"])] == ["v2", "v1"]


def test_a_view_that_cannot_hold_labels_is_refused_before_anything_is_written(
    make_shop: Callable[..., Project],
) -> None:
    project = make_shop()
    repo = _open(project)
    model = _fitted(repo)
    with pytest.raises(ProjectError, match="there is no feature view `nothing` to hold the labels"):
        attach(repo, replace(model, definition=replace(model.definition, name="nothing")), NOW)
    with pytest.raises(ProjectError, match=r"`habits` holds other features than labels: orders \(Int64\)"):
        attach(repo, replace(model, definition=replace(model.definition, name="habits")), NOW)
    assert len(latest_rows(repo, "user_clusters")) == 0


def test_labels_of_a_view_that_is_not_applied_are_refused(make_shop: Callable[..., Project]) -> None:
    project = make_shop()
    views = project.feature_repo / "views.py"
    whole = views.read_text()
    views.write_text(whole[: whole.index("user_clusters =")])
    _open(project)
    views.write_text(whole)
    with pytest.raises(ProjectError, match="`user_clusters` is not applied yet"):
        attach(FeastRepo(project), fit(definition(), four_groups(), NOW), NOW)
