"""A stream of server-sent events: what an entity enters and leaves, and OFREP's request to evaluate anew.

::

    GET /v1/users/42/stream

    id: 1772323200000-0
    event: enter
    data: {"entity":"42","segment":"vip","change":"enter","at":"2026-03-01T00:00:00Z","cause":"timer", ...}

    id: 1772323200000-0
    data: {"type":"refetchEvaluation"}

A reader that was cut off begins where it was by sending ``Last-Event-ID``, as browsers do by themselves. If what it
missed is not known any more, it is asked to evaluate anew.
"""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from rules_engine.rules.settings.nodes import Role
from rules_engine.service.documented import answer, keyed, operation, path_parameter
from rules_engine.service.keys import authorize, secret_in
from rules_engine.service.problems import Problem, Receive, Scope, Send
from rules_engine.service.push.hub import Hub, Subscription
from rules_engine.service.push.recent import Position, read_position
from rules_engine.service.requests import HttpRequest
from rules_engine.service.routes import Route

#: Seconds between two signs of life.
HEARTBEAT = 15.0

#: Seconds in which a reader has to take what is sent to it.
PATIENCE = 10.0

_HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # a proxy that collects would hold messages back
]


def routes() -> list[Route]:
    """Return the operation that opens a stream."""
    summary = "What a user enters and leaves, as it happens"
    user = path_parameter("id", "The user's key; a slash in it is written as %2F.")
    messages = answer("Server-sent events", None, text="text/event-stream")
    last = {"name": "Last-Event-ID", "in": "header", "schema": {"type": "string"}, "description": "What is known."}
    key = keyed(Role.EVALUATE, "bearer", "header", "query")
    return [Route("GET", "/v1/users/{id}/stream", open_stream, None, operation(summary, messages, user, last, **key))]


async def open_stream(request: HttpRequest) -> EventStream:
    """Open the stream of an entity. A browser cannot send headers here, so the key may be in the query."""
    secret = secret_in(request.scope["headers"]) or next(iter(request.query("key")), None)
    service = request.service
    request.key = authorize(service.keys, secret, Role.EVALUATE)
    if service.hub.is_full or service.draining:
        message = "this process ends" if service.draining else "this process has as many streams as it takes"
        raise Problem(503, "no-stream", message, "try again", [(b"retry-after", b"1")])
    visible = service.is_public if request.key.role is Role.EVALUATE else None
    subscription = Subscription(request.path("id"), visible)
    return EventStream(service.hub, subscription, _last_position(request))


def _last_position(request: HttpRequest) -> Position | None:
    """Return what the reader has already; None if it begins.

    Raises
    ------
    Problem
        if it is no id of ours.
    """
    last = request.header(b"last-event-id")
    if not last:
        return None
    try:
        return read_position(last.decode("latin-1"))
    except ValueError:
        raise Problem(
            400, "invalid-id", "`Last-Event-ID` is an `id:` of this stream, such as 1772323200000-0"
        ) from None


class EventStream:
    """One open stream, as an ASGI application.

    Parameters
    ----------
    hub
        hands it the transitions.
    subscription
        what waits for the reader.
    after
        what the reader has already.
    """

    status_code = 200

    def __init__(self, hub: Hub, subscription: Subscription, after: Position | None) -> None:
        self._hub = hub
        self._subscription = subscription
        self._after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 (ASGI's signature)
        """Send until the reader goes away, or the stream ends."""
        gone = asyncio.create_task(self._end_with(receive))
        try:
            await self._hub.subscribe(self._subscription, self._after)
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            await self._send_all(send)
        finally:
            self._hub.unsubscribe(self._subscription)
            gone.cancel()

    async def _send_all(self, send: Send) -> None:
        subscription = self._subscription
        beginning = b"retry: 2000\n: open\nid: %b\n\n" % self._hub.position
        try:
            await _send_within(send, beginning)
            while subscription.ending is None:
                messages = await subscription.next(HEARTBEAT)
                if subscription.ending is None:
                    await _send_within(send, messages or b": alive\nid: %b\n\n" % self._hub.position)
        except TimeoutError:
            subscription.end("slow-reader")
        await _say_why(send, str(subscription.ending))

    async def _end_with(self, receive: Receive) -> None:
        """End the stream when the reader goes away."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._subscription.end("gone")


async def _send_within(send: Send, messages: bytes) -> None:
    async with asyncio.timeout(PATIENCE):
        await send({"type": "http.response.body", "body": messages, "more_body": True})


async def _say_why(send: Send, reason: str) -> None:
    """Send why the stream ends, if the reader takes it within a second."""
    last: dict[str, Any] = {
        "type": "http.response.body",
        "body": b"event: end\ndata: %b\n\n" % orjson.dumps({"reason": reason}),
    }
    try:
        async with asyncio.timeout(1):
            await send(last)
    except TimeoutError:
        return
