"""Find how the files differ from what is applied, and whom that moves: `segments plan`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rules_engine.batch import membership_files
from rules_engine.batch.engine import BatchRules
from rules_engine.batch.entities import EntityReader, features_read
from rules_engine.clock import now_micros
from rules_engine.deploy.definitions import project_stages
from rules_engine.deploy.differences import ADDED, AFFECTED, CHANGED, REMOVED, differences
from rules_engine.deploy.stage_finder import applied_plan
from rules_engine.deploy.stages import ApplyStages
from rules_engine.errors import FeatureColumnError
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.folders import Project
from rules_engine.rules.explain import Explanation
from rules_engine.rules.program import Program
from rules_engine.rules.segments.codec import decode_program
from rules_engine.rules.triggers.codec import decode_triggers
from rules_engine.rules.triggers.nodes import OnEnter, OnExit, Trigger

ENTERS, LEAVES = "enters", "leaves"

Progress = Callable[[int, float], None]


@dataclass(frozen=True, slots=True)
class Example:
    """A user who moves, and why by the new definition; a segment that is removed explains nothing."""

    entity: str
    move: str
    explanation: Explanation | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """A trigger that starts for everyone who moves so. Its own conditions may then hold some of them back."""

    trigger: str
    move: str


@dataclass(frozen=True, slots=True)
class Movement:
    """One segment of a plan.

    Attributes
    ----------
    segment, kind
        its name, and whether it is added, changed or removed itself, or affected because it refers to such a one.
    enters, leaves, stays
        how many users.
    dependents
        the segments that refer to it, directly or through others.
    examples
        some users who move.
    starts
        the triggers that start for those who move. None does where a segment is added or removed: whoever is in a new
        one is there from the beginning, and did not enter.
    uncounted
        why nobody was counted; None if everybody was.
    """

    segment: str
    kind: str
    enters: int = 0
    leaves: int = 0
    stays: int = 0
    dependents: tuple[str, ...] = ()
    examples: tuple[Example, ...] = ()
    starts: tuple[Start, ...] = ()
    uncounted: str | None = None

    def moving(self, move: str) -> int:
        """Return how many entities enter, or leave."""
        return self.enters if move == ENTERS else self.leaves

    @property
    def change(self) -> float:
        """Return those who move as a share of the members now; a new segment has none to compare with.

        >>> Movement("vip", CHANGED, enters=1, leaves=2, stays=4).change
        0.5
        """
        if self.kind == ADDED or not self.enters + self.leaves:
            return 0.0
        before = self.leaves + self.stays
        return (self.enters + self.leaves) / before if before else float("inf")


@dataclass(frozen=True, slots=True)
class ProjectPlan:
    """Say what applying the files would do, and whom it moves, as of an instant (microseconds), among how many."""

    as_of: int
    stages: ApplyStages
    movements: tuple[Movement, ...] = ()
    users: int = 0

    @property
    def changes_anything(self) -> bool:
        """Tell whether the files differ from what is applied."""
        return bool(self.stages.differs or self.movements)

    def over(self, limit: float) -> tuple[Movement, ...]:
        """Return the movements of the segments whose share of movers is above ``limit``."""
        return tuple(movement for movement in self.movements if movement.change > limit)


def make_plan(
    project: Project,
    as_of: int | None = None,
    out: Path | None = None,
    progress: Progress = lambda _users, _done: None,
    *,
    examples: int = 1,
) -> ProjectPlan:
    """Compare the files with what is applied, and evaluate both for all users; nothing is changed.

    Parameters
    ----------
    out
        a file for everyone who moves: a row for each user and segment, with ``enters`` or ``leaves``.
    examples
        how many users are explained for each segment and direction.

    Raises
    ------
    DefinitionError
        with every problem of every file.
    ProjectError, UnsupportedError, DataError
        if the Feast repository, the read plan or the offline store cannot be used.
    """
    repo = FeastRepo(project)
    stages = project_stages(project, repo, store_needed=False)
    now = next(instant for instant in (as_of, stages.now, now_micros()) if instant is not None)
    before, after = _applied(project), decode_program(stages.definitions["segments"])
    triggers, known = decode_triggers(stages.definitions), repo.catalog().features.keys()
    movements = [
        _uncounted(name, kind, before, after, known, triggers.values())
        for name, kind in differences(before, after).items()
    ]
    while True:
        counted = {movement.segment: movement.kind for movement in movements if movement.uncounted is None}
        tally = _Tally(repo, before, after, counted, now, examples)
        try:
            if counted or out is not None:
                tally.run(out, progress)
            return ProjectPlan(now, stages, tuple(tally.result(movement) for movement in movements), tally.users)
        except FeatureColumnError as error:  # it stops only the segments that read the column
            movements = [_without(movement, error, before, after) for movement in movements]
            if not any(movement.segment in counted and movement.uncounted for movement in movements):
                raise


def _without(movement: Movement, error: FeatureColumnError, before: Program, after: Program) -> Movement:
    """Say of a segment that reads a column which cannot be used that it is not counted."""
    programs = [program for program in (before, after) if movement.segment in program.segments]
    read = {name for program in programs for name in features_read(program, [movement.segment])}
    return replace(movement, uncounted=str(error)) if error.feature in read else movement


def _applied(project: Project) -> Program:
    """Return the applied definitions; none, if nothing was applied yet."""
    plan = applied_plan(project)
    return Program({}) if plan is None else decode_program(plan.definitions.get("segments", {}))


def _uncounted(
    name: str, kind: str, before: Program, after: Program, known: Any, triggers: Iterable[Trigger]
) -> Movement:
    """Return a segment's movement without numbers, and with the reason if there can be none."""
    dependents = tuple(
        other for other in after.names if other != name and name in after.closure([other]) and name in after.segments
    )
    reason = None
    for program, word in ((before, "applied"), (after, "new")):
        if name not in program.segments:
            continue
        gone = sorted(features_read(program, [name]) - known)
        if gone:
            reason = f"the {word} definition reads `{gone[0]}`, which the feature repository no longer has"
    starts = _starts(name, triggers) if kind in (CHANGED, AFFECTED) else ()
    return Movement(name, kind, dependents=dependents, starts=starts, uncounted=reason)


def _starts(segment: str, triggers: Iterable[Trigger]) -> tuple[Start, ...]:
    moves = {OnEnter: ENTERS, OnExit: LEAVES}
    return tuple(
        Start(trigger.name, moves[type(trigger.on)])
        for trigger in triggers
        if isinstance(trigger.on, OnEnter | OnExit) and trigger.on.segment == segment
    )


@dataclass(slots=True)
class _Count:
    enters: int = 0
    leaves: int = 0
    stays: int = 0
    examples: dict[str, list[str]] = field(default_factory=lambda: {ENTERS: [], LEAVES: []})


class _Tally:
    """Both programs, evaluated over one reading of the users."""

    def __init__(
        self, repo: FeastRepo, before: Program, after: Program, kinds: Mapping[str, str], as_of: int, examples: int
    ) -> None:
        old = [name for name in kinds if name in before.segments]
        new = [name for name in kinds if name in after.segments]
        self._reading = EntityReader(repo, (before, old), (after, new))
        self._before = BatchRules(repo, before, old, reader=self._reading)
        self._after = BatchRules(repo, after, new, reader=self._reading)
        self._counts = {name: _Count() for name in kinds}
        self._as_of = as_of
        self._examples = examples
        self.users = 0

    def run(self, out: Path | None, progress: Progress) -> None:
        """Count everyone, and write who moves."""
        if out is None:
            for _ in self._moves(progress):
                pass
            return
        schema = pa.schema([(self._reading.key, pa.string()), ("segment", pa.string()), ("change", pa.string())])
        with membership_files.TableFile(out, schema) as file:
            for name, move, entities in self._moves(progress):
                columns = [entities.cast(pa.string()), *(pa.repeat(text, len(entities)) for text in (name, move))]
                file.write(pa.record_batch(columns, schema=schema))

    def _moves(self, progress: Progress) -> Iterator[tuple[str, str, pa.Array]]:
        for crowd in self._reading.at(self._as_of):
            old, new = self._before.answer(crowd, self._as_of), self._after.answer(crowd, self._as_of)
            self.users += len(old.entities)
            for name, count in self._counts.items():
                was, will = old.members(name), new.members(name)
                count.stays += int(np.count_nonzero(was & will))
                for move, flags in ((ENTERS, will & ~was), (LEAVES, was & ~will)):
                    entities = old.entities.filter(pa.array(flags))
                    setattr(count, move, getattr(count, move) + len(entities))
                    count.examples[move] += entities[: self._examples - len(count.examples[move])].to_pylist()
                    yield name, move, entities
            progress(self.users, crowd.done)

    def result(self, movement: Movement) -> Movement:
        """Return the movement with its numbers and examples."""
        count = self._counts.get(movement.segment)
        if count is None:
            return movement
        examples = tuple(self._explained(movement, count))
        return replace(movement, enters=count.enters, leaves=count.leaves, stays=count.stays, examples=examples)

    def _explained(self, movement: Movement, count: _Count) -> Iterator[Example]:
        pairs = [(entity, move) for move, entities in count.examples.items() for entity in entities]
        if movement.kind == REMOVED or not pairs:
            yield from (Example(entity, move) for entity, move in pairs)
            return
        inputs = self._after.inputs(self._as_of, [entity for entity, _ in pairs])
        for entity, move in pairs:
            yield Example(entity, move, self._after.explain(movement.segment, entity, inputs[entity], self._as_of))
