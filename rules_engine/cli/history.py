"""``segments history``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from rules_engine.cli.common import output
from rules_engine.cli.common.options import HERE, Format, OutputFormat, Repo, instant
from rules_engine.clock import format_instant, to_micros
from rules_engine.errors import UnknownNameError
from rules_engine.folders import Project
from rules_engine.triggers.causes import cause_text

if TYPE_CHECKING:
    from collections.abc import Collection

From = Annotated[int | None, typer.Option("--from", metavar="INSTANT", parser=instant, help="From this instant on.")]
To = Annotated[int | None, typer.Option("--to", metavar="INSTANT", parser=instant, help="Before this instant.")]
Limit = Annotated[int, typer.Option("--limit", min=1, help="How many to show at most; the latest come first.")]


def history(
    entity: Annotated[str | None, typer.Argument(metavar="ENTITY", help="Of this entity only.")] = None,
    segment: Annotated[str | None, typer.Option("--segment", metavar="NAME", help="Of this segment only.")] = None,
    start: From = None,
    end: To = None,
    limit: Limit = 50,
    repo: Repo = HERE,
    output_format: OutputFormat = Format.TEXT,
) -> None:
    """Show who entered and left segments, when and why.

    `segments run` notes it in the ledger: the instant, what made it (an event, a timer, what was looked at again), and
    the version of the definitions. `baseline` is a member who was one when the segment was first looked at.
    """
    from rules_engine.stream.ledger import Ledger

    if entity is None and segment is None:
        raise typer.BadParameter("give an ENTITY, or a segment with --segment NAME, or both")
    project = Project.open(repo)
    ledger = Ledger.of(project)
    rows = ledger.transitions(entity=entity, segment=segment, start=start, end=end, limit=limit)
    if not rows and segment is not None:
        _check(segment, _segments(project))
    if output_format is Format.JSON:
        output.print_json([{name: shown(value) for name, value in row.items() if name != "key"} for row in rows])
        return
    if not rows:
        of_entity = [f"the entity {entity}"] if entity is not None else []
        of_segment = [f"the segment {segment}"] if segment is not None else []
        between = " in that time" if start is not None or end is not None else ""
        output.say(f"Nothing is noted of {' in '.join([*of_entity, *of_segment])}{between}")
        output.say("Memberships are noted while `segments run` runs, from the segment's first look on.")
        return
    headers = ["at", "entity", "change", "segment", "why", "version"]
    names = ["at", "entity", "change", "segment", "cause", "definitions_version"]
    output.table(
        headers, [[cause_text(row[name]) if name == "cause" else text(row[name]) for name in names] for row in rows]
    )


def _segments(project: Project) -> Collection[str]:
    from rules_engine.read_plan import ReadPlan

    segments: Collection[str] = ReadPlan.load(project.read_plan).definitions["segments"]
    return segments


def _check(segment: str, names: Collection[str]) -> None:
    from rules_engine.diagnostics import nearest

    if segment not in names:
        hint = nearest(segment, names) or "`segments validate` lists what is wrong with the definitions"
        raise UnknownNameError(f"there is no segment `{segment}`, and there was none", hint=hint)


def shown(value: Any) -> Any:
    """Return a value of the ledger as JSON has it."""
    return format_instant(to_micros(value)) if hasattr(value, "tzinfo") else value


def text(value: Any) -> str:
    """Return a value of the ledger as a cell of a table."""
    return "" if value is None else str(shown(value))
