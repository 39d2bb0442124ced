"""Measure how far segments have the same members: `segments overlap`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rules_engine.batch.engine import BatchRules
from rules_engine.batch.plots import new_figure, save

Progress = Callable[[int, float], None]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two segments, and how many users are in both.

    >>> pair = Pair("a", "b", 10, 20, 5)
    >>> pair.jaccard, pair.contained, pair.contains
    (0.2, 0.5, 0.25)
    """

    first: str
    second: str
    first_size: int
    second_size: int
    both: int

    @property
    def jaccard(self) -> float:
        """Return the users in both segments as a share of those in either; 0 if nobody is in either."""
        either = self.first_size + self.second_size - self.both
        return self.both / either if either else 0.0

    @property
    def contained(self) -> float:
        """Return the part of the first segment's users who are in the second one too."""
        return self.both / self.first_size if self.first_size else 0.0

    @property
    def contains(self) -> float:
        """Return the part of the second segment's users who are in the first one too."""
        return self.both / self.second_size if self.second_size else 0.0


@dataclass(frozen=True, slots=True)
class Overlap:
    """Sizes by segment, and every pair, the most alike first."""

    users: int
    sizes: dict[str, int]
    pairs: tuple[Pair, ...]

    def duplicates(self, least: float) -> tuple[Pair, ...]:
        """Return the pairs with at least so much in common, by Jaccard's measure."""
        return tuple(pair for pair in self.pairs if pair.jaccard >= least)


def overlap(rules: BatchRules, as_of: int, progress: Progress = lambda _users, _done: None) -> Overlap:
    """Count the users in every pair of segments, in bounded memory.

    Raises
    ------
    ProjectError, DataError
        if the offline store cannot be read.
    """
    names = rules.names
    together: npt.NDArray[np.int64] = np.zeros((len(names), len(names)), dtype=np.int64)
    users = 0
    for answered in rules.answers(as_of):
        flags = np.zeros((len(answered.entities), len(names)), dtype=np.float32)
        for position, name in enumerate(names):
            flags[:, position] = answered.members(name)
        together += (flags.T @ flags).astype(np.int64)  # exact: a batch has fewer than 2**24 rows
        users += len(flags)
        progress(users, answered.done)
    sizes = {name: int(together[at, at]) for at, name in enumerate(names)}
    pairs = [
        Pair(
            first,
            second,
            sizes[first],
            sizes[second],
            int(together[names.index(first), names.index(second)]),
        )
        for first, second in combinations(names, 2)
    ]
    pairs.sort(key=lambda pair: (-pair.jaccard, -max(pair.contained, pair.contains), pair.first, pair.second))
    return Overlap(users, sizes, tuple(pairs))


def heat_map(overlap: Overlap, path: Path) -> None:
    """Draw which part of each segment's users (row) is in each other one (column).

    Raises
    ------
    MissingExtraError
        if matplotlib is not installed.
    """
    names = list(overlap.sizes)
    parts = _parts(overlap, names)
    side = max(4.0, 1.8 + 0.55 * len(names))
    figure = new_figure(side + 1.5, side, "the heat map")
    axes = figure.add_subplot()
    shown = axes.imshow(parts, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), [f"{name} ({overlap.sizes[name]:,})" for name in names])
    axes.set_title("Part of the row's users who are in the column's segment too", fontsize=10)
    for row, column in np.ndindex(parts.shape):
        if not np.isnan(parts[row, column]):
            colour = "white" if parts[row, column] > 0.6 else "black"
            text = _percent(float(parts[row, column]))
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=7)
    axes.tick_params(labelsize=8)
    figure.colorbar(shown, ax=axes, format=lambda value, _: f"{value:.0%}", shrink=0.8)
    save(figure, path)


def _percent(part: float) -> str:
    """Return a short percentage, which never shows a part as 0% or 100%.

    >>> _percent(0.0), _percent(0.001), _percent(0.5), _percent(0.999), _percent(1.0)
    ('', '<1%', '50%', '>99%', '100%')
    """
    if part in (0, 1):
        return "100%" if part else ""
    return "<1%" if part < 0.005 else ">99%" if part >= 0.995 else f"{part:.0%}"


def _parts(overlap: Overlap, names: list[str]) -> npt.NDArray[Any]:
    """Return the shares by row and column; NaN where nobody is in the row's segment."""
    parts = np.full((len(names), len(names)), np.nan)
    for at, name in enumerate(names):
        if overlap.sizes[name]:
            parts[at, at] = 1.0
    for pair in overlap.pairs:
        first, second = names.index(pair.first), names.index(pair.second)
        if pair.first_size:
            parts[first, second] = pair.contained
        if pair.second_size:
            parts[second, first] = pair.contains
    return parts
