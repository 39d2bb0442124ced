"""Online stores as `apply` and `materialize` leave them, for tests that write plan and rows themselves."""

from __future__ import annotations

from pathlib import Path

from rules_engine.features.online.redis_reader import RedisReader
from rules_engine.folders import Project
from rules_engine.read_plan import ReadPlan
from rules_engine.redis.server import RedisServer, server_of
from rules_engine.redis.store_mark import StoreMark
from rules_engine.sdk.rules import Rules


def server_for(plan: ReadPlan, root: Path, timeout: float | None = None) -> RedisServer:
    server = server_of(plan.connection, root, timeout)
    assert server is not None
    return server


def redis_reader(plan: ReadPlan, root: Path, *, timeout: float | None = None) -> RedisReader:
    return RedisReader(plan, server_for(plan, root, timeout))


def mark_as_held(plan: ReadPlan, root: Path) -> None:
    """Write into the store that it holds what the plan reads."""
    with server_for(plan, root).connected() as client:
        held = StoreMark(client, plan.project)
        held.declare(view.name for view in plan.views)
        if "segments" in plan.definitions:
            held.note_states(Rules(plan).events.name)


def put_into_effect(plan: ReadPlan, project: Project) -> None:
    """Save a plan, and mark its store as one that holds what the plan reads."""
    mark_as_held(plan, project.root)
    plan.save(project.read_plan)
