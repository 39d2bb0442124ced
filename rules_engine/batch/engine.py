"""Evaluate segments for all entities as of an instant: those of the offline store, a batch at a time."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from rules_engine.batch.entities import Crowd, EntityReader, features_read
from rules_engine.clock import now_micros
from rules_engine.diagnostics import listing, nearest
from rules_engine.errors import FeatureColumnError, UnknownNameError
from rules_engine.folders import Project
from rules_engine.project.catalog import project_catalog
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.decisions.choosing import Chooser
from rules_engine.rules.decisions.nodes import with_decisions
from rules_engine.rules.explain import explain
from rules_engine.rules.explanation import Explanation
from rules_engine.rules.inputs import Inputs
from rules_engine.rules.load import Definitions, load_folder
from rules_engine.rules.nodes import Not
from rules_engine.rules.program import Program
from rules_engine.targets.columns.arrays import Flags
from rules_engine.targets.columns.column_index import ColumnIndex, Matches
from rules_engine.targets.index.rule_index import RuleIndex

if TYPE_CHECKING:
    from rules_engine.features.feast.repo import FeastRepo


#: Called with the users so far, and how much is done, from 0 to 1.
Progress = Callable[[int, float], None]

_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True, eq=False, slots=True)
class Answered:
    """Holds some entities with their answers; ``done`` says how far the evaluation is, from 0 to 1."""

    entities: pa.Array
    matches: Matches
    done: float

    def members(self, segment: str) -> Flags:
        """Tell of each entity whether it is in a segment."""
        return self.matches.members(segment)

    def truths(self, segment: str) -> pa.Array:
        """Give each entity's answer: true, false, or null for unknown. The rules have to be made with ``unknown``."""
        members = self.members(segment)
        return pa.array(members, mask=~(members | self.matches.members(_negated(segment))))

    def sizes(self) -> Sizes:
        """Count the entities, and those of them that are in each segment."""
        return Sizes.of(len(self.entities), self.matches.counts())


class BatchRules:
    """Evaluates segments of a program for all entities of a project.

    Parameters
    ----------
    repo
        the project's open Feast repository.
    program
        the definitions.
    segments
        those to answer; None for all.
    context
        what a request would bring, the same for every entity.
    reader
        a reader of at least what the segments read, to share it with others; None for one of its own.
    unknown
        tell unknown from false, which takes twice the work.

    Attributes
    ----------
    names
        the segments that are answered, sorted.
    key
        the name of the entities' column: Feast's join key.

    Raises
    ------
    UnknownNameError
        if there is no such segment, or a segment reads a feature that the Feast repository does not have.
    """

    def __init__(
        self,
        repo: FeastRepo,
        program: Program,
        segments: Collection[str] | None = None,
        context: Mapping[str, Any] | None = None,
        reader: EntityReader | None = None,
        *,
        unknown: bool = False,
    ) -> None:
        self.program = program
        self.names = tuple(sorted(program.names if segments is None else set(segments)))
        self._context = dict(context or {})
        self.unknown = unknown
        answered = self.names
        if unknown:
            program = with_negations(program, self.names)
            answered = tuple(sorted({*self.names, *map(_negated, self.names)}))
        self._index = ColumnIndex(RuleIndex(program), answered)
        self._reader = EntityReader(repo, (self.program, self.names)) if reader is None else reader
        self.key = self._reader.key

    def answers(self, as_of: int, keys: Sequence[str] | None = None) -> Iterator[Answered]:
        """Answer for all entities as of an instant, or for those with these keys.

        Raises
        ------
        ProjectError, DataError
            if the offline store or the event log cannot be read, or holds other types than are declared.
        """
        yield from _side_by_side(lambda crowd: self.answer(crowd, as_of), self._reader.at(as_of, keys))

    def not_joined(self, batch: pa.RecordBatch, as_of: int) -> pa.RecordBatch:
        """Return rows of entities without those that were joined to somebody by an instant."""
        return self._reader.not_joined(batch, as_of)

    def answer(self, crowd: Crowd, as_of: int) -> Answered:
        """Return the answers of some users who were read as of that instant."""
        return Answered(crowd.batch.column(self.key), self._matches(crowd, as_of), crowd.done)

    def _matches(self, crowd: Crowd, as_of: int) -> Matches:
        return self._index.match_many(
            crowd.batch, as_of, context=self._context, expires_at=crowd.expires_at, events=crowd.events, key=self.key
        )

    def sizes(self, as_of: int, progress: Progress = lambda _users, _done: None) -> Sizes:
        """Count the members of each segment as of an instant: faster than asking for answers and counting them.

        Raises
        ------
        ProjectError, DataError
            as :meth:`answers`.
        """
        total = Sizes.none(self.names, unknown=self.unknown)
        for some, done in _side_by_side(lambda crowd: self._size(crowd, as_of), self._reader.at(as_of, to_count=True)):
            total.add(some)
            progress(total.users, done)
        return total

    def _size(self, crowd: Crowd, as_of: int) -> tuple[Sizes, float]:
        return Sizes.of(crowd.batch.num_rows, self._matches(crowd, as_of).counts()), crowd.done

    def inputs(self, as_of: int, keys: Sequence[str]) -> dict[str, Inputs]:
        """Read what the rules read of some entities as of an instant. One that was unknown then is absent."""
        by_entity = self._reader.inputs(as_of, keys)
        return {entity: replace(inputs, context=self._context) for entity, inputs in by_entity.items()}

    def explain(self, segment: str, entity: str, inputs: Inputs, as_of: int) -> Explanation:
        """Explain why an entity was, or was not, in a segment."""
        return explain(self.program, segment, inputs, as_of, entity)


def _side_by_side(work: Callable[[_In], _Out], items: Iterable[_In]) -> Iterator[_Out]:
    """Yield the results in order, on all cores: array work leaves Python's lock alone."""
    cores = os.cpu_count() or 1
    with ThreadPoolExecutor(cores) as pool:
        waiting: deque[Future[_Out]] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _negated(segment: str) -> str:
    return f"not {segment}"  # no name of a segment has a space


def with_negations(program: Program, names: Iterable[str]) -> Program:
    """Add to each segment one that is true where it is false."""
    negated = {}
    for name in names:
        segment = program.segment(name)
        negated[_negated(name)] = replace(segment, name=_negated(name), when=Not(segment.when))
    return Program({**program.segments, **negated})


def readable(
    program: Program, names: Iterable[str], read: Callable[[tuple[str, ...]], _Out]
) -> tuple[_Out, dict[str, FeatureColumnError]]:
    """Read for as many segments as the sources allow: a column that cannot be used stops only what reads it.

    Parameters
    ----------
    names
        the segments.
    read
        called with them; again, without those that read a column which it refused.

    Returns
    -------
    tuple
        what ``read`` gave, and by segment that was left out the reason.

    Raises
    ------
    FeatureColumnError
        if no segment is left.
    """
    left, refused = tuple(names), dict[str, FeatureColumnError]()
    while True:
        try:
            return read(left), refused
        except FeatureColumnError as error:
            stopped = [name for name in left if error.feature in features_read(program, [name])]
            left = tuple(name for name in left if name not in stopped)
            if not left or not stopped:
                raise
            refused |= dict.fromkeys(stopped, error)


@dataclass(slots=True)
class Sizes:
    """Count entities, those of them that are in each segment, and, where that was asked for, those not known to be."""

    users: int = 0
    members: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, users: int, counts: Mapping[str, int]) -> Sizes:
        """Take the counts of segments, and of their negations if they were asked for too; none stands for 0."""
        prefix = _negated("")
        members = {name.removeprefix(prefix): counts.get(name.removeprefix(prefix), 0) for name in counts}
        if not any(name.startswith(prefix) for name in counts):
            return cls(users, members)
        unknown = {name: users - count - counts.get(_negated(name), 0) for name, count in members.items()}
        return cls(users, members, unknown)

    @classmethod
    def none(cls, names: Sequence[str], *, unknown: bool = False) -> Sizes:
        """Count nobody yet.

        Parameters
        ----------
        unknown
            count those too of whom it is unknown whether they are in a segment.
        """
        return cls(0, dict.fromkeys(names, 0), dict.fromkeys(names, 0) if unknown else {})

    def add(self, more: Sizes) -> None:
        """Count others too."""
        self.users += more.users
        for name in self.members:
            self.members[name] += more.members.get(name, 0)
        for name in self.unknown:  # a segment that is neither true nor false of anybody is not counted at all
            self.unknown[name] += more.unknown.get(name, more.users)

    def share(self, segment: str) -> float:
        """Return the part of all users who are in a segment; 0 if there are none.

        >>> Sizes(4, {"vip": 1}).share("vip")
        0.25
        """
        return self.members[segment] / self.users if self.users else 0.0


@dataclass(frozen=True, slots=True)
class BatchProject:
    """A project opened for batch commands: its definitions as the files have them, and the instant to answer for."""

    repo: FeastRepo
    program: Program
    now: int
    catalog: Catalog
    definitions: Definitions = field(default_factory=Definitions)

    @classmethod
    def open(cls, project: Project, as_of: int | None = None) -> BatchProject:
        """Open a project.

        Raises
        ------
        DefinitionError
            with every problem of every file.
        ProjectError, UnsupportedError
            if the Feast repository cannot be used.
        """
        from rules_engine.features.feast.repo import FeastRepo

        repo = FeastRepo(project)
        catalog = project_catalog(project, repo)
        definitions = load_folder(project.segments_dir, catalog)
        set_now = definitions.settings.now
        now = as_of if as_of is not None else now_micros() if set_now is None else set_now
        return cls(repo, definitions.program, now, catalog, definitions)

    @property
    def conditions(self) -> Program:
        """Return the segments, and the conditions of decisions as hidden segments."""
        return with_decisions(self.program, self.definitions.decisions.values())

    def chooser(self, decision: str) -> Chooser:
        """Return what decides on the variants of a decision.

        Raises
        ------
        UnknownNameError
            if there is no such decision.
        """
        decisions = self.definitions.decisions
        if decision not in decisions:
            hint = nearest(decision, decisions) or (f"there is {listing(decisions)}" if decisions else None)
            raise UnknownNameError(f"there is no decision `{decision}`", hint=hint)
        return Chooser(decisions[decision], self.definitions.experiments, self.definitions.settings.holdout)
