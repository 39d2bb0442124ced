"""The base of algorithms, with the clustering that one finds and the assigner that it leaves behind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from rules_engine.ml.clusters.arrays import Matrix, Positions

#: The position of entities in no cluster.
NONE = -1


@dataclass(frozen=True, slots=True)
class Assigned:
    """Assigned clusters, one entry for each user.

    Attributes
    ----------
    position
        the cluster, by its position; -1 for none.
    distance
        from the cluster's centre, or from its nearest dense place.
    confidence
        from 0 to 1, how clear it is.
    outlier
        who is unlike the cluster's other users, or in none.
    probabilities
        one column for each cluster, where the algorithm knows them.
    """

    position: Positions
    distance: Matrix
    confidence: Matrix
    outlier: NDArray[np.bool_]
    probabilities: Matrix | None = None

    @classmethod
    def together(cls, parts: list[Assigned]) -> Assigned:
        """Return the parts one after the other."""
        probabilities = [part.probabilities for part in parts if part.probabilities is not None]
        return cls(
            position=np.concatenate([part.position for part in parts]),
            distance=np.concatenate([part.distance for part in parts]),
            confidence=np.concatenate([part.confidence for part in parts]),
            outlier=np.concatenate([part.outlier for part in parts]),
            probabilities=np.concatenate(probabilities) if probabilities else None,
        )


class Assigner(Protocol):
    """Places entities among clusters; two assigners are equal if their numbers are.

    ``kind`` names it in files. ``from_plain`` raises ValueError, KeyError or TypeError for numbers that make no sense.
    """

    kind: ClassVar[str]

    @property
    def count(self) -> int: ...
    @property
    def dimensions(self) -> int: ...
    def assign(self, points: Matrix) -> Assigned: ...
    def to_plain(self) -> dict[str, Any]: ...
    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> Self: ...


@dataclass(frozen=True, slots=True)
class Clustering:
    """Clusters of one number.

    Attributes
    ----------
    clusters
        each fitted entity's cluster, by position, or -1.
    assigner
        places others among them.
    bic
        how unlikely the data are, with a penalty for parameters, where the algorithm has a likelihood.
    learned
        settings that were read off the data, such as ``eps``.
    """

    clusters: Positions
    assigner: Assigner
    bic: float | None = None
    learned: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AlgorithmSetting:
    """A setting of an algorithm: its JSON Schema with a description, and its default; None: read off the data."""

    schema: Mapping[str, Any]
    default: Any


#: Settings that several algorithms have.
STARTS = AlgorithmSetting(
    {
        "type": "integer",
        "minimum": 1,
        "maximum": 1000,
        "description": "How often the algorithm starts anew for each number of clusters; the best start counts.",
    },
    3,
)
MIN_USERS = AlgorithmSetting(
    {
        "type": "integer",
        "minimum": 2,
        "maximum": 1000,
        "description": "How many users make a dense place (dbscan) or a cluster (hdbscan).",
    },
    20,
)


class Algorithm(ABC):
    """A way to find clusters. A class is complete if it has these attributes and methods, and keeps no state.

    The first line of its docstring says what it finds; editors and the documentation show it.

    Attributes
    ----------
    name : str
        what ``algorithm:`` says in clusters.yaml.
    assigner : type
        places newcomers, and is stored.
    sample : int
        the most entities that are fitted unless the definition says otherwise: what a step costs grows with the square
        of them, or with memory.
    settings : mapping
        by key of clusters.yaml, what can be set.
    finds_k : bool
        it finds by itself how many clusters there are, and leaves entities out of all of them.
    has_likelihood, has_probabilities : bool
        it gives ``bic``; its assigner gives ``probabilities``.
    resampled : int
        the most entities that are drawn to tell how stable its clusters are.
    """

    name: ClassVar[str]
    assigner: ClassVar[type[Assigner]]
    sample: ClassVar[int]
    settings: ClassVar[Mapping[str, AlgorithmSetting]] = {}
    finds_k: ClassVar[bool] = False
    has_likelihood: ClassVar[bool] = False
    has_probabilities: ClassVar[bool] = False
    resampled: ClassVar[int] = 1500

    @abstractmethod
    def find(
        self, points: Matrix, sizes: Sequence[int], settings: Mapping[str, Any], seed: int
    ) -> Iterator[Clustering]:
        """Find clusters for each of the numbers of clusters; with ``finds_k`` one result, whatever the numbers.

        Parameters
        ----------
        points : array
            one row per entity, in scaled units, nothing missing.
        sizes : sequence of int
            how many clusters to look for.
        settings : mapping
            the value of each setting.
        seed : int
            equal seeds give equal clusters.

        Raises
        ------
        DataError
            if there is no cluster.
        """

    def for_fewer(self, settings: Mapping[str, Any], share: float, whole: Clustering) -> dict[str, Any]:
        """Return the settings for a part of the entities, with what was read off the data already."""
        changed = {**settings, **whole.learned}
        if "starts" in changed:
            changed["starts"] = 1
        if "min_users" in changed:
            changed["min_users"] = max(2, round(changed["min_users"] * share))
        return changed

    def fewest(self, settings: Mapping[str, Any], k_to: int) -> int:
        """Return how many different entities there have to be."""
        return int(settings.get("min_users", 2)) if self.finds_k else 2 * k_to


def check_numbers(holds: bool) -> None:
    """Refuse numbers of a file that do not fit together.

    Raises
    ------
    ValueError
        unless it holds.
    """
    if not holds:
        raise ValueError("its numbers do not fit together")
