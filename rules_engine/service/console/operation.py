"""Show how the project runs: what is applied and what is not yet, workers, the store, refused events."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from rules_engine.errors import SegmentsError
from rules_engine.events.streams import rebuild_key
from rules_engine.project.versions import newest_number
from rules_engine.read_plan import ReadPlan
from rules_engine.redis.server import event_server
from rules_engine.redis.store_mark import StoreMark
from rules_engine.service.console.documents import files_stamp
from rules_engine.service.console.visits import Content, Visit
from rules_engine.service.reads import plain
from rules_engine.stream.backlog import Backlog, read_backlog

#: Refused events that are counted by reason, the newest; and those that are listed.
_COUNTED, _LISTED = 1_000, 20

#: Versions that are listed.
_VERSIONS = 20

#: Seconds in which the store has to answer.
_PATIENCE = 5.0


@dataclass(frozen=True, slots=True)
class RefusedEvent:
    """Holds an event that was refused: when, from where, why, and what it was."""

    at: str
    source: str
    code: str
    message: str
    event: str


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """Says what the store says of itself, and what waits in it.

    Attributes
    ----------
    memory, keys, software
        how large it is, and what it is; None where it does not say.
    views
        by feature view, until when it was materialized, in microseconds; None if it was not.
    backlog
        what waits for workers.
    refused, reasons, newest
        the number of refused events, by reason among the newest, and the newest of all.
    late
        how many entities' states have to be rebuilt.
    """

    memory: int | None
    keys: int
    software: str | None
    views: Mapping[str, int | None]
    backlog: Backlog
    refused: int
    reasons: Mapping[str, int]
    newest: tuple[RefusedEvent, ...]
    late: int


async def operation(visit: Visit) -> Content:
    """Show the page of operation."""
    from rules_engine.service.console import counting

    service = visit.service
    project, plan = service.project, service.client.plan
    stamp = await asyncio.to_thread(files_stamp, project)
    versions = await visit.ask(counting.changes, project.root, newest_number(project))
    pending = await visit.ask(counting.pending, project.root, plan.definitions_version, stamp)
    facts, error = None, None
    try:
        facts = await asyncio.to_thread(_facts, visit)
    except SegmentsError as problem:
        error = problem
    return Content(
        "operation.html",
        {
            "title": "Operation",
            "active": "/console/operation",
            "plan": plan,
            "versions": versions,
            "shown_versions": (versions.value or ())[:_VERSIONS],
            "pending": pending,
            "facts": facts,
            "error": error,
        },
    )


def _facts(visit: Visit) -> StoreFacts:
    plan = visit.service.client.plan
    server = event_server(plan.connection, visit.service.project.root, _PATIENCE)
    with server.connected() as client:
        return server.do(lambda: _read(client, plan))


def _read(client: Any, plan: ReadPlan) -> StoreFacts:
    from rules_engine.stream.refused import read_refused  # loads what checks events

    refused, newest = read_refused(client, plan.project, _COUNTED)
    mark = StoreMark(client, plan.project)
    marks = {view.name: mark.view(view.name) for view in plan.views}
    memory, server = client.info("memory"), client.info("server")
    return StoreFacts(
        memory.get("used_memory"),
        int(client.dbsize()),
        _software(server),
        {name: None if noted is None else noted.end for name, noted in marks.items()},
        read_backlog(client, plan.project),
        refused,
        Counter(str(event["code"]) for event in newest),
        tuple(map(_refused, newest[:_LISTED])),
        int(client.scard(rebuild_key(plan.project))),
    )


def _software(info: Mapping[str, Any]) -> str | None:
    for name in ("valkey", "redis"):
        if f"{name}_version" in info:
            return f"{name.capitalize()} {info[f'{name}_version']}"
    return None


def _refused(event: Mapping[str, Any]) -> RefusedEvent:
    content = event["event"]
    text = content if isinstance(content, str) else orjson.dumps(plain(content)).decode()
    return RefusedEvent(
        str(event.get("refused_at", "")), str(event.get("source", "")), str(event["code"]), str(event["message"]), text
    )
