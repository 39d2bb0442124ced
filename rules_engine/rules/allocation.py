"""Divide entities among named parts by their buckets: the variants of a rule, or the arms of an experiment."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from rules_engine.rules.buckets import BUCKETS, bucket, bucket_ranges


@dataclass(frozen=True)
class Allocation:
    """Divides entities among parts.

    Parameters
    ----------
    seed
        what buckets are counted by, beside the entity: with the same seed, the same entities have the same buckets.
    names
        of the parts.
    weights
        of the parts, which sum to 1.
    coverage
        the share of each part that is taken; the rest is in no part. More coverage moves nobody from one part to
        another.
    hash_version
        the version of GrowthBook's hash.

    Examples
    --------
    >>> halves = Allocation("offer", ("control", "voucher"), (0.5, 0.5), coverage=0.5)
    >>> halves.bounds
    ((0, 2500), (5000, 7500))
    >>> halves.part_of("42"), halves.part_of("3")
    ((None, 9407), ('control', 1796))
    """

    seed: str
    names: tuple[str, ...]
    weights: tuple[float, ...]
    coverage: float = 1.0
    hash_version: int = 2

    @cached_property
    def bounds(self) -> tuple[tuple[int, int], ...]:
        """Return the buckets of each part: the first one, and the first one after it."""
        ranges = bucket_ranges(self.weights, self.coverage)
        version = self.hash_version
        return tuple((first_bucket(start, version), first_bucket(end, version)) for start, end in ranges)

    def part_of(self, entity: str) -> tuple[str | None, int]:
        """Return the part that an entity is in, by its name (None if it is in none), and its bucket."""
        number = bucket(self.seed, entity, self.hash_version)
        for name, (start, end) in zip(self.names, self.bounds, strict=True):
            if start <= number < end:
                return name, number
        return None, number


def first_bucket(position: float, version: int = 2) -> int:
    """Return the first bucket whose position is not before one, exactly as positions compare.

    >>> first_bucket(0.1 + 0.2), first_bucket(0.3)
    (3001, 3000)
    """
    buckets = BUCKETS[version]
    number = min(max(int(position * buckets) - 1, 0), buckets)
    while number < buckets and number / buckets < position:
        number += 1
    return number


def equal_weights(parts: int) -> tuple[float, ...]:
    """Return the weights of parts of the same size.

    >>> equal_weights(4)
    (0.25, 0.25, 0.25, 0.25)
    """
    return (1 / parts,) * parts
