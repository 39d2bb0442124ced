"""Count and follow everybody for the pages of segments, with what the commands use; runs in a process of its own.

Every function takes the project's folder and the version of the definitions, so that answers are of one version.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from rules_engine.batch.backtest import Backtest, backtest
from rules_engine.batch.engine import BatchRules, readable
from rules_engine.batch.events import BatchEvents
from rules_engine.batch.through_time import RulesThroughTime
from rules_engine.clock import now_micros
from rules_engine.deploy.movements import Movement
from rules_engine.errors import ProjectError
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.features.offline.history import Instants
from rules_engine.folders import Project
from rules_engine.project.catalog import feature_files
from rules_engine.project.versions import versions
from rules_engine.read_plan import ReadPlan
from rules_engine.rules.aggregates import Aggregate
from rules_engine.rules.explanation import Explanation
from rules_engine.rules.inputs import Event
from rules_engine.rules.nodes import EventAggregate, EventMatch
from rules_engine.rules.program import Program
from rules_engine.rules.segments.codec import decode_program
from rules_engine.rules.walk import dependencies

#: How many instants a line over time has.
STEPS = 13

#: How many members are shown, and how many who nearly are.
MEMBERS, MISSES = 10, 5

#: Among how many who are no members the nearest are looked for.
SEARCHED = 200


@dataclass(frozen=True, slots=True)
class Opened:
    """Hold what was applied, with the features that it reads."""

    repo: FeastRepo
    plan: ReadPlan
    program: Program

    @property
    def now(self) -> int:
        """Return the instant that counts as now."""
        return now_micros() if self.plan.now is None else self.plan.now

    @property
    def requests_only(self) -> dict[str, str]:
        """Return the segments that read what only requests bring, with its names."""
        context = {name: dependencies(self.program.segments[name].when).context for name in self.program.names}
        return {name: ", ".join(sorted(names)) for name, names in context.items() if names}


@dataclass(frozen=True, slots=True)
class SegmentSizes:
    """Count everybody, and by segment its members and those of whom it is unknown.

    Attributes
    ----------
    as_of
        the instant, in microseconds.
    refused
        by segment that could not be counted, why.
    """

    as_of: int
    users: int
    members: Mapping[str, int]
    unknown: Mapping[str, int]
    refused: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MemberSample:
    """Some members of a segment, and some of those who are none with fewest conditions in the way, each explained.

    ``searched`` says among how many who are no members the nearest were looked for.
    """

    as_of: int
    members: tuple[Explanation, ...]
    misses: tuple[Explanation, ...]
    searched: int


@dataclass(frozen=True, slots=True)
class VersionChange:
    """A version of the definitions, and by segment what it did to it: added, changed or removed."""

    number: int
    who: str
    applied_at: int
    hash: str
    segments: Mapping[str, str]
    triggers: Mapping[str, str]


def open_applied(root: Path, version: str) -> Opened:
    """Open what was applied; what was opened before is kept while the feature repository is the same.

    Raises
    ------
    ProjectError
        if another version was applied meanwhile, or the feature repository cannot be used.
    """
    project = Project.open(root)
    plan = ReadPlan.load(project.read_plan)
    if plan.definitions_version != version:
        raise ProjectError("other definitions were applied meanwhile", hint="reload the page")
    repo = open_repo(root, feature_files(project.feature_repo))
    return Opened(repo, plan, decode_program(plan.definitions["segments"]))


@lru_cache(maxsize=1)
def open_repo(root: Path, _files: str) -> FeastRepo:
    """Open the feature repository, once for its present files."""
    return FeastRepo(Project.open(root))


def sizes(root: Path, version: str) -> SegmentSizes:
    """Count the members of all segments, as `segments evaluate` does."""
    opened = open_applied(root, version)
    program, now = opened.program, opened.now
    if not program.names:
        return SegmentSizes(now, 0, {}, {})
    counted, refused = readable(
        program, program.names, lambda names: BatchRules(opened.repo, program, names, unknown=True).sizes(now)
    )
    reasons = {name: str(error) for name, error in refused.items()}
    return SegmentSizes(now, counted.users, counted.members, counted.unknown, reasons)


def history(root: Path, version: str, segment: str | None, every: int) -> Backtest | None:
    """Follow a segment, and what it has in common with the others, as `segments backtest` does; None if there is none.

    Parameters
    ----------
    segment
        its name; None for any, where only the sizes of all are wanted.
    every
        microseconds from instant to instant.
    """
    opened = open_applied(root, version)
    names = opened.program.names
    if not names:
        return None
    at = Instants(opened.now - (STEPS - 1) * every, every, STEPS)
    chosen = names[0] if segment is None else segment
    result, _ = readable(
        opened.program,
        names,
        lambda left: backtest(RulesThroughTime(opened.repo, opened.program, left), chosen, at),
    )
    return result


def members(root: Path, version: str, segment: str) -> MemberSample:
    """Explain some members of a segment, and some who nearly are."""
    opened = open_applied(root, version)
    rules = BatchRules(opened.repo, opened.program, [segment])
    inside: list[str] = []
    outside: list[str] = []
    entropy = random.Random(segment)  # noqa: S311  # a sample that is the same each time
    for answered in rules.answers(opened.now):
        flags = answered.members(segment)
        inside += answered.entities.filter(pa.array(flags))[: MEMBERS - len(inside)].to_pylist()
        others = np.flatnonzero(~flags)
        drawn = entropy.sample(range(len(others)), min(SEARCHED, len(others)))
        outside += answered.entities.take(pa.array(others[drawn])).to_pylist()
    outside = entropy.sample(outside, min(SEARCHED, len(outside)))
    inputs = rules.inputs(opened.now, [*inside, *outside])
    explained = {entity: rules.explain(segment, entity, inputs[entity], opened.now) for entity in inputs}
    misses = sorted((explained[entity] for entity in outside if entity in explained), key=_distance)
    shown = tuple(explained[entity] for entity in inside if entity in explained)
    return MemberSample(opened.now, shown, tuple(misses[:MISSES]), len(outside))


def _distance(explanation: Explanation) -> tuple[int, bool, str]:
    blocking = explanation.blocking
    return len(blocking), any(reason.missing is not None for reason in blocking), explanation.entity


def timeline(root: Path, version: str, entity: str, at: int | None) -> tuple[Event, ...]:
    """Return all events of an entity in the log on disk, the latest first."""
    opened = open_applied(root, version)
    declared = (opened.plan.definitions.get("events") or {}).get("events", {})
    sources = [EventAggregate(Aggregate.COUNT, EventMatch(name), None) for name in sorted(declared)]
    if not sources:
        return ()
    events = BatchEvents(opened.repo, sources).events(opened.now if at is None else at, [entity])
    return tuple(reversed(events.get(entity, ())))


def changes(root: Path, newest: int) -> tuple[VersionChange, ...]:
    """Return what each version changed, the newest first.

    Parameters
    ----------
    newest
        the number of the newest version, so that a later one is another question.
    """
    del newest
    return tuple(_changes(Project(root)))[::-1]


def _changes(project: Project) -> Iterator[VersionChange]:
    segments: Mapping[str, object] = {}
    triggers: Mapping[str, object] = {}
    for version in versions(project):
        new_segments = version.plan.definitions.get("segments") or {}
        new_triggers = version.plan.definitions.get("triggers") or {}
        yield VersionChange(
            version.number,
            version.who,
            version.applied_at,
            version.hash,
            _differences(segments, new_segments),
            _differences(triggers, new_triggers),
        )
        segments, triggers = new_segments, new_triggers


def _differences(before: Mapping[str, object], after: Mapping[str, object]) -> dict[str, str]:
    words = dict.fromkeys(after.keys() - before.keys(), "added")
    words |= dict.fromkeys(before.keys() - after.keys(), "removed")
    words |= {name: "changed" for name in before.keys() & after.keys() if before[name] != after[name]}
    return dict(sorted(words.items()))


def tests(root: Path, files: str) -> dict[str, tuple[int, int]]:
    """Return by segment with a test how many cases it has, and how many of them fail, as `segments test` does.

    Parameters
    ----------
    files
        a hash of the files of definitions and tests, so that other files are another question.
    """
    del files
    from rules_engine.deploy.definitions import load_project
    from rules_engine.files import files_below
    from rules_engine.rules.load import TEST_SUFFIX
    from rules_engine.simulation.case_files import load_cases
    from rules_engine.simulation.segment_tests import run_case

    project = Project.open(root)
    loaded = load_project(project)
    paths = [path for path in files_below(project.segments_dir) if path.name.endswith((TEST_SUFFIX, ".test.yml"))]
    cases, _ = load_cases(paths, project.root, loaded.definitions, loaded.catalog)
    outcomes: dict[str, tuple[int, int]] = {}
    for case in cases:
        total, failed = outcomes.get(case.title, (0, 0))
        outcomes[case.title] = total + 1, failed + any(True for _ in run_case(case, loaded.definitions.program))
    return outcomes


@dataclass(frozen=True, slots=True)
class PendingChange:
    """Say what applying the files would do, as `segments plan` does: its lines, and by segment who moves."""

    plan: str
    lines: tuple[str, ...]
    movements: tuple[Movement, ...]


def pending(root: Path, version: str, files: str) -> PendingChange:
    """Return what applying the files would do.

    Parameters
    ----------
    files
        a hash of the files, so that others are another question.
    """
    del version, files
    from rules_engine.deploy.plan import make_plan
    from rules_engine.deploy.stages import Register

    plan = make_plan(Project.open(root), examples=0)
    if not plan.changes_anything:
        return PendingChange(plan.stages.id, (), ())
    shown = [stage for stage in plan.stages.stages if not isinstance(stage, Register) or stage.change]
    return PendingChange(plan.stages.id, tuple("; ".join(stage.lines()) for stage in shown), plan.movements)
