"""Refusals of requests, and replies: what a route gives back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import orjson

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

Headers = Iterable[tuple[bytes, bytes]]

_JSON = (b"content-type", b"application/json")


class Reply:
    """A reply whose body is known. It is an ASGI application, as the responses of Starlette are."""

    __slots__ = ("body", "headers", "status_code")

    def __init__(self, status_code: int, body: bytes = b"", headers: Headers = (_JSON,)) -> None:
        self.status_code = status_code
        self.body = body
        self.headers = [*headers, (b"content-length", b"%d" % len(body))]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 (ASGI's signature)
        """Send the reply."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else self.body})


def json_reply(data: Any, status: int = 200, headers: Headers = ()) -> Reply:
    """Return data as a reply of JSON.

    >>> json_reply({"ok": True}).body
    b'{"ok":true}'
    """
    return Reply(status, orjson.dumps(data), (_JSON, *headers))


class Problem(Exception):
    """A request that is refused.

    Parameters
    ----------
    status
        the HTTP status.
    code
        the kind of problem, for programs: stable words with hyphens.
    message
        what is wrong, for people.
    hint
        what to do.
    headers
        further headers of the reply.
    """

    def __init__(self, status: int, code: str, message: str, hint: str | None = None, headers: Headers = ()) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.hint = hint
        self.headers = tuple(headers)


def problem_reply(problem: Problem) -> Reply:
    """Return a problem as JSON: RFC 9457, with the members ``code`` and ``hint``.

    >>> problem_reply(Problem(404, "unknown-path", "there is nothing")).body
    b'{"title":"unknown path","status":404,"detail":"there is nothing","code":"unknown-path"}'
    """
    content = {
        "title": problem.code.replace("-", " "),
        "status": problem.status,
        "detail": problem.message,
        "code": problem.code,
        **({"hint": problem.hint} if problem.hint else {}),
    }
    headers = ((b"content-type", b"application/problem+json"), *problem.headers)
    return Reply(problem.status, orjson.dumps(content), headers)
