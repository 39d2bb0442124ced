"""The definitions in ``feature_repo/models.yaml``: target, features, population, and the search for a model.

::

    model: purchase_propensity            # the feature view that holds the scores
    target: {new_row: purchase_history, within: 90d}
    features:
      - rfm:recency_days
      - {feature: rfm:frequency, scale: log}
    cuts: {every: 30d, count: 12}
    test_cuts: 3
    baseline: {recency: rfm:recency_days, frequency: rfm:frequency}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import Any

from rules_engine.clock import UNITS, format_duration, format_instant, parse_duration, parse_instant
from rules_engine.errors import DataError
from rules_engine.ml.propensity.schema import DEFAULTS

FILE = "models.yaml"

#: What is tried where the definition says nothing.
DEFAULT_ALGORITHMS = ("logistic_regression", "gradient_boosting")
DEFAULT_TRIES = 20

#: Beyond so many nodes in all trees, a model is too large to be computed within a request.
MAX_REQUEST_NODES = 20_000

Value = int | float
Parameters = dict[str, Value]


@dataclass(frozen=True, slots=True)
class Target:
    """The target: an event, or a new row of a feature view, in (cut, cut + within].

    ``where`` is the event's condition as the definition writes it. ``within`` is in microseconds.
    """

    within: int
    did: str = ""
    new_row: str = ""
    where: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        what = f"did {self.did}" if self.did else f"a new row of {self.new_row}"
        return f"{what} within {format_duration(self.within)}"

    def to_plain(self) -> dict[str, Any]:
        """Return the target as in the definition."""
        what: dict[str, Any] = {"did": self.did} if self.did else {"new_row": self.new_row}
        where = {"where": dict(self.where)} if self.where else {}
        return what | where | {"within": duration_text(self.within)}


@dataclass(frozen=True, slots=True)
class ModelFeature:
    """A feature that the model looks at, and how a number of it enters a linear model."""

    feature: str
    scale: str = "standard"


@dataclass(frozen=True, slots=True)
class Cuts:
    """The instants that features are as of: listed, or ``count`` of them ``every`` so long, up to the last possible."""

    listed: tuple[int, ...] = ()
    every: int = 0
    count: int = 0

    def instants(self, now: int, horizon: int) -> tuple[int, ...]:
        """Return the cuts, earliest first, all with their horizon over by ``now``.

        Raises
        ------
        DataError
            if a listed cut's horizon is not over.

        >>> Cuts(every=30, count=3).instants(now=200, horizon=90)
        (50, 80, 110)
        """
        if not self.listed:
            last = now - horizon
            return tuple(last - step * self.every for step in reversed(range(self.count)))
        if self.listed[-1] + horizon > now:
            raise DataError(
                f"the horizon of the cut {format_instant(self.listed[-1])} ends at "
                f"{format_instant(self.listed[-1] + horizon)}, which is after {format_instant(now)}: who did it by "
                "then is not known yet",
                hint="remove the cut from models.yaml, or name a later instant with --at",
            )
        return self.listed

    def to_plain(self) -> Any:
        """Return the cuts as in the definition."""
        if self.listed:
            return [format_instant(cut) for cut in self.listed]
        return {"every": duration_text(self.every), "count": self.count}


@dataclass(frozen=True, slots=True)
class Search:
    """The search for parameters, by cross-validation on a sample of ``rows``."""

    kind: str = "grid"
    tries: int = DEFAULT_TRIES
    folds: int = 3
    score: str = "average_precision"
    rows: int = 50_000


@dataclass(frozen=True, slots=True)
class ModelDefinition:
    """A propensity model as it is defined.

    Attributes
    ----------
    name
        the feature view that holds the scores.
    algorithms
        by algorithm and parameter, the values to try.
    recency, frequency
        the features of the baseline.
    test_cuts
        how many of the last cuts the model is judged on.
    """

    name: str
    target: Target
    features: tuple[ModelFeature, ...]
    cuts: Cuts
    recency: str
    frequency: str
    description: str = ""
    population: str = ""
    test_cuts: int = 1
    algorithms: Mapping[str, Mapping[str, tuple[Value, ...]]] = field(default_factory=dict)
    search: Search = Search()
    calibration: str = "sigmoid"
    subgroups: tuple[str, ...] = ()
    at_request: bool = False
    max_rows: int = 500_000
    seed: int = 0

    @property
    def keys(self) -> tuple[str, ...]:
        """Return the features' names, ``VIEW:NAME``."""
        return tuple(feature.feature for feature in self.features)

    @property
    def everything_read(self) -> tuple[str, ...]:
        """All features that a training set holds: the model's, the baseline's and those that make groups."""
        return tuple(dict.fromkeys([*self.keys, self.recency, self.frequency, *self.subgroups]))

    def grid(self) -> list[tuple[str, Parameters]]:
        """Return every algorithm with every combination of its parameters' values.

        >>> plain = {"model": "m", "target": {"did": "buy", "within": "7d"}, "features": ["v:x"],
        ...     "cuts": {"every": "7d", "count": 2}, "baseline": {"recency": "v:r", "frequency": "v:f"},
        ...     "algorithms": {"logistic_regression": {"C": [1, 10]}}}
        >>> ModelDefinition.from_plain(plain).grid()
        [('logistic_regression', {'C': 1}), ('logistic_regression', {'C': 10})]
        """
        return [
            (name, dict(zip(values, combination, strict=True)))
            for name, values in self.algorithms.items()
            for combination in product(*values.values())
        ]

    def candidates(self) -> int:
        """Return how many combinations there are."""
        return sum(prod(len(choices) for choices in values.values()) for values in self.algorithms.values())

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> ModelDefinition:
        """Return a definition that was checked, from plain data."""
        target, baseline = content["target"], content["baseline"]
        optional = {
            name: content[name]
            for name in ("description", "population", "test_cuts", "calibration", "at_request", "max_rows", "seed")
            if name in content
        }
        return cls(
            name=content["model"],
            target=Target(
                parse_duration(target["within"]),
                target.get("did", ""),
                target.get("new_row", ""),
                target.get("where", {}),
            ),
            features=tuple(
                ModelFeature(plain) if isinstance(plain, str) else ModelFeature(**plain)
                for plain in content["features"]
            ),
            cuts=_cuts(content["cuts"]),
            recency=baseline["recency"],
            frequency=baseline["frequency"],
            algorithms=_algorithms(content.get("algorithms")),
            search=Search(**content.get("search", {})),
            subgroups=tuple(content.get("subgroups", ())),
            **optional,
        )

    def to_plain(self) -> dict[str, Any]:
        """Return the inverse of :meth:`from_plain`, with every default written out."""
        algorithms = {
            name: {key: list(values) for key, values in choices.items()} for name, choices in self.algorithms.items()
        }
        return {
            "model": self.name,
            "description": self.description,
            "target": self.target.to_plain(),
            "features": [{"feature": each.feature, "scale": each.scale} for each in self.features],
            "population": self.population,
            "cuts": self.cuts.to_plain(),
            "test_cuts": self.test_cuts,
            "algorithms": algorithms,
            "search": {name: getattr(self.search, name) for name in ("kind", "tries", "folds", "score", "rows")},
            "calibration": self.calibration,
            "baseline": {"recency": self.recency, "frequency": self.frequency},
            "subgroups": list(self.subgroups),
            "at_request": self.at_request,
            "max_rows": self.max_rows,
            "seed": self.seed,
        }


def split(cuts: Sequence[int], test_cuts: int, horizon: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the cuts to learn from and those to judge on, earliest first.

    The horizon of each of the former is over when the first of the latter begins: nothing that the model learned from
    happened in the time that it is judged on. Cuts in between are in neither.

    >>> split([0, 30, 60, 90, 120], test_cuts=1, horizon=60)
    ((0, 30, 60), (120,))
    """
    tests = tuple(cuts[len(cuts) - test_cuts :])
    return tuple(cut for cut in cuts[: len(cuts) - test_cuts] if cut + horizon <= tests[0]), tests


def duration_text(micros: int) -> str:
    """Return a duration as a definition writes it.

    >>> duration_text(parse_duration("1441m"))
    '1441m'
    """
    unit, size = next(entry for entry in reversed(UNITS.items()) if entry[0] != "w" and micros % entry[1] == 0)
    return f"{micros // size}{unit}"


def nodes_of(name: str, parameters: Mapping[str, Value]) -> int:
    """Return the most nodes that all trees of a model can have together.

    >>> nodes_of("gradient_boosting", {"max_iter": 100, "max_leaf_nodes": 15})
    2900
    """
    if name == "gradient_boosting":
        return int(parameters["max_iter"] * (2 * parameters["max_leaf_nodes"] - 1))
    if name == "random_forest":
        depth = int(parameters["max_depth"])
        return int(parameters["n_estimators"]) * int(2 ** (depth + 1) - 1)
    return 0


def _cuts(content: Any) -> Cuts:
    if isinstance(content, Mapping):
        return Cuts(every=parse_duration(content["every"]), count=content["count"])
    return Cuts(listed=tuple(parse_instant(cut) for cut in content))


def _algorithms(content: Mapping[str, Mapping[str, Any]] | None) -> dict[str, dict[str, tuple[Value, ...]]]:
    algorithms = {name: {} for name in DEFAULT_ALGORITHMS} if content is None else content
    result: dict[str, dict[str, tuple[Value, ...]]] = {}
    for name, parameters in algorithms.items():
        values = {key: tuple(value) if isinstance(value, list) else (value,) for key, value in parameters.items()}
        result[name] = {**DEFAULTS[name], **values}
    return result
