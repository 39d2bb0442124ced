"""Columns that real clusters are made of, definitions as people first write them, and the first fit of a project."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner, Result

from rules_engine.cli import main
from rules_engine.errors import DataError
from rules_engine.folders import Project
from rules_engine.ml.clusters.definition import ClusterDefinition
from rules_engine.ml.clusters.fitting import fit
from tests.cluster_data import NOW, four_groups, project_files, write_features
from tests.model_shop import shop_maker

AT = "--at 2026-03-01T00:00:00Z"


def _run(project: Project, command: str) -> Result:
    return CliRunner().invoke(main.app, [*command.split(), "--repo", str(project.root)])


def _wanted(scale: str = "standard", **changes: Any) -> ClusterDefinition:
    features = [{"feature": "v:money", "scale": scale}, {"feature": "v:f"}]
    return ClusterDefinition.from_plain({"clusters": "c", "features": features, "k": {"from": 2, "to": 3}, **changes})


def _frame(money: Any) -> pd.DataFrame:
    values = np.arange(300.0) % 7
    column = values.copy()
    column[:3] = money
    index = [f"u{number:03d}" for number in range(300)]
    return pd.DataFrame({"v:money": column, "v:f": values}, index=index)


# --- columns --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["standard", "robust"])
@pytest.mark.parametrize("huge", [1e300, -1e300, 1.7e308, [1.7e308, -1.7e308, 0]])
def test_values_too_far_apart_are_refused_with_the_feature(scale: str, huge: Any) -> None:
    with pytest.raises(DataError, match=r"`v:money` reaches from .* too far to be compared by `scale: ") as refused:
        fit(_wanted(scale), _frame(huge), NOW)
    assert "`scale: log` or `scale: min_max` for v:money" in str(refused.value.hint)


def test_what_is_advised_for_values_far_apart_works() -> None:
    assert fit(_wanted("log"), _frame(1e300), NOW).users == 300
    assert fit(_wanted("min_max"), _frame(1e300), NOW).users == 300
    assert fit(_wanted(), _frame(1e150), NOW).users == 300


@pytest.mark.parametrize(
    "algorithm",
    [{}, {"algorithm": "gaussian_mixture"}, {"algorithm": "dbscan"}, {"algorithm": "hdbscan"}, {"missing": "knn"}],
)
def test_who_comes_later_with_a_huge_value_is_an_outlier_and_no_error(algorithm: dict[str, Any]) -> None:
    wanted = {**algorithm} if "dbscan" in str(algorithm) else {"k": {"from": 4, "to": 4}, **algorithm}
    features = [{"feature": "habits:orders"}, {"feature": "habits:basket"}]
    definition = ClusterDefinition.from_plain({"clusters": "c", "features": features, **wanted})
    if "dbscan" in str(algorithm):
        definition = ClusterDefinition.from_plain({"clusters": "c", "features": features, **algorithm})
    model = fit(definition, four_groups(), NOW)
    placed = model.assign(np.array([[1e300, 10.0], [-1.7e308, 1.7e308], [70.0, 90.0]]))
    assert placed.outlier.tolist()[:2] == [True, True]
    assert np.isfinite(placed.distance).all()
    assert ((placed.confidence >= 0) & (placed.confidence <= 1)).all()


def test_an_infinite_value_counts_as_missing_and_is_counted() -> None:
    model = fit(_wanted(), _frame([np.inf, -np.inf, np.nan]), NOW)
    assert (model.users, model.left_out) == (297, 3)


@pytest.mark.parametrize("missing", ["leave_out", "mean", "knn"])
@pytest.mark.parametrize("nothing", [np.nan, np.inf])
def test_a_feature_that_nobody_has_is_named(missing: str, nothing: float) -> None:
    frame = _frame(0.0).assign(**{"v:money": nothing})
    with pytest.raises(DataError, match="`v:money` is missing for all 300 users") as refused:
        fit(_wanted(missing=missing), frame, NOW)
    assert "remove it from clusters.yaml" in str(refused.value.hint)


# --- definitions as people first write them -------------------------------------------------------------------------

CLUSTERS = "clusters: user_clusters\nfeatures: [{feature: v:orders}, {feature: v:basket}]\n"
VIEW = "error[wrong-view]: there is no feature view `others` to hold the labels"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("clusters: user_clusters\nfeatures: [{feature: v:orders}]\n", ["`features` has 1 of at least 2 entries"]),
        ("clusters: user_clusters\nfeatures: []\n", ["`features` is empty"]),
        (f"{CLUSTERS}k: 5\n", ["`k` is a mapping, not `5`", "{from: 5, to: 5}"]),
        (f"{CLUSTERS}max_moved: 0.2\n", ["`max_moved` is a string, not `0.2`", "write a percentage, such as 20%"]),
        (f'{CLUSTERS}max_moved: "0.2"\n', ["`max_moved` cannot be the string `0.2`", "such as 20%"]),
        (CLUSTERS.replace("user_clusters", "others"), [VIEW, "define a FeatureView `others` in feature_repo/"]),
        (CLUSTERS.replace("user_clusters", "v"), ["the feature view `v` holds other features than labels: orders"]),
    ],
)
def test_validate_says_what_to_write(make_project: Callable[..., Project], text: str, said: list[str]) -> None:
    frame = four_groups().rename(columns=lambda name: name.replace("habits", "v"))
    shown = _run(make_project(project_files(frame, text)), "validate")
    assert shown.exit_code == 1
    for words in said:
        assert words in shown.stdout


def test_validate_finds_that_no_view_holds_the_scores(make_project: Callable[..., Project]) -> None:
    shop = shop_maker(make_project)(model="likely")
    shown = _run(shop, "validate")
    assert shown.exit_code == 1
    assert "feature_repo/models.yaml:1:8: error[wrong-view]: there is no feature view `likely` to hold the scores" in (
        shown.stdout
    )
    assert "with the features score (Float64), percentile (Float64), model_version (String)" in shown.stdout


def test_one_cut_is_one_and_not_none(make_project: Callable[..., Project]) -> None:
    shown = _run(shop_maker(make_project)(cuts=["2026-01-01T00:00:00Z"]), "validate")
    assert "`cuts` has 1 of at least 2 entries" in shown.stdout


# --- the first fit --------------------------------------------------------------------------------------------------


def test_the_first_fit_needs_no_file_made_by_hand(make_project: Callable[..., Project]) -> None:
    """Two views of labels: that of other clusters has no file either, and must not stop these."""
    frame = four_groups().rename(columns=lambda name: name.replace("habits", "v"))
    files = project_files(frame, f"{CLUSTERS}---\n{CLUSTERS.replace('user_clusters', 'others')}")
    files["feature_repo/views.py"] += (
        'others = view("others", label=String, cluster=Int64, distance=Float64, model_version=String, outlier=Bool)\n'
    )
    shop = make_project(files)
    write_features(shop, frame)
    labels = [shop.feature_repo / "data" / f"{name}.parquet" for name in ("user_clusters", "others")]
    labels[0].unlink()
    for command in ("apply", "materialize", f"cluster fit user_clusters --no-report {AT}"):
        done = _run(shop, command)
        assert done.exit_code == 0, done.output
    assert pq.read_schema(labels[1]).names == [
        "user_id", "event_timestamp", "label", "cluster", "distance", "model_version", "outlier"
    ]  # fmt: skip
    for command in (f"cluster attach user_clusters {AT}", f"cluster fit others --no-report {AT}"):
        done = _run(shop, command)
        assert done.exit_code == 0, done.output
    assert pq.read_table(labels[0]).num_rows == 400


def test_the_first_model_needs_no_file_either(make_project: Callable[..., Project]) -> None:
    shop = shop_maker(make_project)()
    scores: Path = shop.feature_repo / "data" / "propensity.parquet"
    scores.unlink()
    for command in ("apply", "model fit", "model score"):
        done = _run(shop, command)
        assert done.exit_code == 0, done.output
    assert pq.read_table(scores).num_rows == 300
    assert yaml.safe_load((shop.feature_repo / "models.yaml").read_text())["model"] == "propensity"
