"""Pairs of segments: their numbers, and their picture."""

from __future__ import annotations

from pathlib import Path

from matplotlib.image import imread

from rules_engine.batch.overlap import Overlap, Pair, heat_map


def test_a_pair_of_empty_segments_has_nothing_in_common() -> None:
    pair = Pair("a", "b", 0, 0, 0)
    assert (pair.jaccard, pair.contained, pair.contains) == (0, 0, 0)


def test_near_duplicates_are_by_what_is_in_either() -> None:
    twins, inside = Pair("a", "b", 100, 95, 95), Pair("a", "c", 100, 10, 10)
    found = Overlap(1000, {"a": 100, "b": 95, "c": 10}, (twins, inside))
    assert found.duplicates(0.9) == (twins,)
    assert found.duplicates(0.96) == ()


def test_the_heat_map_is_a_picture_even_of_empty_segments(tmp_path: Path) -> None:
    found = Overlap(10, {"a": 4, "b": 2, "none": 0}, (Pair("a", "b", 4, 2, 2), Pair("a", "none", 4, 0, 0)))
    heat_map(found, tmp_path / "deep" / "map.png")
    height, width, _ = imread(tmp_path / "deep" / "map.png").shape
    assert height > 400
    assert width > 400
