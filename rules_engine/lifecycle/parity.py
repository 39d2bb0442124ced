"""What `segments parity` does: the same users and instant, answered at request time and in batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rules_engine.clock import from_micros, now_micros, to_micros
from rules_engine.features.feast_repo import FeastRepo
from rules_engine.features.offline import OfflineUsers
from rules_engine.features.read_plan import ReadPlan
from rules_engine.lifecycle.batch import BatchRules, features_read, reads_events
from rules_engine.project import Project
from rules_engine.rules.explain import Explanation, Reason
from rules_engine.rules.inputs import Inputs
from rules_engine.sdk import SegmentClient

#: How many users are asked for in one round trip.
_BATCH = 500

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One condition of one user that the two ways judge differently; verdicts are True, False, or None for unknown."""

    entity: str
    segment: str
    condition: str
    online: bool | None
    offline: bool | None
    online_value: str | None = None
    offline_value: str | None = None


@dataclass(frozen=True, slots=True)
class Parity:
    """What was compared, and what differs.

    Attributes
    ----------
    as_of
        the instant, in microseconds.
    users
        how many were compared.
    segments
        which.
    left_out
        segments that read events, which batch cannot answer.
    disagreements
        every condition, and every membership (as the condition ``member``), that differs.
    """

    as_of: int
    users: int
    segments: tuple[str, ...]
    left_out: tuple[str, ...]
    disagreements: tuple[Disagreement, ...]


def compare(
    project: Project, sample: int | None, as_of: int | None = None, seed: int = 0, progress: Progress = lambda _: None
) -> Parity:
    """Compare the applied definitions, online and offline.

    Parameters
    ----------
    sample
        how many users, drawn at random; None for all.
    as_of
        the instant, in microseconds; by default the one that requests take. The online store knows only the newest
        rows, so before the last materialization's end the two differ rightly.
    seed
        another seed draws other users.

    Raises
    ------
    ProjectError, StoreError, DataError, UnsupportedError
        if one of the stores cannot be read.
    """
    repo = FeastRepo(project)
    with SegmentClient(project) as client:
        program = client.program
        left_out = tuple(name for name in program.names if reads_events(program, name))
        rules = BatchRules(repo, program, [name for name in program.names if name not in left_out])
        set_now = ReadPlan.load(project.read_plan).now
        now = as_of if as_of is not None else now_micros() if set_now is None else set_now
        users = sample_users(repo, now, sample, seed)
        found: list[Disagreement] = []
        for start in range(0, len(users), _BATCH):
            found += _compare(client, rules, users[start : start + _BATCH], now)
            progress(f"Compared {min(start + _BATCH, len(users)):,} of {len(users):,} users")
    return Parity(now, len(users), rules.names, left_out, tuple(found))


def sample_users(repo: FeastRepo, as_of: int, sample: int | None, seed: int) -> list[str]:
    """Users at random among all that the offline store knows as of an instant, sorted; the same for the same seed."""
    draw = np.random.default_rng(seed)
    kept: list[tuple[float, str]] = []
    for part in OfflineUsers(repo, ()).batches(as_of):
        keys = part.batch.column(0).to_pylist()
        kept += zip(draw.random(len(keys)).tolist(), keys, strict=True)
        if sample is not None:
            kept = sorted(kept)[:sample]
    return sorted(key for _, key in kept)


def _compare(client: SegmentClient, rules: BatchRules, users: Sequence[str], now: int) -> Iterator[Disagreement]:
    at, names = from_micros(now), rules.names
    online = {found.entity: found.segments for found in client.lookup_many(users, segments=names, at=at)}
    offline: dict[str, set[str]] = {user: set() for user in users}
    for answered in rules.answers(now, users):
        entities = answered.entities.to_pylist()
        for name in names:
            for row in np.flatnonzero(answered.members(name)):
                offline[entities[row]].add(name)
    inputs = rules.inputs(now, users)
    read = {name: sorted(features_read(rules.program, [name])) for name in names}
    features = sorted({feature for of_one in read.values() for feature in of_one})
    for user in users:
        values = client.features(user, features, at=at)
        differing = {name for name in features if _plain(values[name]) != _valid(inputs[user], name, now)}
        for name in names:
            was, is_now = name in online[user], name in offline[user]
            if was == is_now and not differing.intersection(read[name]):
                continue
            if was != is_now:
                yield Disagreement(user, name, "member", was, is_now)
            ours = client.explain(user, name, at=at)
            yield from _conditions(user, name, ours, rules.explain(name, user, inputs[user], now))


def _valid(inputs: Inputs, feature: str, now: int) -> Any:
    expires_at = inputs.expires_at.get(feature.partition(":")[0])
    return None if expires_at is not None and now >= expires_at else _plain(inputs.features.get(feature))


def _plain(value: Any) -> Any:
    """A value as both sides can be compared by: times as microseconds, lists as tuples, not a number as missing."""
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    if hasattr(value, "tzinfo"):
        return to_micros(value)
    return None if isinstance(value, float) and math.isnan(value) else value


def _conditions(user: str, segment: str, online: Explanation, offline: Explanation) -> Iterator[Disagreement]:
    for one, other in zip(_leaves(online.reason), _leaves(offline.reason), strict=True):
        if one.verdict != other.verdict:
            yield Disagreement(
                user,
                segment,
                one.text,
                one.verdict,
                other.verdict,
                one.value or one.missing,
                other.value or other.missing,
            )


def _leaves(reason: Reason) -> Iterator[Reason]:
    if not reason.children:
        yield reason
    for child in reason.children:
        yield from _leaves(child)
