"""Refit: a cluster keeps its number and its name as long as it keeps its users, and drift is seen and refused."""

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
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score
from typer.testing import CliRunner, Result

from rules_engine.cli import main
from rules_engine.clock import from_micros
from rules_engine.deploy.apply import apply
from rules_engine.errors import DataError
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.folders import Project
from rules_engine.ml.clusters.definition import ClusterDefinition
from rules_engine.ml.clusters.fitting import fit, fit_closely
from rules_engine.ml.clusters.labelling.labels import label
from rules_engine.ml.clusters.matching import ClusterChange
from rules_engine.ml.clusters.model import CLUSTERS, ClusterModel
from rules_engine.ml.clusters.project import ClusterFitRun
from rules_engine.ml.clusters.refit import Published, jaccard, keep_labels, match, publish
from rules_engine.ml.versions.store import VersionStore
from tests.cluster_data import NOW, definition, four_groups

BLOBS = ["v:a", "v:b", "v:c"]


def _of_blobs(k: tuple[int, int], **changes: Any) -> ClusterDefinition:
    content = {"clusters": "c", "features": [{"feature": name} for name in BLOBS], "k": {"from": k[0], "to": k[1]}}
    return ClusterDefinition.from_plain({**content, **changes})


def _blobs(users: int = 1500, centers: Any = 5, spread: float = 2.0, columns: list[str] = BLOBS) -> pd.DataFrame:
    """Blobs that overlap, so that where they end depends on who is there."""
    points, _ = make_blobs(users, n_features=3, centers=centers, cluster_std=spread, random_state=4)
    return pd.DataFrame(points, columns=columns, index=[f"u{number:05d}" for number in range(users)])


def _three(sizes: tuple[int, int, int] = (300, 200, 100)) -> pd.DataFrame:
    """Groups at 0, at 10 and, not far from there, at 13: with two clusters the last two are one."""
    random = np.random.default_rng(7)
    centers = np.repeat([[0.0, 0.0, 0.0], [10.0, 10.0, 0.0], [13.0, 10.0, 3.0]], sizes, axis=0)
    points = centers + random.normal(0, 0.3, centers.shape)
    return pd.DataFrame(points, columns=BLOBS, index=[f"u{number:05d}" for number in range(sum(sizes))])


def _first(wanted: ClusterDefinition, frame: pd.DataFrame) -> ClusterModel:
    return replace(fit(wanted, frame, NOW), version="v1")


def _refit(previous: ClusterModel, wanted: ClusterDefinition, frame: pd.DataFrame) -> ClusterModel:
    model = keep_labels(fit(wanted, frame, NOW), previous, frame, frame, previous.last_number)
    return replace(model, version=f"v{int(previous.version[1:]) + 1}")


def _clusters(model: ClusterModel, frame: pd.DataFrame) -> pd.Series[int]:
    return label(model, frame)[0]["cluster"]


# --- labels keep their meaning --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_another_seed_and_another_order_of_the_users_move_next_to_nobody(seed: int) -> None:
    frame = _blobs()
    first = _first(_of_blobs((5, 5)), frame)
    shuffled = frame.sample(frac=1, random_state=seed)
    again = _refit(first, _of_blobs((5, 5), seed=seed), shuffled)
    assert again.matching is not None
    assert again.matching.users == 1500
    assert again.matching.share_moved < 0.01
    assert again.matching.rand_index > 0.98
    assert (again.labels, again.matching.changes) == (first.labels, ())
    old, new = label(first, frame)[0]["label"], label(again, frame)[0]["label"]
    assert (old == new).mean() == 1 - again.matching.share_moved


def test_a_tenth_more_users_move_few_and_the_labels_stay() -> None:
    frame = _blobs(1650)
    first = _first(_of_blobs((5, 5)), frame.sample(1500, random_state=3))
    again = _refit(first, _of_blobs((5, 5)), frame)
    assert again.matching is not None
    assert again.matching.users == 1650, "users who came since are compared too: both models can label them"
    assert again.matching.share_moved < 0.05
    assert again.labels == first.labels
    assert min(again.matching.overlap.values()) > 0.8


def test_the_number_stays_though_another_feature_would_now_number_the_clusters() -> None:
    frame = four_groups()
    first = _first(definition(), frame)
    wanted = definition(order_by="habits:basket")
    assert not _clusters(replace(fit(wanted, frame, NOW), version="v2"), frame).equals(_clusters(first, frame))
    again = _refit(first, wanted, frame)
    assert _clusters(again, frame).equals(_clusters(first, frame))
    assert [cluster.number for cluster in again.clusters] == [1, 2, 3, 4]
    assert again.labels == first.labels


def test_the_moved_and_the_rand_index_are_those_of_the_labels() -> None:
    frame = _blobs(spread=4.0)
    first = _first(_of_blobs((5, 5)), frame.iloc[:700])
    again = _refit(first, _of_blobs((4, 4)), frame)
    old, new = _clusters(first, frame), _clusters(again, frame)
    assert again.matching is not None
    assert again.matching.moved == int((old != new).sum()) > 0
    assert again.matching.rand_index == pytest.approx(adjusted_rand_score(old, new))
    for number, overlap in again.matching.overlap.items():
        both, either = ((old == number) & (new == number)).sum(), ((old == number) | (new == number)).sum()
        assert overlap == pytest.approx(both / either)
        assert overlap >= 0.5


# --- splits, merges, births, deaths ---------------------------------------------------------------------------------


def test_a_split_leaves_the_label_with_the_larger_part_and_the_rest_is_born() -> None:
    frame = _three()
    first = _first(_of_blobs((2, 2)), frame)
    parent = _clusters(first, frame)["u00300"]
    again = _refit(first, _of_blobs((3, 3)), frame)
    numbers = _clusters(again, frame)
    assert (numbers.iloc[:300] == _clusters(first, frame).iloc[:300]).all()
    assert set(numbers.iloc[300:500]) == {parent}
    assert set(numbers.iloc[500:]) == {3}
    heir, born = again.labels[parent - 1], again.labels[2]
    assert heir == first.labels[parent - 1]
    assert born not in first.labels
    assert again.matching is not None
    assert (again.matching.moved, again.matching.users) == (100, 600)
    assert again.matching.changes == (
        ClusterChange("split", parent, heir, {heir: pytest.approx(2 / 3), born: pytest.approx(1 / 3)}),
        ClusterChange("born", 3, born, {heir: 1.0}),
    )


def test_a_merge_is_named_and_the_number_of_a_dead_cluster_is_not_given_again() -> None:
    frame = _three()
    three = _first(_of_blobs((3, 3)), frame)
    two = _refit(three, _of_blobs((2, 2)), frame)
    large, small = _clusters(three, frame)[["u00300", "u00500"]]
    names = dict(zip(range(1, 4), three.labels, strict=True))
    assert set(_clusters(two, frame).iloc[300:]) == {large}
    assert two.matching is not None
    assert two.matching.changes == (
        ClusterChange("died", small, names[small], {names[large]: 1.0}),
        ClusterChange(
            "merged", large, names[large], {names[large]: pytest.approx(2 / 3), names[small]: pytest.approx(1 / 3)}
        ),
    )
    again = _refit(two, _of_blobs((3, 3)), frame)
    assert set(_clusters(again, frame).iloc[500:]) == {4}
    assert (two.last_number, again.last_number) == (3, 4)


def test_what_has_too_little_in_common_is_not_the_same_though_it_is_the_best_there_is() -> None:
    frame = _three((100, 150, 160))
    first = _first(_of_blobs((2, 2)), frame)
    merged = frame.assign(**{"v:a": frame["v:a"].where(frame["v:a"] > 5, 11), "v:b": 10.0 + frame["v:b"] / 50})
    again = keep_labels(fit(_of_blobs((4, 4)), merged, NOW), first, merged, frame, first.last_number)
    assert again.matching is not None
    assert all(overlap >= 0.5 for overlap in again.matching.overlap.values())
    kept = {cluster.number for cluster in again.clusters} & {1, 2}
    assert kept == set(again.matching.overlap)
    assert {change.number for change in again.matching.changes if change.kind == "died"} == {1, 2} - kept
    assert not set(again.labels[len(kept) :]) & set(first.labels), "no name of the version before for what is born"


def test_the_assignment_is_the_best_one_together_and_distance_decides_between_equals() -> None:
    # 10 of 10 users went from 0 to each of two halves: only the centre tells which of them is the heir.
    halves = jaccard(np.array([[10, 10], [0, 0]]))
    assert match(halves, np.array([[1.0, 2.0], [0.0, 0.0]])) == {0: 0}
    assert match(halves, np.array([[2.0, 1.0], [0.0, 0.0]])) == {1: 0}
    # More in common wins, however far the centre.
    assert match(jaccard(np.array([[40, 60]])), np.array([[0.0, 1e9]])) == {1: 0}
    # One to one, although both old ones have most of their users in the same new one.
    assert match(jaccard(np.array([[50, 0], [50, 0]])), np.array([[5.0, 1.0], [4.0, 1.0]])) == {0: 1}
    # Too little is nothing, and an empty cluster is nobody's.
    assert match(jaccard(np.array([[49, 51], [51, 49]])), np.ones((2, 2))) == {}
    assert match(jaccard(np.zeros((2, 3), dtype=np.int64)), np.zeros((2, 3))) == {}


def _alone(columns: list[str] = BLOBS) -> pd.DataFrame:
    """The three groups with none of the users from before."""
    return _three().set_axis([f"x{number:05d}" for number in range(600)]).set_axis(columns, axis=1)


def test_clusters_are_matched_by_their_centres_where_no_user_can_be_compared() -> None:
    frame = _three()
    first = _first(_of_blobs((3, 3)), frame)
    strangers = _alone() + 0.05
    again = keep_labels(fit(_of_blobs((3, 3), seed=3), strangers, NOW), first, strangers, frame, first.last_number)
    assert again.matching is not None
    assert (again.matching.users, again.matching.share_moved) == (0, 1.0), "nobody can vouch for them, so it is refused"
    assert (again.labels, again.matching.by_center) == (first.labels, (1, 2, 3))
    for old, new in zip(first.clusters, again.clusters, strict=True):
        assert np.subtract(list(old.profile.values()), list(new.profile.values())) == pytest.approx(-0.05 * np.ones(3))
    assert CLUSTERS.decode(CLUSTERS.encode(again)).matching == again.matching


def test_a_centre_is_not_enough_if_another_one_is_as_near_or_other_features_count() -> None:
    frame = _three()
    first = _first(_of_blobs((3, 3)), frame)
    strangers = _alone() + 6.0  # the first group now lies between where two others were
    again = keep_labels(fit(_of_blobs((3, 3)), strangers, NOW), first, strangers, frame, first.last_number)
    assert again.matching is not None
    assert len(again.matching.by_center) < 3
    assert {change.kind for change in again.matching.changes} == {"died", "born"}
    renamed = _alone(["v:a", "v:b", "v:d"])
    wanted = ClusterDefinition.from_plain(
        {"clusters": "c", "features": [{"feature": name} for name in renamed.columns], "k": {"from": 3, "to": 3}}
    )
    other = keep_labels(fit(wanted, renamed, NOW), first, renamed, frame, first.last_number)
    assert other.matching is not None
    assert other.matching.by_center == ()


def test_few_members_in_a_crowd_are_matched_by_their_centre_and_the_crowd_by_its_members() -> None:
    frame = _three((300, 200, 100))
    first = _first(_of_blobs((3, 3)), frame)
    fewer = frame.iloc[:504]  # four of the smallest group are left
    newcomers = frame.iloc[500:].set_axis([f"y{number:03d}" for number in range(100)])
    now = pd.concat([fewer, newcomers])
    model = fit(_of_blobs((3, 3)), now, NOW)
    again = keep_labels(model, first, now, fewer, first.last_number)  # of newcomers nothing was known before
    assert again.matching is not None
    assert again.labels == first.labels
    assert again.matching.users == 504


@pytest.mark.parametrize("algorithm", ["hdbscan", "dbscan"])
def test_users_in_no_cluster_count_as_moved_only_if_they_were_in_one(algorithm: str) -> None:
    frame = _three()
    frame.loc["far"] = [60.0, -60.0, 60.0]
    wanted = ClusterDefinition.from_plain(
        {"clusters": "c", "features": [{"feature": name} for name in BLOBS], "algorithm": algorithm}
    )
    first = _first(wanted, frame)
    assert _clusters(first, frame)["far"] == 0
    same = _refit(first, wanted, frame.sample(frac=1, random_state=2))
    assert same.matching is not None
    assert same.matching.moved == 0
    everywhere = _refit(first, _of_blobs((len(first.clusters),) * 2), frame)
    assert everywhere.matching is not None
    outside = int((_clusters(first, frame) == 0).sum())
    assert everywhere.matching.moved >= outside > 0


# --- stability ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["kmeans", "agglomerative", "gaussian_mixture", "hdbscan", "dbscan"])
def test_clear_groups_are_stable_whoever_is_drawn(algorithm: str) -> None:
    k = {} if algorithm in ("hdbscan", "dbscan") else {"k": {"from": 3, "to": 3}}
    wanted = ClusterDefinition.from_plain(
        {"clusters": "c", "features": [{"feature": name} for name in BLOBS], "algorithm": algorithm, **k}
    )
    model = fit(wanted, _three(), NOW, resamples=10)
    assert len(model.clusters) == 3
    assert all(cluster.stability is not None and cluster.stability > 0.85 for cluster in model.clusters)
    assert fit(wanted, _three(), NOW, resamples=10) == model


def test_a_cluster_that_is_only_a_part_of_a_cloud_is_not_stable() -> None:
    cloud = pd.DataFrame(
        np.random.default_rng(1).normal(size=(800, 3)), columns=BLOBS, index=[f"u{number:04d}" for number in range(800)]
    )
    model = fit(_of_blobs((6, 6)), cloud, NOW, resamples=10)
    stabilities = [cluster.stability or 0.0 for cluster in model.clusters]
    assert min(stabilities) < 0.6
    assert fit(_of_blobs((6, 6)), cloud, NOW).clusters[0].stability is None, "not tried unless asked for"


# --- names ----------------------------------------------------------------------------------------------------------


def test_given_names_win_at_the_first_fit_and_later_and_are_kept_when_they_are_no_longer_given(tmp_path: Path) -> None:
    folder, frame = VersionStore(Project(tmp_path), CLUSTERS, "c"), four_groups()
    named = definition(names=[{"cluster": 2, "label": "regulars"}])
    first = _publish(folder, named, frame).model
    proposed = fit(definition(), frame, NOW).labels
    assert first.labels == (proposed[0], "regulars", *proposed[2:])
    assert _publish(folder, definition(seed=4), frame).model.labels == first.labels
    third = _publish(folder, definition(seed=4, names=[{"cluster": 3, "label": "regulars"}]), frame).model
    assert third.labels == (proposed[0], "regulars (2)", "regulars", proposed[3])
    assert third.matching is not None
    assert third.matching.changes == (
        ClusterChange("renamed", 2, "regulars (2)", {"regulars": 1.0}),
        ClusterChange("renamed", 3, "regulars", {proposed[2]: 1.0}),
    )
    assert third.matching.moved == 0, "who is in a cluster does not depend on what it is called"


def test_a_kept_name_about_a_feature_that_is_gone_is_in_doubt(tmp_path: Path) -> None:
    store, frame = VersionStore(Project(tmp_path), CLUSTERS, "user_clusters"), four_groups()
    frame["habits:age"] = 100 - frame["habits:basket"]
    first = _publish(store, definition(), frame).model
    orders = {"feature": "habits:orders", "scale": "log", "low": "rare", "high": "frequent"}
    wanted = definition(features=[orders, {"feature": "habits:age", "low": "young", "high": "old"}])

    def again(definition: ClusterDefinition) -> ClusterFitRun:
        fitted = fit_closely(definition, frame, NOW)
        return ClusterFitRun(publish(store, fitted.model, frame, frame.get, 1), fitted, first, frame)

    run = again(wanted)
    assert run.published.model.labels == first.labels
    doubted = {cluster.label: proposed for cluster, proposed in run.names_in_doubt()}
    assert doubted.keys() == set(first.labels)
    assert all(("old" in proposed) == ("small basket" in label) for label, proposed in doubted.items())
    given = replace(wanted, names=((1, "regulars"),), method=replace(wanted.method, seed=4))
    assert {cluster.number for cluster, _ in again(given).names_in_doubt()} == {2, 3, 4}


# --- publishing -----------------------------------------------------------------------------------------------------


def _publish(
    folder: VersionStore[ClusterModel], wanted: ClusterDefinition, frame: pd.DataFrame, **options: Any
) -> Published:
    def read(features: Any) -> pd.DataFrame:
        raise DataError(f"nobody has {', '.join(features)}")

    wanted = replace(wanted, name=folder.name)
    return publish(folder, fit(wanted, frame, NOW), frame, read, 1, **options)


def test_too_many_movers_are_refused_unless_they_are_accepted_or_allowed(tmp_path: Path) -> None:
    folder, frame = VersionStore(Project(tmp_path), CLUSTERS, "c"), _three((200, 200, 150))
    assert _publish(folder, _of_blobs((2, 2)), frame).is_new
    refused = _publish(folder, _of_blobs((3, 3)), frame)
    assert (refused.is_new, refused.model.version, folder.versions()) == (False, "", ("v1",))
    assert str(refused.refusal) == (
        "150 of 550 users (27.3%) would move to another cluster than v1 puts them into, and 20% may: nothing was stored"
    )
    assert refused.refusal is not None
    assert "--accept-drift" in str(refused.refusal.hint)
    assert _publish(folder, _of_blobs((3, 3), max_moved="27.2%"), frame).refusal is not None
    allowed = _publish(folder, _of_blobs((3, 3), max_moved="27.3%"), frame)
    assert (allowed.is_new, allowed.model.version, allowed.refusal) == (True, "v2", None)
    assert _publish(folder, _of_blobs((2, 2)), frame, max_moved=0.1).refusal is not None
    assert _publish(folder, _of_blobs((2, 2)), frame, accept_drift=True).model.version == "v3"


def test_an_equal_fit_is_no_new_version_whatever_the_version_before_was(tmp_path: Path) -> None:
    folder, frame = VersionStore(Project(tmp_path), CLUSTERS, "c"), _three()
    _publish(folder, _of_blobs((2, 2)), frame)
    second = _publish(folder, _of_blobs((3, 3)), frame)
    assert (second.is_new, second.model.version) == (True, "v2")
    for options in ({}, {"max_moved": 0.0}):
        again = _publish(folder, _of_blobs((3, 3), max_moved="5%"), frame, **options)
        assert (again.is_new, again.model, again.refusal) == (False, second.model, None)


def test_labels_come_from_the_version_that_users_have_not_from_one_that_was_only_fitted(tmp_path: Path) -> None:
    folder, frame = VersionStore(Project(tmp_path), CLUSTERS, "c"), _three()
    _publish(folder, _of_blobs((2, 2)), frame)
    assert folder.attached() is None
    folder.mark_attached("v1", 1)
    _publish(folder, _of_blobs((3, 3)), frame)
    third = _publish(folder, _of_blobs((2, 2), seed=5), frame).model
    assert third.matching is not None
    assert (third.matching.previous, third.matching.moved) == ("v1", 0)
    fourth = _publish(folder, _of_blobs((3, 3), seed=5), frame).model
    assert fourth.matching is not None
    assert (fourth.matching.previous, fourth.clusters[-1].number) == ("v1", 4), "v2 may have given 3 to somebody"
    folder.mark_attached("v99", 1)
    assert folder.attached() is None


def test_a_version_that_cannot_be_compared_is_refused_and_may_be_replaced(tmp_path: Path) -> None:
    folder = VersionStore(Project(tmp_path), CLUSTERS, "c")
    _publish(folder, definition(clusters="c"), four_groups())
    refused = _publish(folder, _of_blobs((3, 3)), _three())
    assert str(refused.refusal) == (
        "the clusters cannot be compared with v1: nobody has habits:orders, habits:basket; nothing was stored"
    )
    model = _publish(folder, _of_blobs((3, 3)), _three(), accept_drift=True).model
    assert [cluster.number for cluster in model.clusters] == [5, 6, 7]
    assert model.matching is not None
    assert (model.matching.users, model.matching.share_moved) == (0, 1.0)


def test_users_whom_one_of_the_versions_cannot_label_are_not_compared() -> None:
    frame = four_groups().astype(float)
    first = _first(definition(), frame)
    before = frame.drop(index="u0001")
    before.loc["u0002", "habits:orders"] = np.nan
    now = frame.copy()
    now.loc["u0003", "habits:basket"] = np.nan
    again = keep_labels(fit(definition(), now, NOW), first, now, before, 4)
    assert again.matching is not None
    assert (again.matching.users, again.matching.moved) == (397, 0)


def test_the_matching_is_stored_and_a_first_version_has_none() -> None:
    frame = _three()
    first = _first(_of_blobs((2, 2)), frame)
    second = _refit(first, _of_blobs((3, 3)), frame)
    stored = json.loads(CLUSTERS.encode(second))
    assert second.matching is not None
    assert stored["matching"]["share_moved"] == second.matching.share_moved == pytest.approx(1 / 6)
    assert stored["matching"]["adjusted_rand_index"] == second.matching.rand_index
    again = CLUSTERS.decode(CLUSTERS.encode(second))
    assert again == second
    assert again.checksum == stored["checksum"]
    assert CLUSTERS.decode(CLUSTERS.encode(first)).matching is None


# --- the commands ---------------------------------------------------------------------------------------------------

VIEWS = """\
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, Int64, String

DATA = Path(__file__).parent / "data"
user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
def view(name, **columns):
    source = FileSource(name=name, path=str(DATA / f"{name}.parquet"), timestamp_field="event_timestamp")
    fields = [Field(name=column, dtype=kind) for column, kind in columns.items()]
    return FeatureView(name=name, entities=[user], ttl=timedelta(0), source=source, schema=fields)
v = view("v", a=Float64, b=Float64, c=Float64)
user_clusters = view("user_clusters", label=String, cluster=Int64, distance=Float64, model_version=String)
"""
YAML = "clusters: user_clusters\nfeatures: [{feature: v:a}, {feature: v:b}, {feature: v:c}]\nk: {from: K, to: K}\n"


@pytest.fixture
def shop(make_project: Callable[..., Project]) -> Project:
    project = make_project({"feature_repo/views.py": VIEWS, "feature_repo/clusters.yaml": YAML.replace("K", "2")})
    data = project.feature_repo / "data"
    data.mkdir()
    frame = _three((200, 200, 150)).rename(columns=lambda name: name.partition(":")[2]).rename_axis("user_id")
    frame["event_timestamp"] = pd.Timestamp(from_micros(NOW)).as_unit("us")
    pq.write_table(pa.Table.from_pandas(frame.reset_index(), preserve_index=False), data / "v.parquet")
    columns = {"label": pa.string(), "cluster": pa.int64(), "distance": pa.float64(), "model_version": pa.string()}
    schema = pa.schema({"user_id": pa.string(), "event_timestamp": pa.timestamp("us", tz="UTC"), **columns})
    pq.write_table(schema.empty_table(), data / "user_clusters.parquet")
    _apply(project)
    return project


def _apply(project: Project) -> None:
    apply(project, {"segments": {}}, repo=FeastRepo(project))


def _run(shop: Project, command: str) -> Result:
    return CliRunner().invoke(main.app, ["cluster", *command.split(), "--repo", str(shop.root)], prog_name="segments")


def test_the_commands_show_the_drift_refuse_it_and_list_the_versions(shop: Project) -> None:
    at = "--at 2026-03-02T00:00:00Z"
    assert _run(shop, "list").exit_code == 1
    assert _run(shop, f"fit {at}").exit_code == 0
    assert _run(shop, f"attach {at}").exit_code == 0
    yaml = shop.feature_repo / "clusters.yaml"
    yaml.write_text(YAML.replace("K", "3") + "names: [{cluster: 9, label: nobody}]\n")
    refused = _run(shop, f"fit {at}")
    assert refused.exit_code == 1
    assert "user_clusters (not stored): 550 users" in refused.stdout
    assert "Since v1: 150 of 550 users (27.3%) are in another cluster, adjusted Rand index" in refused.stdout
    assert "split " in refused.stdout
    assert "born " in refused.stdout
    assert "Next:" not in refused.stdout
    assert "error: 150 of 550 users (27.3%) would move" in refused.stderr
    assert "clusters.yaml names cluster 9 `nobody`, and there is none" in refused.stderr
    data = json.loads(_run(shop, f"fit {at} --format json").stdout)
    assert (data["version"], data["new"], data["matching"]["moved"]) == (None, False, 150)
    assert data["refused"] in refused.stderr
    assert VersionStore(shop, CLUSTERS, "user_clusters").versions() == ("v1",)

    assert _run(shop, f"fit {at} --max-moved many").exit_code == 2
    assert _run(shop, f"fit {at} --accept-drift").exit_code == 0
    rows = [line.split() for line in _run(shop, "list").stdout.splitlines()]
    assert rows[0] == ["version", "fitted", "as", "of", "algorithm", "k", "silhouette", "users", "moved", "checksum"]
    assert [(row[0], row[5], row[7]) for row in rows[1:]] == [("v1", "2", "550"), ("v2", "3", "550")]
    assert rows[1][-1] == "attached"
    assert rows[2][-2] == "27.3%"
    listed = json.loads(_run(shop, "list user_clusters --format json").stdout)
    stored = json.loads(VersionStore(shop, CLUSTERS, "user_clusters").file("v2").read_bytes())
    assert listed[1]["checksum"] == stored["checksum"]
    assert stored["checksum"].startswith(f"sha256:{rows[2][-1]}")
    assert (listed[0]["attached"], listed[1]["attached"], listed[1]["previous"]) == (True, False, "v1")
    assert "Since v1: 150 of 550" in _run(shop, "show").stdout
    assert "Since" not in _run(shop, "show --version v1").stdout
    assert json.loads(_run(shop, "show --format json").stdout)["matching"] == stored["matching"]
    assert "there is no `nothing` among the fitted clusters" in _run(shop, "show nothing").stderr


def test_a_version_before_that_looked_at_a_feature_that_is_gone_is_said(shop: Project) -> None:
    at = "--at 2026-03-02T00:00:00Z"
    assert _run(shop, f"fit {at}").exit_code == 0
    (shop.feature_repo / "clusters.yaml").write_text(YAML.replace("K", "2").replace(", {feature: v:c}", ""))
    compared = json.loads(_run(shop, f"fit {at} --format json").stdout)
    assert (compared["version"], compared["matching"]["moved"]) == ("v2", 0), "v:c is still there to compare by"
    views = shop.feature_repo / "views.py"
    views.write_text(VIEWS.replace(", c=Float64)", ")"))
    _apply(shop)
    folder = VersionStore(shop, CLUSTERS, "user_clusters")
    folder.mark_attached("v1", 1)
    (shop.feature_repo / "clusters.yaml").write_text(YAML.replace("K", "3").replace(", {feature: v:c}", ""))
    refused = _run(shop, f"fit {at}")
    assert refused.exit_code == 1
    assert "cannot be compared with v1: it looks at `v:c`, which is no feature any more" in refused.stderr
    assert "No user can be compared with v1" in refused.stdout
