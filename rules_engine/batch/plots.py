"""Pictures of segments: matplotlib, if it is there, without a display."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rules_engine.clock import format_duration, from_micros
from rules_engine.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    from rules_engine.batch.backtest import Backtest

#: So many other segments are drawn: those with most in common.
_OTHERS = 6

_ENTER, _LEAVE, _SIZE = "#3a7d44", "#b23a48", "#1f4e79"


def new_figure(width: float, height: float, purpose: str) -> Any:
    """Return an empty figure.

    Parameters
    ----------
    purpose
        what is drawn, for the message that matplotlib is missing.

    Raises
    ------
    MissingExtraError
        if matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plots", purpose) from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Any, path: Path) -> None:
    """Write a figure as PNG.

    Raises
    ------
    DataError
        if the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, format="png")
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}", hint="is the folder writable?") from error


def draw_backtest(backtest: Backtest, path: Path) -> None:
    """Draw a segment's size, who enters and leaves, and what it has in common with others, over time.

    Raises
    ------
    MissingExtraError
        if matplotlib is not installed.
    DataError
        if the file cannot be written.
    """
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.ticker import FuncFormatter, PercentFormatter

    others = [name for name in backtest.alike() if any(point.both[name] for point in backtest.points)][:_OTHERS]
    figure = new_figure(9, 7.5 if others else 5.5, "the plot")
    axes = figure.subplots(3 if others else 2, 1, sharex=True, height_ratios=[3, 2, 3] if others else [3, 2])
    days = [from_micros(point.at) for point in backtest.points]
    _draw_sizes(axes[0], backtest, days)
    _draw_moves(axes[1], backtest, days)
    counts = FuncFormatter(lambda value, _: f"{abs(value):,.0f}")
    for axis in axes[:2]:
        axis.yaxis.set_major_formatter(counts)
    if others:
        for name in others:
            axes[2].plot(days, [point.jaccard(name) for point in backtest.points], label=name, linewidth=1.3)
        axes[2].set_ylim(bottom=0)
        axes[2].yaxis.set_major_formatter(PercentFormatter(1))
        axes[2].set_ylabel("in both, of those\nin either", fontsize=8)
        axes[2].legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
    locator: Any = AutoDateLocator()  # type: ignore[no-untyped-call]
    axes[-1].xaxis.set_major_locator(locator)
    axes[-1].xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    for axis in axes:
        axis.tick_params(labelsize=8)
        axis.grid(visible=True, axis="y", linewidth=0.4, alpha=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def _draw_sizes(axes: Any, backtest: Backtest, days: list[datetime]) -> None:
    axes.plot(days, [point.size for point in backtest.points], color=_SIZE, linewidth=1.6)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("users", fontsize=8)
    rate = f"{backtest.flap_rate:.1%} of the moves undone within {format_duration(backtest.flap_within)}"
    axes.set_title(f"{backtest.segment}, every {format_duration(backtest.every)}: {rate}", fontsize=10, loc="left")


def _draw_moves(axes: Any, backtest: Backtest, days: list[datetime]) -> None:
    width = (days[1] - days[0]) * 0.8 if len(days) > 1 else 1.0
    axes.bar(days, [point.entered for point in backtest.points], width=width, color=_ENTER, label="enter")
    axes.bar(days, [-point.left for point in backtest.points], width=width, color=_LEAVE, label="leave")
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_ylabel("users who move", fontsize=8)
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
