"""Counts who would get another variant of a decision by the files than by what is applied."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from rules_engine.batch.decide import variants_of
from rules_engine.batch.engine import BatchRules
from rules_engine.batch.entities import EntityReader, features_read
from rules_engine.deploy.differences import ADDED, AFFECTED, CHANGED, REMOVED, differences
from rules_engine.deploy.movements import Reassignment
from rules_engine.errors import FeatureColumnError, UnsupportedError
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.rules.decisions.cells import Cell, cells_of, with_cells
from rules_engine.rules.decisions.choosing import Chooser
from rules_engine.rules.decisions.codec import decode_decisions
from rules_engine.rules.decisions.nodes import Decision
from rules_engine.rules.experiments.codec import decode_experiments
from rules_engine.rules.program import Program
from rules_engine.rules.settings.codec import decode_holdout


class _Side:
    """The decisions of one set of definitions, each as its cells."""

    def __init__(self, program: Program, definitions: Mapping[str, Any], as_of: int) -> None:
        self.decisions: dict[str, Decision] = {}
        self.cells: dict[str, list[Cell]] = {}
        self.refused: dict[str, str] = {}
        experiments = {}
        with contextlib.suppress(ValueError):  # an earlier release wrote them
            self.decisions, experiments = decode_decisions(definitions), decode_experiments(definitions)
        for name, decision in self.decisions.items():
            try:
                self.cells[name] = cells_of(Chooser(decision, experiments, decode_holdout(definitions)), as_of)
            except UnsupportedError as error:
                self.refused[name] = str(error)
        self.program = with_cells(program, [cell for cells in self.cells.values() for cell in cells])

    def names(self, decisions: Iterable[str]) -> list[str]:
        """Return the names of the cells of some decisions."""
        return [cell.name for decision in decisions for cell in self.cells.get(decision, ())]

    def missing(self, decision: str, features: Iterable[str]) -> str | None:
        """Return a feature that a decision reads and the repository does not have."""
        return min(features_read(self.program, self.names([decision])) - set(features), default=None)


def reassignments(
    repo: FeastRepo, before: tuple[Program, Mapping[str, Any]], after: tuple[Program, Mapping[str, Any]], as_of: int
) -> tuple[Reassignment, ...]:
    """Evaluate the decisions that differ by both definitions for all users, who are read once.

    Parameters
    ----------
    repo
        the project's open Feast repository.
    before, after
        the segments, and the definitions as read plans carry them.
    as_of
        the instant, in microseconds.

    Raises
    ------
    ProjectError, DataError
        if the offline store cannot be read.
    """
    old, new = _Side(*before, as_of), _Side(*after, as_of)
    kinds = _kinds(old, new)
    uncounted = {name: reason for name in kinds if (reason := _reason(name, old, new, repo)) is not None}
    counted = [name for name in kinds if name not in uncounted]
    counts: dict[str, Reassignment] = {}
    if counted:
        try:
            counts = _count(repo, old, new, kinds, counted, as_of)
        except FeatureColumnError as error:
            uncounted |= dict.fromkeys(counted, str(error))
    return tuple(
        counts.get(name, Reassignment(name, kind, uncounted=uncounted.get(name))) for name, kind in kinds.items()
    )


def _kinds(old: _Side, new: _Side) -> dict[str, str]:
    changed_cells = differences(old.program, new.program)
    kinds = {}
    for name in sorted(old.decisions.keys() | new.decisions.keys()):
        if name not in old.decisions or name not in new.decisions:
            kinds[name] = ADDED if name in new.decisions else REMOVED
        elif old.decisions[name] != new.decisions[name]:
            kinds[name] = CHANGED
        elif not changed_cells.keys().isdisjoint([*old.names([name]), *new.names([name])]):
            kinds[name] = AFFECTED
    return kinds


def _reason(name: str, old: _Side, new: _Side, repo: FeastRepo) -> str | None:
    """Return why nobody can be counted; None if everybody can."""
    for side, word in ((old, "applied"), (new, "new")):
        if name in side.refused:
            return side.refused[name]
        missing = side.missing(name, repo.catalog().features.keys())
        if missing is not None:
            return f"the {word} definition reads `{missing}`, which the feature repository does not have"
    return None


def _count(
    repo: FeastRepo, old: _Side, new: _Side, kinds: Mapping[str, str], counted: list[str], as_of: int
) -> dict[str, Reassignment]:
    sides = [(side, side.names(counted)) for side in (old, new)]
    reading = EntityReader(repo, *((side.program, names) for side, names in sides))
    rules = [BatchRules(repo, side.program, names, reader=reading) for side, names in sides]
    pairs = {name: Counter[tuple[str | None, str | None]]() for name in counted}
    for crowd in reading.at(as_of):
        answers = [each.answer(crowd, as_of) for each in rules]
        for name, counter in pairs.items():
            variants = [
                variants_of(side.cells[name], side.decisions[name].default, answered)
                if name in side.decisions
                else np.full(len(answered.entities), None)
                for (side, _), answered in zip(sides, answers, strict=True)
            ]
            counter.update(zip(*(column.tolist() for column in variants), strict=True))
    return {name: _reassignment(name, kinds[name], counter) for name, counter in pairs.items()}


def _reassignment(name: str, kind: str, pairs: Mapping[tuple[str | None, str | None], int]) -> Reassignment:
    before, after = Counter[str](), Counter[str]()
    moved = 0
    for (was, will), users in pairs.items():
        if was is not None:
            before[was] += users
        if will is not None:
            after[will] += users
        moved += users if was != will and kind in (CHANGED, AFFECTED) else 0
    return Reassignment(name, kind, moved, dict(before), dict(after))
