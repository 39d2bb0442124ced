"""Measures of drift, against SciPy and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ks_2samp

from rules_engine.ml.clusters.reference import Reference, psi
from rules_engine.ml.drift import DEFAULT_LIMITS, Drift, beyond, parse_limits


@pytest.mark.parametrize("shift", [0.0, 0.05, 0.3, 2.0])
@pytest.mark.parametrize("rounded", [False, True])
def test_the_kolmogorov_smirnov_statistic_is_scipys(shift: float, rounded: bool) -> None:
    random = np.random.default_rng(3)
    before, now = random.gamma(2.0, 1.0, 4000), random.gamma(2.0, 1.0, 3000) + shift
    if rounded:
        before, now = before.round(), now.round()
    found = Reference.of("v:x", before).ks(now)
    assert found == pytest.approx(ks_2samp(before, now).statistic, abs=0.002)


def test_the_stability_index_is_its_formula_over_tenths_and_a_part_for_what_is_missing() -> None:
    before = np.arange(1000.0)
    now = np.concatenate([np.arange(500.0), np.full(500, np.nan)])
    reference = Reference.of("v:x", before)
    assert reference.psi(before) == pytest.approx(0.0, abs=1e-12)
    # Five tenths keep their tenth, five lose it, and missing goes from nothing (one in ten thousand) to a half.
    expected = 5 * (1e-4 - 0.1) * math.log(1e-4 / 0.1) + (0.5 - 1e-4) * math.log(0.5 / 1e-4)
    assert reference.psi(now) == pytest.approx(expected, rel=0.03)
    assert psi(np.array([0.6, 0.4]), np.array([0.4, 0.6])) == pytest.approx(2 * 0.2 * math.log(1.5))


def test_many_equal_values_make_fewer_parts_and_no_drift() -> None:
    once = np.array([1.0] * 900 + [2.0] * 60 + [9.0] * 40)
    reference = Reference.of("v:orders", once)
    assert len(reference.shares) < 10
    assert reference.shares.sum() == pytest.approx(1.0)
    assert (reference.psi(once), reference.ks(once)) == (0.0, pytest.approx(0.0, abs=0.002))
    more = np.array([1.0] * 500 + [2.0] * 260 + [9.0] * 240)
    assert reference.psi(more) > 0.25
    assert reference.ks(more) == pytest.approx(0.4, abs=0.002)


def test_what_nobody_has_and_what_nobody_had() -> None:
    nothing, some = np.full(50, np.nan), np.arange(50.0)
    assert Reference.of("v:x", nothing).psi(nothing) == 0.0
    assert Reference.of("v:x", nothing).ks(nothing) == 0.0
    assert Reference.of("v:x", nothing).ks(some) == 1.0
    assert Reference.of("v:x", some).psi(nothing) > 1.0
    infinite = np.array([np.inf, 1.0, 2.0])
    assert Reference.of("v:x", infinite).missing == pytest.approx(1 / 3)
    reference = Reference.of("v:x", some)
    assert Reference.from_plain(reference.to_plain()) == reference
    assert reference != Reference.of("v:x", some + 1)


def test_limits_are_reached_at_the_limit() -> None:
    drifts = [Drift("m v1", "feature", "v:a", {"psi": 0.25, "ks": 0.1}), Drift("m v1", "cluster", "c", {"share": 0.02})]
    assert [(drift.name, names) for drift, names in beyond(drifts, {"psi": 0.25})] == [("v:a", ["psi"])]
    assert beyond(drifts, {"psi": 0.26, "ks": 0.2, "share": 0.1}) == []
    assert [names for _, names in beyond(drifts, {"ks": 0.05, "share": 0.02})] == [["ks"], ["share"]]
    assert parse_limits([]) == dict(DEFAULT_LIMITS)
    assert parse_limits(["share=2.5%", "psi=1"]) == {"share": 0.025, "psi": 1.0}
    for wrong in ("psi", "psi=", "psi=nan", "psi=inf", "=1", "share=-1", "speed=1"):
        with pytest.raises(ValueError, match="is no limit such as"):
            parse_limits([wrong])
