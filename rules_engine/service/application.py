"""One ASGI application from a list of routes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route as PathRoute
from starlette.routing import Router

from rules_engine.service.core import Service
from rules_engine.service.problems import Problem, Receive, Scope, Send, problem_reply
from rules_engine.service.routes import Endpoint, Route

_UNKNOWN = {404: ("unknown-path", "there is nothing at this path"), 405: ("wrong-method", "not with this method")}


class Application:
    """Routes requests to their endpoints, and opens and closes the service with the process that it runs in.

    Parameters
    ----------
    open_service
        opens what the routes share, when the process starts.
    routes
        what it answers; those asked most often come first.
    """

    def __init__(self, open_service: Callable[[], Service], routes: Sequence[Route]) -> None:
        self._open_service = open_service
        self._service: Service | None = None
        self._cors: tuple[tuple[str, ...], Any] = ((), self._route)
        paths = [PathRoute(route.path, Endpoint(route, self.service), methods=[route.method]) for route in routes]
        self._router = Router(paths, redirect_slashes=False, lifespan=self._lifespan)

    def service(self) -> Service:
        """Return the service, which is open while the application runs."""
        if self._service is None:
            raise RuntimeError("the application was not started")
        return self._service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or follow the server through its start and its end."""
        if scope["type"] != "http":
            await self._router(scope, receive, send)
            return
        origins = self.service().settings.cors
        if origins != self._cors[0]:
            self._cors = origins, _allowing(origins, self._route) if origins else self._route
        await self._cors[1](scope, receive, send)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self  # Starlette then raises what it refuses
        scope["path"] = scope["raw_path"].decode("latin-1")  # parts of a path may hold slashes, written as %2F
        try:
            await self._router(scope, receive, send)
        except HTTPException as error:
            code, message = _UNKNOWN[error.status_code]
            headers = [(name.lower().encode(), value.encode()) for name, value in (error.headers or {}).items()]
            await problem_reply(Problem(error.status_code, code, message, headers=headers))(scope, receive, send)
            self.service().note("", "", error.status_code, 0.0)

    @asynccontextmanager
    async def _lifespan(self, _app: object) -> AsyncIterator[None]:
        self._service = self._open_service()
        try:
            yield
        finally:
            await self._service.close()
            self._service = None


def _allowing(origins: Sequence[str], app: Any) -> CORSMiddleware:
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type", "If-None-Match", "X-API-Key"],
        expose_headers=["ETag", "Retry-After"],
        max_age=3600,
    )
