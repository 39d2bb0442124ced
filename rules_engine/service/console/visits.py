"""Do for every page of the console what must not be left out of any: session, role, tokens, headers, errors.

A page is a function of a :class:`Visit` that returns a :class:`Content`, or a reply of its own. It may raise
:class:`Problem` or any error of this package: the reader sees a page that says what is wrong and what to do.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, TypeVar
from urllib.parse import parse_qs, quote, urlsplit

from rules_engine.rules.settings.nodes import Role
from rules_engine.service.console.background import Answer, Background
from rules_engine.service.console.rendering import render
from rules_engine.service.console.sessions import ConsoleSession, cookie_header, cookie_in, find_session
from rules_engine.service.core import Service
from rules_engine.service.keys import GRANTS, admit
from rules_engine.service.problems import Headers, Problem, Reply
from rules_engine.service.requests import HttpRequest
from rules_engine.service.routes import Route

#: Seconds that a page may take. A page that waits for a count is asked for anew before.
SECONDS = 60.0

#: The largest form, in bytes: a definition file of the largest size, and what its characters take in a form.
MAX_FORM = 4_000_000

T = TypeVar("T")

#: Takes a while to import, with pyarrow. It is imported with the first page, in a thread: requests do not wait for it.
_HEAVY = "rules_engine.service.console.counting"

_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")

_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = [
    (b"content-type", b"text/html; charset=utf-8"),
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]


@dataclass(frozen=True, slots=True)
class Content:
    """Holds what a page shows: its template, and what the template is filled with."""

    template: str
    values: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200
    headers: Headers = ()


@dataclass(slots=True)
class Visit:
    """One look at a page.

    Attributes
    ----------
    request
        the request.
    session
        who looks; None where nobody is signed in.
    background
        what takes long.
    """

    request: HttpRequest
    session: ConsoleSession | None
    background: Background
    _form: dict[str, list[str]] | None = field(default=None, repr=False)
    _waited: bool = False

    @property
    def service(self) -> Service:
        """Return what all routes share."""
        return self.request.service

    def may(self, role: Role) -> bool:
        """Say whether who looks may do what a role may."""
        return self.session is not None and role in GRANTS[self.session.key.role]

    @property
    def sees_people(self) -> bool:
        """Say whether who looks may see single people; else their keys and values are left out."""
        return self.may(Role.READ)

    async def ask(self, function: Callable[..., T], *arguments: Any, quick: bool = False) -> Answer[T]:
        """Return what a function of the background gives, as far as it is there.

        A page with ``?wait`` in its address waits for the first answer that is not there yet; the script asks so.
        """
        answer = await self.background.ask(function, *arguments, quick=quick)
        if answer.is_pending and not self._waited and self.request.query("wait"):
            self._waited = True
            answer = await self.background.ask(function, *arguments, quick=quick, waits=True)
        return answer

    def query(self, name: str, default: str = "") -> str:
        """Return a parameter of the address."""
        values = self.request.query(name)
        return values[-1] if values else default

    def form(self, name: str, default: str = "") -> str:
        """Return a field of the form that was sent."""
        if self._form is None:
            try:
                text = self.request.body.decode("ascii")
                self._form = parse_qs(text, keep_blank_values=True, max_num_fields=2_000)
            except ValueError:
                raise Problem(400, "invalid-form", "the form cannot be read") from None
        values = self._form.get(name, [])
        return values[-1] if values else default

    def form_values(self, name: str) -> list[str]:
        """Return all values of a field."""
        self.form(name)
        return (self._form or {}).get(name, [])


Handler = Callable[[Visit], Awaitable[Content | Reply]]


def page(
    path: str,
    handler: Handler,
    background: Background,
    *,
    method: str = "GET",
    role: Role | None = Role.CONSOLE,
    changes: bool = False,
) -> Route:
    """Return a page as a route of the service.

    Parameters
    ----------
    path, method
        its address.
    handler
        makes it.
    background
        what takes long.
    role
        what who looks has to be allowed; None for pages that nobody has to sign in for.
    changes
        whether it changes something: a form then has to carry the session's token.
    """

    async def answer(request: HttpRequest) -> Reply:
        if _HEAVY not in sys.modules:
            await asyncio.to_thread(import_module, _HEAVY)
        visit = _visit(request, background)
        if role is not None:
            _check(visit, role)
        if method == "POST":
            _check_origin(request)
        if changes and not (visit.session and visit.session.owns(visit.form("token"))):
            raise Problem(
                403, "wrong-token", "the form is not of this session", "go back, reload the page, and send it"
            )
        content = await handler(visit)
        return content if isinstance(content, Reply) else _reply(visit, content)

    def refuse(request: HttpRequest, problem: Problem) -> Reply:
        if problem.code == "no-session" and method == "GET":
            return redirect(f"/console/sign-in?to={quote(_address(request), safe='')}")
        visit = Visit(request, None, background)
        if request.service.dev or problem.code != "wrong-host":
            visit.session = _session(request)
        values = {"title": "Not shown", "problem": problem, "active": ""}
        return _reply(visit, Content("problem.html", values, problem.status, problem.headers))

    body_limit = MAX_FORM if method == "POST" else 0
    return Route(method, path, answer, None, {}, body_limit, SECONDS, refuse)


def redirect(address: str, headers: Headers = ()) -> Reply:
    """Return a reply that leads to another page."""
    safe = quote(address, safe="/?&=%:+,~!*'()@;$-._").encode()
    return Reply(303, b"", [(b"location", safe), (b"cache-control", b"no-store"), *headers])


def own_address(text: str) -> str:
    r"""Return an address if it is one of the console's; else that of its first page.

    >>> own_address("/console/people/42"), own_address("//elsewhere.example/console"), own_address("/console\\\\x")
    ('/console/people/42', '/console', '/console')
    """
    parts = urlsplit(text)
    is_own = (
        not parts.scheme and not parts.netloc and (text == "/console" or text.startswith(("/console/", "/console?")))
    )
    return text if is_own and "\\" not in text and text.isprintable() else "/console"


def is_secure(request: HttpRequest) -> bool:
    """Say whether the request came over TLS."""
    return request.scope.get("scheme") == "https" or request.header(b"x-forwarded-proto") == b"https"


def _visit(request: HttpRequest, background: Background) -> Visit:
    if request.service.dev and _host(request) not in _LOCAL_HOSTS:
        message = "a service that runs with --dev shows the console to this machine only"
        raise Problem(403, "wrong-host", message, "open it at http://localhost, or run it with keys")
    return Visit(request, _session(request), background)


def _session(request: HttpRequest) -> ConsoleSession | None:
    return find_session(request.service.keys, cookie_in(request.header(b"cookie")))


def _check(visit: Visit, role: Role) -> None:
    if visit.session is None:
        raise Problem(401, "no-session", "nobody is signed in", "sign in with a key of the service")
    admit(visit.session.key, role)


def _check_origin(request: HttpRequest) -> None:
    """Refuse forms that another site sends, whatever cookies come with them."""
    site, origin = request.header(b"sec-fetch-site"), request.header(b"origin")
    is_ours = origin is None or urlsplit(origin.decode("latin-1")).netloc.encode() == request.header(b"host")
    if site not in (None, b"same-origin", b"none") or not is_ours:
        raise Problem(403, "other-site", "the form comes from another site", "open the console itself")


def _host(request: HttpRequest) -> str:
    return urlsplit(f"//{(request.header(b'host') or b'').decode('latin-1')}").hostname or ""


def _address(request: HttpRequest) -> str:
    query = request.scope["query_string"].decode("latin-1")
    return str(request.scope["path"]) + (f"?{query}" if query else "")


def _reply(visit: Visit, content: Content) -> Reply:
    headers = [*_HEADERS, *content.headers]
    if visit.service.dev and visit.session is not None and cookie_in(visit.request.header(b"cookie")) is None:
        headers.append(cookie_header(visit.session.cookie, secure=False))
    body = render(content.template, {"visit": visit, "active": "", **content.values})
    return Reply(content.status, body.encode("utf-8", "replace"), headers)
