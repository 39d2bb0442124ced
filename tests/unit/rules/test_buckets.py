"""Buckets: the values that GrowthBook publishes for its SDKs, and the same for whole columns."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules_engine.rules.buckets import BUCKETS, bucket, bucket_ranges, choose, in_namespace, position
from rules_engine.targets.columns.buckets import bucket_column

#: Seed, unit, version, position: GrowthBook's specification 0.8.0.
PUBLISHED = [
    ("", "a", 1, 0.22),
    ("", "b", 1, 0.077),
    ("b", "a", 1, 0.946),
    ("ef", "d", 1, 0.652),
    ("asdf", "8952klfjas09ujk", 1, 0.549),
    ("", "123", 1, 0.011),
    ("", '___)((*":&', 1, 0.563),
    ("seed", "a", 2, 0.0505),
    ("seed", "b", 2, 0.2696),
    ("foo", "ab", 2, 0.2575),
    ("foo", "def", 2, 0.2019),
    ("89123klj", "8952klfjas09ujkasdf", 2, 0.124),
    ("90850943850283058242805", "123", 2, 0.7516),
    ("()**(%$##$%#$#", '___)((*":&', 2, 0.0128),
]


@pytest.mark.parametrize(("seed", "unit", "version", "expected"), PUBLISHED)
def test_positions_are_those_of_growthbook(seed: str, unit: str, version: int, expected: float) -> None:
    assert position(seed, unit, version) == expected
    assert bucket_column(seed, pa.array([unit]), version).tolist() == [round(expected * BUCKETS[version])]


def test_an_unknown_version_is_refused() -> None:
    for ask in (lambda: bucket("abc", "def", 99), lambda: bucket_column("abc", pa.array(["def"]), 99)):
        with pytest.raises(ValueError, match="no version 99 of the hash; the versions are 1, 2"):
            ask()


@pytest.mark.parametrize(
    ("weights", "coverage", "expected"),
    [
        ([0.5, 0.5], 1, [(0, 0.5), (0.5, 1)]),
        ([0.5, 0.5], 0.5, [(0, 0.25), (0.5, 0.75)]),
        ([0.5, 0.5], 0, [(0, 0), (0.5, 0.5)]),
        ([0.25] * 4, 1, [(0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1)]),
        ([0.4, 0.6], 1, [(0, 0.4), (0.4, 1)]),
        ([0.2, 0.3, 0.5], 1, [(0, 0.2), (0.2, 0.5), (0.5, 1)]),
        ([0.2, 0.3, 0.5], 0.2, [(0, 0.04), (0.2, 0.26), (0.5, 0.6)]),
        ([0.4, 0.5999], 1, [(0, 0.4), (0.4, 0.9999)]),
    ],
)
def test_ranges_are_those_of_growthbook(
    weights: list[float], coverage: float, expected: list[tuple[float, float]]
) -> None:
    for arm, published in zip(bucket_ranges(weights, coverage), expected, strict=True):
        assert arm == pytest.approx(published)


@pytest.mark.parametrize(
    ("weights", "coverage"), [([0.4, 0.1], 1), ([0.7, 0.6], 1), ([-0.5, 1.5], 1), ([0.5, 0.5], -0.2), ([0.5, 0.5], 1.5)]
)
def test_what_growthbook_replaces_by_equal_arms_is_refused(weights: list[float], coverage: float) -> None:
    with pytest.raises(ValueError, match=r"add up to 1|from 0 to 1"):
        bucket_ranges(weights, coverage)


@pytest.mark.parametrize(
    ("place", "ranges", "expected"),
    [
        *((place, [(0, 0.5), (0.5, 1)], int(place >= 0.5)) for place in (0, 0.2, 0.4, 0.5, 0.6, 0.8)),
        (0.2, [(0, 0.25), (0.5, 0.75)], 0),
        (0.25, [(0, 0.25), (0.5, 0.75)], None),
        (0.4, [(0, 0.25), (0.5, 0.75)], None),
        (0.5, [(0, 0.25), (0.5, 0.75)], 1),
        (0.8, [(0, 0.25), (0.5, 0.75)], None),
        (0.5, [(0, 0.5), (0.5, 0.5), (0.5, 1)], 2),
    ],
)
def test_a_position_lies_in_the_range_that_growthbook_chooses(
    place: float, ranges: list[tuple[float, float]], expected: int | None
) -> None:
    assert choose(place, ranges) == expected


@pytest.mark.parametrize(
    ("unit", "namespace", "is_in_first_part"),
    [
        *((unit, "namespace1", False) for unit in "1234"),
        ("1", "namespace2", False),
        ("2", "namespace2", False),
        ("3", "namespace2", True),
        ("4", "namespace2", True),
    ],
)
def test_namespaces_are_those_of_growthbook(unit: str, namespace: str, is_in_first_part: bool) -> None:
    assert in_namespace(unit, namespace, 0, 0.4) is is_in_first_part
    assert in_namespace(unit, namespace, 0.4, 1) is not is_in_first_part


def test_beyond_ascii_utf_16_units_are_hashed_as_in_javascript() -> None:
    # hash("seed", "naïve", 2), hash("seed", "日本", 2) and hash("é", "😀", 1) of GrowthBook's SDK for JavaScript
    assert (bucket("seed", "naïve"), bucket("seed", "日本"), bucket("é", "😀", 1)) == (1066, 9652, 483)


@given(
    st.text(max_size=5),
    st.lists(st.none() | st.text(st.characters(codec="utf-8"), max_size=40)),
    st.integers(0, 3),
    st.sampled_from(list(BUCKETS)),
)
def test_a_column_has_the_bucket_of_each_of_its_units(
    seed: str, units: list[str | None], skipped: int, version: int
) -> None:
    column = pa.array(units, pa.string())[skipped:]
    expected = [bucket(seed, unit or "", version) for unit in units[skipped:]]
    assert bucket_column(seed, column, version).tolist() == expected


@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_whole_numbers_are_hashed_as_their_text(keys: list[int]) -> None:
    assert bucket_column("s", pa.array(keys, pa.int64())).tolist() == [bucket("s", str(key)) for key in keys]
