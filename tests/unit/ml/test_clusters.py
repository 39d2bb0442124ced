"""Clusters: what is found in data of known structure, how models are kept, and how they are defined."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs

from rules_engine.clock import DAY
from rules_engine.errors import DataError, DefinitionError, ProjectError, UnknownNameError
from rules_engine.folders import Project
from rules_engine.ml.clusters.definition import ClusterDefinition, ClusterFeature, load_cluster_definitions
from rules_engine.ml.clusters.fitting import fit
from rules_engine.ml.clusters.labelling.labels import label
from rules_engine.ml.clusters.model import CLUSTERS
from rules_engine.ml.clusters.naming import propose_names
from rules_engine.ml.filled_view import LABELS
from rules_engine.ml.versions.store import VersionStore, choose_name
from rules_engine.rules.catalog import Catalog, Feature
from rules_engine.rules.types import from_feast_name
from tests.cluster_data import NOW, definition, four_groups

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
    assert model.score.silhouette == max(score.silhouette or -1 for score in model.scores) > 0.8
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
    found = model.assign(newcomers)
    centroids = model.assigner.points[[cluster.position for cluster in model.clusters]]  # type: ignore[attr-defined]
    means = KMeans(len(centroids), init=centroids, n_init=1, max_iter=1)
    means.fit(centroids)
    means.cluster_centers_ = centroids
    standardized = model.standardize(newcomers)
    assert found.position.tolist() == means.predict(standardized).tolist()
    assert found.distance == pytest.approx(means.transform(standardized).min(axis=1))


def test_the_scalers_are_what_they_say() -> None:
    frame = four_groups()
    orders, basket = fit(definition(), frame, NOW).preprocessing.scalers
    logs = np.log1p(frame["habits:orders"].to_numpy())
    assert (orders.transform, basket.transform) == ("log", "")
    assert (orders.center, orders.spread) == pytest.approx((logs.mean(), logs.std()))
    assert basket.center == pytest.approx(frame["habits:basket"].mean())


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
    with pytest.raises(
        DataError, match=r"`habits:orders` has the value -2, for which `scale: log` is not defined"
    ) as refused:
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
    # The same words in another order are the same words.
    assert propose_names(features[:2], np.array([[2.0, 1.0], [1.0, 3.0]])) == ["high a, high b", "very high b, high a"]
    assert propose_names(features[:2], np.array([[2.0, 0.0]]), taken=["high a"]) == ["very high a"]
    assert propose_names(features, np.zeros((2, 3))) == ["middling", "middling (2)"]


# --- models ---------------------------------------------------------------------------------------------------------


def test_a_model_comes_back_from_json_as_it_was() -> None:
    model = replace(fit(definition(), four_groups(), NOW), version="v3", created_at=7)
    again = CLUSTERS.decode(CLUSTERS.encode(model))
    assert again == model
    values = four_groups(50, seed=3).to_numpy(dtype=float)
    assert again.assign(values).distance.tolist() == model.assign(values).distance.tolist()


def _edit(text: bytes, **changes: Any) -> bytes:
    return json.dumps({**json.loads(text), **changes}).encode()


def test_a_damaged_model_is_refused() -> None:
    text = CLUSTERS.encode(fit(definition(), four_groups(), NOW))
    with pytest.raises(DataError, match="was changed after it was written"):
        CLUSTERS.decode(_edit(text, users=3), "v1.json")
    with pytest.raises(DataError, match="format 3"):
        CLUSTERS.decode(_edit(text, format=3))
    for broken in (b"", b"[]", b"{}", text[:100]):
        with pytest.raises(DataError, match="is damaged: it"):
            CLUSTERS.decode(broken)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("preprocessing", {}),
        ("assigner", {"kind": "centers", "points": [[0.0]], "limits": [1.0]}),
        ("assigner", {"kind": "python"}),
        ("clusters", []),
        ("clusters", 5),
        ("definition", {}),
        ("scores", [{"k": 2}]),
        ("chosen", 77),
        ("references", [{}]),
    ],
)
def test_a_model_that_makes_no_sense_is_refused_even_if_its_checksum_fits(field: str, value: Any) -> None:
    import hashlib

    import orjson

    content = json.loads(CLUSTERS.encode(fit(definition(), four_groups(), NOW)))
    del content["checksum"]
    content[field] = value
    canonical = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    content["checksum"] = "sha256:" + hashlib.sha256(canonical).hexdigest()
    with pytest.raises(DataError, match="is damaged"):
        CLUSTERS.decode(orjson.dumps(content))


def test_versions_count_up_and_an_equal_fit_is_no_new_version(tmp_path: Path) -> None:
    folder = VersionStore(Project(tmp_path), CLUSTERS, "user_clusters")
    with pytest.raises(UnknownNameError, match="no version of `user_clusters` was fitted yet"):
        folder.current()
    model = fit(definition(), four_groups(), NOW)
    first, is_new = folder.add(model, 1)
    assert (first.version, is_new) == ("v1", True)
    assert folder.add(fit(definition(), four_groups(), NOW), 2) == (first, False)
    for day in range(1, 11):
        folder.add(replace(model, as_of=NOW + day * DAY), day)
    assert folder.versions()[-2:] == ("v10", "v11")
    assert folder.current().as_of == NOW + 10 * DAY
    assert folder.load("v1") == first
    with pytest.raises(UnknownNameError, match="no version `v12`"):
        folder.load("v12")


# --- the definition file --------------------------------------------------------------------------------------------


def _catalog() -> Catalog:
    types = {
        "habits:orders": "Int64",
        "habits:basket": "Float64",
        "habits:city": "String",
        **{f"user_clusters:{name}": kind for name, kind in LABELS.needed.items()},
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
        (GOOD + "max_moved: 0.2\n", "wrong-shape", "3:12"),
        (GOOD + "algorithm: kmeens\n", "invalid-choice", "3:12"),
        (GOOD + "linkage: ward\n", "not-for-algorithm", "3:1"),
        (GOOD + "algorithm: hdbscan\nk: {from: 2, to: 3}\n", "not-for-algorithm", "4:1"),
        (GOOD + "algorithm: dbscan\ncovariance: full\n", "not-for-algorithm", "4:1"),
        (GOOD + "algorithm: agglomerative\nstarts: 5\n", "not-for-algorithm", "4:1"),
        (GOOD + "algorithm: hdbscan\neps: 0.5\n", "not-for-algorithm", "4:1"),
        (GOOD + "algorithm: dbscan\neps: 0\n", "wrong-shape", "4:6"),
        (GOOD + "choose_by: bic\n", "no-likelihood", "3:12"),
        (GOOD + "choose_by: elbow\nk: {from: 2, to: 3}\n", "no-elbow", "4:4"),
        (GOOD + "pca: {components: 3}\n", "too-many-components", "3:19"),
        (GOOD + "pca: {variance: 0%}\n", "no-variance", "3:17"),
        (GOOD + "pca: {variance: 90}\n", "wrong-shape", "3:17"),
        (GOOD + "missing: guess\n", "invalid-choice", "3:10"),
        (GOOD + "names: [{cluster: 1, label: a}, {cluster: 1, label: b}]\n", "duplicate-name", "3:43"),
        (GOOD + "names: [{cluster: 1, label: a}, {cluster: 2, label: a}]\n", "duplicate-name", "3:53"),
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
    two = ["value", "taste"]
    assert choose_name(two, "taste", "clusters") == "taste"
    assert choose_name(["value"], None, "clusters") == "value"
    with pytest.raises(UnknownNameError, match="there are several clusters: `taste`, `value`"):
        choose_name(two, None, "clusters")
    with pytest.raises(UnknownNameError, match="there is no `vlue` among the clusters") as unknown:
        choose_name(two, "vlue", "clusters")
    assert unknown.value.hint == "did you mean `value`?"


def test_a_definition_comes_back_from_plain_data_as_it_was() -> None:
    names = [{"cluster": 3, "label": "regulars"}]
    made = definition(order_by="habits:basket", seed=5, description="What people do", max_moved="7.5%", names=names)
    assert (made.max_moved, made.names) == (0.075, ((3, "regulars"),))
    assert ClusterDefinition.from_plain(made.to_plain()) == made
    for changes in (
        {"algorithm": "gaussian_mixture", "covariance": "tied", "choose_by": "bic", "starts": 7, "sample": 500},
        {"algorithm": "agglomerative", "linkage": "average", "missing": "knn", "pca": {"components": 2}},
        {"algorithm": "minibatch_kmeans", "missing": "median", "pca": {"variance": "87.5%"}},
    ):
        made = definition(**changes)
        assert ClusterDefinition.from_plain(made.to_plain()) == made
    dense = {"clusters": "c", "features": definition().to_plain()["features"], "algorithm": "dbscan", "eps": 0.25}
    made = ClusterDefinition.from_plain({**dense, "min_users": 9})
    assert ClusterDefinition.from_plain(made.to_plain()) == made
    assert (made.method.settings, made.method.finds_k) == ({"eps": 0.25, "min_users": 9}, True)


def test_the_example_of_the_documentation_is_a_definition(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "clusters.md").read_text(encoding="utf-8")
    example = page.partition("```yaml other\n")[2].partition("```")[0]
    (tmp_path / "feature_repo").mkdir()
    (tmp_path / "feature_repo" / "clusters.yaml").write_text(example, encoding="utf-8")
    names = ("rfm:recency_days", "rfm:frequency")
    features = {name: Feature(*name.split(":"), from_feast_name("Int64"), "Int64") for name in names}
    catalog = Catalog({**_catalog().features, **features})
    (found,) = load_cluster_definitions(Project(tmp_path), catalog).values()
    assert found.keys == names
    assert (found.method.k_from, found.method.k_to, found.method.seed) == (3, 8, 0)
