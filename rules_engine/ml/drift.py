"""Drift: how far today's entities are from those that clusters or a model were fitted to, and the limits of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: What is said to have drifted unless limits are given: a population stability index of 0.25 is "a major shift" by
#: convention (N. Siddiqi, "Credit Risk Scorecards", 2006). The index of large samples hardly moves by chance; the
#: Kolmogorov-Smirnov statistic of 0.2 means that a fifth of the users lie on the other side of some value.
DEFAULT_LIMITS: Mapping[str, float] = {"psi": 0.25, "ks": 0.2, "share": 0.1, "loss": 0.05}

#: By measure, what it says.
MEASURES = {
    "psi": "population stability index",
    "ks": "Kolmogorov-Smirnov statistic",
    "share": "change of a cluster's share, in parts of all users",
    "loss": "loss of ROC AUC since the test",
}


@dataclass(frozen=True, slots=True)
class Drift:
    """The drift of one thing.

    Attributes
    ----------
    model
        what looks at it: name and version, e.g. ``user_clusters v2``.
    kind
        ``feature``, ``cluster``, ``clusters`` (all of them together), or what other models add, e.g. ``score``.
    name
        of the feature or the cluster.
    measures
        by name of a measure, how much; see :data:`MEASURES`.
    before, now
        a number that people understand: a mean, or a share.
    """

    model: str
    kind: str
    name: str
    measures: Mapping[str, float]
    before: float | None = None
    now: float | None = None

    def beyond(self, limits: Mapping[str, float]) -> list[str]:
        """Return the measures that reach their limit.

        >>> Drift("m v1", "feature", "v:a", {"psi": 0.3, "ks": 0.1}).beyond({"psi": 0.25, "ks": 0.2})
        ['psi']
        """
        return [name for name, value in self.measures.items() if name in limits and value >= limits[name]]


def beyond(drifts: Sequence[Drift], limits: Mapping[str, float]) -> list[tuple[Drift, list[str]]]:
    """Return what has drifted too far, with the measures that say so."""
    return [(drift, measures) for drift in drifts if (measures := drift.beyond(limits))]


def parse_limits(texts: Sequence[str]) -> dict[str, float]:
    """Parse limits such as ``psi=0.25`` and ``share=5%``; without any, return :data:`DEFAULT_LIMITS`.

    Raises
    ------
    ValueError
        if one of them is none.

    >>> parse_limits(["psi=0.1", "share=5%"])
    {'psi': 0.1, 'share': 0.05}
    """
    limits = {}
    for text in texts:
        name, equals, number = text.partition("=")
        try:
            value = float(number.removesuffix("%")) / (100 if number.endswith("%") else 1)
        except ValueError:
            value = -1.0
        if name not in MEASURES or not equals or not 0 <= value < math.inf:
            raise ValueError(f"`{text}` is no limit such as psi=0.25, ks=0.2 or share=10%")
        limits[name] = value
    return limits or dict(DEFAULT_LIMITS)
