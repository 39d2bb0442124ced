"""Models of customers' future purchases: BG/NBD for their number, Gamma-Gamma for their value.

- P. S. Fader, B. G. S. Hardie and K. L. Lee, "Counting your customers the easy way: an alternative to the Pareto/NBD
  model", Marketing Science 24 (2005), 275-284.
- P. S. Fader, B. G. S. Hardie and K. L. Lee, "Computing P(alive) using the BG/NBD model" (2008).
- P. S. Fader and B. G. S. Hardie, "The Gamma-Gamma model of monetary value" (2013).

A customer is three numbers: ``frequency``, how many purchases after the first; ``recency``, how long after the first
purchase the last one came; ``age``, how long ago the first one was. Time is in any unit, weeks in these papers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rules_engine.errors import DataError

Numbers = NDArray[np.float64]

#: At a = 1 the expectation is a limit; so near to it, it is the same to ten digits.
_NEAR_ONE = 1e-10


@dataclass(frozen=True, slots=True)
class BgNbd:
    """The BG/NBD model: each customer buys at a rate of their own, and may stop after any purchase.

    Rates are gamma distributed with shape ``r`` and scale ``alpha``, the chances to stop beta with ``a`` and ``b``.

    >>> cdnow = BgNbd(r=0.243, alpha=4.414, a=0.793, b=2.426)  # as published, in weeks
    >>> round(float(cdnow.expected_purchases(39, frequency=2, recency=30.43, age=38.86)), 3)
    1.226
    """

    r: float
    alpha: float
    a: float
    b: float

    def expected_purchases(self, t: ArrayLike, frequency: ArrayLike, recency: ArrayLike, age: ArrayLike) -> Numbers:
        """Return the purchases to expect of a customer in the next ``t``, by what they did so far: equation (10)."""
        from scipy.special import hyp2f1  # type: ignore[import-untyped]  # ships no types

        horizon, x, recency_, age_ = _broadcast(t, frequency, recency, age)
        a = self._a()
        z = horizon / (self.alpha + age_ + horizon)
        # By Euler's transformation of the published form, which overflows for customers with many purchases.
        rest = (1 - z) ** (a - 1) * hyp2f1(a + self.b - 1 - self.r, a - 1, a + self.b + x - 1, z)
        bought = (a + self.b + x - 1) / (a - 1) * (1 - rest)
        purchases: Numbers = bought * self.probability_alive(x, recency_, age_)
        return purchases

    def probability_alive(self, frequency: ArrayLike, recency: ArrayLike, age: ArrayLike) -> Numbers:
        """Return the probability that a customer has not stopped; 1 for one who never bought again.

        >>> BgNbd(0.243, 4.414, 0.793, 2.426).probability_alive([0, 5], [0, 10], [30, 30]).round(3).tolist()
        [1.0, 0.078]
        """
        x, recency_, age_ = _broadcast(frequency, recency, age)
        ratio = np.log((self.alpha + age_) / (self.alpha + recency_)) * (self.r + x)
        # The odds that the customer stopped after the last purchase; beyond the bound they are as good as certain.
        odds = self.a / (self.b + np.maximum(x, 1) - 1) * np.exp(np.minimum(ratio, 700))
        probability: Numbers = np.where(x > 0, 1 / (1 + odds), 1.0)
        return probability

    def purchases_of_anyone(self, t: ArrayLike) -> Numbers:
        """Return the purchases to expect of an unknown customer in the first ``t``: equation (9)."""
        from scipy.special import hyp2f1

        (horizon,) = _broadcast(t)
        a = self._a()
        z = horizon / (self.alpha + horizon)
        share = (1 - z) ** self.r * hyp2f1(self.r, self.b, a + self.b - 1, z)
        purchases: Numbers = (a + self.b - 1) / (a - 1) * (1 - share)
        return purchases

    def log_likelihood(self, frequency: ArrayLike, recency: ArrayLike, age: ArrayLike) -> Numbers:
        """Return the logarithm of each customer's likelihood: equation (6)."""
        from scipy.special import gammaln

        x, recency_, age_ = _broadcast(frequency, recency, age)
        r, alpha, a, b = astuple(self)
        buying = gammaln(r + x) - gammaln(r) + r * np.log(alpha)
        staying = gammaln(a + b) + gammaln(b + x) - gammaln(b) - gammaln(a + b + x)
        active = -(r + x) * np.log(alpha + age_)
        stopped = np.log(a) - np.log(b + np.maximum(x, 1) - 1) - (r + x) * np.log(alpha + recency_)
        likelihood: Numbers = buying + staying + np.where(x > 0, np.logaddexp(active, stopped), active)
        return likelihood

    def _a(self) -> float:
        return self.a if abs(self.a - 1) > _NEAR_ONE else 1 + _NEAR_ONE


@dataclass(frozen=True, slots=True)
class GammaGamma:
    """The Gamma-Gamma model: what a customer spends on average, when some purchases of theirs are known.

    >>> cdnow = GammaGamma(p=6.25, q=3.74, v=15.44)  # as published
    >>> round(float(cdnow.expected_value(frequency=1, mean_value=20.0)), 2)
    24.64
    """

    p: float
    q: float
    v: float

    def expected_value(self, frequency: ArrayLike, mean_value: ArrayLike) -> Numbers:
        """Return the mean of all purchases that a customer might make: between theirs so far and everyone's.

        Infinite where the model has no mean: with ``p * frequency + q`` of 1 or less, huge purchases are too likely.

        >>> GammaGamma(p=5.2, q=0.66, v=0.94).expected_value([0, 1], [0.0, 20.0]).round(2).tolist()
        [inf, 22.4]
        """
        x, mean = _broadcast(frequency, mean_value)
        shape = self.p * x + self.q - 1
        total = self.p * (self.v + x * np.where(x > 0, mean, 0))
        value: Numbers = np.where(shape > 0, total / np.where(shape > 0, shape, 1.0), np.inf)
        return value

    def log_likelihood(self, frequency: ArrayLike, mean_value: ArrayLike) -> Numbers:
        """Return the logarithm of the likelihood of each customer who bought again."""
        from scipy.special import gammaln

        x, mean = _broadcast(frequency, mean_value)
        p, q, v = astuple(self)
        likelihood: Numbers = (
            gammaln(p * x + q)
            - gammaln(p * x)
            - gammaln(q)
            + q * np.log(v)
            + (p * x - 1) * np.log(mean)
            + p * x * np.log(x)
            - (p * x + q) * np.log(v + x * mean)
        )
        return likelihood


def fit_bg_nbd(frequency: ArrayLike, recency: ArrayLike, age: ArrayLike) -> BgNbd:
    """Return the BG/NBD model of some customers, by maximum likelihood.

    Raises
    ------
    DataError
        if the numbers are no customers: negative, a frequency that is no whole number, a recency beyond the age, or a
        recency of one who never bought again.
    """
    x, recency_, age_ = _broadcast(frequency, recency, age)
    finite = np.isfinite(x + recency_ + age_)
    whole = (x >= 0) & (x == np.floor(x))
    in_time = (recency_ >= 0) & (recency_ <= age_) & ((x > 0) | (recency_ == 0))
    impossible = ~(finite & whole & in_time)
    if impossible.any() or not len(x):
        raise DataError(
            f"{int(impossible.sum()):,} of {len(x):,} customers have impossible numbers",
            hint="frequency, a whole number, and recency count from the first purchase; both are 0 without another, "
            "and recency is at most age",
        )
    # Many customers are alike, and count once with their number.
    kinds, counts = np.unique(np.column_stack([x, recency_, age_]), axis=0, return_counts=True)
    scale = float(age_.max()) or 1.0  # what the unit of time is must not matter to the search
    columns = (kinds[:, 0], kinds[:, 1] / scale, kinds[:, 2] / scale)
    r, alpha, a, b = _maximize(lambda parameters: BgNbd(*parameters).log_likelihood(*columns), counts, 4, "BG/NBD")
    return BgNbd(r, alpha * scale, a, b)


def fit_gamma_gamma(frequency: ArrayLike, mean_value: ArrayLike) -> GammaGamma:
    """Return the Gamma-Gamma model of the customers who bought again for more than nothing, by maximum likelihood.

    Raises
    ------
    DataError
        if there are none.

    Warns
    -----
    UserWarning
        if purchases vary so much that their mean over all customers does not exist (q of 1 or less).
    """
    x, mean = _broadcast(frequency, mean_value)
    has_value = (x > 0) & (mean > 0)
    if not has_value.any():
        raise DataError("nobody bought again, so nothing tells what purchases are worth", hint="take more customers")
    scale = float(mean[has_value].mean())
    columns = (x[has_value], mean[has_value] / scale)
    counts = np.ones(int(has_value.sum()))
    p, q, v = _maximize(lambda parameters: GammaGamma(*parameters).log_likelihood(*columns), counts, 3, "Gamma-Gamma")
    if q <= 1:
        warnings.warn(
            f"these purchases vary too much to have a mean (q is {q:.2f}): the expected value of customers with few "
            "purchases is infinite; leave out the largest purchases, or predict their logarithms",
            stacklevel=2,
        )
    return GammaGamma(p, q, v * scale)


def _maximize(
    likelihood: Callable[[tuple[float, ...]], Numbers], counts: NDArray[Any], parameters: int, name: str
) -> tuple[float, ...]:
    """Return the positive parameters of the highest likelihood."""
    from scipy.optimize import minimize  # type: ignore[import-untyped]  # ships no types

    def cost(logs: Numbers) -> float:
        return -float((counts * likelihood(tuple(np.exp(logs)))).sum() / counts.sum())

    bounds = [(-12.0, 12.0)] * parameters
    optimum = minimize(
        cost, np.zeros(parameters), method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-13, "gtol": 1e-9}
    )
    if not np.isfinite(optimum.fun):
        raise DataError(f"no {name} model fits these customers", hint="are there enough, and of several kinds?")
    return tuple(map(float, np.exp(optimum.x)))


def _broadcast(*columns: ArrayLike) -> tuple[Numbers, ...]:
    return tuple(np.broadcast_arrays(*(np.asarray(column, dtype=np.float64) for column in columns)))
