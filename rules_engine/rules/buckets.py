"""Places people in buckets, as GrowthBook does: who is in a share, an arm or a namespace follows from two texts alone.

The hash is FNV-1a of 32 bits. It reads texts as GrowthBook's SDK for JavaScript does, by their UTF-16 code units; other
SDKs agree on ASCII, and Python's on everything up to U+FFFF. ``targets/columns/buckets.py`` has the same for columns.
"""

from __future__ import annotations

from collections.abc import Sequence

#: How many buckets each version of the hash has.
BUCKETS = {1: 1_000, 2: 10_000}

#: The state before the first character, and the factor of each step, of FNV-1a with 32 bits.
START, PRIME = 0x811C9DC5, 0x01000193
_MASK = 0xFFFFFFFF

#: Weights are fractions of 1; GrowthBook allows them to be so far from it in all.
_TOLERANCE = 0.01

Range = tuple[float, float]


def fnv1a(text: str, state: int = START) -> int:
    """Return the FNV-1a hash of a text's UTF-16 code units; ``state`` is the hash of what comes before it.

    >>> fnv1a("foobar"), fnv1a("bar", fnv1a("foo"))
    (3214735720, 3214735720)
    """
    for unit in code_units(text):
        state = (state ^ unit) * PRIME & _MASK
    return state


def code_units(text: str) -> Sequence[int]:
    """Return the UTF-16 code units of a text.

    >>> [hex(unit) for unit in code_units("é😀")]
    ['0xe9', '0xd83d', '0xde00']
    """
    if text.isascii():
        return text.encode()
    encoded = text.encode("utf-16-le", "surrogatepass")
    return [encoded[place] | encoded[place + 1] << 8 for place in range(0, len(encoded), 2)]


def bucket(seed: str, unit: str, version: int = 2) -> int:
    """Return the bucket of a unit, from 0 up to the number of buckets of the hash's version.

    Parameters
    ----------
    seed
        tells one division of the same units from another.
    unit
        what is placed, mostly the key of an entity.
    version
        of GrowthBook's hash. 1 has 1,000 buckets, and similar seeds give similar divisions; 2 has neither fault.

    Raises
    ------
    ValueError
        if there is no such version.

    Examples
    --------
    >>> bucket("seed", "a"), bucket("b", "a", version=1)
    (505, 946)
    """
    if version == 2:
        return fnv1a(str(fnv1a(seed + unit))) % BUCKETS[2]
    if version == 1:
        return fnv1a(unit + seed) % BUCKETS[1]
    raise ValueError(f"there is no version {version} of the hash; the versions are {', '.join(map(str, BUCKETS))}")


def position(seed: str, unit: str, version: int = 2) -> float:
    """Return the bucket as a number from 0 up to 1, which is what GrowthBook's SDKs compare with ranges.

    >>> position("seed", "a")
    0.0505
    """
    return bucket(seed, unit, version) / BUCKETS[version]


def bucket_ranges(weights: Sequence[float], coverage: float = 1.0) -> tuple[Range, ...]:
    """Return the range [start, end) of positions that each of several arms has.

    Parameters
    ----------
    weights
        the share of each arm; in all 1, give or take 0.01. Arms keep their places when ``coverage`` grows.
    coverage
        the part of each arm's range that is used, from 0 to 1.

    Raises
    ------
    ValueError
        if a weight is negative, or the weights or the coverage are out of bounds.

    Examples
    --------
    >>> bucket_ranges([0.5, 0.5], coverage=0.5)
    ((0.0, 0.25), (0.5, 0.75))
    """
    if not 0 <= coverage <= 1:
        raise ValueError(f"the coverage is {coverage}, and has to be from 0 to 1")
    if any(weight < 0 for weight in weights) or abs(sum(weights) - 1) > _TOLERANCE:
        raise ValueError(f"weights are 0 or more and add up to 1, not {list(weights)}")
    ranges: list[Range] = []
    start = 0.0
    for weight in weights:
        ranges.append((start, start + coverage * weight))
        start += weight
    return tuple(ranges)


def choose(place: float, ranges: Sequence[Range]) -> int | None:
    """Return which of the ranges holds a position; None if none does.

    >>> ranges = bucket_ranges([0.5, 0.5], coverage=0.5)
    >>> choose(position("seed", "a"), ranges), choose(0.4, ranges)
    (0, None)
    """
    return next((number for number, (start, end) in enumerate(ranges) if start <= place < end), None)


def in_namespace(unit: str, namespace: str, start: float, end: float) -> bool:
    """Say whether a unit lies in a part [start, end) of a namespace, which experiments share out among themselves.

    >>> in_namespace("1", "namespace1", 0.4, 1)
    True
    """
    return start <= position(f"__{namespace}", unit, version=1) < end
