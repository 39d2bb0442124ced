"""Versions of clusters and what schedulers ask: promote, rollback, compare, drift, a report; with real stores."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from rules_engine.cli import main
from rules_engine.clock import DAY, format_instant
from rules_engine.deploy.apply import apply
from rules_engine.errors import ProjectError, UnknownNameError
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.features.offline.point_in_time import OfflineUsers
from rules_engine.folders import Project
from rules_engine.ml.clusters import population
from rules_engine.ml.clusters.definition import ClusterDefinition
from rules_engine.ml.clusters.fitting import fit
from rules_engine.ml.clusters.labelling.attach import attach
from rules_engine.ml.clusters.model import CLUSTERS
from rules_engine.ml.filled_view import LABELS
from rules_engine.ml.offline import features_as_of, latest_rows
from rules_engine.ml.versions.store import VersionStore, fitted_names
from tests.cluster_data import NOW, four_groups, project_files, write_features

FEATURES = ["v:orders", "v:basket"]
YAML = "clusters: user_clusters\nfeatures: [{feature: v:orders, scale: log}, {feature: v:basket}]\n"


def _users(seed: int = 1, users: int = 400) -> pd.DataFrame:
    return four_groups(users, seed).astype(float).set_axis(FEATURES, axis=1)


@pytest.fixture
def make(make_project: Callable[..., Project]) -> Callable[..., Project]:
    def made(clusters: str = YAML, more: str = "", name: str = "shop") -> Project:
        frame = _users()
        project = make_project(project_files(frame, clusters, more), name)
        write_features(project, frame)
        apply(project, {"segments": {}}, repo=FeastRepo(project))
        return project

    return made


def _run(shop: Project, command: str) -> Result:
    return CliRunner().invoke(main.app, [*command.split(), "--repo", str(shop.root)], prog_name="segments")


def _online(repo: FeastRepo, users: list[str], *names: str) -> list[list[object]]:
    rows = [{"user_id": user} for user in users]
    found = repo.store.get_online_features([f"user_clusters:{name}" for name in names], rows).to_dict()
    return [[found[name][at] for name in names] for at in range(len(users))]


def test_mistakes_in_clusters_yaml_are_shown_by_validate_too(make: Callable[..., Project]) -> None:
    shop = make()
    assert _run(shop, "validate").exit_code == 0
    (shop.feature_repo / "clusters.yaml").write_text(YAML + "algorithm: hdbscan\neps: 0.5\n")
    refused = _run(shop, "validate")
    assert refused.exit_code == 1
    assert "feature_repo/clusters.yaml:4:1: error[not-for-algorithm]: `hdbscan` has no `eps`" in refused.stdout
    assert "hint: remove it, or choose an algorithm that has: `dbscan`" in refused.stdout
    assert _run(shop, "cluster fit").exit_code == 1


# --- promote, rollback, compare -------------------------------------------------------------------------------------


def test_promoted_versions_are_attached_whatever_is_fitted_later_and_rolled_back(make: Callable[..., Project]) -> None:
    shop = make()
    at = f"--at {format_instant(NOW)}"
    assert _run(shop, "cluster promote v1").exit_code == 1
    for seed in (1, 2, 3):
        (shop.feature_repo / "clusters.yaml").write_text(f"{YAML}seed: {seed}\n")
        assert _run(shop, f"cluster fit --no-report {at}").exit_code == 0
    folder = VersionStore(shop, CLUSTERS, "user_clusters")
    assert folder.current().version == "v3", "the newest, as none is promoted"
    nothing = _run(shop, "cluster rollback")
    assert nothing.exit_code == 1
    assert "no version was promoted, so there is none of `user_clusters` to go back to" in nothing.stderr
    assert "v1 is promoted\n" in _run(shop, "cluster promote v1").stdout
    assert "v2 is promoted, instead of v1" in _run(shop, "cluster promote v2 --of user_clusters").stdout
    attached = _run(shop, f"cluster attach {at}")
    assert attached.exit_code == 0, attached.stderr
    assert "user_clusters v2: labels for 400 users" in attached.stdout
    assert "v3 is newer: `segments cluster promote v3`" in attached.stderr
    repo = FeastRepo(shop)
    assert _online(repo, ["u0001"], "model_version") == [["v2"]]

    marks = {row.split()[0]: row.split()[-2:] for row in _run(shop, "cluster list").stdout.splitlines()[1:]}
    assert marks["v2"] == ["attached,", "promoted"]
    assert "v1 is promoted again, instead of v2" in _run(shop, "cluster rollback").stdout
    assert _run(shop, f"cluster attach {at}").exit_code == 0
    assert _online(FeastRepo(shop), ["u0001"], "model_version") == [["v1"]]
    assert "only v1 was ever promoted" in _run(shop, "cluster rollback").stderr
    assert _run(shop, "cluster promote v9").exit_code == 1
    with pytest.raises(UnknownNameError, match="no version `v9`"):
        folder.promote("v9", NOW)
    assert folder.promote("v1", NOW) == "v1", "promoting it once more is nothing to roll back"
    with pytest.raises(UnknownNameError):
        folder.rollback(NOW)
    fourth = (shop.feature_repo / "clusters.yaml").write_text(f"{YAML}seed: 4\n")
    assert fourth
    assert (
        "`segments cluster promote v4` lets `attach` take it, instead of v1" in _run(shop, f"cluster fit {at}").stdout
    )


def test_two_versions_are_shown_side_by_side(make: Callable[..., Project]) -> None:
    shop = make()
    at = f"--at {format_instant(NOW)}"
    assert _run(shop, f"cluster fit --no-report {at}").exit_code == 0
    (shop.feature_repo / "clusters.yaml").write_text(YAML + "algorithm: gaussian_mixture\nk: {from: 3, to: 3}\n")
    assert _run(shop, f"cluster fit --no-report {at} --accept-drift").exit_code == 0
    shown = _run(shop, "cluster compare v1 v2").stdout
    rows = {line.split("  ")[0].strip(): line.split() for line in shown.splitlines() if line.strip()}
    assert rows["algorithm"] == ["algorithm", "kmeans", "gaussian_mixture"]
    assert rows["clusters"] == ["clusters", "4", "3"]
    assert "100 of 400 users (25.0%) are in another cluster" in shown
    data = json.loads(_run(shop, "cluster compare v1 v2 --format json").stdout)
    assert [(one["version"], one["k"], one["definition"]["algorithm"]) for one in data] == [
        ("v1", 4, "kmeans"),
        ("v2", 3, "gaussian_mixture"),
    ]
    assert data[0]["window"] == [NOW, NOW]
    assert _run(shop, "cluster compare v1 v7").exit_code == 1


# --- what a label may hold ------------------------------------------------------------------------------------------


def test_confidence_outliers_and_probabilities_reach_the_store_if_the_view_has_them(
    make: Callable[..., Project],
) -> None:
    mixture = YAML + "algorithm: gaussian_mixture\nk: {from: 4, to: 4}\n"
    shop = make(mixture, "confidence=Float64, outlier=Bool, probability_1=Float64, probability_9=Float64")
    frame = _users()
    frame.loc["stranger"] = [5.0, 4000.0]
    write_features(shop, frame)
    at = f"--at {format_instant(NOW)}"
    assert _run(shop, f"cluster fit --no-report {at}").exit_code == 0
    # The stranger came after the fit would have been; the file of labels lacks the new columns, and gets them.
    attached = json.loads(_run(shop, f"cluster attach {at} --format json").stdout)
    assert attached["users"] == 401
    repo = FeastRepo(shop)
    names = ["cluster", "confidence", "outlier", "probability_1", "probability_9"]
    rows = _online(repo, ["u0000", "u0001", "stranger"], *names)
    model = VersionStore(shop, CLUSTERS, "user_clusters").current()
    placed = model.assign(frame.loc[["u0000", "u0001", "stranger"]].to_numpy())
    assert placed.probabilities is not None
    assert [row[1] for row in rows] == pytest.approx(placed.confidence.tolist())
    assert [row[2] for row in rows] == placed.outlier.tolist()
    assert [row[3] for row in rows] == pytest.approx(placed.probabilities[:, 0].tolist())
    assert [row[4] for row in rows] == [None] * 3, "there is no cluster 9"
    assert pq.read_schema(shop.feature_repo / "data" / "user_clusters.parquet").names[-4:] == names[1:]
    again = json.loads(_run(shop, f"cluster attach {at} --format json").stdout)
    assert (again["added"], again["moved"]) == (0, 0)


def test_probabilities_of_an_algorithm_that_knows_none_are_refused(make: Callable[..., Project]) -> None:
    shop = make(more="probability_1=Float64")
    at = f"--at {format_instant(NOW)}"
    assert _run(shop, f"cluster fit --no-report {at}").exit_code == 0
    refused = _run(shop, f"cluster attach {at}")
    assert refused.exit_code == 1
    assert "holds `probability_1`, and kmeans knows no probabilities" in refused.stderr
    repo = FeastRepo(shop)
    with pytest.raises(ProjectError, match="holds other features than labels"):
        LABELS.check(repo, "v")


# --- users in pieces ------------------------------------------------------------------------------------------------


def test_users_in_pieces_are_labelled_as_all_at_once(
    make: Callable[..., Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows of a batch are made few, so that there are many batches of a real reading."""
    shop = make()
    repo = FeastRepo(shop)
    wanted = ClusterDefinition.from_plain(
        {"clusters": "user_clusters", "features": [{"feature": name} for name in FEATURES], "k": {"from": 4, "to": 4}}
    )
    model = fit(wanted, _users(), NOW)
    folder = VersionStore(shop, CLUSTERS, "user_clusters")
    model = folder.add(model, 1)[0]
    monkeypatch.setattr("rules_engine.features.offline.point_in_time.BATCH_ROWS", 64)
    assert len(list(OfflineUsers(repo, FEATURES).batches(NOW))) > 5
    done = attach(repo, model, NOW)
    assert (done.users, done.added, sum(done.sizes.values())) == (400, 400, 400)
    first = latest_rows(repo, "user_clusters")
    assert first["cluster"].value_counts().tolist() == [100] * 4
    moved = _users()
    moved.iloc[:3] = moved.iloc[[1, 2, 4]].to_numpy()
    moved.loc["new"] = moved.iloc[0]
    write_features(shop, moved.drop(index="u0399"), NOW + DAY)
    done = attach(repo, model, NOW + DAY)
    assert done.users == 400
    rows = latest_rows(repo, "user_clusters")
    assert len(rows) == 401, "who has no features any more keeps the label"
    assert len(pq.read_table(shop.feature_repo / "data" / "user_clusters.parquet")) == 400 + done.added
    expected = model.assign(moved.to_numpy())
    numbers = [model.clusters[at].number for at in expected.position]
    assert rows.loc[moved.index, "cluster"].tolist() == numbers
    assert _online(repo, ["new", "u0399"], "cluster") == [[rows.loc["new", "cluster"]], [rows.loc["u0399", "cluster"]]]


def test_a_sample_of_pieces_is_the_sample_of_all_users(
    make: Callable[..., Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = make()
    repo = FeastRepo(shop)
    whole = population.sample(repo, FEATURES, NOW, 50, seed=3)
    monkeypatch.setattr("rules_engine.features.offline.point_in_time.BATCH_ROWS", 64)
    pieces = population.sample(repo, FEATURES, NOW, 50, seed=3)
    assert pieces.frame.equals(whole.frame)
    assert (len(pieces.frame), pieces.population, pieces.window) == (50, 400, (NOW, NOW))
    everyone = population.sample(repo, FEATURES, NOW, 1000, seed=3)
    assert everyone.frame.astype(float).equals(features_as_of(repo, FEATURES, NOW).astype(float))


# --- drift ----------------------------------------------------------------------------------------------------------


def test_drift_is_shown_counted_and_a_reason_to_refit(make: Callable[..., Project]) -> None:
    shop = make()
    at = f"--at {format_instant(NOW)}"
    assert _run(shop, "drift").exit_code == 1
    first = _run(shop, f"cluster fit --no-report --if-drift {at}")
    assert first.exit_code == 0
    assert "No version yet" in first.stderr
    assert fitted_names(shop, CLUSTERS) == ["user_clusters"]
    none = _run(shop, f"drift --fail-if psi=0.25 --fail-if share=5% {at}")
    assert none.exit_code == 0, none.stderr
    still = _run(shop, f"cluster fit --if-drift {at}")
    assert (still.exit_code, still.stdout) == (0, "")
    assert "No drift since v1: nothing is fitted" in still.stderr

    assert json.loads(_run(shop, f"cluster fit --if-drift {at} --format json").stdout) == {
        "version": "v1",
        "new": False,
        "drifted": False,
    }
    richer = _users()
    richer["v:basket"] *= 1.6
    richer = richer.drop(index=richer.index[np.arange(400) % 8 == 0])
    write_features(shop, richer, NOW + DAY)
    later = f"--at {format_instant(NOW + DAY)}"
    drifted = json.loads(_run(shop, f"drift {later} --format json").stdout)
    by_name = {row["name"]: row for row in drifted}
    assert by_name["v:orders"]["drifted"] == []
    assert set(by_name["v:basket"]["drifted"]) == {"psi", "ks"}
    assert by_name["v:basket"]["now"] == pytest.approx(richer["v:basket"].mean())
    shares = [row["now"] for row in drifted if row["kind"] == "cluster"]
    assert sum(shares) == pytest.approx(1.0)
    failed = _run(shop, f"drift user_clusters --fail-if psi=0.25 {later}")
    assert failed.exit_code == 1
    assert "drifted: `v:basket`" in failed.stderr
    assert "v:basket" in failed.stdout
    assert _run(shop, f"drift --fail-if psi=99 {later}").exit_code == 0
    for wrong in ("psi", "psi=x", "moved=3", "share=-1%"):
        assert _run(shop, f"drift --fail-if {wrong} {later}").exit_code == 2
    assert "no clusters and no model `nothing` were fitted" in _run(shop, "drift nothing").stderr

    assert _run(shop, f"cluster fit --if-drift --limit psi=99 {later}").stdout == ""
    refitted = _run(shop, f"cluster fit --no-report --if-drift --accept-drift {later}")
    assert "Drifted since v1: feature v:basket (psi" in refitted.stderr
    assert "user_clusters v2: 350 users" in refitted.stdout


# --- reports --------------------------------------------------------------------------------------------------------


def test_every_new_version_has_a_report_and_so_has_a_refused_one(make: Callable[..., Project]) -> None:
    shop = make(YAML + "names: [{cluster: 1, label: '<b>regulars</b>'}]\n")
    at = f"--at {format_instant(NOW)}"
    fitted = json.loads(_run(shop, f"cluster fit {at} --format json").stdout)
    folder = VersionStore(shop, CLUSTERS, "user_clusters")
    assert fitted["report"] == str(folder.report("v1"))
    html = folder.report("v1").read_text(encoding="utf-8")
    assert "&lt;b&gt;regulars&lt;/b&gt;" in html
    assert "<b>" not in html
    assert html.count("<img") == 6, "sizes, stability, heat map, map of users, silhouettes, curves"
    (shop.feature_repo / "clusters.yaml").write_text(
        YAML + "algorithm: agglomerative\nk: {from: 2, to: 2}\nmax_moved: 5%\n"
    )
    assert _run(shop, f"cluster fit {at}").exit_code == 1
    refused = (folder.path / "refused.html").read_text(encoding="utf-8")
    assert "What changed since v1" in refused
    assert "A tree of merges" in refused
    assert folder.versions() == ("v1",)
    assert _run(shop, f"cluster fit {at} --accept-drift --no-report").exit_code == 0
    assert not folder.report("v2").exists()
    listed = json.loads(_run(shop, "cluster list --format json").stdout)
    assert [one["report"] is not None for one in listed] == [True, False]
