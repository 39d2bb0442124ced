"""Everyone's features as of an instant, a piece at a time: what a million users have need not fit into memory at once.

With Parquet files on this machine and DuckDB, pieces are read as they are needed. Other offline stores give whole
tables, through Feast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from rules_engine.clock import format_instant, from_micros, to_micros
from rules_engine.errors import DataError, UnsupportedError
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.features.offline.point_in_time import OfflineUsers, row_instant
from rules_engine.ml.clusters.fitting import key_hashes
from rules_engine.ml.offline import features_as_of


@dataclass(frozen=True, slots=True)
class PopulationPart:
    """Some users: their features by ``VIEW:NAME``, indexed by key, and how far the reading is, from 0 to 1.

    ``present`` says who has a row that was valid; ``instants`` are, by view, when the rows are of.
    """

    frame: pd.DataFrame
    present: Any
    instants: pd.DataFrame
    done: float


def pieces(repo: FeastRepo, features: Sequence[str], extra: Sequence[str], as_of: int) -> Iterator[PopulationPart]:
    """Yield everyone who has a row in any view, with the features as they were at an instant.

    Parameters
    ----------
    features
        what counts for ``present``; values past their view's ttl are missing.
    extra
        other features that are read with them, whatever their age.

    Raises
    ------
    UnsupportedError
        if a view's rows are computed by Feast.
    ProjectError
        if the offline store cannot be read.
    """
    users = OfflineUsers(repo, [*features, *extra])
    for part in users.batches(as_of):
        frame = part.batch.to_pandas(types_mapper=None).set_index(users.key)
        instants = frame[[name for name in frame.columns if name.startswith(row_instant(""))]]
        frame = frame.loc[:, [*features, *extra]]
        present = np.zeros(len(frame), dtype=bool)
        for view in {name.partition(":")[0] for name in features}:
            instant = instants[row_instant(view)]
            valid = instant.notna()
            if view in users.ttl:
                valid &= instant >= pd.Timestamp(from_micros(as_of - users.ttl[view]))
            present |= valid.to_numpy()
            own = [name for name in features if name.partition(":")[0] == view]
            frame.loc[~valid.to_numpy(), own] = None
        yield PopulationPart(frame, present, instants, part.done)


@dataclass(frozen=True, slots=True)
class Sample:
    """Users drawn from all: their features, how many users there are, and of when the oldest and newest rows are."""

    frame: pd.DataFrame
    population: int
    window: tuple[int, int] | None


def sample(
    repo: FeastRepo,
    features: Sequence[str],
    as_of: int,
    most: int,
    seed: int,
    progress: Callable[[float], None] = lambda _done: None,
) -> Sample:
    """Draw at most ``most`` users by their key, the same ones each time, with their features as of an instant.

    Raises
    ------
    DataError
        if no view has any row that was valid then.
    ProjectError
        if the offline store cannot be read.
    """
    lowest, population, edges = _Lowest(most, seed), 0, _Edges(features)
    try:
        for piece in pieces(repo, features, (), as_of):
            lowest.add(piece.frame.loc[piece.present])
            edges.add(piece.instants.loc[piece.present])
            population += int(piece.present.sum())
            progress(piece.done)
    except UnsupportedError:
        frame = features_as_of(repo, features, as_of)
        lowest.add(frame)
        return Sample(lowest.frame(), len(frame), None)
    if not population:
        names = ", ".join(f"`{name}`" for name in sorted({name.partition(":")[0] for name in features}))
        raise DataError(
            f"{names} has no row that was valid at {format_instant(as_of)}",
            hint="is the offline data built? or name another instant with --at",
        )
    return Sample(lowest.frame(), population, edges.window())


class _Lowest:
    """Of all users that are added, those with the lowest hashes."""

    def __init__(self, most: int, seed: int) -> None:
        self._most, self._seed = most, seed
        self._parts: list[pd.DataFrame] = []
        self._count = 0

    def add(self, frame: pd.DataFrame) -> None:
        self._parts.append(frame)
        self._count += len(frame)
        if self._count > 2 * self._most:
            self._parts = [self.frame()]
            self._count = len(self._parts[0])

    def frame(self) -> pd.DataFrame:
        """Return the users, sorted by key."""
        whole = pd.concat(self._parts) if self._parts else pd.DataFrame()
        if len(whole) > self._most:
            # A tie is broken by the key, so that the order of the pieces does not matter.
            whole = whole.sort_index()
            lowest = np.argsort(key_hashes(whole.index, self._seed), kind="stable")[: self._most]
            whole = whole.iloc[lowest]
        return whole.sort_index()


class _Edges:
    """The first and the last instant of rows."""

    def __init__(self, features: Sequence[str]) -> None:
        self._views = sorted({row_instant(name.partition(":")[0]) for name in features})
        self._seen: list[Any] = []

    def add(self, instants: pd.DataFrame) -> None:
        for view in self._views:
            present = instants[view].dropna()
            self._seen = [*self._seen, present.min(), present.max()] if len(present) else self._seen
        self._seen = [min(self._seen), max(self._seen)] if self._seen else []

    def window(self) -> tuple[int, int] | None:
        if not self._seen:
            return None
        first, last = (to_micros(instant.to_pydatetime()) for instant in self._seen)
        return first, last
