"""Pictures: what is drawn, and what is said where matplotlib is not installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from matplotlib.image import imread

from rules_engine.batch.backtest import Backtest, Point
from rules_engine.batch.plots import draw_backtest, new_figure
from rules_engine.errors import DataError, MissingExtraError

DAY = 86_400_000_000


def backtest(points: int) -> Backtest:
    made = [
        Point(number * DAY, 100, 10 + number, number, number // 2, 1, {"other": 20, "none": 5}, {"other": 3, "none": 0})
        for number in range(points)
    ]
    return Backtest("vip", DAY, 3 * DAY, tuple(made))


@pytest.mark.slow
@pytest.mark.parametrize("points", [1, 2, 30])
def test_a_backtest_is_a_picture_however_many_instants_it_has(tmp_path: Path, points: int) -> None:
    draw_backtest(backtest(points), tmp_path / "deep" / "vip.png")
    height, width, _ = imread(tmp_path / "deep" / "vip.png").shape
    assert (height, width) > (900, 900)


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        draw_backtest(backtest(2), tmp_path / "file" / "vip.png")


def test_without_matplotlib_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match="the plot needs the package 'matplotlib'") as caught:
        new_figure(1, 1, "the plot")
    assert caught.value.hint == "pip install 'feast-segments[plots]'"
