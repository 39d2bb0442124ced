"""Every algorithm and every step before it: what the plain numbers of a model do is what scikit-learn does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import DBSCAN, HDBSCAN, KMeans, MiniBatchKMeans
from sklearn.datasets import make_blobs, make_moons
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, RobustScaler, StandardScaler

from rules_engine.errors import DataError
from rules_engine.ml.clusters.algorithms.base import Clustering
from rules_engine.ml.clusters.algorithms.dbscan import CorePoints
from rules_engine.ml.clusters.algorithms.table import find
from rules_engine.ml.clusters.definition import ClusterDefinition, Method
from rules_engine.ml.clusters.fitting import fit, fit_closely, sample_rows
from rules_engine.ml.clusters.labelling.labels import label
from rules_engine.ml.clusters.model import CLUSTERS, OUTLIER
from rules_engine.ml.clusters.preparation.filling import filling_from_plain, fit_filling
from rules_engine.ml.clusters.preparation.preprocessing import Preprocessing, fit_preprocessing
from tests.cluster_data import NOW

ALL = [
    {"algorithm": "kmeans"},
    {"algorithm": "minibatch_kmeans"},
    {"algorithm": "agglomerative"},
    {"algorithm": "agglomerative", "linkage": "average"},
    {"algorithm": "agglomerative", "linkage": "complete"},
    {"algorithm": "gaussian_mixture"},
    {"algorithm": "gaussian_mixture", "covariance": "tied"},
    {"algorithm": "gaussian_mixture", "covariance": "diagonal"},
    {"algorithm": "gaussian_mixture", "covariance": "spherical", "choose_by": "bic"},
    {"algorithm": "dbscan", "min_users": 10},
    {"algorithm": "hdbscan", "min_users": 15},
]
_NAMES = ["-".join(str(value) for value in method.values()) for method in ALL]


def _wanted(columns: int = 3, **changes: Any) -> ClusterDefinition:
    features = [{"feature": f"v:f{number}"} for number in range(columns)]
    return ClusterDefinition.from_plain({"clusters": "c", "features": features, **changes})


def _frame(points: Any) -> pd.DataFrame:
    index = pd.Index([f"u{number:05d}" for number in range(len(points))], name="user_id")
    return pd.DataFrame(points, index=index, columns=[f"v:f{number}" for number in range(points.shape[1])])


def _find(algorithm: str, points: Any, sizes: list[int], **settings: Any) -> list[Clustering]:
    method = Method.from_plain({"algorithm": algorithm, **settings})
    return find(algorithm, points, sizes, method.settings, method.seed)


def _blobs(users: int = 500, seed: int = 4) -> tuple[Any, Any]:
    points, groups = make_blobs(users, n_features=3, centers=4, cluster_std=0.7, random_state=seed)
    return points, groups


# --- algorithms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ALL, ids=_NAMES)
def test_every_algorithm_finds_clear_groups_places_newcomers_and_comes_back_from_json(method: dict[str, Any]) -> None:
    points, groups = _blobs(600)
    frame = _frame(points)
    k = {} if method["algorithm"] in ("dbscan", "hdbscan") else {"k": {"from": 3, "to": 6}}
    found = fit_closely(_wanted(**method, **k), frame.iloc[:450], NOW)
    model = found.model
    assert len(model.clusters) == 4
    fitted = found.clusters >= 0
    assert fitted.mean() > 0.9
    assert adjusted_rand_score(groups[:450][fitted], found.clusters[fitted]) > 0.99
    # Newcomers are placed with nothing fitted, and as clearly; outliers aside.
    newcomers = model.assign(points[450:])
    inside = newcomers.position >= 0
    assert inside.mean() > 0.9
    assert adjusted_rand_score(groups[450:][inside], newcomers.position[inside]) == 1.0
    assert model.metrics["agreement"] > 0.98
    again = CLUSTERS.decode(CLUSTERS.encode(replace(model, version="v1")))
    assert again == replace(model, version="v1")
    assert again.assign(points[450:]).position.tolist() == newcomers.position.tolist()
    assert again.assign(points[450:]).confidence.tolist() == newcomers.confidence.tolist()
    assert ((newcomers.confidence >= 0) & (newcomers.confidence <= 1)).all()
    # Somebody like nobody else.
    stranger = model.assign(np.array([[500.0, -500.0, 500.0]]))
    assert stranger.outlier.tolist() == [True]
    assert fit(_wanted(**method, **k), frame.iloc[:450].sample(frac=1, random_state=1), NOW) == model


@pytest.mark.parametrize("batch", [False, True])
def test_kmeans_places_as_scikit_learn_predicts(batch: bool) -> None:
    points, _ = _blobs()
    name = "minibatch_kmeans" if batch else "kmeans"
    (found,) = _find(name, points[:300], [4], seed=3)
    kind = (
        MiniBatchKMeans(4, n_init=3, random_state=3, batch_size=4096) if batch else KMeans(4, n_init=3, random_state=3)
    )
    theirs = kind.fit(points[:300])
    placed = found.assigner.assign(points[300:])
    assert placed.position.tolist() == theirs.predict(points[300:]).tolist()
    distances = np.sort(theirs.transform(points[300:]), axis=1)
    assert placed.distance == pytest.approx(distances[:, 0])
    assert placed.confidence == pytest.approx(1 - distances[:, 0] / distances[:, 1])


@pytest.mark.parametrize("covariance", ["full", "tied", "diagonal", "spherical"])
def test_a_mixture_gives_the_probabilities_that_scikit_learn_gives(covariance: str) -> None:
    points, _ = make_blobs(600, n_features=3, centers=4, cluster_std=2.5, random_state=2)  # they overlap
    (found,) = _find("gaussian_mixture", points[:400], [4], covariance=covariance)
    kind = {"diagonal": "diag"}.get(covariance, covariance)
    theirs = GaussianMixture(4, covariance_type=kind, n_init=3, random_state=0, max_iter=300).fit(points[:400])
    placed = found.assigner.assign(points[400:])
    assert placed.probabilities == pytest.approx(theirs.predict_proba(points[400:]), abs=1e-9)
    assert placed.position.tolist() == theirs.predict(points[400:]).tolist()
    assert placed.confidence == pytest.approx(theirs.predict_proba(points[400:]).max(axis=1))
    assert found.bic == pytest.approx(theirs.bic(points[:400]))
    if covariance == "full":
        at = placed.position[0]
        apart = points[400] - theirs.means_[at]
        assert placed.distance[0] == pytest.approx(np.sqrt(apart @ theirs.precisions_[at] @ apart))


def test_dbscan_core_points_keep_their_cluster_and_others_go_by_the_nearest_one() -> None:
    points, _ = make_moons(400, noise=0.08, random_state=3)
    theirs = DBSCAN(eps=0.15, min_samples=8).fit(points)
    (found,) = _find("dbscan", points, [], eps=0.15, min_users=8)
    placed = found.assigner.assign(points)
    core = theirs.core_sample_indices_
    assert placed.position[core].tolist() == theirs.labels_[core].tolist()
    assert (placed.position < 0).tolist() == (theirs.labels_ < 0).tolist()
    assert placed.outlier.sum() == (theirs.labels_ < 0).sum() > 0
    assert placed.distance[core].tolist() == [0.0] * len(core)
    assert placed.confidence[core].tolist() == [1.0] * len(core)
    one = CorePoints(np.array([[0.0, 0.0]]), np.array([0]), eps=0.5)
    at_eps = one.assign(np.array([[0.5, 0.0], [0.0, 0.5000001]]))
    assert at_eps.position.tolist() == [0, -1], "eps itself is within, as DBSCAN has it"


def test_hdbscan_members_keep_their_cluster_and_users_in_none_stay_outside() -> None:
    points, _ = make_moons(400, noise=0.06, random_state=3)
    noise = np.random.default_rng(1).uniform(-2, 3, (40, 2))
    points = np.concatenate([points, noise])
    theirs = HDBSCAN(min_cluster_size=20, copy=True).fit(points)
    (found,) = _find("hdbscan", points, [], min_users=20)
    placed = found.assigner.assign(points)
    inside = theirs.labels_ >= 0
    assert set(theirs.labels_[inside]) == {0, 1}
    assert placed.position[inside].tolist() == theirs.labels_[inside].tolist()
    assert (placed.position[~inside] < 0).mean() > 0.9
    assert placed.confidence[inside].max() == pytest.approx(1.0)
    assert (placed.confidence[~inside & (placed.position < 0)] == 0).all()


def test_density_algorithms_see_moons_that_kmeans_cuts() -> None:
    points, moons = make_moons(600, noise=0.05, random_state=0)
    frame = _frame(points)
    scores = {}
    for method in (
        {"algorithm": "kmeans", "k": {"from": 2, "to": 2}},
        {"algorithm": "hdbscan"},
        {"algorithm": "dbscan"},
    ):
        found = fit_closely(_wanted(2, **method), frame, NOW)
        scores[method["algorithm"]] = adjusted_rand_score(moons, found.clusters)
    assert scores["hdbscan"] == 1.0
    assert scores["dbscan"] > 0.95, "with eps from the knee"
    assert scores["kmeans"] < 0.6


def test_users_in_no_cluster_are_labelled_as_outliers() -> None:
    points, _ = _blobs()
    points = np.concatenate([points, [[90.0, 90.0, 90.0], [-90.0, 90.0, 0.0]]])
    model = fit(_wanted(algorithm="dbscan", min_users=10), _frame(points), NOW)
    labels, _ = label(replace(model, version="v1"), _frame(points))
    alone = labels.loc[["u00500", "u00501"]]
    assert alone["label"].tolist() == [OUTLIER, OUTLIER]
    assert alone["cluster"].tolist() == [0, 0]
    assert alone["outlier"].tolist() == [True, True]
    assert alone["confidence"].tolist() == [0.0, 0.0]
    assert model.metrics["outliers"] * model.users >= 2
    assert sum(model.shares.values()) == pytest.approx(1.0)


def test_labels_of_a_mixture_come_with_a_probability_for_each_number() -> None:
    points, _ = make_blobs(400, n_features=3, centers=3, cluster_std=2.0, random_state=2)
    model = fit(_wanted(algorithm="gaussian_mixture", k={"from": 3, "to": 3}), _frame(points), NOW)
    model = replace(model, version="v1", clusters=tuple(reversed(model.clusters)))
    labels, _ = label(model, _frame(points))
    probabilities = labels[["probability_1", "probability_2", "probability_3"]].to_numpy()
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(400))
    assert (probabilities.argmax(axis=1) + 1).tolist() == labels["cluster"].tolist()
    assert probabilities.max(axis=1) == pytest.approx(labels["confidence"].to_numpy())


def test_nothing_found_is_an_error_that_says_what_to_change() -> None:
    scattered = np.random.default_rng(0).uniform(-1, 1, (300, 3))
    with pytest.raises(DataError, match=r"no place with 50 users within 0\.001") as refused:
        fit(_wanted(algorithm="dbscan", eps=0.001, min_users=50), _frame(scattered), NOW)
    assert "raise `eps`" in str(refused.value.hint)
    with pytest.raises(DataError, match="no cluster of 150 users") as refused:
        fit(_wanted(algorithm="hdbscan", min_users=150), _frame(scattered), NOW)
    assert "lower `min_users`" in str(refused.value.hint)
    with pytest.raises(DataError, match="too few, or too alike, for 400 users in one place"):
        fit(_wanted(algorithm="hdbscan", min_users=400), _frame(scattered), NOW)


# --- what happens before --------------------------------------------------------------------------------------------


def _with_gaps(users: int = 400) -> Any:
    random = np.random.default_rng(5)
    base = random.normal(size=(users, 2))
    mixed = base @ random.normal(size=(2, 5)) + random.normal(0, 0.2, (users, 5))
    mixed[random.random(mixed.shape) < 0.15] = np.nan
    return mixed[np.isfinite(mixed).any(axis=1)]


@pytest.mark.parametrize("missing", ["mean", "median", "knn", "iterative"])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_gaps_are_filled_as_scikit_learn_fills_them(missing: str) -> None:
    values = _with_gaps()
    fitted, others = values[:300], values[300:]
    imputers = {
        "mean": SimpleImputer(strategy="mean"),
        "median": SimpleImputer(strategy="median"),
        "knn": KNNImputer(),
        "iterative": IterativeImputer(max_iter=10, random_state=0),
    }
    theirs = imputers[missing].fit(fitted)
    ours = filling_from_plain(fit_filling(missing, fitted, seed=0).to_plain(), 5)
    assert ours.fill(others) == pytest.approx(theirs.transform(others), abs=1e-9)
    assert ours.fill(fitted) == pytest.approx(theirs.transform(fitted), abs=1e-9)
    whole = np.arange(10.0).reshape(2, 5)
    assert ours.fill(whole).tolist() == whole.tolist()


def test_nearest_users_are_looked_for_among_a_bounded_number() -> None:
    from rules_engine.ml.clusters.preparation.filling import DONORS, Neighbours

    many = np.random.default_rng(0).normal(size=(3 * DONORS, 5))
    filling = fit_filling("knn", many, seed=1)
    assert isinstance(filling, Neighbours)
    assert filling.donors.shape == (DONORS, 5)
    alone = np.full((1, 5), np.nan)
    assert filling.fill(alone) == pytest.approx(filling.donors.mean(axis=0)[None, :])


@pytest.mark.parametrize("scale", ["standard", "log", "robust", "min_max"])
def test_features_are_scaled_as_scikit_learn_scales_them_and_back(scale: str) -> None:
    values = np.random.default_rng(2).gamma(2.0, 30.0, (200, 2))
    features = [{"feature": "v:f0", "scale": scale}, {"feature": "v:f1", "scale": scale}]
    found = fit_preprocessing(_wanted(features=features), values)
    log = FunctionTransformer(np.log1p).fit_transform(values)
    theirs = {
        "standard": StandardScaler().fit_transform(values),
        "log": StandardScaler().fit_transform(log),
        "robust": RobustScaler().fit_transform(values),
        "min_max": MinMaxScaler().fit_transform(values),
    }
    scaled = found.standardize(values)
    assert scaled == pytest.approx(theirs[scale])
    assert found.scalers[0].unscale(scaled[:, 0]) == pytest.approx(values[:, 0])
    assert Preprocessing.from_plain(found.to_plain()) == found


@pytest.mark.parametrize(("pca", "size"), [({"components": 2}, 2), ({"variance": "90%"}, 2), ({"variance": "100%"}, 5)])
def test_principal_components_are_those_of_scikit_learn(pca: dict[str, Any], size: int) -> None:
    random = np.random.default_rng(6)
    values = random.normal(size=(300, 2)) @ random.normal(size=(2, 5)) + random.normal(0, 0.1, (300, 5))
    found = fit_preprocessing(_wanted(5, pca=pca), values)
    standardized = found.standardize(values)
    points = found.project(standardized)
    assert points.shape[1] == size
    if size < 5:
        theirs = PCA(pca.get("components", 0.9), svd_solver="full").fit(standardized)
        assert points == pytest.approx(theirs.transform(standardized))
        assert found.projection is not None
        assert found.projection.shares == pytest.approx(theirs.explained_variance_ratio_)
    model = fit(_wanted(5, pca=pca, k={"from": 2, "to": 3}), _frame(values), NOW)
    assert CLUSTERS.decode(CLUSTERS.encode(model)) == model
    assert all(len(cluster.centroid) == 5 for cluster in model.clusters), "names are about features, not components"


def test_users_with_gaps_are_placed_where_they_are_filled_and_only_who_has_nothing_is_left_out() -> None:
    points, groups = _blobs()
    holes = points.copy()
    holes[::7, 1] = np.nan
    holes[5] = np.nan
    frame = _frame(holes)
    model = fit(_wanted(missing="knn", k={"from": 4, "to": 4}), frame, NOW)
    assert (model.users, model.left_out) == (499, 1)
    labels, left_out = label(replace(model, version="v1"), frame)
    assert left_out == 1
    assert "u00005" not in labels.index
    assert adjusted_rand_score(np.delete(groups, 5), labels["cluster"]) > 0.98
    assert fit(_wanted(k={"from": 4, "to": 4}), frame, NOW).left_out == 73
    assert [reference.missing for reference in model.references] == pytest.approx([1 / 500, 73 / 500, 1 / 500])


def test_a_robust_scale_needs_a_middle() -> None:
    points, _ = _blobs()
    points[:400, 0] = 0.0
    features = [{"feature": "v:f0", "scale": "robust"}, {"feature": "v:f1"}]
    with pytest.raises(DataError, match="half of all users have 0 as `v:f0`") as refused:
        fit(_wanted(features=features), _frame(points), NOW)
    assert "scale: standard" in str(refused.value.hint)
    points[:, 0] = np.nan
    with pytest.raises(DataError, match="`v:f0` is missing for all 500 users"):
        fit(_wanted(features=features, missing="mean"), _frame(points), NOW)


def test_a_warning_of_filling_in_rounds_reaches_nobody() -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        fit_filling("iterative", _with_gaps(60), seed=0)


# --- samples --------------------------------------------------------------------------------------------------------


def test_a_sample_is_the_same_users_whoever_else_there_is() -> None:
    users = pd.Index([f"u{number:06d}" for number in range(20_000)])
    drawn = set(users[sample_rows(users, 2000, 1)])
    assert len(drawn) == 2000
    assert set(users[::-1][sample_rows(users[::-1], 2000, 1)]) == drawn
    fewer = users[:18_000]
    assert len(drawn & set(fewer[sample_rows(fewer, 2000, 1)])) > 1700
    assert drawn != set(users[sample_rows(users, 2000, 2)])
    assert len(sample_rows(users, 50_000, 1)) == 20_000


def test_a_fit_of_a_sample_says_so_and_labels_everyone() -> None:
    points, groups = _blobs(3000)
    model = fit(_wanted(sample=500, k={"from": 4, "to": 4}), _frame(points), NOW)
    assert (model.users, model.population, model.left_out) == (500, 3000, 0)
    labels, _ = label(replace(model, version="v1"), _frame(points))
    assert adjusted_rand_score(groups, labels["cluster"]) > 0.99
