"""Scores out of plain numbers: the same as scikit-learn's, the same one by one as for many."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest

from rules_engine.ml.propensity.batch import matrix, probabilities, raw, scores
from rules_engine.ml.propensity.families import _EXPORTS, _columns, _estimator, learn
from rules_engine.ml.propensity.fit import calibrated
from rules_engine.targets.scorer import ModelColumn, Scorer, Tree
from tests.model_data import NOW, TYPES, definition, rows, values_of_user, with_whole_ages

PARAMETERS: dict[str, dict[str, Any]] = {
    "logistic_regression": {"C": 1.0},
    "random_forest": {"n_estimators": 12, "max_depth": 6, "min_samples_leaf": 5},
    "gradient_boosting": {
        "learning_rate": 0.1,
        "max_iter": 25,
        "max_leaf_nodes": 9,
        "min_samples_leaf": 10,
        "l2_regularization": 0.0,
    },
}


@pytest.mark.parametrize("algorithm", PARAMETERS)
def test_the_exported_numbers_give_what_scikit_learn_gives(algorithm: str) -> None:
    found = rows()
    features = definition().features
    linear = algorithm == "logistic_regression"
    columns = tuple(
        column
        for feature in features
        for column in _columns(feature, TYPES[feature.feature].kind, found.values, linear=linear)
    )
    inputs = matrix(columns, found.values)
    estimator = _estimator(algorithm, PARAMETERS[algorithm], 0).fit(inputs, found.did)
    scorer = Scorer("v1", algorithm, columns, **_EXPORTS[algorithm](estimator))
    other = matrix(columns, rows(seed=9).values)
    expected = estimator.predict_proba(other)[:, 1]
    given = probabilities(scorer, raw(scorer, other))
    assert np.abs(given - expected).max() < 1e-12
    assert given.std() > 0.05


@pytest.mark.parametrize("calibration", ["none", "sigmoid", "isotonic"])
@pytest.mark.parametrize("algorithm", PARAMETERS)
def test_one_user_has_the_same_score_as_among_many(algorithm: str, calibration: str) -> None:
    found = with_whole_ages(rows(400))
    features = definition().features
    bare = learn(algorithm, PARAMETERS[algorithm], features, TYPES, found.values, found.did, seed=0)
    votes = raw(bare, matrix(bare.columns, found.values))
    scorer = replace(
        calibrated(bare, calibration, votes, found.did), quantiles=tuple(np.linspace(0, 1, 11).tolist()), version="v1"
    )
    scorer = Scorer.from_plain(orjson.loads(orjson.dumps(scorer.to_plain())))
    others = with_whole_ages(rows(300, seed=5))
    many, percentiles, scored = scores(scorer, others.values)
    assert scored.all()
    for at in range(0, len(others), 7):
        values = values_of_user(others, at, NOW)
        one = scorer.score(values, NOW)
        assert one == many[at]  # to the last bit; what is promised is 1e-12
        assert scorer.percentile(one) == percentiles[at]
    assert 0 <= many.min() < many.max() <= 1


def test_strange_values_are_missing_both_ways() -> None:
    found = rows(400)
    scorer = learn("logistic_regression", {"C": 1.0}, definition().features, TYPES, found.values, found.did, seed=0)
    strange: list[dict[str, Any]] = [
        {"habits:orders": -1.0},
        {"habits:orders": -50},
        {"habits:orders": 3, "habits:basket": float("inf")},
        {"habits:city": "nowhere", "habits:orders": 2**60},
        {"habits:member": True},
    ]
    for values in strange:
        columns: dict[str, Any] = {}
        for name, value_type in TYPES.items():
            value = values.get(name)
            if str(value_type) == "string":
                columns[name] = np.array([value], dtype=object)
            else:
                number = np.nan if value is None else float(value)
                columns[name] = np.array([number if np.isfinite(number) else np.nan])
        assert scorer.score(values, NOW) == scores(scorer, columns)[0][0], values


def test_who_has_no_feature_at_all_has_no_score() -> None:
    scorer = Scorer(
        "v1",
        "logistic_regression",
        (ModelColumn("v:a", "number"), ModelColumn("v:b", "category", value="x")),
        0.0,
        (1.0, 1.0),
    )
    assert scorer.score({"v:a": None}, 0) is None
    assert scorer.reasons({}, 0) == []
    assert scorer.score({"v:b": "y"}, 0) == 0.5
    values = {"v:a": np.array([np.nan, 1.0]), "v:b": np.array([None, None], dtype=object)}
    assert scores(scorer, values)[2].tolist() == [False, True]


def test_reasons_are_what_the_score_would_lose() -> None:
    columns = (
        ModelColumn("v:orders", "number", typical=1.0),
        ModelColumn("v:city", "category", value="oslo", typical=0.0),
        ModelColumn("v:city", "category", value="bergen", typical=1.0),
        ModelColumn("v:idle", "number", typical=3.0),
    )
    typical = {"v:orders": 1.0, "v:city": "bergen", "v:idle": 3.0}
    scorer = Scorer("v1", "logistic_regression", columns, -1.0, (0.5, -2.0, 0.0, 0.1), typical=typical)
    values = {"v:orders": 4, "v:city": "oslo", "v:idle": 3.0}
    score = scorer.score(values, 0)
    assert score is not None
    found = scorer.reasons(values, 0)
    assert [reason.feature for reason in found] == ["v:city", "v:orders", "v:idle"]
    for reason in found:
        other = scorer.score({**values, reason.feature: typical[reason.feature]}, 0)
        assert other is not None
        assert reason.effect == pytest.approx(score - other)
    assert found[-1].effect == 0
    assert (found[0].value, found[0].typical) == ("oslo", "bergen")


def test_reasons_are_mean_differences_to_users_of_the_training_rows() -> None:
    """A value that most users have still has an effect, as others have another one."""
    columns = (ModelColumn("v:city", "category", value="oslo"), ModelColumn("v:orders", "number"))
    background = ((1.0, 2.0), (1.0, 9.0), (0.0, 2.0), (1.0, 4.0))
    scorer = Scorer("v1", "logistic_regression", columns, -1.0, (2.0, 0.3), background=background)
    values = {"v:city": "oslo", "v:orders": 4}
    score = scorer.score(values, 0)
    assert score is not None
    elsewhere = scorer.score({**values, "v:city": "bergen"}, 0)
    others = [scorer.score({**values, "v:orders": orders}, 0) for orders in (2, 9, 2, 4)]
    effects = {reason.feature: reason.effect for reason in scorer.reasons(values, 0)}
    assert effects["v:city"] == pytest.approx((score - elsewhere) / 4)
    assert effects["v:orders"] == pytest.approx(np.mean([score - other for other in others]))
    assert Scorer.from_plain(json.loads(json.dumps(scorer.to_plain()))) == scorer
    for wrong in ([[1.0]], [[1.0, float("nan")]]):
        with pytest.raises(ValueError, match="its background and columns do not fit together"):
            Scorer.from_plain({**scorer.to_plain(), "background": wrong})


@pytest.mark.parametrize(
    "tree",
    [
        {"left": [0, -1, -1]},
        {"right": [9, -1, -1]},
        {"column": [5, 0, 0]},
        {"value": [0.0, 0.1]},
    ],
)
def test_a_tree_that_leads_nowhere_is_refused(tree: dict[str, list[float]]) -> None:
    whole = Tree((0, 0, 0), (1.5, 0.0, 0.0), (1, -1, -1), (2, -1, -1), (0.0, 0.1, 0.9))
    content = Scorer("v1", "gradient_boosting", (ModelColumn("v:n", "number"),), trees=(whole,)).to_plain()
    assert Scorer.from_plain(content).score({"v:n": 1}, 0) is not None
    content["trees"][0].update(tree)
    with pytest.raises(ValueError, match="a tree of it"):
        Scorer.from_plain(content)


def test_numbers_that_no_fit_gives_are_refused() -> None:
    good = Scorer("v1", "logistic_regression", (ModelColumn("v:n", "number"),), 0.0, (1.0,)).to_plain()
    for change in ({"weights": [1.0, 2.0]}, {"intercept": float("nan")}, {"knots": [float("inf")]}):
        with pytest.raises(ValueError, match="it"):
            Scorer.from_plain({**good, **change})
    with pytest.raises(ValueError, match="without trees"):
        Scorer.from_plain({**good, "algorithm": "random_forest"})


def test_a_forest_compares_in_32_bits_as_scikit_learn_does() -> None:
    tree = Tree((0, 0, 0), (16_777_216.0, 0.0, 0.0), (1, -1, -1), (2, -1, -1), (0.0, 0.25, 0.75))
    forest = Scorer("v1", "random_forest", (ModelColumn("v:n", "number"),), trees=(tree,))
    above = 16_777_217  # rounds to the threshold
    assert forest.score({"v:n": above}, 0) == 0.25
    assert scores(forest, {"v:n": np.array([float(above)])})[0].tolist() == [0.25]
    boosted = replace(forest, algorithm="gradient_boosting")
    assert boosted.raw([above]) == 0.75


def test_frequent_strings_become_columns_and_rare_ones_none() -> None:
    found = rows(3000)
    city = next(feature for feature in definition().features if feature.feature == "habits:city")
    made = _columns(city, TYPES["habits:city"].kind, found.values, linear=True)
    assert [(column.kind, column.value) for column in made][:2] == [("category", "bergen"), ("category", "oslo")]
    few = {**found.values, "habits:city": found.values["habits:city"].copy()}
    few["habits:city"][:10] = "tiny"
    assert "tiny" not in [column.value for column in _columns(city, TYPES["habits:city"].kind, few, linear=True)]
    assert made[-1].kind == "missing"
