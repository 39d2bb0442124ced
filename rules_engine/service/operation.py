"""Answers those who run the service: does it live, is it ready, what has it counted."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from rules_engine.errors import SegmentsError, StoreError
from rules_engine.redis.server import event_server
from rules_engine.rules.settings.nodes import Role
from rules_engine.service.core import Service
from rules_engine.service.documented import answer, operation
from rules_engine.service.problems import Reply, json_reply
from rules_engine.service.requests import HttpRequest
from rules_engine.service.routes import Route
from rules_engine.stream.backlog import Backlog, read_backlog

#: Whom the check of readiness looks up: an entity that does not exist, so that nobody's data is read.
_NOBODY = "segments-readiness-check"

_STATUS = {"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}}


def routes() -> list[Route]:
    """Return the operations for those who run the service."""
    ready = {**_STATUS, "properties": {"status": {"type": "string"}, "checks": {"type": "object"}}}
    return [
        Route("GET", "/livez", livez, None, operation("Does the process live", answer("It does", _STATUS))),
        Route(
            "GET",
            "/readyz",
            readyz,
            None,
            operation("Can it answer", answer("It can", ready) | answer("It cannot", ready, 503)),
        ),
        Route("GET", "/metrics", metrics, Role.READ, operation("Counters for Prometheus", answer("Text", None))),
    ]


async def livez(_request: HttpRequest) -> Reply:
    """Answer: the process lives, whatever the store does."""
    return json_reply({"status": "alive"})


async def readyz(request: HttpRequest) -> Reply:
    """Answer whether requests can be answered: the plan is loaded, and the store holds what answers rest on.

    How much waits for the workers is told, and decides nothing: more instances of the service would not help.
    """
    service = request.service
    checks: dict[str, Any] = {"plan": service.client.plan.definitions_version, "store": await _store(service)}
    with suppress(SegmentsError):
        backlog = await asyncio.to_thread(_backlog, service)
        checks["workers"] = {"events": backlog.events, "seconds": round(backlog.seconds, 3), "timers": backlog.timers}
    ready = checks["store"] == "ok" and not service.draining
    status = "draining" if service.draining else "ready" if ready else "not ready"
    return json_reply({"status": status, "checks": checks}, 200 if ready else 503)


async def _store(service: Service) -> str:
    """Return ``ok``, or what is wrong with the store."""
    try:
        await service.client.lookup(_NOBODY)
    except StoreError as error:
        return str(error)
    return "ok"


def _backlog(service: Service) -> Backlog:
    plan = service.client.plan
    server = event_server(plan.connection, service.project.root, 2.0)
    with server.connected() as client:
        return server.do(lambda: read_backlog(client, plan.project))


async def metrics(request: HttpRequest) -> Reply:
    """Answer with the counters of all processes."""
    headers = [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")]
    return Reply(200, await asyncio.to_thread(request.service.metrics.text), headers)
