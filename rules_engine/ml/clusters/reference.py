"""The distribution of a number at the time of a fit, and the measures of its drift since.

>>> reference = Reference.of("v:orders", np.arange(1000.0))
>>> round(reference.psi(np.arange(1000.0)), 3), round(reference.psi(np.arange(1000.0) + 300), 1)
(0.0, 2.5)
>>> round(reference.ks(np.arange(1000.0) + 300), 2)
0.3
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rules_engine.ml.clusters.arrays import EqualByContent, Matrix, encode, finite

#: How many parts of equal size the population stability index compares, as is usual in credit scoring (N. Siddiqi,
#: "Credit Risk Scorecards", 2006).
PARTS = 10

#: A part that is empty would make the index infinite.
_LEAST = 1e-4

_QUANTILES = 500


@dataclass(frozen=True, slots=True, eq=False)
class Reference(EqualByContent):
    """The distribution of one number.

    Attributes
    ----------
    name
        of what.
    missing
        the share of users who lacked it.
    mean
        the mean of the values.
    quantiles
        its 500 quantiles, the middles of equal parts.
    shares
        the shares of the values in the parts that :attr:`edges` divide.
    edges
        where the parts end, the last one aside.
    """

    name: str
    missing: float
    mean: float
    quantiles: Matrix
    edges: Matrix
    shares: Matrix

    @classmethod
    def of(cls, name: str, values: Matrix) -> Reference:
        """Return the distribution of some values; what is not finite counts as missing."""
        present = np.sort(values[np.isfinite(values)])
        if not len(present):
            nothing = np.zeros(0)
            return cls(name, 1.0, 0.0, nothing, nothing, np.ones(1))
        quantiles = np.quantile(present, (np.arange(_QUANTILES) + 0.5) / _QUANTILES, method="inverted_cdf")
        edges = np.unique(np.quantile(present, np.arange(1, PARTS) / PARTS, method="inverted_cdf"))
        missing = 1.0 - len(present) / len(values)
        return cls(name, float(missing), float(present.mean()), quantiles, edges, _parts(present, edges))

    def psi(self, values: Matrix) -> float:
        """Return the population stability index: 0 for the same distribution, beyond 0.25 another one by convention.

        Missing values are a part of their own.
        """
        present = values[np.isfinite(values)]
        missing = 1.0 - len(present) / max(len(values), 1)
        before = np.append(self.shares * (1.0 - self.missing), self.missing)
        now = np.append(_parts(present, self.edges) * (1.0 - missing), missing)
        return psi(before, now)

    def ks(self, values: Matrix) -> float:
        """Return the Kolmogorov-Smirnov statistic: the largest difference of the shares of users below a value.

        Of the fitted values 500 quantiles are known, so it is right to 0.001.
        """
        present = np.sort(values[np.isfinite(values)])
        if not len(present) or not len(self.quantiles):
            return 1.0 if len(present) != len(self.quantiles) else 0.0
        both = np.concatenate([self.quantiles, present])
        before = np.searchsorted(self.quantiles, both, side="right") / len(self.quantiles)
        now = np.searchsorted(present, both, side="right") / len(present)
        return float(np.abs(before - now).max())

    def to_plain(self) -> dict[str, Any]:
        arrays = {name: encode(getattr(self, name)) for name in ("quantiles", "edges", "shares")}
        return {"name": self.name, "missing": self.missing, "mean": self.mean, **arrays}

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> Reference:
        """Return the inverse of :meth:`to_plain`.

        Raises
        ------
        ValueError, KeyError, TypeError
            if the data make no sense.
        """
        quantiles, edges, shares = (finite(content[name], 1) for name in ("quantiles", "edges", "shares"))
        if len(shares) != len(edges) + 1:
            raise ValueError("its parts and shares do not fit together")
        return cls(content["name"], float(content["missing"]), float(content["mean"]), quantiles, edges, shares)


def psi(before: Matrix, now: Matrix) -> float:
    """Return the population stability index of two lists of shares.

    >>> round(psi(np.array([0.5, 0.5]), np.array([0.9, 0.1])), 3)
    0.879
    """
    before, now = np.maximum(before, _LEAST), np.maximum(now, _LEAST)
    return float(((now - before) * np.log(now / before)).sum())


def _parts(present: Matrix, edges: Matrix) -> Matrix:
    """Return the share of the values in each part. A value at an edge is in the part below."""
    counts = np.bincount(np.searchsorted(edges, present, side="left"), minlength=len(edges) + 1)
    result: Matrix = counts / max(len(present), 1)
    return result
