"""Answers about one user and about segments: memberships, features, explanations, history, members."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson

from rules_engine.clock import format_instant, from_micros, parse_instant, to_micros
from rules_engine.diagnostics import nearest
from rules_engine.errors import UnknownNameError
from rules_engine.rules.settings.nodes import Role
from rules_engine.service.documented import INSTANT, answer, array, operation, path_parameter, query_parameter, schema
from rules_engine.service.members import Members
from rules_engine.service.problems import Problem, Reply, json_reply
from rules_engine.service.requests import HttpRequest
from rules_engine.service.routes import Route

#: So many members, or steps of a history, are in one page at most.
MAX_PAGE = 10_000

_TEXT = {"type": "string"}
_OPTIONAL_INSTANT = {"type": ["string", "null"], "format": "date-time"}
_ID = path_parameter("id", "The user's key; a slash in it is written as %2F.")
_NAME = path_parameter("name", "The segment's name.")
_AT = query_parameter("at", "The instant that counts as now.", INSTANT)
_CONTEXT = query_parameter("context", "Values for conditions on the context: a JSON object.", _TEXT)
_LIMIT = query_parameter("limit", "How many at most.", {"type": "integer", "minimum": 1, "maximum": MAX_PAGE})

_MEMBERSHIP = schema(
    {
        "entity": _TEXT,
        "segments": array(_TEXT),
        "at": INSTANT,
        "changes_at": _OPTIONAL_INSTANT,
        "undecided": array(_TEXT),
    },
    optional=("undecided",),
)
_EXPLANATION = schema(
    {
        "entity": _TEXT,
        "segment": _TEXT,
        "verdict": {"type": ["boolean", "null"]},
        "at": INSTANT,
        "changes_at": _OPTIONAL_INSTANT,
        "reason": {"type": "object"},
        "joined": {"type": "object", "additionalProperties": INSTANT},
        "nearest_miss": array({"type": "object"}),
        "text": _TEXT,
    }
)
_SEGMENT = {
    "name": _TEXT,
    "description": _TEXT,
    "owner": _TEXT,
    "tags": array(_TEXT),
    "public": {"type": "boolean"},
}
_SEGMENTS = schema({"segments": array(schema(_SEGMENT)), "definitions_version": _TEXT})
_MEMBERS = schema(
    {
        **_SEGMENT,
        "size": {"type": "integer"},
        "members": array(_TEXT),
        "next": {"type": ["string", "null"], "description": "Give it as `after` to get the next page."},
        "as_of": INSTANT,
    }
)
_HISTORY = schema(
    {
        "entity": _TEXT,
        "history": array(
            schema(
                {
                    "entity": _TEXT,
                    "segment": _TEXT,
                    "change": {"enum": ["enter", "exit", "baseline"]},
                    "at": INSTANT,
                    "cause": _TEXT,
                    "definitions_version": _TEXT,
                }
            )
        ),
    }
)


def routes() -> list[Route]:
    """Return the operations that read; all of them need a key of the role ``read``."""
    members = Members()

    async def segment(request: HttpRequest) -> Reply:
        return await _segment(request, members)

    segment_name = query_parameter("segment", "Only these segments.", _TEXT, several=True)
    feature_name = query_parameter("feature", "Only these features, as `view:name`.", _TEXT, several=True)
    after = query_parameter("after", "The `next` of the page before.", _TEXT)
    user = "/v1/users/{id}"
    return [
        _get(f"{user}/segments", user_segments, "Segments of a user", _MEMBERSHIP, _ID, segment_name, _CONTEXT, _AT),
        _get(
            f"{user}/features",
            user_features,
            "Features of a user",
            schema({"entity": _TEXT, "features": {"type": "object"}}),
            _ID,
            feature_name,
        ),
        _get(f"{user}/explain/{{name}}", user_explanation, "Why a user is in a segment", _EXPLANATION, _ID, _NAME,
             _CONTEXT, _AT),
        _get(f"{user}/history", user_history, "What a user entered and left", _HISTORY, _ID, _LIMIT),
        _get("/v1/segments", segments, "All segments", _SEGMENTS),
        _get("/v1/segments/{name}", segment, "A segment and its members", _MEMBERS, _NAME, _LIMIT, after),
    ]  # fmt: skip


def _get(path: str, handler: Any, summary: str, content: dict[str, Any], *parameters: dict[str, Any]) -> Route:
    return Route("GET", path, handler, Role.READ, operation(summary, answer(summary, content), *parameters))


async def user_segments(request: HttpRequest) -> Reply:
    """Answer which segments a user is in."""
    names = request.query("segment") or None
    membership, _ = await request.service.ask(
        request.key, request.path("id"), _context(request), names, at=_instant(request, "at")
    )
    content = membership.to_dict()
    del content["error"]  # an error is no membership here
    return json_reply(content)


async def user_features(request: HttpRequest) -> Reply:
    """Answer with the values of a user's features."""
    entity = request.path("id")
    features = await request.service.client.features(entity, request.query("feature") or None)
    return json_reply({"entity": entity, "features": plain(features)})


async def user_explanation(request: HttpRequest) -> Reply:
    """Answer why a user is in a segment, or is not."""
    context = request.service.read_context(_context(request))
    explanation = await request.service.client.explain(
        request.path("id"), request.path("name"), context=context, at=_instant(request, "at")
    )
    return json_reply({**plain(explanation.to_dict()), "text": str(explanation)})


async def user_history(request: HttpRequest) -> Reply:
    """Answer what a user entered and left, the latest first."""
    from rules_engine.stream.ledger import Ledger  # loads pyarrow

    entity = request.path("id")
    ledger = Ledger.of(request.service.project)
    rows = await asyncio.to_thread(ledger.transitions, entity=entity, limit=_limit(request, 100))
    return json_reply({"entity": entity, "history": [plain(_without_key(row)) for row in rows]})


async def segments(request: HttpRequest) -> Reply:
    """Answer with all segments, without who is in them."""
    client = request.service.client
    described = [_described(client.program.segment(name)) for name in client.program.names]
    return json_reply({"segments": described, "definitions_version": client.plan.definitions_version})


async def _segment(request: HttpRequest, members: Members) -> Reply:
    """Answer with a segment and a page of its members."""
    service, name = request.service, request.path("name")
    if name not in service.client.program.segments:
        raise UnknownNameError(f"there is no segment `{name}`", hint=nearest(name, service.client.program.names))
    page = await members.page(service.project, name, (request.query("after") or [""])[-1], _limit(request, 100))
    return json_reply({**_described(service.client.program.segment(name)), **page})


def _described(segment: Any) -> dict[str, Any]:
    return {
        "name": segment.name,
        "description": segment.description,
        "owner": segment.owner,
        "tags": list(segment.tags),
        "public": segment.public,
    }


def _without_key(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "key"}


def plain(value: Any) -> Any:
    """Return a value as JSON has it: instants as ISO 8601, bytes as text where they are some."""
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        return format_instant(to_micros(value))
    if isinstance(value, int) and abs(value) >= 2**63:
        return float(value)
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _context(request: HttpRequest) -> dict[str, Any]:
    texts = request.query("context")
    if not texts:
        return {}
    try:
        content = orjson.loads(texts[-1])
    except orjson.JSONDecodeError as error:
        raise Problem(400, "invalid-context", f"`context` is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise Problem(400, "invalid-context", "`context` is JSON, but not an object")
    return content


def _instant(request: HttpRequest, name: str) -> datetime | None:
    texts = request.query(name)
    if not texts:
        return None
    try:
        return from_micros(parse_instant(texts[-1]))
    except (ValueError, OverflowError) as error:
        raise Problem(400, "invalid-instant", f"`{name}`: {error}", "write e.g. 2026-01-31T09:00:00Z") from None


def _limit(request: HttpRequest, default: int) -> int:
    texts = request.query("limit")
    if not texts:
        return default
    if not (texts[-1].isascii() and texts[-1].isdigit() and 1 <= int(texts[-1][:9]) <= MAX_PAGE):
        raise Problem(400, "invalid-limit", f"`limit` is a number from 1 to {MAX_PAGE:,}")
    return int(texts[-1])
