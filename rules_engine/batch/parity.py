"""Compare the answers of request time and of batch for the same entities and instant: `segments parity`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rules_engine.batch.engine import BatchRules, readable
from rules_engine.batch.entities import Crowd, EntityReader, features_read
from rules_engine.batch.events import sources_of
from rules_engine.clock import from_micros, to_micros
from rules_engine.errors import FeatureColumnError
from rules_engine.events.log.offline import Source
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.features.online.opening import open_reader
from rules_engine.features.online.reader import OnlineReader
from rules_engine.folders import Project
from rules_engine.read_plan import ReadPlan
from rules_engine.rules.explanation import Explanation, Reason
from rules_engine.rules.nodes import Sequence as SequenceNode
from rules_engine.sdk import SegmentClient
from rules_engine.sdk.event_rules import LazyState
from rules_engine.sdk.rules import Rules

#: How many users are asked for in one round trip.
_BATCH = 500

Progress = Callable[[str], None]

#: What rules read: a feature by its name, or an event condition.
Operand = str | Source


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
    """Report what was compared, and what differs.

    Attributes
    ----------
    as_of
        the instant, in microseconds.
    users
        how many were compared.
    segments
        which.
    disagreements
        every condition, and every membership (as the condition ``member``), that differs.
    refused
        by segment that was left out the reason: a column that it reads cannot be used.
    """

    as_of: int
    users: int
    segments: tuple[str, ...]
    disagreements: tuple[Disagreement, ...]
    refused: Mapping[str, FeatureColumnError] = field(default_factory=dict)


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
    repo, plan = FeastRepo(project), ReadPlan.load(project.read_plan)
    rules = Rules(plan)
    now = rules.now(None) if as_of is None else as_of

    def read(names: tuple[str, ...]) -> Parity:
        return _compared(project, repo, rules, names, now, sample, seed, progress)

    parity, refused = readable(rules.program, rules.program.names, read)
    return replace(parity, refused=refused)


def _compared(
    project: Project,
    repo: FeastRepo,
    rules: Rules,
    names: tuple[str, ...],
    now: int,
    sample: int | None,
    seed: int,
    progress: Progress,
) -> Parity:
    reader = EntityReader(repo, (rules.program, names))
    batch = BatchRules(repo, rules.program, names, reader=reader)
    keys = None if sample is None else sample_users(reader, now, sample, seed)
    users = 0
    differing: list[Disagreement] = []
    with SegmentClient(project) as client, closing(open_reader(rules.plan, project.root)) as online:
        comparison = _Comparison(client, rules, online, batch, now)
        for crowd in reader.at(now, keys):
            for start in range(0, crowd.batch.num_rows, _BATCH):
                some = crowd.slice(start, _BATCH)
                differing += comparison.of(some)
                users += some.batch.num_rows
                progress(f"Compared {users:,} users")
    differing.sort(key=lambda each: (each.entity, each.segment))
    return Parity(now, users, batch.names, tuple(differing))


def sample_users(reader: EntityReader, as_of: int, sample: int, seed: int) -> list[str]:
    """Draw entities at random, sorted; the same for the same seed."""
    draw = np.random.default_rng(seed)
    keys = sorted(key for some in reader.entities(as_of) for key in some.to_pylist())
    chosen = draw.choice(len(keys), min(sample, len(keys)), replace=False)
    return sorted(keys[place] for place in chosen)


class _Comparison:
    """Both answers to the same question."""

    def __init__(self, client: SegmentClient, rules: Rules, reader: OnlineReader, batch: BatchRules, now: int) -> None:
        self._client, self._rules, self._reader, self._batch, self._now = client, rules, reader, batch, now
        program = rules.program
        self._read = {name: {*features_read(program, [name]), *sources_of(program, [name])} for name in batch.names}
        everything = set[Operand]().union(*self._read.values())
        self._features = sorted(operand for operand in everything if isinstance(operand, str))
        self._sources = [operand for operand in everything if not isinstance(operand, str)]

    def of(self, crowd: Crowd) -> Iterator[Disagreement]:
        """Yield what differs for some entities."""
        users, at = crowd.batch.column(self._batch.key).to_pylist(), from_micros(self._now)
        online = self._client.lookup_many(users, segments=self._batch.names, at=at)
        offline = self._batch.answer(crowd, self._now).matches.segments()
        values = zip(self._online_values(users), self._offline_values(crowd), strict=True)
        suspects: dict[str, list[tuple[str, bool, bool]]] = {}
        for user, membership, here, (ones, others) in zip(users, online, offline, values, strict=True):
            differing = {operand for operand, value in ones.items() if value != others[operand]}
            for name in self._batch.names:
                was, is_now = name in membership.segments, name in here
                if was != is_now or differing & self._read[name]:
                    suspects.setdefault(user, []).append((name, was, is_now))
        inputs = self._batch.inputs(self._now, list(suspects)) if suspects else {}
        for user, names in suspects.items():
            for name, was, is_now in names:
                if was != is_now:
                    yield Disagreement(user, name, "member", was, is_now)
                ours = self._client.explain(user, name, at=at)
                yield from _conditions(user, name, ours, self._batch.explain(name, user, inputs[user], self._now))

    def _online_values(self, users: Sequence[str]) -> Iterator[dict[Operand, Any]]:
        events = self._rules.events if self._sources else None
        for features in self._reader.read(users, self._features, None if events is None else events.name):
            values: dict[Any, Any] = {**self._rules.features(self._features, features, self._now)}
            if events is not None:
                state = events.values(features.event_state)
                values |= {source: _value(state, source, self._now) for source in self._sources}
            yield {operand: _plain(value) for operand, value in values.items()}

    def _offline_values(self, crowd: Crowd) -> Iterator[dict[Operand, Any]]:
        columns: dict[Operand, Sequence[Any]] = {name: self._feature(crowd, name) for name in self._features}
        columns |= {source: self._event(crowd, source) for source in self._sources}
        for row in zip(*columns.values(), strict=True) if columns else [()] * crowd.batch.num_rows:
            yield dict(zip(columns, map(_plain, row), strict=True))

    def _feature(self, crowd: Crowd, name: str) -> Sequence[Any]:
        """Return a feature's values as rules read them: missing if they are past their view's ttl."""
        column, expires_at = crowd.batch.column(name), crowd.expires_at.get(name.partition(":")[0])
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if expires_at is not None:
            column = pc.if_else(pc.less_equal(expires_at, self._now).fill_null(False), None, column)
        values: Sequence[Any] = column.to_pylist()
        return values

    def _event(self, crowd: Crowd, source: Source) -> Sequence[Any]:
        """Return an event condition's values; counts only as far as a state tells them apart."""
        values: Sequence[Any] = crowd.events[source].to_pylist()
        limit = None if isinstance(source, SequenceNode) else self._rules.events.requirements.limits[source]
        return values if limit is None else [min(value, limit) for value in values]


def _value(state: LazyState, source: Source, now: int) -> Any:
    return state.sequence(source, now) if isinstance(source, SequenceNode) else state.aggregate(source, now)


def _plain(value: Any) -> Any:
    """Return a value in a form that compares: times as microseconds, lists as tuples, NaN as missing."""
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    if hasattr(value, "tzinfo"):
        return to_micros(value)
    return None if isinstance(value, float) and math.isnan(value) else value


def _conditions(user: str, segment: str, online: Explanation, offline: Explanation) -> Iterator[Disagreement]:
    for online_leaf, offline_leaf in zip(_leaves(online.reason), _leaves(offline.reason), strict=True):
        if online_leaf.verdict != offline_leaf.verdict:
            yield Disagreement(
                user,
                segment,
                online_leaf.text,
                online_leaf.verdict,
                offline_leaf.verdict,
                online_leaf.value or online_leaf.missing,
                offline_leaf.value or offline_leaf.missing,
            )


def _leaves(reason: Reason) -> Iterator[Reason]:
    if not reason.children:
        yield reason
    for child in reason.children:
        yield from _leaves(child)
