"""Fitting, judging and storing: on rows whose rule is known."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pandas as pd
import pytest

from rules_engine.errors import DataError, UnknownNameError
from rules_engine.folders import Project
from rules_engine.ml.propensity.batch import scores
from rules_engine.ml.propensity.drift import distance, stability
from rules_engine.ml.propensity.fit import _candidates, _folds, _sample, fit
from rules_engine.ml.propensity.metrics import calibration_table, differences, lift_table, metrics
from rules_engine.ml.propensity.model import MODELS, PropensityModel
from rules_engine.ml.propensity.report import page
from rules_engine.ml.propensity.retrain import Comparison, against, reason_against_promotion
from rules_engine.ml.versions.store import VersionStore, fitted_names
from tests.model_data import NOW, definition, material, rows


@pytest.fixture(scope="module")
def model() -> PropensityModel:
    return fit(definition(calibration="isotonic"), material(), NOW)


# --- what is learned ------------------------------------------------------------------------------------------------


def test_what_decides_is_found_and_recency_and_frequency_alone_are_beaten(model: PropensityModel) -> None:
    judged = model.judgement
    assert judged.overall.roc_auc is not None
    assert judged.overall.roc_auc > 0.8
    assert set(judged.baselines) == {"cells", "regression"}
    for better in judged.better.values():
        by_name = {one.metric: one for one in better}
        assert by_name["average_precision"].low > 0  # the city is worth something
        assert by_name["brier"].high < 0
    importance = {one.feature: one.loss for one in judged.importance}
    assert set(list(importance)[:3]) == {"habits:recency", "habits:orders", "habits:city"}
    assert importance["habits:city"] > 0.01
    assert abs(importance["habits:basket"]) < 0.01
    assert abs(judged.overall.mean - judged.overall.rate) < 0.04


def test_groups_are_reported_by_value_and_by_quarters(model: PropensityModel) -> None:
    groups = {(one.feature, one.group): one for one in model.judgement.subgroups}
    cities = [group for feature, group in groups if feature == "habits:city"]
    assert cities == ["bergen", "oslo", "missing"]  # the rare one has too few rows
    assert groups["habits:city", "bergen"].addressed > groups["habits:city", "oslo"].addressed
    assert sum(one.metrics.rows for (feature, _), one in groups.items() if feature == "habits:basket") == 1500
    assert len([group for feature, group in groups if feature == "habits:basket"]) == 5


def test_the_same_rows_give_the_same_model_and_others_do_not(model: PropensityModel) -> None:
    again = fit(definition(calibration="isotonic"), material(), NOW)
    assert again.is_same_fit(model)
    assert again.content() == model.content()
    assert not fit(definition(calibration="isotonic"), material(seed=3), NOW).is_same_fit(model)
    assert not fit(definition(calibration="none"), material(), NOW).is_same_fit(model)


def test_folds_keep_a_users_rows_together() -> None:
    found = rows(300)
    for inside, outside in _folds(found, 3, seed=0):
        assert not set(found.users[inside]) & set(found.users[outside])
        assert abs(found.did[inside].mean() - found.did[outside].mean()) < 0.01
        assert len(inside) + len(outside) == len(found)


def test_a_sample_has_all_rows_of_some_users() -> None:
    found = rows(900)
    sample = _sample(found, 300)
    assert 300 <= len(sample) < 310
    assert all((found.users == user).sum() == 3 for user in set(sample.users))
    assert pd.Series(sample.users).value_counts().eq(3).all()


def test_a_random_search_draws_the_same_each_time() -> None:
    grid = {"gradient_boosting": {"max_iter": list(range(1, 21)), "max_leaf_nodes": [3, 5, 7]}}
    wanted = definition(algorithms=grid, search={"kind": "random", "tries": 5})
    drawn = _candidates(wanted)
    assert len(drawn) == 5
    assert drawn == _candidates(wanted)
    assert drawn != _candidates(replace(wanted, seed=1))


def test_several_algorithms_compete(model: PropensityModel) -> None:
    algorithms = {
        "logistic_regression": {"C": [0.0001, 1]},
        "random_forest": {"n_estimators": 10, "max_depth": 4},
        "gradient_boosting": {"max_iter": 20, "learning_rate": 0.2, "max_leaf_nodes": 5},
    }
    found = fit(definition(algorithms=algorithms, search={"folds": 2, "score": "brier"}), material(900), NOW)
    assert [trial.algorithm for trial in found.trials] == [
        "logistic_regression",
        "logistic_regression",
        "random_forest",
        "gradient_boosting",
    ]
    assert found.best.score == max(trial.score for trial in found.trials)
    assert found.scorer.algorithm == found.best.algorithm


def test_too_few_to_learn_from_is_said() -> None:
    few = material(40)
    few.train.did[:] = False
    with pytest.raises(DataError, match=r"of 120 rows at the cuts before the test, 0 did it and 120 did not"):
        fit(definition(), few, NOW)
    lonely = material(100)
    lonely = replace(lonely, train=replace(lonely.train, did=np.isin(lonely.train.users, ["u00000"])))
    many = replace(lonely, train=lonely.train.take(np.repeat(np.arange(300), 10)))
    with pytest.raises(
        DataError, match=r"1 users did it, or did not, at the cuts before the test, and there are 2 folds"
    ):
        fit(definition(), many, NOW)


# --- metrics --------------------------------------------------------------------------------------------------------


def test_lift_gain_and_calibration_count_right() -> None:
    did = np.array([1, 1, 1, 0, 1, 0, 0, 0, 0, 0], dtype=bool)
    score = np.linspace(0.95, 0.05, 10)
    table = lift_table(did, score, parts=5)
    assert [row.did for row in table] == [2, 1, 1, 0, 0]
    assert [round(row.gain, 2) for row in table] == [0.5, 0.75, 1, 1, 1]
    assert [round(row.lift, 3) for row in table] == [2.5, 1.875, 1.667, 1.25, 1]
    assert [row.rate for row in calibration_table(did, score, parts=2)] == [0.0, 0.8]
    found = metrics(did, score)
    assert found.roc_auc == pytest.approx(23 / 24)
    assert metrics(did[:3], score[:3]).roc_auc is None


def test_differences_are_those_of_the_metrics_and_of_the_same_scores_nothing() -> None:
    found = rows(1200, 1)
    random = np.random.default_rng(1)
    good = 1 / (1 + np.exp(0.02 * found.values["habits:recency"])) + random.random(1200) / 10
    owner = np.arange(1200)
    same = differences(owner, found.did, good, good, seed=0)
    assert [(one.value, one.low, one.high) for one in same] == [(0, 0, 0)] * 3
    noise = random.random(1200)
    ranked, precise, brier = differences(owner, found.did, good, noise, seed=0)
    for one, name in ((ranked, "roc_auc"), (precise, "average_precision"), (brier, "brier")):
        exact = getattr(metrics(found.did, good), name) - getattr(metrics(found.did, noise), name)
        assert one.value == pytest.approx(exact, abs=2e-3)
        assert one.low < one.value < one.high
    assert ranked.low > 0.05


def test_stability_and_distance_of_scores() -> None:
    random = np.random.default_rng(0)
    before = random.beta(2, 5, 20_000)
    edges = np.quantile(before, np.linspace(0, 1, 201))

    def counted(values: np.ndarray) -> np.ndarray:
        return np.bincount(np.searchsorted(edges, values, side="right"), minlength=202).astype(float)

    assert stability(edges, counted(random.beta(2, 5, 20_000))) < 0.01
    assert distance(edges, counted(random.beta(2, 5, 20_000))) < 0.02
    moved = random.beta(3, 5, 20_000)
    assert stability(edges, counted(moved)) > 0.2
    from scipy.stats import ks_2samp

    assert distance(edges, counted(moved)) == pytest.approx(ks_2samp(before, moved).statistic, abs=0.01)
    # Psi by hand: half of the users moved from the upper half to the lower one.
    halves = np.quantile(np.arange(1000.0), np.linspace(0, 1, 201))
    shifted = np.bincount(np.searchsorted(halves, np.tile(np.arange(500.0), 2), side="right"), minlength=202)
    assert stability(halves, shifted.astype(float)) == pytest.approx(
        0.1 * np.log(2) * 5 + 0.1 * np.log(1000) * 5, rel=0.02
    )


# --- versions -------------------------------------------------------------------------------------------------------


def test_versions_are_kept_promoted_and_rolled_back(model: PropensityModel, tmp_path: Path) -> None:
    versions = VersionStore(Project(tmp_path), MODELS, "propensity")
    with pytest.raises(UnknownNameError, match="no version of `propensity` was fitted yet"):
        versions.load("v1")
    with pytest.raises(UnknownNameError, match="no version of `propensity` was fitted yet"):
        versions.current()
    stored, is_new = versions.add(model, NOW)
    assert (stored.version, stored.scorer.version, is_new, stored.created_at) == ("v1", "v1", True, NOW)
    assert versions.add(model, NOW + 1) == (stored, False)
    other = replace(model, definition=replace(model.definition, seed=7))
    assert versions.add(other, NOW)[0].version == "v2"
    with pytest.raises(UnknownNameError, match="no version of `propensity` is promoted"):
        versions.current()
    with pytest.raises(UnknownNameError, match="no version was promoted"):
        versions.rollback(NOW)
    versions.promote("v1", NOW)
    versions.promote("v2", NOW + 1)
    versions.promote("v2", NOW + 2)  # nothing new
    assert (versions.promoted(), versions.current().version) == ("v2", "v2")
    assert versions.rollback(NOW + 3) == ("v2", "v1")
    with pytest.raises(UnknownNameError, match="only v1 was ever promoted"):
        versions.rollback(NOW + 4)
    versions.promote("v2", NOW + 5)
    assert [(one.action, one.version) for one in versions.history()] == [
        ("promote", "v1"),
        ("promote", "v2"),
        ("rollback", "v1"),
        ("promote", "v2"),
    ]
    assert versions.rollback(NOW + 6) == ("v2", "v1")
    with pytest.raises(UnknownNameError, match="has no version `v9`"):
        versions.promote("v9", NOW)
    assert fitted_names(Project(tmp_path), MODELS) == ["propensity"]


def test_a_file_that_was_touched_is_refused(model: PropensityModel, tmp_path: Path) -> None:
    versions = VersionStore(Project(tmp_path), MODELS, "propensity")
    stored, _ = versions.add(model, NOW)
    assert MODELS.decode(versions.file("v1").read_bytes()) == stored
    content = orjson.loads(versions.file("v1").read_bytes())
    content["scorer"]["weights"][0] += 1
    versions.file("v1").write_bytes(orjson.dumps(content))
    with pytest.raises(DataError, match="was changed after it was written"):
        versions.load("v1")
    for text, said in (
        (b"{", "is damaged: it is no JSON"),
        (b"null", "is damaged: it holds no model"),
        (b'{"checksum": "", "format": 9}', "has format 9"),
    ):
        versions.file("v1").write_bytes(text)
        with pytest.raises(DataError, match=said):
            versions.load("v1")
    versions.file("v1").write_bytes(MODELS.encode(stored))
    shutil.copy(versions.file("v1"), versions.file("v4"))
    with pytest.raises(DataError, match="holds propensity v1: it was copied from elsewhere"):
        versions.load("v4")


def test_a_stored_model_is_data_and_says_where_it_comes_from(model: PropensityModel, tmp_path: Path) -> None:
    stored, _ = VersionStore(Project(tmp_path), MODELS, "propensity").add(model, NOW)
    content = json.loads(MODELS.encode(stored))
    assert content["train"]["rows"] == 4500
    assert content["train"]["cuts"] == [0, 30 * 86_400_000_000, 60 * 86_400_000_000]
    assert content["skipped"] == list(model.skipped) != []
    assert set(content["libraries"]) >= {"python", "scikit-learn", "feast-segments", "numpy"}
    assert content["checksum"].startswith("sha256:")
    test = material().test
    assert scores(stored.scorer, test.values)[0].tolist() == scores(model.scorer, test.values)[0].tolist()


def test_a_worse_model_is_not_promoted_by_itself(model: PropensityModel) -> None:
    test = material().test
    blind = [{"feature": name} for name in ("habits:basket", "habits:joined")]
    worse = replace(fit(definition(features=blind), material(), NOW), version="v2")
    earlier = replace(model, version="v1", train=replace(model.train, until=int(test.cuts.min())))
    found = against(worse, earlier, test)
    refusal = reason_against_promotion(worse, "v1", Comparison("v1", tuple(found)), "")
    assert re.match(
        r"v2 is stored and not promoted: its average precision is 0\.\d+ lower than that of v1", str(refusal)
    )
    better = against(earlier, replace(worse, train=earlier.train), test)
    assert reason_against_promotion(earlier, "v2", Comparison("v2", tuple(better)), "") is None
    late = replace(model, version="v1", train=replace(model.train, until=int(test.cuts.min()) + 1))
    with pytest.raises(DataError, match="v1 learned from the time of this test"):
        against(worse, late, test)


def test_a_version_that_cannot_be_compared_is_not_promoted(model: PropensityModel) -> None:
    blind = [{"feature": name} for name in ("habits:basket", "habits:joined")]
    narrow = definition(features=blind)
    test = replace(material().test, values={name: material().test.values[name] for name in narrow.everything_read})
    fewer = replace(fit(narrow, material(), NOW), version="v2")
    earlier = replace(model, version="v1", train=replace(model.train, until=int(test.cuts.min())))
    with pytest.raises(DataError, match=r"v1 looks at `habits:city` and `habits:member`|v1 looks at .*habits:member"):
        against(fewer, earlier, test)
    refusal = reason_against_promotion(fewer, "v1", None, "v1 looks at `habits:member`, which v2 does not")
    assert str(refusal) == (
        "v2 is stored and not promoted: it cannot be compared with v1: v1 looks at `habits:member`, which v2 does not"
    )
    assert refusal is not None
    assert refusal.hint == "`segments model promote v2 --of propensity` promotes it all the same"


def test_a_version_that_ranks_worse_than_its_own_baseline_is_not_promoted(model: PropensityModel) -> None:
    better = {name: tuple(replace(one, value=-0.25, low=-0.3, high=-0.2) for one in found)
              for name, found in model.judgement.better.items()}  # fmt: skip
    bad = replace(model, version="v1", judgement=replace(model.judgement, better=better))
    refusal = reason_against_promotion(bad, None, None, "")
    assert "its average precision is 0.2500 lower than that of the recency-frequency cells" in str(refusal)
    assert reason_against_promotion(replace(model, version="v1"), None, None, "") is None


def test_versions_with_other_features_were_judged_on_the_same_rows(model: PropensityModel) -> None:
    narrow = definition(features=["habits:recency", "habits:orders"], subgroups=None)
    whole = material()
    train, test = (
        replace(rows, values={name: rows.values[name] for name in narrow.everything_read})
        for rows in (whole.train, whole.test)
    )
    fewer = fit(narrow, replace(whole, train=train, test=test), NOW)
    assert fewer.test.digest != model.test.digest
    assert fewer.test.is_judged_like(model.test)
    other = fit(definition(), material(seed=3), NOW)
    assert not other.test.is_judged_like(model.test)
    known_before = replace(model.test, labels="")
    assert known_before.is_judged_like(model.test)
    assert not known_before.is_judged_like(fewer.test)


def test_the_report_is_one_file_with_pictures_and_tables(model: PropensityModel) -> None:
    html = page(replace(model, version="v3")).html()
    assert "propensity v3" in html
    assert html.count('<img src="data:image/svg+xml;base64,') == 4
    for words in ("Whom to address", "lift so far", "bergen", "recency-frequency cells", "habits:city"):
        assert words in html
    assert "http" not in html.replace("http-equiv", "")
