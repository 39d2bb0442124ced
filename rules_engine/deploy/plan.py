"""Finds how the files differ from the applied definitions, and which entities that moves: `segments plan`."""

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
from rules_engine.deploy.differences import AFFECTED, CHANGED, REMOVED, differences
from rules_engine.deploy.movements import ENTERS, LEAVES, Example, Movement, ProjectPlan, Start, largest
from rules_engine.deploy.reassignments import reassignments
from rules_engine.deploy.stage_finder import applied_plan, applied_program
from rules_engine.deploy.unchanged import note_unchanged, project_files
from rules_engine.errors import FeatureColumnError
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.folders import Project
from rules_engine.project.versions import newest_number
from rules_engine.rules.explanation import Explanation
from rules_engine.rules.inputs import Inputs
from rules_engine.rules.program import Program
from rules_engine.rules.reference_graph import reached
from rules_engine.rules.segments.codec import decode_program
from rules_engine.rules.segments.lists import VIEW
from rules_engine.rules.triggers.codec import decode_triggers
from rules_engine.rules.triggers.nodes import OnEnter, OnExit, Trigger

Progress = Callable[[int, float], None]


def make_plan(
    project: Project,
    as_of: int | None = None,
    out: Path | None = None,
    progress: Progress = lambda _users, _done: None,
    *,
    examples: int = 1,
    explained: int | None = None,
) -> ProjectPlan:
    """Compare the files with the applied definitions, and evaluate both for all entities. Nothing is changed.

    Parameters
    ----------
    out
        a file of the entities that move: a row for each entity and segment, with ``enters`` or ``leaves``.
    examples
        how many users are explained for each segment and direction.
    explained
        of how many segments, those that concern most users; None for all.

    Raises
    ------
    DefinitionError
        with every problem of every file.
    ProjectError, UnsupportedError, DataError
        if the Feast repository, the read plan or the offline store cannot be used.
    """
    files = project_files(project)
    repo = FeastRepo(project)
    stages = project_stages(project, repo, store_needed=False)
    now = next(instant for instant in (as_of, stages.now, now_micros()) if instant is not None)
    applied = applied_plan(project)
    before = Program({}) if applied is None else applied_program(applied.definitions)
    after = decode_program(stages.definitions["segments"])
    movements, users = compare(
        repo,
        before,
        after,
        decode_triggers(stages.definitions).values(),
        now,
        out=out,
        progress=progress,
        examples=examples,
        explained=explained,
    )
    if applied is not None and not movements and not stages.differs:
        note_unchanged(project, files, applied, newest_number(project))
    old_definitions = {} if applied is None else applied.definitions
    decisions = reassignments(repo, (before, old_definitions), (after, stages.definitions), now)
    return ProjectPlan(now, stages, movements, users, decisions)


def compare(
    repo: FeastRepo,
    before: Program,
    after: Program,
    triggers: Iterable[Trigger],
    as_of: int,
    *,
    reader_of: Callable[..., EntityReader] = EntityReader,
    out: Path | None = None,
    progress: Progress = lambda _users, _done: None,
    examples: int = 1,
    explained: int | None = None,
) -> tuple[tuple[Movement, ...], int]:
    """Evaluate the segments that differ between two programs by both, and return who moves, and among how many users.

    Parameters
    ----------
    repo
        the project's open Feast repository.
    before, after
        the programs.
    triggers
        those that go with the second program.
    as_of
        the instant, in microseconds.
    reader_of
        makes what reads the users, of the repository and the rules.
    out, progress, examples, explained
        as for :func:`make_plan`.

    Raises
    ------
    ProjectError, DataError
        if the offline store cannot be used.
    """
    starts, features = _starts(triggers), repo.catalog().features.keys()
    movements = [
        _uncounted(name, kind, before, after, features, starts.get(name, ()))
        for name, kind in differences(before, after).items()
    ]
    while True:
        counted = {movement.segment: movement.kind for movement in movements if movement.uncounted is None}
        tally = _Tally(repo, before, after, counted, as_of, examples, reader_of)
        try:
            if counted or out is not None:
                tally.run(out, progress)
            counted_movements = [tally.result(movement) for movement in movements]
            return _explained(counted_movements, tally, explained), tally.users
        except FeatureColumnError as error:  # it stops only the segments that read the column
            movements = [_without(movement, error, before, after) for movement in movements]
            if not any(movement.segment in counted and movement.uncounted for movement in movements):
                raise


def _without(movement: Movement, error: FeatureColumnError, before: Program, after: Program) -> Movement:
    """Return the movement, as uncounted if its segment reads the column that cannot be used."""
    programs = [program for program in (before, after) if movement.segment in program.segments]
    read = {name for program in programs for name in features_read(program, [movement.segment])}
    return replace(movement, uncounted=str(error)) if error.feature in read else movement


def _uncounted(
    name: str, kind: str, before: Program, after: Program, features: Any, starts: tuple[Start, ...]
) -> Movement:
    """Return a segment's movement without numbers, and with the reason if there can be none."""
    dependents = reached(after.dependents, [name]) - {name} if name in after.segments else set[str]()
    reason = None
    for program, word in ((before, "applied"), (after, "new")):
        if name not in program.segments:
            continue
        gone = sorted(features_read(program, [name]) - features)
        if gone:
            reason = f"the {word} definition reads `{gone[0]}`, which the feature repository no longer has"
            if gone[0].startswith(f"{VIEW}:"):
                reason = "its list is not imported yet"
    starts = starts if kind in (CHANGED, AFFECTED) else ()
    return Movement(name, kind, dependents=tuple(sorted(dependents)), starts=starts, uncounted=reason)


def _starts(triggers: Iterable[Trigger]) -> dict[str, tuple[Start, ...]]:
    """Return by segment the triggers that start when somebody enters or leaves it."""
    moves = {OnEnter: ENTERS, OnExit: LEAVES}
    starts: dict[str, tuple[Start, ...]] = {}
    for trigger in triggers:
        if isinstance(trigger.on, OnEnter | OnExit):
            start = Start(trigger.name, moves[type(trigger.on)])
            starts[trigger.on.segment] = (*starts.get(trigger.on.segment, ()), start)
    return starts


def _explained(movements: list[Movement], tally: _Tally, most: int | None) -> tuple[Movement, ...]:
    """Explain the examples of the largest movements; of the others they are left out."""
    chosen = movements if most is None else largest(movements, most)
    examples = tally.examples(chosen)
    return tuple(replace(movement, examples=examples.get(movement.segment, ())) for movement in movements)


@dataclass(slots=True)
class _Count:
    enters: int = 0
    leaves: int = 0
    stays: int = 0
    examples: dict[str, list[str]] = field(default_factory=lambda: {ENTERS: [], LEAVES: []})


class _Tally:
    """Evaluates both programs while the entities are read once."""

    def __init__(
        self,
        repo: FeastRepo,
        before: Program,
        after: Program,
        kinds: Mapping[str, str],
        as_of: int,
        examples: int,
        reader_of: Callable[..., EntityReader],
    ) -> None:
        old = [name for name in kinds if name in before.segments]
        new = [name for name in kinds if name in after.segments]
        self._reading = reader_of(repo, (before, old), (after, new))
        self._before = BatchRules(repo, before, old, reader=self._reading)
        self._after = BatchRules(repo, after, new, reader=self._reading)
        self._counts = {name: _Count() for name in kinds}
        self._as_of = as_of
        self._examples = examples
        self.users = 0

    def run(self, out: Path | None, progress: Progress) -> None:
        """Count all entities, and write those that move."""
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
        """Return the movement with its numbers."""
        count = self._counts.get(movement.segment)
        if count is None:
            return movement
        return replace(movement, enters=count.enters, leaves=count.leaves, stays=count.stays)

    def examples(self, movements: Iterable[Movement]) -> dict[str, tuple[Example, ...]]:
        """Return the examples of some segments, explained: what the users of all of them did is read once."""
        moves = {
            (movement.segment, movement.kind): [
                (entity, move)
                for move, entities in self._counts[movement.segment].examples.items()
                for entity in entities
            ]
            for movement in movements
            if movement.segment in self._counts
        }
        explained = {entity for (_, kind), pairs in moves.items() if kind != REMOVED for entity, _ in pairs}
        inputs = self._after.inputs(self._as_of, sorted(explained)) if explained else {}
        return {
            segment: tuple(
                Example(entity, move, None if kind == REMOVED else self._explanation(segment, entity, inputs[entity]))
                for entity, move in pairs
            )
            for (segment, kind), pairs in moves.items()
        }

    def _explanation(self, segment: str, entity: str, inputs: Inputs) -> Explanation:
        return self._after.explain(segment, entity, inputs, self._as_of)
