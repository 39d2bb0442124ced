"""Data sets of known structure, from scikit-learn: the number of clusters and the measures are the literature's.

All features are scaled to one spread first, as here always.

iris
    R. A. Fisher, 1936: three species, two of which overlap. k-means with three clusters of scaled measurements explains
    76.7% of the variance, with 50, 53 and 47 flowers (R's `kmeans(scale(iris[, -5]), 3)`, e.g. Durham University's
    "Workshop 6: Hierarchical clustering"). Two clusters have the best silhouette, and setosa is one of them (L. Kaufman
    and P. Rousseeuw, "Finding Groups in Data", 1990, on the silhouette; R's `factoextra` documents 0.58). BIC chooses
    two Gaussians of full covariance, and three of them agree with the species at an adjusted Rand index of 0.90 (C.
    Fraley and A. Raftery, "mclust", Journal of Classification 20 (2003), 263-286).
wine
    M. Forina et al., 1991: three cultivars. The silhouette of k-means on scaled measurements chooses three, at 0.285,
    and they agree with the cultivars at an adjusted Rand index of 0.90 (178 wines of the UCI repository; the usual
    example of why to scale).
digits
    E. Alpaydin and C. Kaynak, 1998. scikit-learn's "A demo of K-Means clustering on the handwritten digits data" gives
    an inertia of 69,432 to 69,510, an adjusted Rand index of 0.465 to 0.481 and a silhouette of 0.13 to 0.15
    for k-means++ on scaled pixels, by version.
blobs, moons
    scikit-learn's "Comparing different clustering algorithms on toy datasets", and its "Selecting the number of
    clusters with silhouette analysis": of the latter's four blobs the silhouette chooses two, at 0.705, before four, at
    0.651; three, five and six are "a bad pick".
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits, load_iris, load_wine, make_blobs, make_moons
from sklearn.metrics import adjusted_rand_score

from rules_engine.ml.clusters.definition import ClusterDefinition
from rules_engine.ml.clusters.fitting import Fit, fit_closely
from tests.cluster_data import NOW


def _fit(points: Any, k: tuple[int, int] | None = None, **changes: Any) -> Fit:
    names = [f"v:f{number}" for number in range(points.shape[1])]
    content = {"clusters": "c", "features": [{"feature": name} for name in names], **changes}
    if k is not None:
        content |= {"k": {"from": k[0], "to": k[1]}}
        content |= {} if changes.get("algorithm") == "agglomerative" else {"starts": 10}
    frame = pd.DataFrame(points, columns=names, index=[f"{number:05d}" for number in range(len(points))])
    return fit_closely(ClusterDefinition.from_plain(content), frame, NOW)


def _sizes(fit: Fit) -> list[int]:
    return sorted(cluster.size for cluster in fit.model.clusters)


def test_iris_two_clusters_are_clearest_and_one_of_them_is_setosa() -> None:
    iris = load_iris()
    for choose_by in ("silhouette", "davies_bouldin"):
        found = _fit(iris.data, (2, 8), choose_by=choose_by)
        assert _sizes(found) == [50, 100]
        assert len(set(found.clusters[iris.target == 0])) == 1
        assert found.model.score.silhouette == pytest.approx(0.58, abs=0.005)


def test_iris_three_clusters_are_what_r_finds_and_where_the_elbow_is() -> None:
    iris = load_iris()
    found = _fit(iris.data, (2, 8), choose_by="elbow")
    assert _sizes(found) == [47, 50, 53]
    assert 1 - found.model.score.inertia / (150 * 4) == pytest.approx(0.767, abs=0.001)
    assert found.model.score.silhouette == pytest.approx(0.46, abs=0.005)


def test_iris_bic_chooses_two_gaussians_and_three_are_the_species() -> None:
    iris = load_iris()
    assert len(_fit(iris.data, (2, 5), algorithm="gaussian_mixture", choose_by="bic").model.clusters) == 2
    three = _fit(iris.data, (3, 3), algorithm="gaussian_mixture")
    assert adjusted_rand_score(iris.target, three.clusters) == pytest.approx(0.904, abs=0.001)


@pytest.mark.parametrize("choose_by", ["silhouette", "davies_bouldin", "elbow"])
def test_wine_has_three_clusters_which_are_the_cultivars(choose_by: str) -> None:
    wine = load_wine()
    found = _fit(wine.data, (2, 8), choose_by=choose_by)
    assert len(found.model.clusters) == 3
    assert found.model.score.silhouette == pytest.approx(0.285, abs=0.001)
    assert adjusted_rand_score(wine.target, found.clusters) == pytest.approx(0.897, abs=0.001)


def test_digits_are_as_hard_as_scikit_learn_says() -> None:
    digits = load_digits()
    pixels = digits.data[:, digits.data.std(axis=0) > 0]  # three are never drawn on
    found = _fit(pixels, (10, 10))
    assert found.model.score.inertia == pytest.approx(69_470, rel=0.002)
    assert adjusted_rand_score(digits.target, found.clusters) == pytest.approx(0.47, abs=0.015)
    assert found.model.score.silhouette == pytest.approx(0.14, abs=0.015)
    ward = _fit(pixels, (10, 10), algorithm="agglomerative", linkage="ward")
    assert adjusted_rand_score(digits.target, ward.clusters) > 0.6, "Ward's merges do better here"


def test_blobs_are_found_by_every_linkage_and_counted_by_every_measure() -> None:
    points, groups = make_blobs(300, centers=[[0, 0], [6, 0], [0, 6], [6, 6]], cluster_std=0.5, random_state=0)
    for choose_by in ("silhouette", "davies_bouldin", "elbow"):
        assert adjusted_rand_score(groups, _fit(points, (2, 8), choose_by=choose_by).clusters) == 1.0
    mixture = _fit(points, (2, 6), algorithm="gaussian_mixture", choose_by="bic")
    assert adjusted_rand_score(groups, mixture.clusters) == 1.0
    for linkage in ("ward", "average", "complete"):
        tree = _fit(points, (2, 8), algorithm="agglomerative", linkage=linkage)
        assert adjusted_rand_score(groups, tree.clusters) == 1.0


def test_two_clusters_of_four_blobs_have_the_best_silhouette_where_scikit_learn_says_so() -> None:
    points, _ = make_blobs(500, centers=4, cluster_std=1, center_box=(-10.0, 10.0), shuffle=True, random_state=1)
    scores = {score.k: score.silhouette or 0.0 for score in _fit(points, (2, 6)).model.scores}
    assert sorted(scores, key=lambda k: -scores[k])[:2] == [2, 4]
    assert scores[2] == pytest.approx(0.705, abs=0.015), "scaled here, so not to the last digit"
    assert scores[4] == pytest.approx(0.651, abs=0.015)


def test_moons_are_told_apart_by_density_and_by_nothing_else() -> None:
    points, moons = make_moons(500, noise=0.05, random_state=30)
    found = {
        name: _fit(points, None if "scan" in name else (2, 2), algorithm=name)
        for name in ("kmeans", "gaussian_mixture", "agglomerative", "hdbscan")
    }
    agreement = {name: adjusted_rand_score(moons, fit.clusters) for name, fit in found.items()}
    assert agreement["hdbscan"] == 1.0
    assert max(value for name, value in agreement.items() if name != "hdbscan") < 0.85
    assert np.mean(found["hdbscan"].clusters < 0) == 0
