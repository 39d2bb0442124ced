"""Sign in and out, and serve the files that pages load."""

from __future__ import annotations

from rules_engine.rules.settings.nodes import Role
from rules_engine.service.console.rendering import STATIC, static_file
from rules_engine.service.console.sessions import cookie_header, new_cookie
from rules_engine.service.console.visits import Content, Visit, is_secure, own_address, redirect
from rules_engine.service.keys import GRANTS
from rules_engine.service.problems import Problem, Reply

_YEAR = b"public, max-age=31536000, immutable"


async def sign_in_page(visit: Visit) -> Content | Reply:
    """Show the form to sign in."""
    if visit.session is not None:
        return redirect(own_address(visit.query("to")))
    return Content("sign_in.html", _values(own_address(visit.query("to"))))


async def sign_in(visit: Visit) -> Content | Reply:
    """Sign in with a key of the service."""
    to, secret = own_address(visit.form("to")), visit.form("key").strip()
    keys = visit.service.keys
    if keys is None:
        return redirect(to)
    key = keys.find(secret)
    if key is None:
        return Content("sign_in.html", _values(to, "This key is not known."), 401)
    if Role.CONSOLE not in GRANTS[key.role]:
        wrong = f"A key of the role {key.role.value} is for programs, and does not open the console."
        return Content("sign_in.html", _values(to, wrong), 403)
    return redirect(to, [cookie_header(new_cookie(secret), secure=is_secure(visit.request))])


async def sign_out(visit: Visit) -> Reply:
    """Sign out."""
    return redirect("/console/sign-in", [cookie_header("", secure=is_secure(visit.request), seconds=0)])


def _values(to: str, wrong: str = "") -> dict[str, str]:
    return {"title": "Sign in", "to": to, "wrong": wrong}


async def static(visit: Visit) -> Reply:
    """Send a file that pages load.

    Raises
    ------
    Problem
        if there is none of that name.
    """
    name = visit.request.path("name")
    if name not in STATIC:
        raise Problem(404, "unknown-path", "there is nothing at this path")
    headers = [
        (b"content-type", STATIC[name].encode()),
        (b"cache-control", _YEAR),
        (b"x-content-type-options", b"nosniff"),
    ]
    return Reply(200, static_file(name), headers)


async def nothing(visit: Visit) -> Reply:
    """Say that there is no such page; the console's folder leads to its first page.

    Raises
    ------
    Problem
        for all other addresses.
    """
    if not visit.request.path("rest"):
        return redirect("/console")
    raise Problem(404, "unknown-path", "there is no page at this address", "begin with the list of segments")
