"""List the pages of the console."""

from __future__ import annotations

from rules_engine.rules.settings.nodes import Role
from rules_engine.service.console import access, change, models, operation, people, segments, triggers
from rules_engine.service.console.background import Background
from rules_engine.service.console.visits import page
from rules_engine.service.routes import Route


def routes(background: Background) -> list[Route]:
    """Return the pages; all of them need a key that may look at the console, but those for signing in."""
    return [
        page("/console", segments.segments, background),
        page("/console/segments/{name}", segments.segment, background),
        page("/console/people", people.find, background),
        page("/console/people/{key}", people.person, background),
        page("/console/change", change.change_page, background),
        page("/console/change", change.try_change, background, method="POST"),
        page("/console/triggers", triggers.triggers, background),
        page("/console/triggers/resend", triggers.resend, background, method="POST", role=Role.ADMIN, changes=True),
        page("/console/models", models.models, background),
        page("/console/models/{folder}/{name}/{version}/report", models.report, background),
        page("/console/operation", operation.operation, background),
        page("/console/sign-in", access.sign_in_page, background, role=None),
        page("/console/sign-in", access.sign_in, background, method="POST", role=None),
        page("/console/sign-out", access.sign_out, background, method="POST", changes=True),
        page("/console/static/{name}", access.static, background, role=None),
        page("/console/{rest:path}", access.nothing, background, role=None),
    ]
