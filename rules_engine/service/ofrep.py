"""OpenFeature's remote protocol (OFREP 0.3), so that the OpenFeature SDK of any language asks.

A segment is a boolean flag, true if the entity ``targetingKey`` is in it; a decision is a flag of its type. What else
the evaluation context holds is the ``context:`` of conditions.
"""

from __future__ import annotations

from datetime import datetime
from hashlib import blake2b
from typing import Any

import orjson

from rules_engine.clock import format_instant, to_micros
from rules_engine.read_plan import ReadPlan
from rules_engine.rules.decisions.choosing import ChoiceReason
from rules_engine.rules.settings.nodes import Role
from rules_engine.sdk import Assignment
from rules_engine.service.documented import INSTANT, answer, array, operation, path_parameter, schema
from rules_engine.service.problems import Problem, Reply, json_reply
from rules_engine.service.requests import HttpRequest
from rules_engine.service.routes import Route

#: The largest evaluation context, in bytes.
MAX_BODY = 64 * 1024

_UNDECIDED = "more events of this entity came than the online store keeps, so the answer is not known here"

#: By the code of a problem, the error code of OpenFeature; all others are GENERAL.
_ERROR_CODES = {
    "unknown-name": "FLAG_NOT_FOUND",
    "no-targeting-key": "TARGETING_KEY_MISSING",
    "invalid-context": "INVALID_CONTEXT",
    "invalid-data": "INVALID_CONTEXT",
    "invalid-json": "PARSE_ERROR",
    "invalid-body": "PARSE_ERROR",
    "incomplete-body": "PARSE_ERROR",
}


_TEXT = {"type": "string"}
_VALUE = {"description": "Absent where the variant has the value null: callers then take their default."}
_FLAG = schema({"key": _TEXT, "value": _VALUE, "reason": _TEXT, "variant": _TEXT}, optional=("value",))
_METADATA = schema({"definitions_version": _TEXT, "changes_at": INSTANT}, optional=("changes_at",))
_SUCCESS = schema({**_FLAG["properties"], "metadata": {"type": "object"}}, optional=("value",))
_FAILURE = schema({"key": _TEXT, "errorCode": _TEXT, "errorDetails": _TEXT}, optional=("key",))
_FLAGS = schema({"flags": array({"anyOf": [_FLAG, _FAILURE]}), "metadata": _METADATA})
_ASKED = schema({"context": {**schema({"targetingKey": {"type": "string", "minLength": 1}}), "description": "Who."}})


def routes() -> list[Route]:
    """Return the two operations of the protocol."""
    path = "/ofrep/v1/evaluate/flags"
    key = path_parameter("key", "The name of a segment or a decision.")
    tag = {"name": "If-None-Match", "in": "header", "schema": _TEXT, "description": "The ETag of the answer before."}
    refused = {status: answer("Refused", _FAILURE)["200"] for status in ("4XX", "5XX")}
    single = operation(
        "Is somebody in a segment, or what do they get", answer("The answer", _SUCCESS) | refused, key, body=_ASKED
    )
    unchanged = {"304": {"description": "The answer is the same."}}
    every = operation(
        "Which segments is somebody in, and what do they get",
        answer("The answers", _FLAGS) | unchanged | refused,
        tag,
        body=_ASKED,
    )
    return [
        Route("POST", path + "/{key}", evaluate_flag, Role.EVALUATE, single, MAX_BODY, refusal=_refusal),
        Route("POST", path, evaluate_flags, Role.EVALUATE, every, MAX_BODY, refusal=_bulk_refusal),
    ]


async def evaluate_flag(request: HttpRequest) -> Reply:
    """Answer whether an entity is in one segment, or with the value that a decision gives it."""
    flag = request.path("key")
    entity, context = _evaluation_context(request)
    if flag in request.service.decisions(request.key):
        assignments, plan = await request.service.decide(request.key, entity, context, [flag])
        assignment = assignments[flag]
        if assignment.is_undecided:
            raise Problem(400, "undecided", _UNDECIDED)
        metadata = {**_metadata(assignment.changes_at, plan), "because": assignment.reason()}
        return _evaluated(request, _decided(assignment), metadata)
    membership, plan = await request.service.ask(request.key, entity, context, [flag])
    if flag in membership.undecided:
        raise Problem(400, "undecided", _UNDECIDED)
    result = _success(flag, flag in membership.segments)
    return _evaluated(request, result, _metadata(membership.changes_at, plan))


def _evaluated(request: HttpRequest, result: dict[str, Any], metadata: dict[str, Any]) -> Reply:
    """Answer with the result of an evaluation, and tell it to telemetry."""
    if request.service.telemetry is not None:
        version = metadata["definitions_version"]
        request.service.telemetry.evaluated(result["key"], result["variant"], result["reason"], version)
    return json_reply(result | {"metadata": metadata})


async def evaluate_flags(request: HttpRequest) -> Reply:
    """Answer which segments an entity is in, and what it gets of decisions; 304 if the caller has the answer."""
    entity, context = _evaluation_context(request)
    service = request.service
    membership, plan = await service.ask(request.key, entity, context)
    undecided = membership.undecided
    flags = [
        _success(name, name in membership.segments) if name not in undecided else _failure("GENERAL", _UNDECIDED, name)
        for name in service.visible(request.key)
    ]
    assignments, _ = await service.decide(request.key, entity, context)
    flags += [
        _failure("GENERAL", _UNDECIDED, name) if assignment.is_undecided else _decided(assignment)
        for name, assignment in assignments.items()
    ]
    changes = [membership.changes_at, *(assignment.changes_at for assignment in assignments.values())]
    first = min((change for change in changes if change is not None), default=None)
    body = orjson.dumps({"flags": flags, "metadata": _metadata(first, plan)})
    tag = b'"%b"' % blake2b(body, digest_size=12).hexdigest().encode()
    if _has(request.header(b"if-none-match"), tag):
        return Reply(304, b"", [(b"etag", tag)])
    return Reply(200, body, [(b"content-type", b"application/json"), (b"etag", tag)])


def _evaluation_context(request: HttpRequest) -> tuple[str, dict[str, Any]]:
    context = request.json_object().get("context")
    if not isinstance(context, dict):
        hint = 'write {"context": {"targetingKey": "42"}}'
        raise Problem(400, "invalid-context", "the body has no `context` that is an object", hint)
    entity = context.pop("targetingKey", None)
    if entity is None or entity == "":
        raise Problem(400, "no-targeting-key", "the context has no `targetingKey`, the key of the one asked about")
    if not isinstance(entity, str):
        raise Problem(400, "invalid-context", "the `targetingKey` is not a string")
    return entity, context


def _success(flag: str, value: bool) -> dict[str, Any]:
    return {"key": flag, "value": value, "reason": "TARGETING_MATCH", "variant": "in" if value else "out"}


def _decided(assignment: Assignment) -> dict[str, Any]:
    by_bucket = assignment.choice.reason in (ChoiceReason.SPLIT, ChoiceReason.EXPERIMENT)
    value = assignment.value
    return {
        "key": assignment.decision,
        **({} if value is None else {"value": value}),
        "reason": "SPLIT" if by_bucket else "TARGETING_MATCH",
        "variant": assignment.variant,
    }


def _metadata(changes_at: datetime | None, plan: ReadPlan) -> dict[str, Any]:
    until = {} if changes_at is None else {"changes_at": format_instant(to_micros(changes_at))}
    return {"definitions_version": plan.definitions_version, **until}


def _failure(code: str, message: str, flag: str | None = None) -> dict[str, Any]:
    return {**({} if flag is None else {"key": flag}), "errorCode": code, "errorDetails": message}


def _refusal(request: HttpRequest, problem: Problem) -> Reply:
    return _refused(problem, request.path("key"))


def _bulk_refusal(_request: HttpRequest, problem: Problem) -> Reply:
    return _refused(problem, None)


def _refused(problem: Problem, flag: str | None) -> Reply:
    details = f"{problem.message}; {problem.hint}" if problem.hint else problem.message
    return json_reply(
        _failure(_ERROR_CODES.get(problem.code, "GENERAL"), details, flag), problem.status, problem.headers
    )


def _has(if_none_match: bytes | None, tag: bytes) -> bool:
    """Tell whether a caller's ``If-None-Match`` has a tag."""
    if if_none_match is None:
        return False
    return if_none_match.strip() == b"*" or tag in (
        tags.strip().removeprefix(b"W/") for tags in if_none_match.split(b",")
    )
