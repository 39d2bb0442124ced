"""Show the fitted clusters and models: versions, what is promoted, how good they are, and drift."""

from __future__ import annotations

import asyncio

from rules_engine.errors import UnknownNameError
from rules_engine.service.console.visits import Content, Visit
from rules_engine.service.problems import Reply

_REPORT_POLICY = b"sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'"


async def models(visit: Visit) -> Content:
    """Show the page of clusters and models."""
    from rules_engine.service.console import learning

    root = visit.service.project.root
    fitted = await visit.ask(learning.fitted, root)
    drifted = await visit.ask(learning.drifted, root)
    return Content(
        "models.html",
        {"title": "Clusters and models", "active": "/console/models", "fitted": fitted, "drifted": drifted},
    )


async def report(visit: Visit) -> Reply:
    """Send the report of a version: a page of its own, which runs nothing and loads nothing.

    Raises
    ------
    UnknownNameError
        if there is none.
    """
    folder, name, version = (visit.request.path(part) for part in ("folder", "name", "version"))
    known_folders = visit.service.project.state_dir
    path = known_folders / folder / name / f"{version}.html"
    is_inside = folder in ("clusters", "models") and path.resolve().is_relative_to(known_folders.resolve() / folder)
    if not is_inside or not await asyncio.to_thread(path.is_file):
        raise UnknownNameError(f"there is no report of `{name}` {version}")
    headers = [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-security-policy", _REPORT_POLICY),
        (b"x-content-type-options", b"nosniff"),
        (b"cache-control", b"no-store"),
    ]
    return Reply(200, await asyncio.to_thread(path.read_bytes), headers)
