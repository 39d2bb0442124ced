"""Answers what keeps a service running asks."""

from __future__ import annotations

from rules_engine.service.problems import Reply, json_reply
from rules_engine.service.requests import HttpRequest
from rules_engine.service.routes import Route


def routes() -> list[Route]:
    """Return the operations for those who run the service."""
    return [Route("GET", "/livez", livez, None, {})]


async def livez(_request: HttpRequest) -> Reply:
    """Answer: the process lives, whatever the store does."""
    return json_reply({"status": "alive"})
