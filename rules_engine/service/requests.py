"""A request as routes see it: its key, its path, and its body, read within bounds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote

import orjson

from rules_engine.service.core import Service
from rules_engine.service.keys import Key
from rules_engine.service.problems import Problem, Receive, Scope


@dataclass(slots=True)
class HttpRequest:
    """One request.

    Attributes
    ----------
    service
        what all routes share.
    scope
        the request as ASGI has it.
    key
        the key that it brought; None where a route needs none.
    body
        all of its body.
    """

    service: Service
    scope: Scope
    key: Key | None = None
    body: bytes = b""
    _query: dict[str, list[str]] | None = field(default=None, repr=False)

    def path(self, name: str) -> str:
        """Return a part of the path, as ``{name}`` in the route's path marks it."""
        return unquote(self.scope["path_params"][name])

    def header(self, name: bytes) -> bytes | None:
        """Return a header by its name in small letters; None if it is not there."""
        return next((value for sent, value in self.scope["headers"] if sent == name), None)

    def query(self, name: str) -> list[str]:
        """Return the values of a parameter in the query, which may be given several times.

        Raises
        ------
        Problem
            if there are too many parameters.
        """
        if self._query is None:
            try:
                text = self.scope["query_string"].decode("latin-1")
                self._query = parse_qs(text, keep_blank_values=True, max_num_fields=1_000)
            except ValueError:
                raise Problem(400, "too-many-parameters", "the query has more than 1,000 parameters") from None
        return self._query.get(name, [])

    def json(self) -> Any:
        """Return the body as JSON.

        Raises
        ------
        Problem
            if it is none.
        """
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError as error:
            raise Problem(400, "invalid-json", f"the body is not JSON: {error}") from None

    def json_object(self) -> dict[str, Any]:
        """Return the body as a JSON object.

        Raises
        ------
        Problem
            if it is none.
        """
        content = self.json()
        if not isinstance(content, dict):
            raise Problem(400, "invalid-body", "the body is JSON, but not an object")
        return content


async def read_body(receive: Receive, limit: int) -> bytes:
    """Return the body of a request.

    Raises
    ------
    Problem
        if it is larger than the limit, in bytes, or the client went away.
    """
    message = await receive()
    body: bytes = message.get("body", b"")
    if message["type"] == "http.request" and not message.get("more_body") and len(body) <= limit:
        return body
    parts, size = [body], len(body)
    while message.get("more_body") and size <= limit:
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
    if message["type"] == "http.disconnect":
        raise Problem(400, "incomplete-body", "the connection ended before the body")
    if size > limit:
        raise Problem(413, "too-large", f"the body is larger than {limit:,} bytes", headers=[(b"connection", b"close")])
    return b"".join(parts)
