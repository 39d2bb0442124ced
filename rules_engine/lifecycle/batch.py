"""Rules for everybody, as of an instant: the offline store's users, through the rule index, a batch at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from rules_engine.clock import now_micros
from rules_engine.errors import UnsupportedError
from rules_engine.features.offline import OfflineUsers, Part, row_instant
from rules_engine.lifecycle.catalog import project_catalog
from rules_engine.project import Project
from rules_engine.rules.explain import Explanation, explain
from rules_engine.rules.inputs import Inputs
from rules_engine.rules.load import load_folder
from rules_engine.rules.program import Program
from rules_engine.rules.walk import dependencies
from rules_engine.targets.column_codes import Flags, micros, python_value
from rules_engine.targets.columns import ColumnIndex, Matches
from rules_engine.targets.index import RuleIndex

if TYPE_CHECKING:
    from rules_engine.features.feast_repo import FeastRepo


@dataclass(frozen=True, eq=False, slots=True)
class Answered:
    """Some users with their answers; ``done`` says how far the evaluation is, from 0 to 1."""

    entities: pa.Array
    matches: Matches
    done: float

    def members(self, segment: str) -> Flags:
        """For each of the users whether they are in a segment."""
        return self.matches.members(segment)


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
    users
        with at least the features that the segments read, to share one reading; None for a reading of its own.

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
    UnsupportedError
        if segments read events: the offline store has none.
    """

    def __init__(
        self,
        repo: FeastRepo,
        program: Program,
        segments: Collection[str] | None = None,
        context: Mapping[str, Any] | None = None,
        users: OfflineUsers | None = None,
    ) -> None:
        self.program = program
        self.names = tuple(sorted(program.names if segments is None else set(segments)))
        self._context = dict(context or {})
        refuse_events(program, self.names)
        self._index = ColumnIndex(RuleIndex(program), self.names)
        self._features = tuple(sorted(features_read(program, self.names)))
        self._users = OfflineUsers(repo, self._features) if users is None else users
        self.key = self._users.key

    def answers(self, as_of: int, keys: Sequence[str] | None = None) -> Iterator[Answered]:
        """Everyone's answers as of an instant, or those of the users with these keys.

        Raises
        ------
        ProjectError, DataError
            if the offline store cannot be read, or holds other types than are declared.
        """
        for part in self._users.batches(as_of, keys):
            yield self.answer(part, as_of)

    def answer(self, part: Part, as_of: int) -> Answered:
        """The answers of the users in a part that was read as of that instant."""
        batch = part.batch
        expires_at = {
            view: pa.array(micros(batch.column(row_instant(view))) + ttl + 1, mask=_nulls(batch, view))
            for view, ttl in self._users.ttl.items()
            if row_instant(view) in batch.schema.names
        }
        matches = self._index.match_many(batch, as_of, context=self._context, expires_at=expires_at)
        return Answered(batch.column(self.key), matches, part.done)

    def inputs(self, as_of: int, keys: Sequence[str]) -> dict[str, Inputs]:
        """What the rules read of some users as of an instant. Someone unknown then is absent."""
        found = {}
        for part in self._users.batches(as_of, sorted(set(keys))):
            for row in range(part.batch.num_rows):
                entity = part.batch.column(self.key)[row].as_py()
                found[entity] = self._inputs(part.batch, row)
        return found

    def _inputs(self, batch: pa.RecordBatch, row: int) -> Inputs:
        updated_at = {}
        for name in batch.schema.names:
            if name.startswith("@") and (at := python_value(batch.column(name)[row])) is not None:
                updated_at[name[1:]] = at
        values = {name: python_value(batch.column(name)[row]) for name in self._features}
        expires_at = {
            view: at + self._users.ttl[view] + 1 for view, at in updated_at.items() if view in self._users.ttl
        }
        features = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
            if value is not None
        }
        return Inputs(features, self._context, (), updated_at, expires_at)

    def explain(self, segment: str, entity: str, inputs: Inputs, as_of: int) -> Explanation:
        """Why somebody was, or was not, in a segment."""
        return explain(self.program, segment, inputs, as_of, entity)


def _nulls(batch: pa.RecordBatch, view: str) -> Flags:
    found: Flags = batch.column(row_instant(view)).is_null().to_numpy(zero_copy_only=False)
    return found


def refuse_events(program: Program, names: Sequence[str]) -> None:
    """Refuse segments whose answers need events, which no batch has.

    Raises
    ------
    UnsupportedError
        with their names.
    """
    reading = sorted(name for name in names if reads_events(program, name))
    if reading:
        raise UnsupportedError(
            f"these segments read events, which the offline store does not have: {', '.join(reading)}",
            hint="name the other segments with --segment; these are answered at request time",
        )


def features_read(program: Program, names: Collection[str]) -> set[str]:
    """The features that segments read, themselves or through others."""
    conditions = [program.segment(reached).when for reached in program.closure(names)]
    return {feature for condition in conditions for feature in dependencies(condition).features}


def reads_events(program: Program, name: str) -> bool:
    """Whether a segment, or one that it refers to, reads events."""
    return any(dependencies(program.segment(reached).when).events for reached in program.closure([name]))


@dataclass(slots=True)
class Sizes:
    """How many users there are, and how many of them are in each segment."""

    users: int = 0
    members: dict[str, int] = field(default_factory=dict)

    def add(self, answered: Answered, names: Sequence[str]) -> None:
        """Count some users."""
        self.users += len(answered.entities)
        for name in names:
            self.members[name] = self.members.get(name, 0) + int(np.count_nonzero(answered.members(name)))

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
        from rules_engine.features.feast_repo import FeastRepo

        repo = FeastRepo(project)
        definitions = load_folder(project.segments_dir, project_catalog(project, repo))
        set_now = definitions.settings.now
        now = as_of if as_of is not None else now_micros() if set_now is None else set_now
        return cls(repo, definitions.program, now)
