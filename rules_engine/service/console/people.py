"""Find a person, and show segments with when each changes and why, features, events, and what was noted."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from rules_engine.clock import format_instant, from_micros, parse_instant, to_micros
from rules_engine.errors import DataError
from rules_engine.rules.explanation import Explanation
from rules_engine.rules.settings.nodes import Role
from rules_engine.rules.walk import dependencies
from rules_engine.service.console.rendering import address
from rules_engine.service.console.visits import Content, Visit, redirect
from rules_engine.service.problems import Problem, Reply
from rules_engine.service.reads import plain

#: Segments that are explained on one page.
EXPLAINED = 200

#: Steps and events that are shown.
_LATEST = 50

#: Longer keys are none: an address has to hold them.
_LONGEST_KEY = 1_000


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """The value of a feature as text; None if it is missing. ``expires_at`` is in microseconds, as ``updated_at``."""

    name: str
    value: str | None
    updated_at: int | None
    expires_at: int | None


async def find(visit: Visit) -> Content | Reply:
    """Show the field in which a key is typed, or go to the page of the one that was."""
    key = visit.query("key").strip()
    if key and visit.sees_people:
        return redirect(address("people", key[:_LONGEST_KEY]))
    return Content("find.html", {"title": "People", "active": "/console/people"})


async def person(visit: Visit) -> Content:
    """Show one person.

    Raises
    ------
    Problem
        if who looks may not see people, or the instant or the context in the address is none.
    """
    if not visit.sees_people:
        hint = f"sign in with a key of the role `{Role.READ.value}` or `{Role.ADMIN.value}`"
        raise Problem(403, "not-allowed", "your key does not show single people", hint)
    service, entity = visit.service, visit.request.path("key")
    names = _names(visit)
    at, context = _instant(visit.query("at")), _context(visit)
    answer = await service.client.person(entity, names, context=service.read_context(context), at=at)
    explanations = sorted(answer.explanations.values(), key=_order)
    events = await _events(visit, entity, answer.now if at is not None else None)
    moves, instances = await asyncio.to_thread(_noted, visit, entity)
    return Content(
        "person.html",
        {
            "title": entity,
            "active": "/console/people",
            "entity": entity,
            "now": answer.now,
            "at": visit.query("at"),
            "context": visit.query("context"),
            "reads_context": sorted(_context_names(visit)),
            "explanations": explanations,
            "inside": [each for each in explanations if each.verdict is True],
            "total": len(service.client.program.names),
            "changes_at": min((each.changes_at for each in explanations if each.changes_at), default=None),
            "features": _features(answer.features, answer.updated_at, answer.expires_at),
            "is_known": bool(answer.updated_at) or bool(moves) or bool(events.value),
            "events": events,
            "shown_events": (events.value or ())[:_LATEST],
            "moves": moves,
            "instances": instances,
            "is_pending": events.is_pending,
            "format_instant": format_instant,
        },
    )


def _names(visit: Visit) -> list[str]:
    """Return the segments to explain: those that the address names, else all, as far as they fit on a page."""
    program = visit.service.client.program
    chosen = visit.request.query("segment")
    for name in chosen:
        program.segment(name)
    return chosen or list(program.names[:EXPLAINED])


def _order(explanation: Explanation) -> tuple[bool, int, str]:
    """Return the place of an explanation: what somebody is in comes first, then what they nearly are in."""
    return explanation.verdict is not True, len(explanation.blocking), explanation.segment


async def _events(visit: Visit, entity: str, at: int | None) -> Any:
    from rules_engine.service.console import counting

    service = visit.service
    version = service.client.plan.definitions_version
    return await visit.ask(counting.timeline, service.project.root, version, entity, at, quick=True)


def _noted(visit: Visit, entity: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    from rules_engine.stream.ledger import Ledger  # loads pyarrow

    ledger = Ledger.of(visit.service.project)
    return ledger.transitions(entity=entity, limit=_LATEST), ledger.instances(entity=entity, limit=_LATEST)


def _features(
    values: Mapping[str, Any], updated_at: Mapping[str, int], expires_at: Mapping[str, int]
) -> list[FeatureRow]:
    rows = []
    for name in sorted(values):
        view = name.partition(":")[0]
        rows.append(FeatureRow(name, value_text(values[name]), updated_at.get(view), expires_at.get(view)))
    return rows


def value_text(value: Any) -> str | None:
    """Return a value as text; None for a missing one.

    >>> value_text("NO"), value_text(1.5), value_text(True), value_text(None)
    ('NO', '1.5', 'true', None)
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, datetime):
        return format_instant(to_micros(value))
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return orjson.dumps(plain(value)).decode()


def _instant(text: str) -> datetime | None:
    if not text:
        return None
    try:
        return from_micros(parse_instant(text))
    except (ValueError, OverflowError) as error:
        raise Problem(400, "invalid-instant", f"`at`: {error}", "write e.g. 2026-01-31T09:00:00Z") from None


def _context(visit: Visit) -> dict[str, Any]:
    text = visit.query("context").strip()
    if not text:
        return {}
    try:
        content = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise DataError(f"the context is not JSON: {error}", hint='write e.g. {"device": "mobile"}') from None
    if not isinstance(content, dict):
        raise DataError("the context is JSON, but not an object", hint='write e.g. {"device": "mobile"}')
    return content


def _context_names(visit: Visit) -> set[str]:
    return {
        name
        for segment in visit.service.client.program.segments.values()
        for name in dependencies(segment.when).context
    }
