"""The paths of the tracking API: who may report, what came, and what is answered.

An SDK whose batch is refused drops it or sends it for ever, so what is wrong with single messages fails no request:
they are set aside with their reason, the others count, and the answer says how many of each there were.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import orjson

from rules_engine.clock import now_micros
from rules_engine.events.declarations.validation import MAX_BYTES, Rejection
from rules_engine.events.declarations.vocabulary import Vocabulary
from rules_engine.events.refused import Refused
from rules_engine.rules.settings.nodes import Role
from rules_engine.sdk.tracking import Report, Tracker
from rules_engine.service.keys import authorize, secret_in
from rules_engine.service.problems import Problem, Reply, json_reply
from rules_engine.service.requests import HttpRequest
from rules_engine.service.routes import Handler, Route
from rules_engine.service.tracking.cloudevents import BATCH, STRUCTURED, from_headers, read_cloud_event
from rules_engine.service.tracking.messages import refused
from rules_engine.service.tracking.operations import (
    batch_operation,
    cloud_events_operation,
    message_operation,
    metrics_operation,
    settings_operation,
)
from rules_engine.service.tracking.segment import Arrival, read_message, size_problem

#: The largest body of a batch, and of a single message with what SDKs put around it, in bytes; unpacked.
MAX_BATCH, MAX_MESSAGE = 500 * 1024, 40 * 1024

#: The most messages of a batch: what is small may still be much work.
MAX_MESSAGES = 2_500

#: Of a batch, so many refusals are shown in the answer.
_SHOWN = 20

#: By what the path ends with: what a message is. The short ones are those of the browser.
_KINDS = {kind: kind for kind in ("track", "identify", "page", "screen", "group", "alias")}
_SHORT = {"t": "track", "i": "identify", "p": "page", "s": "screen", "g": "group", "a": "alias"}

#: Reads messages by the names that are declared.
_Read = Callable[[Vocabulary], list[Report | Refused]]


def routes() -> list[Route]:
    """Return the operations that take events."""
    paths = {f"/v1/{name}": kind for name, kind in (_KINDS | _SHORT).items()}
    paths |= {f"/{name}": kind for name, kind in _SHORT.items()}
    return [
        *(_batches(path, batch, "Report messages") for path in ("/v1/batch", "/v1/b", "/b", "/beacon/v1/batch")),
        _batches("/v1/import", import_batch, "Report messages of what happened long ago"),
        *(_messages(path, kind) for path, kind in paths.items()),
        *(Route("POST", path, drop_metrics, None, metrics_operation(path), MAX_MESSAGE) for path in ("/v1/m", "/m")),
        Route("GET", "/v1/projects/{key}/settings", browser_settings, None, settings_operation()),
        Route("POST", "/v1/cloudevents", cloud_events, None, cloud_events_operation(), MAX_BATCH),
    ]


def _batches(path: str, handler: Handler, summary: str) -> Route:
    return Route("POST", path, handler, None, batch_operation(path, summary), MAX_BATCH)


def _messages(path: str, kind: str) -> Route:
    return Route("POST", path, partial(message, kind), None, message_operation(path, kind), MAX_MESSAGE)


async def batch(request: HttpRequest) -> Reply:
    """Take the messages of a batch, with the sender's clock corrected."""
    return await _take_batch(request, corrects_clock=True)


async def import_batch(request: HttpRequest) -> Reply:
    """Take the messages of a batch of what happened long ago, at the instants that they name."""
    return await _take_batch(request, corrects_clock=False)


async def message(kind: str, request: HttpRequest) -> Reply:
    """Take one message."""
    content = _body(request, MAX_MESSAGE)
    _authorize(request, content)
    arrival = Arrival(now_micros())
    return await _take(request, [content], lambda words: [read_message(content, kind, arrival, words)], "segment")


async def drop_metrics(_request: HttpRequest) -> Reply:
    """Accept what SDKs tell of themselves, and forget it."""
    return json_reply({"success": True})


async def browser_settings(request: HttpRequest) -> Reply:
    """Give the settings that Segment's SDK for browsers asks for: it sends to this service, and to nobody else."""
    key = request.path("key")
    authorize(request.service.keys, key, Role.TRACK)
    host = (request.header(b"host") or b"").decode("latin-1")
    segment = {"apiKey": key, "apiHost": f"{host}/v1", "protocol": request.scope["scheme"], "unbundledIntegrations": []}
    plan = {"track": {"__default": {"enabled": True}}, "identify": {"__default": {"enabled": True}}}
    return json_reply(
        {"integrations": {"Segment.io": segment}, "plan": plan, "metrics": {"sampleRate": 0}, "remotePlugins": []},
        headers=[(b"cache-control", b"private, max-age=300")],
    )


async def cloud_events(request: HttpRequest) -> Reply:
    """Take a CloudEvent, or a batch of them."""
    _authorize(request, None)
    kind = (request.header(b"content-type") or b"").decode("latin-1").partition(";")[0].strip().lower()
    content = _body(request, MAX_BATCH)
    if kind == BATCH:
        if not isinstance(content, list):
            raise Problem(400, "invalid-body", "a batch of CloudEvents is a JSON list")
        if len(content) > MAX_MESSAGES:
            raise Problem(413, "too-many-messages", f"a batch has at most {MAX_MESSAGES:,} messages")
        events = content
    else:
        events = [content if kind == STRUCTURED else from_headers(request.scope["headers"], content)]
    received = now_micros()

    def read(words: Vocabulary) -> list[Report | Refused]:
        return [read_cloud_event(event, received, words) for event in events]

    return await _take(request, events, read, "cloudevents")


# --- what they share ------------------------------------------------------------------------------------------------


async def _take_batch(request: HttpRequest, *, corrects_clock: bool) -> Reply:
    body = _body(request, MAX_BATCH)
    _authorize(request, body)
    messages = body.get("batch") if isinstance(body, dict) else None
    if not isinstance(messages, list):
        raise Problem(400, "invalid-body", "a batch is a JSON object with the messages in the list `batch`")
    if len(messages) > MAX_MESSAGES:
        raise Problem(413, "too-many-messages", f"a batch has at most {MAX_MESSAGES:,} messages")
    arrival = Arrival(now_micros(), body.get("sentAt"), corrects_clock)

    def read(words: Vocabulary) -> list[Report | Refused]:
        return [read_message(content, None, arrival, words) for content in messages]

    return await _take(request, messages, read, "segment")


async def _take(request: HttpRequest, messages: Sequence[object], read: _Read, source: str) -> Reply:
    def take(tracker: Tracker) -> list[Rejection | None]:
        reports = read(tracker.vocabulary)
        if len(request.body) > MAX_BYTES or request.header(b"content-encoding"):
            sizes = map(size_problem, messages)
            checked = zip(messages, reports, sizes, strict=True)
            reports = [refused(content, size) if size else report for content, report, size in checked]
        return tracker.take(reports, source)

    rejections = await request.service.client.report(take)
    outcomes = ("taken" if rejection is None else rejection.code for rejection in rejections)
    request.service.metrics.reported(source, outcomes)
    refusals = [
        {"index": index, "code": rejection.code, "message": rejection.message}
        for index, rejection in enumerate(rejections)
        if rejection is not None
    ]
    taken = len(rejections) - len(refusals)
    return json_reply({"success": True, "taken": taken, "refused": len(refusals), "reasons": refusals[:_SHOWN]})


def _authorize(request: HttpRequest, content: Any) -> None:
    """Check the key: in the headers, in the query, or in the body."""
    secret = secret_in(request.scope["headers"])
    if secret is None and isinstance(content, dict):
        write_key = content.get("writeKey")
        secret = write_key if isinstance(write_key, str) else None
    if secret is None:
        secret = next(iter(request.query("writeKey")), None)
    request.key = authorize(request.service.keys, secret, Role.TRACK)


def _body(request: HttpRequest, limit: int) -> Any:
    """Return the body as JSON, unpacked if it is packed; it is not unpacked beyond the limit.

    Raises
    ------
    Problem
        if it is packed in another way than gzip, damaged, too large, or no JSON.
    """
    encoding = (request.header(b"content-encoding") or b"identity").strip().lower()
    body = request.body
    if encoding in (b"gzip", b"x-gzip"):
        body = _unpacked(body, limit)
    elif encoding != b"identity":
        raise Problem(415, "unknown-encoding", "the body may be packed with gzip only")
    try:
        return orjson.loads(body) if body else None
    except orjson.JSONDecodeError as error:
        raise Problem(400, "invalid-json", f"the body is not JSON: {error}") from None


def _unpacked(body: bytes, limit: int) -> bytes:
    unpacking = zlib.decompressobj(wbits=31)
    try:
        content = unpacking.decompress(body, limit + 1)
    except zlib.error:
        raise Problem(400, "invalid-gzip", "the body is not what gzip makes") from None
    if len(content) > limit or not unpacking.eof:
        if len(content) <= limit:
            raise Problem(400, "invalid-gzip", "the packed body ends too early")
        raise Problem(413, "too-large", f"the unpacked body is larger than {limit:,} bytes")
    return content
