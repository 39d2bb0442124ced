"""The plot of the benchmark of materialization, for docs/."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

_DOCS = Path(__file__).parents[1] / "docs"
_COLOURS = {"ours": "#1b6ca8", "feast": "#e07a3f"}
_NAMES = {"ours": "ours", "feast": "Feast"}


def draw(figures: Sequence[Any]) -> str:
    """Draw rows a second, and peak memory, by users and by what the store holds; where to."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(12, 4), layout="constrained")
    groups = list(dict.fromkeys((one.users, one.store) for one in figures))
    found = {(one.side, one.users, one.store): one for one in figures}
    for axis, value, title in (
        (axes[0], "rows_per_second", "Rows a second (more is better)"),
        (axes[1], "peak_mb", "Peak memory of the process, MB (less is better)"),
    ):
        for at, side in enumerate(_COLOURS):
            places = [place + 0.4 * at for place in range(len(groups))]
            heights = [getattr(found[side, *group], value) for group in groups]
            bars = axis.bar(places, heights, 0.4, label=_NAMES[side], color=_COLOURS[side])
            axis.bar_label(bars, [f"{height:,}" for height in heights], fontsize=8, padding=1)
        labels = [f"{users:,} users,\nstore {store}" for users, store in groups]
        axis.set_xticks([place + 0.2 for place in range(len(groups))], labels, fontsize=8)
        axis.set_title(title)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(y=0.1)
    axes[0].legend(frameon=False)
    figure.savefig(_DOCS / "materialize.png", dpi=110)
    plt.close(figure)
    return "docs/materialize.png"
