"""Checks that the online store keeps what it takes, and writes into it which feature views there are."""

from __future__ import annotations

import logging

from rules_engine.errors import StoreError
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.folders import Project
from rules_engine.read_plan import ReadPlan
from rules_engine.redis.eviction import check_eviction
from rules_engine.redis.server import server_of
from rules_engine.redis.store_mark import StoreMark

_log = logging.getLogger("rules_engine.apply")


def check_store(project: Project, repo: FeastRepo) -> None:
    """Refuse an online store that evicts keys. A store that does not answer is left to the steps that need it.

    Raises
    ------
    ProjectError
        if it evicts keys when its memory is full.
    """
    server = server_of(repo.connection(), project.root)
    if server is None:
        return
    try:
        check_eviction(server)
    except StoreError as error:
        _log.warning("it is not known whether the online store keeps what it holds: %s", error)


def declare_views(project: Project, plan: ReadPlan, previous: ReadPlan | None, repo: FeastRepo) -> None:
    """Write the names of the feature views into the store, and log a warning for views that were lost with the store.

    New views are declared: no entity has values yet, so lookups may take them as missing. A view that was in use and
    that the store does not know was lost with the store. It is not declared, so lookups raise an error until it is
    materialized.

    Parameters
    ----------
    project
        the project.
    plan
        the plan that is about to take effect.
    previous
        the plan in effect; None if there is none that can be read.
    repo
        the project's repository.
    """
    server = server_of(plan.connection, project.root)
    if server is None:
        return
    names = [view.name for view in plan.views]
    used = {view.name for view in previous.views} if previous and previous.connection == plan.connection else set()
    used |= {name for name, view in repo.registered_views().items() if view.most_recent_end_time is not None}
    try:
        with server.connected() as client:
            mark = StoreMark(client, plan.project)
            mark.declare(name for name in names if name not in used)
            lost = mark.missing(names)
    except StoreError as error:
        _log.warning("the online store was not told which feature views there are: %s", error)
        return
    if lost:
        _log.warning(
            "the online store holds nothing of %s: it was emptied or replaced; run `segments materialize`",
            ", ".join(f"`{name}`" for name in lost),
        )
