"""Finds the stages of an apply: compares definitions with what is applied, and changes nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq

from rules_engine.clock import parse_instant
from rules_engine.deploy.backfill import Backfill
from rules_engine.deploy.differences import ADDED, CHANGED, REMOVED, differences
from rules_engine.deploy.lists.changes import ListChange
from rules_engine.deploy.stages import (
    ApplyStages,
    BuildStates,
    CatchUp,
    ImportLists,
    KeepVersion,
    NameChanges,
    Reevaluate,
    Register,
    Stage,
    Switch,
)
from rules_engine.errors import ProjectError, StoreError
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.files import write_atomically
from rules_engine.folders import Project
from rules_engine.project.versions import next_number, plan_content, plan_hash
from rules_engine.read_plan import ReadPlan
from rules_engine.redis.server import is_direct
from rules_engine.rules.kinds import KINDS
from rules_engine.rules.program import Program
from rules_engine.rules.segments.codec import decode_program
from rules_engine.rules.triggers.codec import decode_triggers
from rules_engine.rules.triggers.nodes import OnEnter, OnExit
from rules_engine.sdk.rules import Rules
from rules_engine.stream.event_sink import event_log

#: Kinds of definitions, and where the read plan carries them.
_KINDS = (
    *((word, (part,)) for kind in KINDS.values() for word, part in kind.plan_parts.items()),
    ("events", ("events", "events")),
    ("event features", ("events", "features")),
)


def applied_plan(project: Project) -> ReadPlan | None:
    """Return the read plan in effect; None if it is damaged or missing, as a new one is written anyway."""
    with contextlib.suppress(ProjectError):
        return ReadPlan.load(project.read_plan)
    return None


def find_stages(
    project: Project,
    definitions: Mapping[str, Any],
    now: int | None,
    repo: FeastRepo,
    *,
    lists: tuple[ListChange, ...] = (),
    store_needed: bool = True,
) -> ApplyStages:
    """Find what applying these definitions would do.

    Parameters
    ----------
    definitions
        the checked definitions, as the read plan carries them.
    now
        the instant that counts as now, unless a caller names another.
    lists
        the lists whose files differ from what was imported.
    store_needed
        whether an online store that does not answer is an error; otherwise its event states are taken to be those
        of the applied definitions.

    Raises
    ------
    ProjectError, UnsupportedError
        if the project or its Feast definitions cannot be used.
    StoreError
        if the online store is needed and does not answer.
    """
    repo.check()
    previous = applied_plan(project)
    plan = repo.read_plan(definitions, applied_at=0, now=now, of_files=True)
    registry = repo.pending()
    is_new = previous is None or plan_content(previous) != plan_content(plan)
    before = {} if previous is None else previous.definitions
    build = _states(project, plan, previous, store_needed=store_needed)
    stages: list[Stage] = [Register(registry)]
    if lists:
        stages.append(ImportLists(lists))
    if build is not None:
        stages.append(build)
    if is_new:
        stages.append(KeepVersion(next_number(project)))
    stages.append(Switch(tuple(definition_changes(before, definitions))))
    if build is not None:
        stages.append(CatchUp())
    sweep = _sweep(project, plan, before)
    if sweep is not None:
        stages.append(sweep)
    differs = bool(is_new or registry or lists or build is not None or sweep is not None)
    return ApplyStages(tuple(stages), plan_hash(previous), definitions, now, differs)


def definition_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, NameChanges]]:
    """Yield the kinds of definitions of which some differ between two plans, with their names; also holdouts."""
    for kind, path in _KINDS:
        names = NameChanges.between(_part(before, path), _part(after, path))
        if names:
            yield kind, names
    holdouts = NameChanges.between(_holdouts(before), _holdouts(after))
    if holdouts:
        yield "holdouts", holdouts


def _holdouts(definitions: Mapping[str, Any]) -> dict[str, tuple[int, str]]:
    """Return by trigger what decides who is held out; plans of earlier releases have no seed, and another hash."""
    triggers = _part(definitions, ("triggers",)).items()
    return {name: (node["holdout"], node.get("holdout_seed", "")) for name, node in triggers if node.get("holdout")}


def _part(definitions: Mapping[str, Any], path: tuple[str, ...]) -> Mapping[str, Any]:
    part: Any = definitions
    for key in path:
        part = part.get(key) or {}
    return part if isinstance(part, Mapping) else {}


# --- event states ---------------------------------------------------------------------------------------------------


def _states(project: Project, plan: ReadPlan, previous: ReadPlan | None, *, store_needed: bool) -> BuildStates | None:
    """Return the states that have to be built; None if the store has what the definitions need."""
    if "segments" not in plan.definitions:
        return None
    backfill = Backfill(project, plan)
    try:
        if not backfill.is_pending:
            return None
    except StoreError:
        if store_needed:
            raise
        if previous is not None and _state_name(previous) == _state_name(plan):
            return None
    finally:
        backfill.close()
    return _extent(project, backfill.events_read)


def _state_name(plan: ReadPlan) -> bytes | None:
    try:
        return Rules(plan).events.name
    except ProjectError:
        return None


def _extent(project: Project, events: Iterable[str]) -> BuildStates:
    log = event_log(project)
    names = tuple(sorted(events))
    files = sorted(log.all_files(names))
    rows = 0
    for file in files:
        with contextlib.suppress(OSError):  # compaction deleted the file meanwhile
            rows += pq.read_metadata(file).num_rows
    days = sorted({file.parent.name.removeprefix("day=") for file in files})
    first_day = parse_instant(f"{days[0]}T00:00:00Z") if days else None
    return BuildStates(names, first_day, len(days), rows, _users(files))


def _users(files: list[Path]) -> int | None:
    """Count the entities that have events in some files; None without DuckDB, or if it fails."""
    if not files:
        return 0
    try:
        import duckdb
    except ImportError:
        return None
    with contextlib.suppress(duckdb.Error), duckdb.connect() as connection:
        connection.execute("SET enable_progress_bar = false")
        counted = connection.execute(
            "SELECT count(DISTINCT entity) FROM read_parquet(?, hive_partitioning = false)",
            [[str(file) for file in files]],
        ).fetchone()
        return None if counted is None else int(counted[0])
    return None


# --- which entities are evaluated anew ------------------------------------------------------------------------------


def _sweep(project: Project, plan: ReadPlan, before: Mapping[str, Any]) -> Reevaluate | None:
    """Return the segments that workers have to evaluate anew; None if there are no workers, or no segment differs."""
    after = plan.definitions
    is_worked = any(definitions.get(kind) for definitions in (before, after) for kind in ("triggers", "events"))
    if not is_worked or not is_direct(plan.connection):
        return None
    program = decode_program(_part(after, ("segments",)))
    kinds = {name: CHANGED for name in owed_sweep(project) if name in program.segments}
    kinds |= differences(applied_program(before), program)
    touched = {name for name, kind in kinds.items() if kind != REMOVED}
    moving = {name for name in touched if kinds[name] != ADDED}  # members of a new segment do not enter it
    started = [
        trigger.name
        for trigger in decode_triggers(after).values()
        if isinstance(trigger.on, OnEnter | OnExit) and trigger.on.segment in moving
    ]
    return Reevaluate(tuple(sorted(touched)), tuple(sorted(started))) if touched else None


def owe_sweep(project: Project, segments: Iterable[str]) -> None:
    """Note, before new definitions take effect, the segments to evaluate anew, in case the apply is killed."""
    write_atomically(_owed(project), orjson.dumps(sorted({*segments, *owed_sweep(project)})))


def owed_sweep(project: Project) -> list[str]:
    """Return the segments that a killed apply left to be evaluated anew."""
    try:
        return [str(name) for name in orjson.loads(_owed(project).read_bytes())]
    except (OSError, ValueError, TypeError):
        return []


def settle_sweep(project: Project) -> None:
    """Note that no sweep is owed any more."""
    _owed(project).unlink(missing_ok=True)


def _owed(project: Project) -> Path:
    return project.state_dir / "owed_sweep.json"


def applied_program(definitions: Mapping[str, Any]) -> Program:
    """Return the segments of a plan in effect; none if another release wrote it so that they cannot be read."""
    with contextlib.suppress(ValueError):
        return decode_program(_part(definitions, ("segments",)))
    return Program({})
