"""The plots of the benchmark of requests, for docs/."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"

_COLOURS = {
    "lookup": "#1b6ca8",
    "our read": "#1b6ca8",
    "our rules": "#8fc1e3",
    "redis-py HMGET": "#9a9a9a",
    "Feast": "#e07a3f",
}
_PEER = "#b5482a"


def draw(cells: Sequence[Any], rates: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Draw latency and throughput; where to."""
    import matplotlib as mpl

    mpl.use("Agg")
    return [_latency(cells), _throughput(rates)]


def _latency(cells: Sequence[Any]) -> str:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(15, 4.2), layout="constrained")
    for axis, users in zip(axes, (1, 100), strict=False):
        chosen = [cell for cell in cells if cell.users == users and cell.segments == 100 and cell.features != 30]
        names = [name for name in chosen[0].times if name not in ("our read", "our rules")]
        width = 0.8 / len(names)
        for at, name in enumerate(names):
            places = [place + at * width for place in range(len(chosen))]
            heights = [cell.times[name].p50 for cell in chosen]
            bars = axis.bar(places, heights, width, label=name, color=_COLOURS.get(name, _PEER))
            axis.bar_label(bars, [_short(height) for height in heights], fontsize=6.5, padding=1)
        axis.set_xticks([place + 0.4 - width / 2 for place in range(len(chosen))], [cell.features for cell in chosen])
        axis.set(yscale="log", xlabel="features", ylabel="milliseconds, p50")
        axis.set_title(f"{users} user{'s' if users > 1 else ''}, 100 segments")
        axis.margins(y=0.12)
    axes[0].legend(fontsize=8, frameon=False)
    _split(axes[2], cells)
    return _save(figure, "requests_latency.png")


def _short(number: float) -> str:
    return f"{number:.0f}" if number >= 10 else f"{number:.2g}"


def _split(axis: Any, cells: Sequence[Any]) -> None:
    chosen = [cell for cell in cells if cell.users == 1 and cell.features != 30]
    labels = [f"{cell.features} / {cell.segments:,}" for cell in chosen]
    read = [cell.times["our read"].p50 * 1000 for cell in chosen]
    rules = [cell.times["our rules"].p50 * 1000 for cell in chosen]
    axis.barh(labels, read, color=_COLOURS["our read"], label="reading")
    axis.barh(labels, rules, left=read, color=_COLOURS["our rules"], label="rules")
    axis.invert_yaxis()
    axis.set(xlabel="microseconds, p50", ylabel="features / segments")
    axis.set_title("Where a lookup of one user spends its time")
    axis.legend(fontsize=8, frameon=False)


def _throughput(rates: Mapping[str, Mapping[str, float]]) -> str:
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 3.6), layout="constrained")
    ways = list(rates["lookup"])
    for at, (name, found) in enumerate(rates.items()):
        places = [place + at * 0.4 for place in range(len(ways))]
        heights = [found[way] for way in ways]
        bars = axis.bar(places, heights, 0.4, label=name, color=_COLOURS[name])
        axis.bar_label(bars, [f"{height:,.0f}" for height in heights], fontsize=7, padding=1)
    axis.set_xticks([place + 0.2 for place in range(len(ways))], ways, fontsize=8)
    axis.set(ylabel="requests per second")
    axis.set_title("1 user, 30 features, 100 segments, one process")
    axis.legend(fontsize=8, frameon=False)
    axis.margins(y=0.12)
    return _save(figure, "requests_per_second.png")


def _save(figure: Any, name: str) -> str:
    import matplotlib.pyplot as plt

    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(DOCS / name, dpi=110)
    plt.close(figure)
    return f"docs/{name}"
