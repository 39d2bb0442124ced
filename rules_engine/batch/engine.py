"""Rules for everybody, as of an instant: the offline store's users, through the rule index, a batch at a time."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from rules_engine.batch.entities import Crowd, Everyone
from rules_engine.clock import now_micros
from rules_engine.folders import Project
from rules_engine.project.catalog import project_catalog
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.explain import Explanation, explain
from rules_engine.rules.inputs import Inputs
from rules_engine.rules.load import load_folder
from rules_engine.rules.program import Program
from rules_engine.targets.columns.codes import Flags
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
    """Some users with their answers; ``done`` says how far the evaluation is, from 0 to 1."""

    entities: pa.Array
    matches: Matches
    done: float

    def members(self, segment: str) -> Flags:
        """For each of the users whether they are in a segment."""
        return self.matches.members(segment)

    def sizes(self) -> Sizes:
        """How many there are, and how many of them are in each segment."""
        return Sizes(len(self.entities), self.matches.counts())


class BatchRules:
    """Segments of a program for all users of a project.

    Parameters
    ----------
    repo
        the project's open Feast repository.
    program
        the definitions.
    segments
        those to answer; None for all.
    context
        what a request would bring, the same for everyone.
    everyone
        with at least what the segments read, to share one reading; None for a reading of its own.

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
        everyone: Everyone | None = None,
    ) -> None:
        self.program = program
        self.names = tuple(sorted(program.names if segments is None else set(segments)))
        self._context = dict(context or {})
        self._index = ColumnIndex(RuleIndex(program), self.names)
        self._everyone = Everyone(repo, (program, self.names)) if everyone is None else everyone
        self.key = self._everyone.key

    def answers(self, as_of: int, keys: Sequence[str] | None = None) -> Iterator[Answered]:
        """Everyone's answers as of an instant, or those of the users with these keys.

        Raises
        ------
        ProjectError, DataError
            if the offline store or the event log cannot be read, or holds other types than are declared.
        """
        yield from _side_by_side(lambda crowd: self.answer(crowd, as_of), self._everyone.at(as_of, keys))

    def answer(self, crowd: Crowd, as_of: int) -> Answered:
        """The answers of some users who were read as of that instant."""
        return Answered(crowd.batch.column(self.key), self._matches(crowd, as_of), crowd.done)

    def _matches(self, crowd: Crowd, as_of: int) -> Matches:
        return self._index.match_many(
            crowd.batch, as_of, context=self._context, expires_at=crowd.expires_at, events=crowd.events
        )

    def sizes(self, as_of: int, progress: Progress = lambda _users, _done: None) -> Sizes:
        """How many are in each segment as of an instant: faster than to ask for their answers and count them.

        Raises
        ------
        ProjectError, DataError
            as :meth:`answers`.
        """
        found = Sizes.none(self.names)
        for some, done in _side_by_side(
            lambda crowd: self._size(crowd, as_of), self._everyone.at(as_of, to_count=True)
        ):
            found.add(some)
            progress(found.users, done)
        return found

    def _size(self, crowd: Crowd, as_of: int) -> tuple[Sizes, float]:
        return Sizes(crowd.batch.num_rows, self._matches(crowd, as_of).counts()), crowd.done

    def inputs(self, as_of: int, keys: Sequence[str]) -> dict[str, Inputs]:
        """What the rules read of some users as of an instant. Someone unknown then is absent."""
        found = self._everyone.inputs(as_of, keys)
        return {entity: replace(inputs, context=self._context) for entity, inputs in found.items()}

    def explain(self, segment: str, entity: str, inputs: Inputs, as_of: int) -> Explanation:
        """Why somebody was, or was not, in a segment."""
        return explain(self.program, segment, inputs, as_of, entity)


def _side_by_side(work: Callable[[_In], _Out], items: Iterable[_In]) -> Iterator[_Out]:
    """The results in order, on all cores: array work leaves Python's lock alone."""
    cores = os.cpu_count() or 1
    with ThreadPoolExecutor(cores) as pool:
        waiting: deque[Future[_Out]] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@dataclass(slots=True)
class Sizes:
    """How many users there are, and how many of them are in each segment."""

    users: int = 0
    members: dict[str, int] = field(default_factory=dict)

    @classmethod
    def none(cls, names: Sequence[str]) -> Sizes:
        """Nobody, in none of the segments."""
        return cls(members=dict.fromkeys(names, 0))

    def add(self, more: Sizes) -> None:
        """Count others too."""
        self.users += more.users
        for name in self.members:
            self.members[name] += more.members.get(name, 0)

    def share(self, segment: str) -> float:
        """The part of all users who are in a segment; 0 if there are none.

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
        return cls(repo, definitions.program, now, catalog)
