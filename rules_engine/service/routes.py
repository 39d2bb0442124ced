"""A route, and what is done for every request of every route: key, limits, errors, log and metrics."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rules_engine.errors import (
    DataError,
    NotAppliedError,
    SegmentsError,
    StoreError,
    StoreTimeoutError,
    UnknownNameError,
    UnsupportedError,
)
from rules_engine.installed import CLIENT, WHOLE, is_whole
from rules_engine.rules.settings.nodes import Role
from rules_engine.service.core import Service
from rules_engine.service.keys import authorize, secret_in
from rules_engine.service.problems import Problem, Receive, Reply, Scope, Send, problem_reply
from rules_engine.service.requests import HttpRequest, read_body

#: Returns what is sent: a :class:`Reply`, a response of Starlette, or any other ASGI application.
Handler = Callable[[HttpRequest], Awaitable[Any]]

_log = logging.getLogger("rules_engine.service")

#: The largest sum of the headers of a request, in bytes.
MAX_HEADERS = 16 * 1024

_CLOSE = (b"connection", b"close")


@dataclass(frozen=True, slots=True)
class Route:
    """One operation of the service.

    Attributes
    ----------
    method, path
        as in ``GET /v1/users/{id}/segments``; :meth:`HttpRequest.path` gives the part named ``id``.
    handler
        answers; it may raise :class:`Problem` or any error of this package.
    role
        what a key has to allow; None if no key is needed, or the handler looks itself.
    operation
        its OpenAPI operation: ``summary``, ``parameters``, ``requestBody``, ``responses``; and the
        key, if the handler looks itself.
    body_limit
        the largest body in bytes; 0 if it takes none.
    seconds
        how long the body and the handler may take together.
    refusal
        makes the reply to a problem, where a protocol has a form of its own.
    """

    method: str
    path: str
    handler: Handler
    role: Role | None
    operation: Mapping[str, Any] = field(repr=False)
    body_limit: int = 0
    seconds: float = 10.0
    refusal: Callable[[HttpRequest, Problem], Reply] = lambda _request, problem: problem_reply(problem)


class Endpoint:
    """A route as an ASGI application.

    Parameters
    ----------
    route
        what it does.
    service
        what all routes share; a function, for it is opened after routes are made.
    """

    def __init__(self, route: Route, service: Callable[[], Service]) -> None:
        self._route = route
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started = time.perf_counter()
        service = self._service()
        request = HttpRequest(service, scope)
        if service.telemetry is None:
            reply = await self._reply(request, receive)
        else:
            with service.telemetry.request(scope["method"], self._route.path, scope["headers"]) as span:
                reply = await self._reply(request, receive)
                service.telemetry.answered(span, getattr(reply, "status_code", 200))
        if service.draining and isinstance(reply, Reply):
            reply.headers.append(_CLOSE)
        seconds = time.perf_counter() - started
        service.note(self._route.path, scope["method"], getattr(reply, "status_code", 200), seconds)
        await reply(scope, receive, send)

    async def _reply(self, request: HttpRequest, receive: Receive) -> Any:
        try:
            return await self._answer(request, receive)
        except Problem as problem:
            return self._route.refusal(request, problem)

    async def _answer(self, request: HttpRequest, receive: Receive) -> Any:
        route = self._route
        try:
            async with asyncio.timeout(route.seconds):
                headers = request.scope["headers"]
                if sum(len(name) + len(value) for name, value in headers) > MAX_HEADERS:
                    raise Problem(431, "headers-too-large", f"the headers are larger than {MAX_HEADERS:,} bytes")
                if route.role is not None:
                    request.key = authorize(request.service.keys, secret_in(headers), route.role)
                if route.body_limit:
                    request.body = await read_body(receive, route.body_limit)
                return await route.handler(request)
        except SegmentsError as error:
            raise problem_of(error) from error
        except TimeoutError:
            raise Problem(503, "timeout", f"it took longer than {route.seconds:g} seconds") from None
        except Problem:
            raise
        except Exception as error:
            if isinstance(error, ModuleNotFoundError) and not is_whole():
                raise _beyond_the_client(error) from error
            _log.exception("a request failed", extra={"route": route.path})
            raise Problem(500, "internal", "the service failed to answer; its log says where") from error


def _beyond_the_client(error: ModuleNotFoundError) -> Problem:
    message = f"this needs {error.name}, which {CLIENT} does not bring"
    return Problem(501, "not-installed", message, f"let a service with {WHOLE} answer it")


#: By error, the status and the code of its problem; the first that fits counts.
_PROBLEMS: tuple[tuple[type[SegmentsError], int, str], ...] = (
    (UnknownNameError, 404, "unknown-name"),
    (DataError, 400, "invalid-data"),
    (UnsupportedError, 422, "unsupported"),
    (NotAppliedError, 503, "not-applied"),
    (StoreTimeoutError, 503, "store-timeout"),
    (StoreError, 503, "store"),
)


def problem_of(error: SegmentsError) -> Problem:
    """Return an error of this package as a problem.

    >>> problem = problem_of(UnknownNameError("there is no segment `vpi`"))
    >>> problem.status, problem.code
    (404, 'unknown-name')
    """
    for cls, status, code in _PROBLEMS:
        if isinstance(error, cls):
            headers = [(b"retry-after", b"1")] if status == 503 else []
            return Problem(status, code, str(error), error.hint, headers)
    return Problem(500, "internal", str(error), error.hint)
