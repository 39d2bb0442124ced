"""Keep what rules read of a sample of all users in memory, so that a change is tried on it within moments."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from rules_engine.batch.entities import Crowd, EntityReader, ProgramSegments
from rules_engine.clock import MINUTE
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.rules.aggregates import Aggregate
from rules_engine.rules.nodes import AnyOf, Condition, EventAggregate, EventMatch, FeatureRef, Predicate, Segment
from rules_engine.rules.program import Program
from rules_engine.rules.types import INTEGER
from rules_engine.service.console.counting import Opened, open_applied

#: So many users are kept; where there are no more, that is all of them.
SAMPLE = 50_000

#: For how long a sample is taken for today's users, in microseconds.
_FRESH = 10 * MINUTE


@dataclass(frozen=True, slots=True)
class UserSample:
    """Holds some users drawn at random, with all of their features as of an instant, and the number of all users."""

    as_of: int
    users: int
    keys: tuple[str, ...]
    crowds: tuple[Crowd, ...]


def sample_users(root: Path, version: str) -> UserSample:
    """Return the sample of the present: drawn anew when it is ten minutes old, or other definitions are applied."""
    opened = open_applied(root, version)
    return _sample(root, version, opened.now if opened.plan.now is not None else opened.now // _FRESH)


@lru_cache(maxsize=1)
def _sample(root: Path, version: str, _period: int) -> UserSample:
    opened = open_applied(root, version)
    reading = EntityReader(opened.repo, (_of_everything(opened), ["everything"]))
    keys, users = _drawn(reading, opened.now)
    crowds = tuple(reading.at(opened.now, None if users <= SAMPLE else keys))
    return UserSample(opened.now, users, keys, crowds)


def _drawn(reading: EntityReader, as_of: int) -> tuple[tuple[str, ...], int]:
    """Return the keys of a random sample of all users, and how many users there are."""
    entropy = random.Random(0)  # noqa: S311  # the same sample each time, so that changes compare
    kept: list[str] = []
    users = 0
    for keys in reading.entities(as_of):
        for key in keys.to_pylist():
            users += 1
            if len(kept) < SAMPLE:
                kept.append(key)
            elif (place := entropy.randrange(users)) < SAMPLE:
                kept[place] = key
    return tuple(kept), users


def _of_everything(opened: Opened) -> Program:
    """Return a program that reads every feature, and all who did anything."""
    features = opened.repo.catalog().features.values()
    read: list[Condition] = [
        Predicate(FeatureRef(each.view, each.name), "exists", True, each.type) for each in features
    ]
    declared = (opened.plan.definitions.get("events") or {}).get("events", {})
    counts = (EventAggregate(Aggregate.COUNT, EventMatch(name), None) for name in sorted(declared))
    read += [Predicate(each, "at_least", 1, INTEGER) for each in counts]
    return Program({"everything": Segment("everything", AnyOf(tuple(read)))})


class SampleReader(EntityReader):
    """Reads the users of a sample: features from memory, and events from the log.

    Parameters
    ----------
    sample
        the users.
    repo, rules
        as for :class:`EntityReader`.
    """

    def __init__(self, sample: UserSample, repo: FeastRepo, *rules: ProgramSegments) -> None:
        super().__init__(repo, *rules)
        self._sample = sample

    def at(self, as_of: int, keys: Sequence[str] | None = None, *, to_count: bool = False) -> Iterator[Crowd]:
        """Return the users of the sample, or those of them with these keys; ``as_of`` is the sample's instant."""
        del to_count
        chosen = None if keys is None else pa.array(list(keys), pa.large_string())
        needed = self._sample.keys if keys is None else keys
        facts = None if self._events is None else self._events.facts(as_of, needed)
        for crowd in self._sample.crowds:
            part = crowd if chosen is None else _only(crowd, self.key, chosen)
            if facts is None:
                yield replace(part, events={})
            else:
                own = part.batch.column(self.key).cast(pa.large_string())
                places = pc.fill_null(pc.index_in(own, value_set=facts.entities.cast(pa.large_string())), -1)
                yield replace(part, events=facts.of(places.to_numpy(zero_copy_only=False)))


def _only(crowd: Crowd, key: str, chosen: pa.Array) -> Crowd:
    rows = pc.is_in(crowd.batch.column(key).cast(pa.large_string()), value_set=chosen)
    expires_at = {view: column.filter(rows) for view, column in crowd.expires_at.items()}
    return Crowd(crowd.batch.filter(rows), expires_at, {}, crowd.done)
