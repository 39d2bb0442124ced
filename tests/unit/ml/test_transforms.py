"""Ready-made features: against published numbers, and scikit-learn's own checks."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import SkipTest

import numpy as np
import pandas as pd
import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator

from rules_engine.errors import DataError
from rules_engine.ml.transforms.lifetime import BgNbd, GammaGamma, fit_bg_nbd, fit_gamma_gamma
from rules_engine.ml.transforms.scores import EngagementScore, RFMScore

PUBLISHED = BgNbd(r=0.243, alpha=4.414, a=0.793, b=2.426)


def customers(name: str) -> pd.DataFrame:
    """The customers of the papers: a tenth of CDNOW's, 2,357 of them, over 39 weeks."""
    spec = find_spec("lifetimes")
    assert spec is not None
    assert spec.submodule_search_locations
    return pd.read_csv(Path(spec.submodule_search_locations[0]) / "datasets" / name)


@pytest.fixture(scope="module")
def sample() -> pd.DataFrame:
    return customers("cdnow_customers_summary.csv")


def test_bg_nbd_finds_the_published_parameters(sample: pd.DataFrame) -> None:
    """Fader, Hardie and Lee 2005, table 2: r 0.243, alpha 4.414, a 0.793, b 2.426, log-likelihood -9582.4."""
    found = fit_bg_nbd(sample["frequency"], sample["recency"], sample["T"])
    assert found.r == pytest.approx(0.243, abs=5e-4)
    assert found.alpha == pytest.approx(4.414, abs=2e-3)
    assert found.a == pytest.approx(0.793, abs=1e-3)
    assert found.b == pytest.approx(2.426, abs=2e-3)
    assert found.log_likelihood(sample["frequency"], sample["recency"], sample["T"]).sum() == pytest.approx(
        -9582.4, abs=0.05
    )


def test_the_unit_of_time_does_not_matter(sample: pd.DataFrame) -> None:
    weeks = fit_bg_nbd(sample["frequency"], sample["recency"], sample["T"])
    days = fit_bg_nbd(sample["frequency"], sample["recency"] * 7, sample["T"] * 7)
    assert days.alpha == pytest.approx(weeks.alpha * 7, rel=1e-6)
    assert days.r == pytest.approx(weeks.r, rel=1e-6)


def test_bg_nbd_expects_what_the_published_spreadsheet_does() -> None:
    """Fader, Hardie and Lee, "Implementing the BG/NBD model in Excel": 1.226 purchases in the next 39 weeks."""
    assert PUBLISHED.expected_purchases(39, 2, 30.43, 38.86) == pytest.approx(1.226, abs=1e-3)


def test_expectations_are_those_of_a_simulation() -> None:
    random = np.random.default_rng(0)
    model = BgNbd(r=1.5, alpha=6.0, a=1.2, b=3.0)
    size, age, horizon = 60_000, 30.0, 20.0
    rate, stop = random.gamma(model.r, 1 / model.alpha, size), random.beta(model.a, model.b, size)
    frequency, recency, after = np.zeros(size), np.zeros(size), np.zeros(size)
    for at in range(size):
        clock, lifetime = 0.0, random.geometric(stop[at])
        for _ in range(lifetime):
            clock += random.exponential(1 / rate[at])
            if clock > age + horizon:
                break
            if clock <= age:
                frequency[at], recency[at] = frequency[at] + 1, clock
            else:
                after[at] += 1
    expected = model.expected_purchases(horizon, frequency, recency, age)
    for many in range(4):
        alike = frequency == many
        assert expected[alike].mean() == pytest.approx(after[alike].mean(), rel=0.06)
    assert expected.mean() == pytest.approx(after.mean(), rel=0.02)
    assert model.purchases_of_anyone(age) == pytest.approx(frequency.mean(), rel=0.02)


def test_many_purchases_do_not_overflow_and_a_of_one_is_no_gap() -> None:
    assert np.isfinite(PUBLISHED.expected_purchases([13, 500], [5000, 5000], [70, 70], [78, 78])).all()
    near, at = (BgNbd(0.5, 5, a, 2.5).expected_purchases(10, 3, 20, 30) for a in (1 + 1e-6, 1.0))
    assert near == pytest.approx(at, rel=1e-4)
    assert PUBLISHED.probability_alive(0, 0, 100) == 1
    assert PUBLISHED.probability_alive(50, 1, 1000) == pytest.approx(0, abs=1e-12)


def test_gamma_gamma_finds_the_published_parameters() -> None:
    """Fader and Hardie 2013: p 6.25, q 3.74, v 15.44, from the 946 customers who bought again."""
    sample = customers("cdnow_customers_summary_with_transactions.csv")
    found = fit_gamma_gamma(sample["x"], sample["zbar"])
    assert found.p == pytest.approx(6.25, abs=0.01)
    assert found.q == pytest.approx(3.74, abs=0.01)
    assert found.v == pytest.approx(15.44, abs=0.02)
    everyone = GammaGamma(6.25, 3.74, 15.44)
    assert everyone.expected_value(0, 0) == pytest.approx(6.25 * 15.44 / 2.74)
    assert everyone.expected_value(10_000, 50) == pytest.approx(50, rel=1e-3)


def test_impossible_customers_are_refused() -> None:
    with pytest.raises(DataError, match="1 of 2 customers have impossible numbers"):
        fit_bg_nbd([1, 1], [5, 50], [10, 10])
    for frequency, recency in ((0, 5), (1.5, 5), (-1, 0), (float("nan"), 5)):
        with pytest.raises(DataError, match="1 of 2 customers have impossible numbers"):
            fit_bg_nbd([1, frequency], [5, recency], [10, 10])
    with pytest.raises(DataError, match="nobody bought again"):
        fit_gamma_gamma([0, 0], [0, 0])


def test_purchases_without_a_mean_are_warned_of_and_worth_no_negative_money() -> None:
    """A shop of heavy tails: with a shape below 1 the mean of all purchases does not exist."""
    random = np.random.default_rng(5)
    frequency = random.integers(0, 6, 2000)
    rate = random.gamma(0.66, 1 / 0.94, 2000)
    mean = random.gamma(5.2 * np.maximum(frequency, 1), 1 / (rate * np.maximum(frequency, 1)))
    with pytest.warns(UserWarning, match=r"vary too much to have a mean \(q is 0\.\d+\)"):
        found = fit_gamma_gamma(frequency, mean)
    assert found.q < 1
    expected = found.expected_value(frequency, mean)
    assert (expected > 0).all()
    assert np.isinf(expected[frequency == 0]).all()
    assert np.isfinite(expected[found.p * frequency + found.q > 1]).all()


@pytest.mark.parametrize("transformer", [RFMScore(), EngagementScore()], ids=lambda one: type(one).__name__)
def test_transformers_pass_scikit_learns_own_checks(transformer: Any) -> None:
    passed, skipped = 0, []
    for estimator, check in estimator_checks_generator(transformer):
        try:
            check(estimator)
            passed += 1
        except SkipTest as reason:  # of an optional library that is not here
            skipped.append(str(reason))
    assert passed > 40
    assert len(skipped) <= 3, skipped


def test_classes_are_of_equal_size_and_recency_is_turned_around() -> None:
    random = np.random.default_rng(0)
    people = np.column_stack([random.integers(0, 365, 1000), random.gamma(1, 5, 1000)])
    classes = RFMScore(low_is_good=(0,)).fit_transform(people)
    assert np.bincount(classes[:, 1].astype(int)).tolist() == [0, 200, 200, 200, 200, 200]
    assert people[classes[:, 0] == 5, 0].max() < people[classes[:, 0] == 1, 0].min()
    for wrong in (RFMScore(classes=1), RFMScore(low_is_good=(2,))):
        with pytest.raises(ValueError, match=r"classes is 1|low_is_good is"):
            wrong.fit(people)


def test_activity_counts_half_after_the_half_life() -> None:
    once = np.eye(5)  # each was active in another period
    scorer = EngagementScore(half_life=2).fit(once)
    assert scorer.weights_[2] == pytest.approx(scorer.weights_[0] / 2)
    assert scorer.transform(once).ravel().tolist() == [90.0, 70.0, 50.0, 30.0, 10.0]
    assert scorer.transform([[0, 0, 0, 0, 0], [9, 9, 9, 9, 9]]).ravel().tolist() == [0.0, 100.0]
    with pytest.raises(ValueError, match="half_life"):
        EngagementScore(half_life=0).fit(once)
