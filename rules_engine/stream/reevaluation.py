"""Requests to look at all entities, after features changed outside of the stream."""

from __future__ import annotations

from collections.abc import Iterable

from rules_engine.errors import NotAppliedError
from rules_engine.folders import Project
from rules_engine.read_plan import ReadPlan
from rules_engine.redis.server import server_of
from rules_engine.stream.sweep import request


def look_again(project: Project, cause: str, views: Iterable[str] | None = None) -> None:
    """Have memberships worked out anew for everybody, as ``segments run`` comes to it.

    Nothing is asked for where nothing was applied, or where the online store keeps no memberships.

    Parameters
    ----------
    cause
        what changed: ``materialize``, ``cluster``, ``model`` or ``ingest``. ``segments history`` shows it.
    views
        the feature views that changed; None for anything.

    Raises
    ------
    StoreError
        if the store cannot be written.
    """
    try:
        plan = ReadPlan.load(project.read_plan)
    except NotAppliedError:
        return
    server = server_of(plan.connection, project.root)
    if server is None:
        return
    with server.connected() as client:
        request(client, plan.project, cause, views)
