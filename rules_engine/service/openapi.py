"""The OpenAPI document of the service, made of its routes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rules_engine.installed import own_version
from rules_engine.service.documented import KEY_PLACES, PROBLEM, answer, keyed, operation
from rules_engine.service.problems import Reply, json_reply
from rules_engine.service.requests import HttpRequest
from rules_engine.service.routes import Route


def with_document(routes: Sequence[Route]) -> list[Route]:
    """Return the routes, and one that describes all of them."""

    async def openapi(_request: HttpRequest) -> Reply:
        return json_reply(describe(every))

    summary = operation("This document", answer("OpenAPI 3.1", {"type": "object"}))
    every = [*routes, Route("GET", "/openapi.json", openapi, None, summary)]
    return every


def describe(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the routes."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "feast-segments",
            "version": own_version(),
            "description": "Who is in which segment, why, and until when.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": {"problem": PROBLEM},
            "securitySchemes": KEY_PLACES,
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    """Return a route's operation, with its key and what every route may answer."""
    refusal = {
        "description": "The request is refused, or cannot be answered now.",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/problem"}}},
    }
    security = {} if route.role is None else keyed(route.role, "bearer", "header")
    responses = {"4XX": refusal, "5XX": refusal, **route.operation["responses"]}
    named = {} if "operationId" in route.operation else {"operationId": route.handler.__name__}
    return {**named, **route.operation, **security, "responses": responses}
