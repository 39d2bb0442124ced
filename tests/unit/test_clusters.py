"""Clusters: what is found in data of known structure, how models are kept, and what attaching writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs

from rules_engine.clock import DAY, SECOND, from_micros, parse_instant
from rules_engine.errors import DataError, DefinitionError, ProjectError, UnknownNameError
from rules_engine.features.embedded import EmbeddedStore
from rules_engine.features.feast_repo import FeastRepo
from rules_engine.lifecycle.apply import apply
from rules_engine.ml.attach import attach, label, unknown_labels
from rules_engine.ml.cluster_model import ClusterModel, ModelFolder
from rules_engine.ml.clusters import fit, propose_names
from rules_engine.ml.definition import ClusterDefinition, ClusterFeature, choose, load_cluster_definitions
from rules_engine.ml.offline import features_as_of, latest_rows
from rules_engine.project import Project
from rules_engine.rules.catalog import Catalog, Feature
from rules_engine.rules.load import load_text
from rules_engine.rules.types import from_feast_name

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


# --- fitting --------------------------------------------------------------------------------------------------------


def test_known_groups_are_found_numbered_and_named() -> None:
    model = fit(definition(), four_groups(), NOW)
    assert [cluster.number for cluster in model.clusters] == [1, 2, 3, 4]
    assert [cluster.size for cluster in model.clusters] == [100] * 4
    assert {frozenset(name.split(", ")) for name in model.labels} == {
        frozenset({orders, basket}) for orders in ("rare", "frequent") for basket in ("small basket", "big basket")
    }
    means = [cluster.profile["habits:orders"] for cluster in model.clusters]
    assert means == sorted(means, reverse=True)
    assert model.score.silhouette == max(score.silhouette for score in model.scores) > 0.8
    frame = four_groups()
    labels, left_out = label(replace(model, version="v1"), frame)
    assert left_out == 0
    for _, members in frame.groupby([frame["habits:orders"] > 30, frame["habits:basket"] > 50]):
        assert labels.loc[members.index, "label"].nunique() == 1


@pytest.mark.parametrize("centers", [2, 3, 5])
def test_as_many_clusters_are_chosen_as_the_data_has(centers: int) -> None:
    points, _ = make_blobs(500, n_features=3, centers=centers, cluster_std=0.6, random_state=4)
    names = ["v:a", "v:b", "v:c"]
    wanted = ClusterDefinition.from_plain(
        {"clusters": "c", "features": [{"feature": name} for name in names], "k": {"from": 2, "to": 7}}
    )
    frame = pd.DataFrame(points, columns=names, index=[f"{number:03d}" for number in range(500)])
    assert len(fit(wanted, frame, NOW).clusters) == centers


def test_the_order_of_the_users_does_not_matter_and_the_seed_does_not_move_clear_groups() -> None:
    frame = four_groups()
    model = fit(definition(), frame, NOW)
    assert fit(definition(), frame.sample(frac=1, random_state=9), NOW) == model
    other = fit(definition(seed=99), frame, NOW)
    assert label(other, frame)[0]["label"].equals(label(model, frame)[0]["label"])


def test_users_get_the_cluster_that_kmeans_itself_predicts() -> None:
    frame = four_groups(300, seed=5)
    model = fit(definition(), frame, NOW)
    newcomers = four_groups(60, seed=6).to_numpy(dtype=float)
    position, distance = model.assign(newcomers)
    centroids = np.array([cluster.centroid for cluster in model.clusters])
    means = KMeans(len(centroids), init=centroids, n_init=1, max_iter=1)
    means.fit(centroids)
    means.cluster_centers_ = centroids
    standardized = model.standardize(newcomers)
    assert position.tolist() == means.predict(standardized).tolist()
    assert distance == pytest.approx(means.transform(standardized).min(axis=1))


def test_the_scalers_are_what_they_say() -> None:
    frame = four_groups()
    orders, basket = fit(definition(), frame, NOW).scalers
    logs = np.log1p(frame["habits:orders"].to_numpy())
    assert (orders.log, basket.log) == (True, False)
    assert (orders.mean, orders.deviation) == pytest.approx((logs.mean(), logs.std()))
    assert basket.mean == pytest.approx(frame["habits:basket"].mean())


def test_users_without_a_value_are_left_out_and_counted() -> None:
    frame = four_groups().astype(float)
    frame.iloc[3, 0] = np.nan
    frame.iloc[7, 1] = np.inf
    model = fit(definition(), frame, NOW)
    assert (model.users, model.left_out) == (398, 2)
    labels, left_out = label(model, frame)
    assert left_out == 2
    assert not {"u0003", "u0007"} & set(labels.index)


def test_data_that_cannot_be_grouped_is_refused() -> None:
    constant = four_groups().assign(**{"habits:basket": 5.0})
    with pytest.raises(DataError, match="`habits:basket` is 5 for every user"):
        fit(definition(), constant, NOW)
    with pytest.raises(DataError, match=r"11 users .* too few"):
        fit(definition(), four_groups(11), NOW)
    debts = four_groups()
    debts.iloc[0, 0] = -2
    with pytest.raises(DataError, match=r"`habits:orders` has the value -2.*does not exist") as refused:
        fit(definition(), debts, NOW)
    assert refused.value.hint is not None
    assert "scale: standard" in refused.value.hint
    with pytest.raises(DataError, match="no user has all of the features"):
        label(fit(definition(), four_groups(), NOW), four_groups() * np.nan)


def test_names_get_longer_only_to_differ() -> None:
    features = [ClusterFeature(f"v:{name}", low=f"low {name}", high=f"high {name}") for name in "abc"]
    assert propose_names(features, np.array([[2.0, 1.0, 0.5], [2.0, 1.0, -0.5], [0.0, 0.1, 3.0]])) == [
        "high a, high b, high c",
        "high a, high b, low c",
        "high c",
    ]
    assert propose_names(features, np.zeros((2, 3))) == ["middling (1)", "middling (2)"]


# --- models ---------------------------------------------------------------------------------------------------------


def test_a_model_comes_back_from_json_as_it_was() -> None:
    model = replace(fit(definition(), four_groups(), NOW), version="v3", created_at=7)
    again = ClusterModel.from_json(model.to_json())
    assert again == model
    values = four_groups(50, seed=3).to_numpy(dtype=float)
    assert again.assign(values)[1].tolist() == model.assign(values)[1].tolist()


def _edit(text: bytes, **changes: Any) -> bytes:
    return json.dumps({**json.loads(text), **changes}).encode()


def test_a_damaged_model_is_refused() -> None:
    text = fit(definition(), four_groups(), NOW).to_json()
    with pytest.raises(DataError, match="was changed after it was written"):
        ClusterModel.from_json(_edit(text, users=3), "v1.json")
    with pytest.raises(DataError, match="format 2"):
        ClusterModel.from_json(_edit(text, format=2))
    for broken in (b"", b"[]", b"{}", text[:100]):
        with pytest.raises(DataError, match="is no cluster model"):
            ClusterModel.from_json(broken)


@pytest.mark.parametrize(
    ("field", "value"), [("scalers", []), ("clusters", []), ("clusters", 5), ("definition", {}), ("scores", [{"k": 2}])]
)
def test_a_model_that_makes_no_sense_is_refused_even_if_its_checksum_fits(field: str, value: Any) -> None:
    import hashlib

    import orjson

    content = json.loads(fit(definition(), four_groups(), NOW).to_json())
    del content["checksum"]
    content[field] = value
    canonical = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    content["checksum"] = "sha256:" + hashlib.sha256(canonical).hexdigest()
    with pytest.raises(DataError, match="is damaged"):
        ClusterModel.from_json(orjson.dumps(content))


def test_versions_count_up_and_an_equal_fit_is_no_new_version(tmp_path: Path) -> None:
    folder = ModelFolder(Project(tmp_path), "user_clusters")
    with pytest.raises(UnknownNameError, match="no model of `user_clusters` was fitted yet"):
        folder.load()
    model = fit(definition(), four_groups(), NOW)
    first, is_new = folder.save(model, 1)
    assert (first.version, is_new) == ("v1", True)
    assert folder.save(fit(definition(), four_groups(), NOW), 2) == (first, False)
    for day in range(1, 11):
        folder.save(replace(model, as_of=NOW + day * DAY), day)
    assert folder.versions()[-2:] == ("v10", "v11")
    assert folder.load().as_of == NOW + 10 * DAY
    assert folder.load("v1") == first
    with pytest.raises(UnknownNameError, match="no version `v12`"):
        folder.load("v12")


# --- the definition file --------------------------------------------------------------------------------------------


def _catalog() -> Catalog:
    types = {
        "habits:orders": "Int64",
        "habits:basket": "Float64",
        "habits:city": "String",
        "user_clusters:cluster": "Int64",
    }
    features = {key: Feature(*key.split(":"), from_feast_name(name), name) for key, name in types.items()}
    return Catalog(features)


GOOD = "clusters: user_clusters\nfeatures: [{feature: habits:orders}, {feature: habits:basket}]\n"


@pytest.mark.parametrize(
    ("text", "code", "place"),
    [
        (GOOD.replace("habits:basket", "habits:baskt"), "unknown-feature", "2:48"),
        (GOOD.replace("habits:basket", "habits:city"), "feature-type", "2:48"),
        (GOOD.replace("habits:basket", "habits:orders"), "duplicate-feature", "2:48"),
        (GOOD.replace("habits:basket", "user_clusters:cluster"), "own-label", "2:48"),
        (GOOD + "k: {from: 6, to: 3}\n", "empty-range", "3:4"),
        (GOOD + "order_by: habits:city\n", "unknown-feature", "3:11"),
        (GOOD + "sed: 3\n", "unknown-key", "3:1"),
        (GOOD.replace("}]", ", scale: lgo}]"), "invalid-choice", "2:70"),
        ("features: []\nclusters: user_clusters\n", "empty-list", "1:11"),
        (GOOD + "---\n" + GOOD, "duplicate-clusters", "4:1"),
    ],
)
def test_mistakes_in_the_definition_are_shown_at_their_place(tmp_path: Path, text: str, code: str, place: str) -> None:
    (tmp_path / "feature_repo").mkdir()
    (tmp_path / "feature_repo" / "clusters.yaml").write_text(text)
    with pytest.raises(DefinitionError) as refused:
        load_cluster_definitions(Project(tmp_path), _catalog())
    (problem,) = refused.value.diagnostics
    assert (problem.code, str(problem.span)) == (code, f"feature_repo/clusters.yaml:{place}")


def test_a_missing_definition_and_an_unknown_name_are_said(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"there is no .*clusters\.yaml"):
        load_cluster_definitions(Project(tmp_path), _catalog())
    two = {name: definition(clusters=name) for name in ("value", "taste")}
    assert choose(two, "taste").name == "taste"
    with pytest.raises(UnknownNameError, match="several definitions"):
        choose(two, None)
    with pytest.raises(UnknownNameError, match="no clusters `vlue`") as unknown:
        choose(two, "vlue")
    assert unknown.value.hint == "did you mean `value`?"


def test_a_definition_comes_back_from_plain_data_as_it_was() -> None:
    made = definition(order_by="habits:basket", seed=5, description="What people do")
    assert ClusterDefinition.from_plain(made.to_plain()) == made


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

DATA = Path(__file__).parent / "data"
user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
habits = FeatureView(
    name="habits", entities=[user], ttl=timedelta(days=40),
    source=FileSource(name="habits", path=str(DATA / "habits.parquet"), timestamp_field="event_timestamp"),
    schema=[Field(name="orders", dtype=Int64), Field(name="basket", dtype=Float64)],
)
user_clusters = FeatureView(
    name="user_clusters", entities=[user], ttl=timedelta(0),
    source=FileSource(
        name="labels", path=str(DATA / "{file}"), timestamp_field="event_timestamp", file_format=ParquetFormat()
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

    def make(label_file: str = LABEL_FILE) -> Project:
        project = make_project({"feature_repo/views.py": VIEWS.replace("{file}", label_file)})
        data = project.feature_repo / "data"
        data.mkdir()
        table = _habits((LAST_MONTH, four_groups(400, seed=8)), (NOW, four_groups(400, seed=1)))
        pq.write_table(table, data / "habits.parquet")
        pq.write_table(LABELS.empty_table(), data / label_file)
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
    counted: list[tuple[int, int]] = []
    done = attach(repo, first, NOW, lambda so_far, total: counted.append((so_far, total)))
    assert (done.users, done.added, done.moved, done.left_out) == (400, 400, 0, 0)
    assert counted[-1] == (400, 400)
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
    """What is not named as a Parquet file is written by Feast itself, as a table in a warehouse is."""
    project = make_shop("labels.pq")
    repo = _open(project)
    attach(repo, _fitted(repo), NOW)
    attach(repo, _fitted(repo, version="v2", k={"from": 2, "to": 2}), NOW)
    rows = pq.read_table(project.feature_repo / "data" / "labels.pq").to_pandas()
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


def test_the_example_of_the_documentation_is_a_definition(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "clusters.md").read_text(encoding="utf-8")
    example = page.partition("```yaml other\n")[2].partition("```")[0]
    (tmp_path / "feature_repo").mkdir()
    (tmp_path / "feature_repo" / "clusters.yaml").write_text(example, encoding="utf-8")
    names = ("rfm:recency_days", "rfm:frequency")
    catalog = Catalog({name: Feature(*name.split(":"), from_feast_name("Int64"), "Int64") for name in names})
    (found,) = load_cluster_definitions(Project(tmp_path), catalog).values()
    assert found.keys == names
    assert (found.k_from, found.k_to, found.seed) == (3, 8, 0)
