"""Allocations divide entities as GrowthBook's SDKs do: its published inputs and results of whole experiments."""

from __future__ import annotations

import pytest

from rules_engine.rules.allocation import Allocation, equal_weights, first_bucket
from rules_engine.rules.buckets import BUCKETS, bucket

#: Of the units "1" to "9", the variation that each gets; None is not in the experiment. Version 1 of the hash.
PUBLISHED = {
    "my-test": {
        ((0.5, 0.5), 1.0): [1, 0, 0, 1, 1, 1, 0, 1, 0],
        ((0.1, 0.9), 1.0): [1, 1, 0, 1, 1, 1, 0, 1, 1],
        ((0.5, 0.5), 0.4): [None, 0, 0, None, 1, None, 0, 1, None],
        (equal_weights(3), 1.0): [2, 0, 0, 2, 1, 2, 0, 1, 0],
    }
}


@pytest.mark.parametrize(("weights", "coverage"), PUBLISHED["my-test"])
def test_published_variations(weights: tuple[float, ...], coverage: float) -> None:
    names = tuple(map(str, range(len(weights))))
    allocation = Allocation("my-test", names, weights, coverage, hash_version=1)
    parts = [allocation.part_of(str(unit))[0] for unit in range(1, 10)]
    assert parts == [None if part is None else str(part) for part in PUBLISHED["my-test"][weights, coverage]]


@pytest.mark.parametrize(
    ("seed", "version", "unit", "coverage", "part"),
    [
        ("my-test-3", 1, "1", 1.0, "0"),
        ("foo", 2, "1", 1.0, "1"),
        ("foo", 2, "1", 0.99, "1"),
        ("my-test", 1, "1", 0.01, None),
    ],
)
def test_published_seeds_and_versions(seed: str, version: int, unit: str, coverage: float, part: str | None) -> None:
    assert Allocation(seed, ("0", "1"), (0.5, 0.5), coverage, version).part_of(unit)[0] == part


def test_a_published_bucket_of_version_2_with_three_variations() -> None:
    weights = (0.3334, 0.3333, 0.3333)
    part, place = Allocation("feature-exp", ("control", "red", "blue"), weights).part_of("d123")
    assert (part, place) == ("red", 6468)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("position", [0, 1, 0.1 + 0.2, 0.3, 1 / 3, 2 / 3, 0.9999, 0.99999999, 1e-9, 0.0001, 0.001])
def test_the_first_bucket_compares_as_positions_do(version: int, position: float) -> None:
    buckets = BUCKETS[version]
    first = first_bucket(position, version)
    assert all((number / buckets >= position) == (number >= first) for number in range(buckets + 1))


@pytest.mark.parametrize("parts", [2, 3, 6, 7, 11, 49])
def test_equal_weights_leave_nobody_out(parts: int) -> None:
    allocation = Allocation("s", tuple(map(str, range(parts))), equal_weights(parts))
    ends = [end for _, end in allocation.bounds]
    assert ends[-1] == BUCKETS[2]
    assert [start for start, _ in allocation.bounds] == [0, *ends[:-1]]


def test_coverage_moves_nobody_to_another_part() -> None:
    for unit in map(str, range(2_000)):
        parts = {Allocation("s", ("a", "b"), (0.3, 0.7), share).part_of(unit)[0] for share in (0.1, 0.5, 0.9, 1.0)}
        assert len(parts - {None}) == 1, unit
        assert bucket("s", unit) < BUCKETS[2]
