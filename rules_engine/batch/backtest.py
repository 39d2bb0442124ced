"""Find how a segment would have grown, shrunk and flapped over time, and whom it shared: `segments backtest`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rules_engine.batch.engine import Answered
from rules_engine.batch.membership_files import TableFile
from rules_engine.batch.through_time import RulesThroughTime
from rules_engine.errors import DataError
from rules_engine.features.offline.history import Instants

#: Called with how many users were evaluated so far, counted at every instant, and how much is done, from 0 to 1.
Progress = Callable[[int, float], None]

#: In how many steps a move has to be undone to be a flap, if nobody says otherwise.
FLAP_STEPS = 3

#: More instants than anyone looks at: who asks for them has mistaken a unit.
MAX_INSTANTS = 10_000


@dataclass(slots=True)
class Point:
    """Counts the entities of a segment at one instant.

    Attributes
    ----------
    at
        the instant, in microseconds.
    users
        how many users were known.
    size
        how many were in the segment.
    entered, left
        how many entered and left since the instant before; zero at the first one, before which nothing is known.
    flaps
        how many of those moves undid the same user's previous one, soon after it.
    others
        by other segment, how many were in it.
    both
        by other segment, how many were in both.
    """

    at: int
    users: int = 0
    size: int = 0
    entered: int = 0
    left: int = 0
    flaps: int = 0
    others: dict[str, int] = field(default_factory=dict)
    both: dict[str, int] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Return the share of all users who were in the segment; 0 if there were no users."""
        return self.size / self.users if self.users else 0.0

    def jaccard(self, other: str) -> float:
        """Return the Jaccard index: the users in both segments as a share of those in either; 0 if there are none.

        >>> Point(0, size=4, others={"b": 2}, both={"b": 1}).jaccard("b")
        0.2
        """
        either = self.size + self.others[other] - self.both[other]
        return self.both[other] / either if either else 0.0


@dataclass(frozen=True, slots=True)
class Backtest:
    """Holds the points of a segment over time; ``every`` and ``flap_within`` are in microseconds."""

    segment: str
    every: int
    flap_within: int
    points: tuple[Point, ...]

    @property
    def moves(self) -> int:
        """Count how often an entity entered or left."""
        return sum(point.entered + point.left for point in self.points)

    @property
    def flap_rate(self) -> float:
        """Return the share of the moves that soon undid the same user's previous move; 0 if nobody moved."""
        return sum(point.flaps for point in self.points) / self.moves if self.moves else 0.0

    def alike(self) -> list[str]:
        """Return the other segments, the most similar first: by their Jaccard index, summed over all instants."""
        others = self.points[0].others if self.points else {}
        return sorted(others, key=lambda name: (-sum(point.jaccard(name) for point in self.points), name))


def instants(start: int, end: int, every: int) -> Instants:
    """Return the instants of a backtest: ``start``, and from there at equal distances up to ``end``.

    Raises
    ------
    DataError
        if there is none, or there are more than anyone looks at.

    >>> list(instants(0, 10, 4))
    [0, 4, 8]
    """
    if end < start:
        raise DataError("the backtest ends before it starts", hint="give --to an instant that is not before --from")
    count = 1 + (end - start) // every
    if count > MAX_INSTANTS:
        raise DataError(
            f"these are {count:,} instants, and at most {MAX_INSTANTS:,} can be", hint="choose a longer --every"
        )
    return Instants(start, every, count)


def backtest(
    rules: RulesThroughTime,
    segment: str,
    at: Instants,
    flap_within: int | None = None,
    progress: Progress = lambda _users, _done: None,
) -> Backtest:
    """Evaluate everyone at each instant, and follow who enters and leaves a segment.

    In memory are the users of one group at a time, and the keys of its members and of those who moved lately.

    Parameters
    ----------
    rules
        of the segment, and of the others that it is compared with.
    flap_within
        how soon a move has to be undone to be a flap, in microseconds; by default in three steps.

    Raises
    ------
    ProjectError, DataError
        if the offline store or the event log cannot be read.
    """
    within = FLAP_STEPS * at.every if flap_within is None else flap_within
    others = [name for name in rules.names if name != segment]
    points = [Point(instant, others=dict.fromkeys(others, 0), both=dict.fromkeys(others, 0)) for instant in at]
    users = 0
    for group in rules.groups(at):
        moves = _Moves(within)
        for point, parts in zip(points, group, strict=True):
            members = [_no_keys()]
            for answered in parts:
                members.append(_count(point, answered, segment, others))
                users += len(answered.entities)
                progress(users, answered.done)
            moves.step(point, pa.concat_arrays(members))
    return Backtest(segment, at.every, within, tuple(points))


def _count(point: Point, answered: Answered, segment: str, others: Sequence[str]) -> pa.Array:
    """Add the answers for some users to an instant; return the keys of the members among them."""
    flags = answered.members(segment)
    point.users += len(answered.entities)
    point.size += int(np.count_nonzero(flags))
    for name in others:
        theirs = answered.members(name)
        point.others[name] += int(np.count_nonzero(theirs))
        point.both[name] += int(np.count_nonzero(theirs & flags))
    return answered.entities.filter(pa.array(flags)).cast(pa.large_string())


class _Moves:
    """Counts the users of one group who enter, leave and flap from instant to instant."""

    def __init__(self, within: int) -> None:
        self._within = within
        self._members: pa.Array | None = None
        self._movers = _no_keys()
        self._moved_at = np.zeros(0, dtype=np.int64)

    def step(self, point: Point, members: pa.Array) -> None:
        """Compare the members with those of the previous instant, and add the moves to ``point``."""
        if self._members is not None:
            entered, left = _without(members, self._members), _without(self._members, members)
            point.entered += len(entered)
            point.left += len(left)
            self._remember(point, pa.concat_arrays([entered, left]))
        self._members = members

    def _remember(self, point: Point, movers: pa.Array) -> None:
        """Count the flaps: moves of users who moved within the last ``within``. A user enters and leaves by turns."""
        recent = self._moved_at >= point.at - self._within
        self._movers, self._moved_at = self._movers.filter(pa.array(recent)), self._moved_at[recent]
        point.flaps += int(pc.sum(pc.is_in(movers, value_set=self._movers)).as_py() or 0)
        others = pc.invert(pc.is_in(self._movers, value_set=movers))
        self._moved_at = np.concatenate([self._moved_at[others.to_numpy(False)], np.full(len(movers), point.at)])
        self._movers = pa.concat_arrays([self._movers.filter(others), movers])


def _without(these: pa.Array, those: pa.Array) -> pa.Array:
    return these.filter(pc.invert(pc.is_in(these, value_set=those)))


def _no_keys() -> pa.Array:
    return pa.array([], pa.large_string())


# --- files ----------------------------------------------------------------------------------------------------------


def write(backtest: Backtest, path: Path) -> None:
    """Write a row for each instant, with the size of each other segment and how many users are in both.

    Raises
    ------
    DataError
        if the ending names no format, or the file cannot be written.
    """
    names = list(backtest.points[0].others)
    counts = ("users", "size", "entered", "left", "flaps")
    schema = pa.schema(
        [
            ("at", pa.timestamp("us", "UTC")),
            *((name, pa.int64()) for name in counts),
            *((f"{prefix}_{name}", pa.int64()) for name in names for prefix in ("size", "both")),
        ]
    )
    with TableFile(path, schema) as file:
        columns = [[point.at for point in backtest.points]]
        columns += [[getattr(point, name) for point in backtest.points] for name in counts]
        for name in names:
            columns += [
                [point.others[name] for point in backtest.points],
                [point.both[name] for point in backtest.points],
            ]
        arrays = [pa.array(column, kind.type) for column, kind in zip(columns, schema, strict=True)]
        file.write(pa.record_batch(arrays, schema=schema))


def shown_points(backtest: Backtest, most: int) -> Iterator[Point | None]:
    """Yield the points; of more than ``most`` only the first and the last, with None for those between."""
    if len(backtest.points) <= most:
        yield from backtest.points
        return
    yield from backtest.points[: most // 2]
    yield None
    yield from backtest.points[-(most - most // 2) :]
