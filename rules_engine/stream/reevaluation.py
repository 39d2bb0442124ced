"""After features changed outside of the stream: the workers are asked to look at everybody again."""

from __future__ import annotations

from collections.abc import Iterable

from rules_engine.errors import NotAppliedError
from rules_engine.folders import Project
from rules_engine.read_plan import ReadPlan
from rules_engine.redis import client as redis_client
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
    if plan.connection.kind not in ("embedded", "redis"):
        return
    address = redis_client.resolve(plan.connection, project.root)
    client = redis_client.connect(plan.connection, address)
    try:
        with redis_client.store_errors(address):
            request(client, plan.project, cause, views)
    finally:
        client.close()
