"""Labels on real customers: CDNOW as of July 1998, grouped as the demo groups them.

With another seed, other customers or in another order, a label means what it meant: the customers who have it stay.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from feature_repo.cdnow import purchases
from feature_repo.cdnow.history import purchase_history
from feature_repo.cdnow.snapshots import rfm
from rules_engine.clock import parse_instant
from rules_engine.ml.clusters.definition import ClusterDefinition
from rules_engine.ml.clusters.fitting import fit
from rules_engine.ml.clusters.matching import Matching
from rules_engine.ml.clusters.model import ClusterModel
from rules_engine.ml.clusters.refit import keep_labels

JULY = "1998-07-01T00:00:00Z"
NOW = parse_instant(JULY)


@pytest.fixture(scope="module")
def customers() -> pd.DataFrame:
    history = purchase_history(purchases.read(purchases.locate()).accepted)
    rows = rfm(history, pd.DatetimeIndex([pd.Timestamp(JULY)])).set_index("user_id")
    return rows.drop(columns="event_timestamp").astype(float).add_prefix("rfm:")


def _demo(**changes: object) -> ClusterDefinition:
    file = Path(__file__).parents[3] / "feature_repo" / "clusters.yaml"
    return ClusterDefinition.from_plain({**yaml.safe_load(file.read_text(encoding="utf-8")), **changes})


@pytest.fixture(scope="module")
def first(customers: pd.DataFrame) -> ClusterModel:
    return replace(fit(_demo(), customers, NOW), version="v1")


def _refit(first: ClusterModel, customers: pd.DataFrame, **changes: object) -> tuple[ClusterModel, Matching]:
    again = keep_labels(fit(_demo(**changes), customers, NOW), first, customers, customers, first.last_number)
    assert again.matching is not None
    return again, again.matching


@pytest.mark.parametrize("seed", [1, 2])
def test_another_seed_moves_nobody_to_speak_of(first: ClusterModel, customers: pd.DataFrame, seed: int) -> None:
    again, matching = _refit(first, customers, seed=seed)
    assert again.labels == first.labels
    assert (matching.users, matching.changes) == (23_570, ())
    assert matching.share_moved < 0.001
    assert matching.rand_index > 0.999


def test_the_order_of_the_customers_moves_nobody(first: ClusterModel, customers: pd.DataFrame) -> None:
    again, matching = _refit(first, customers.sample(frac=1, random_state=1))
    assert (again.labels, matching.moved) == (first.labels, 0)
    assert again.is_same_fit(first), "it is the very same model"


def test_a_tenth_more_customers_move_few_and_all_labels_stay(first: ClusterModel, customers: pd.DataFrame) -> None:
    fewer = replace(fit(_demo(), customers.sample(frac=1 / 1.1, random_state=4), NOW), version="v1")
    again, matching = _refit(fewer, customers)
    assert (again.labels, matching.changes) == (fewer.labels, ())
    assert set(again.labels) == set(first.labels)
    assert matching.share_moved < 0.02


@pytest.mark.parametrize(
    ("algorithm", "moved"), [("minibatch_kmeans", 0.1), ("gaussian_mixture", 0.01), ("agglomerative", 0.0)]
)
def test_labels_of_other_algorithms_stay_too(customers: pd.DataFrame, algorithm: str, moved: float) -> None:
    some = customers.iloc[::8]
    options = {"algorithm": algorithm, "k": {"from": 4, "to": 4}}
    first = replace(fit(_demo(**options), some, NOW), version="v1")
    again, matching = _refit(first, some.sample(frac=1, random_state=2), **options, seed=5)
    assert again.labels == first.labels
    assert matching.share_moved <= moved


def test_density_finds_the_active_customers_and_names_the_rest_outliers(customers: pd.DataFrame) -> None:
    model = fit(_density(), customers.iloc[::8], NOW)
    assert len(model.clusters) >= 2
    assert 0 < model.metrics["outliers"] < 1
    assert np.isclose(sum(model.shares.values()), 1.0)


def _density() -> ClusterDefinition:
    content = _demo().to_plain()
    for name in ("k", "choose_by", "starts", "sample"):
        del content[name]
    return ClusterDefinition.from_plain({**content, "algorithm": "hdbscan", "min_users": 50})
