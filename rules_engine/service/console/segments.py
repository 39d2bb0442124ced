"""Show all segments, and one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rules_engine.clock import DAY, HOUR, now_micros
from rules_engine.diagnostics import nearest
from rules_engine.errors import UnknownNameError
from rules_engine.project.versions import newest_number
from rules_engine.rules.nodes import Segment
from rules_engine.rules.triggers.codec import decode_triggers
from rules_engine.rules.walk import dependencies
from rules_engine.service.console.background import Answer
from rules_engine.service.console.documents import files_stamp, find_document
from rules_engine.service.console.visits import Content, Visit
from rules_engine.service.console.words import in_words

if TYPE_CHECKING:
    from rules_engine.batch.backtest import Backtest
    from rules_engine.service.console.counting import VersionChange

#: Rows of a page.
PAGE = 100

#: Steps of lines over time, by the word in the address.
EVERY = {"1h": HOUR, "1d": DAY, "7d": 7 * DAY, "28d": 28 * DAY}
WEEK = "7d"

#: Transitions that are shown of a segment.
_LATEST = 15


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """Holds a row of the table of segments; None stands for what is not counted yet, or cannot be."""

    segment: Segment
    size: int | None = None
    share: float | None = None
    note: str | None = None
    trend: tuple[int, ...] = ()
    changed_at: int | None = None
    tests: tuple[int, int] | None = None
    triggers: tuple[str, ...] = ()


async def segments(visit: Visit) -> Content:
    """Show the table of all segments."""
    from rules_engine.service.console import counting

    service = visit.service
    client = service.client
    root, version = service.project.root, client.plan.definitions_version
    counted = await visit.ask(counting.sizes, root, version)
    followed = await visit.ask(counting.history, root, version, None, EVERY[WEEK])
    versions = await visit.ask(counting.changes, root, newest_number(service.project))
    tested = await visit.ask(counting.tests, root, await asyncio.to_thread(files_stamp, service.project))
    rows = [
        _row(segment, counted.value, followed.value, versions.value or (), tested.value or {}, _triggers(visit))
        for segment in client.program.segments.values()
    ]
    chosen = _sorted(_matching(rows, visit), visit.query("sort"))
    page = max(1, _whole(visit.query("page"), 1))
    return Content(
        "segments.html",
        {
            "title": "Segments",
            "active": "/console",
            "rows": chosen[(page - 1) * PAGE : page * PAGE],
            "total": len(rows),
            "matching": len(chosen),
            "page": page,
            "pages": max(1, -(-len(chosen) // PAGE)),
            "counted": counted,
            "followed": followed,
            "is_pending": any(answer.is_pending for answer in (counted, followed, versions, tested)),
            "tags": sorted({tag for row in rows for tag in row.segment.tags}),
            "owners": sorted({row.segment.owner for row in rows if row.segment.owner}),
            "query": {name: visit.query(name) for name in ("q", "tag", "owner", "sort")},
        },
    )


def _row(
    segment: Segment,
    counted: Any,
    followed: Backtest | None,
    versions: tuple[VersionChange, ...],
    tested: Mapping[str, tuple[int, int]],
    triggers: Mapping[str, list[str]],
) -> SegmentRow:
    name = segment.name
    size, note = None, None
    if counted is not None:
        size, note = counted.members.get(name), counted.refused.get(name)
    if context := dependencies(segment.when).context:
        note = f"reads what a request brings: {', '.join(sorted(context))}"
    return SegmentRow(
        segment,
        size,
        None if size is None or not counted.users else size / counted.users,
        note,
        _trend(followed, name),
        next((change.applied_at for change in versions if name in change.segments), None),
        tested.get(name),
        tuple(triggers.get(name, ())),
    )


def _trend(followed: Backtest | None, name: str) -> tuple[int, ...]:
    if followed is None:
        return ()
    if name == followed.segment:
        return tuple(point.size for point in followed.points)
    return tuple(point.others[name] for point in followed.points if name in point.others)


def _triggers(visit: Visit) -> dict[str, list[str]]:
    """Return by segment the triggers that start when somebody enters or leaves it."""
    reading: dict[str, list[str]] = {}
    for trigger in decode_triggers(visit.service.client.plan.definitions).values():
        if trigger.segment is not None:
            reading.setdefault(trigger.segment, []).append(trigger.name)
    return reading


def _matching(rows: list[SegmentRow], visit: Visit) -> list[SegmentRow]:
    text, tag, owner = visit.query("q").casefold(), visit.query("tag"), visit.query("owner")
    return [
        row
        for row in rows
        if text in f"{row.segment.name} {row.segment.description}".casefold()
        and (not tag or tag in row.segment.tags)
        and (not owner or owner == row.segment.owner)
    ]


def _sorted(rows: list[SegmentRow], by: str) -> list[SegmentRow]:
    """Return rows in an order; a minus before its name turns it round, and what is not known comes last."""
    keys = {"size": lambda row: row.size, "changed": lambda row: row.changed_at, "owner": lambda row: row.segment.owner}
    ordered = sorted(rows, key=lambda row: row.segment.name)
    name = by.removeprefix("-")
    if name in keys:
        filled = [row for row in ordered if keys[name](row) not in (None, "")]
        filled.sort(key=keys[name], reverse=by.startswith("-"))
        return filled + [row for row in ordered if keys[name](row) in (None, "")]
    return ordered[::-1] if by == "-name" else ordered


def _whole(text: str, default: int) -> int:
    return int(text[:9]) if text.isascii() and text.isdigit() else default


async def segment(visit: Visit) -> Content:
    """Show one segment."""
    from rules_engine.service.console import counting

    service, name = visit.service, visit.request.path("name")
    client = service.client
    if name not in client.program.segments:
        raise UnknownNameError(f"there is no segment `{name}`", hint=nearest(name, client.program.names))
    root, version = service.project.root, client.plan.definitions_version
    every = visit.query("every", WEEK)
    step = EVERY.get(every, EVERY[WEEK])
    counted = await visit.ask(counting.sizes, root, version)
    followed = await visit.ask(counting.history, root, version, name, step)
    sample: Answer[Any] = Answer()
    if visit.sees_people:
        sample = await visit.ask(counting.members, root, version, name)
    versions = await visit.ask(counting.changes, root, newest_number(service.project))
    tested = await visit.ask(counting.tests, root, await asyncio.to_thread(files_stamp, service.project))
    noted = await asyncio.to_thread(_noted, visit, name)
    row = _row(
        client.program.segments[name],
        counted.value,
        followed.value,
        versions.value or (),
        tested.value or {},
        _triggers(visit),
    )
    pending = [counted.is_pending, followed.is_pending, versions.is_pending, tested.is_pending]
    pending += [sample.is_pending] if visit.sees_people else []
    return Content(
        "segment.html",
        {
            "title": name,
            "active": "/console",
            "row": row,
            "words": in_words(client.program, name),
            "document": await asyncio.to_thread(find_document, service.project, name),
            "reads": client.program.references[name],
            "dependents": client.program.dependents.get(name, []),
            "counted": counted,
            "followed": followed,
            "every": every if every in EVERY else WEEK,
            "steps": list(EVERY),
            "sample": sample,
            "versions": [change for change in versions.value or () if name in change.segments],
            "noted": noted,
            "now": _now(visit),
            "is_pending": any(pending),
        },
    )


def _now(visit: Visit) -> int:
    now = visit.service.client.plan.now
    return now_micros() if now is None else now


def _noted(visit: Visit, name: str) -> list[dict[str, Any]]:
    """Return who entered and left a segment lately, as the workers noted it."""
    from rules_engine.stream.ledger import Ledger  # loads pyarrow

    return Ledger.of(visit.service.project).transitions(segment=name, limit=_LATEST)
