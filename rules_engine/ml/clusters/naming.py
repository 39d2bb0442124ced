"""Names for clusters, from what sets them apart: "frequent, small basket"."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from rules_engine.ml.clusters.arrays import Matrix
from rules_engine.ml.clusters.definition import ClusterFeature

#: From this many standard deviations off the mean, a feature sets a cluster apart.
NOTABLE = 0.25

#: What is said of a cluster that nothing sets apart.
MIDDLING = "middling"

#: Most names say two things.
_USUAL = 2


def propose_names(features: Sequence[ClusterFeature], centroids: Matrix, taken: Collection[str] = ()) -> list[str]:
    """Return a name for each cluster, from the features in which its centre lies farthest from the mean of all users.

    Two features make a name; more are added only where two clusters would be called the same, in whatever order. Where
    that does not help, the one that has most of its first word is called very much so.

    Parameters
    ----------
    taken
        names that none may have.

    >>> orders = ClusterFeature("v:orders", low="rare", high="frequent")
    >>> basket = ClusterFeature("v:basket", low="small", high="big")
    >>> propose_names([orders, basket], np.array([[2.0, 0.5], [-1.0, 1.5], [-1.0, 0.1]]))
    ['frequent, big', 'big, rare', 'rare']
    >>> propose_names([orders, basket], np.array([[2.0, 0.1], [5.0, 0.1], [1.0, 0.1]]))
    ['frequent', 'very frequent', 'frequent (3)']
    """
    described = [words(features, centroid) for centroid in centroids]
    reserved = {frozenset(name.split(", ")) for name in taken}
    lengths = [min(_USUAL, len(description)) for description in described]
    for _ in features:
        kinds = [frozenset(description[:length]) for description, length in zip(described, lengths, strict=True)]
        for position, kind in enumerate(kinds):
            if kinds.count(kind) > 1 or kind in reserved:
                lengths[position] = min(lengths[position] + 1, len(described[position]))
    chosen = [description[:length] for description, length in zip(described, lengths, strict=True)]
    return _told_apart(chosen, [float(np.abs(centroid).max(initial=0.0)) for centroid in centroids], reserved)


def words(features: Sequence[ClusterFeature], centroid: Matrix) -> list[str]:
    """Return words for what sets a cluster apart, the most telling first."""
    by_weight = sorted(range(len(features)), key=lambda column: -abs(centroid[column]))
    notable = [column for column in by_weight if abs(centroid[column]) >= NOTABLE]
    return [features[column].word(high=bool(centroid[column] > 0)) for column in notable] or [MIDDLING]


def _told_apart(chosen: list[list[str]], weights: list[float], reserved: set[frozenset[str]]) -> list[str]:
    """Make names of words. Of clusters with the same words, the most extreme is "very", the others numbered."""
    names: dict[int, str] = {}
    used = set(reserved)
    for kind in dict.fromkeys(map(frozenset, chosen)):
        alike = [position for position, choice in enumerate(chosen) if frozenset(choice) == kind]
        extreme = max(alike, key=lambda position: weights[position]) if kind != {MIDDLING} else None
        # The most extreme one comes last, so that the plain name goes to another.
        for position in sorted(alike, key=lambda position: position == extreme):
            plain = ", ".join(chosen[position])
            options = [plain, f"very {plain}"] if position == extreme else [plain]
            free = (name for name in options if frozenset(name.split(", ")) not in used)
            names[position] = next(free, f"{plain} ({position + 1})")
            used.add(frozenset(names[position].split(", ")))
    return [names[position] for position in range(len(chosen))]
