"""``segments apply``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from rules_engine.cli import output
from rules_engine.cli.options import HERE, Format, OutputFormat, Repo
from rules_engine.clock import format_instant
from rules_engine.project import Project

if TYPE_CHECKING:
    from rules_engine.lifecycle.backfill import BackfillProgress
    from rules_engine.lifecycle.definitions import Applied


def apply(
    repo: Repo = HERE,
    to: Annotated[
        int | None,
        typer.Option("--to", metavar="VERSION", help="Go back to the segments of a version, in place of the files'."),
    ] = None,
    versions: Annotated[
        bool, typer.Option("--versions", help="List what was applied, when and by whom, and change nothing.")
    ] = False,
    output_format: OutputFormat = Format.TEXT,
) -> None:
    """Put features and definitions into effect.

    The definitions are checked, the Feast repository is applied, and the read plan is written that lookups answer
    from. If anything is refused, nothing is changed. Applications answer from the new plan from their next requests on.
    Every plan is kept as a version with a number; with --to its segments are put into effect again.
    """
    from rules_engine.lifecycle.definitions import apply_project

    project = Project.open(repo)
    if versions:
        _list(project, output_format)
        return
    with output.working("Applying the definitions") as show:
        applied = apply_project(project, progress=lambda progress: show(_progress(progress)), to=to)
    if output_format is Format.JSON:
        output.print_json(_data(applied))
    else:
        _show(applied)
        if to is not None:
            output.say("The files are as they were: `segments plan` shows how they differ from this version")


def _list(project: Project, output_format: Format) -> None:
    from rules_engine.lifecycle.versions import versions

    rows = [
        {
            "version": found.number,
            "applied_at": format_instant(found.applied_at),
            "who": found.who,
            "segments": len(found.plan.definitions["segments"]),
            "hash": found.hash,
        }
        for found in versions(project)
    ]
    if output_format is Format.JSON:
        output.print_json(rows)
        return
    headers = ["version", "applied_at", "who", "segments", "hash"]
    output.table(headers, [[str(row[header]) for header in headers] for row in rows], right=["version", "segments"])


def _progress(progress: BackfillProgress) -> str:
    return f"Reading the event log: day {progress.done} of {progress.days}, {output.plural(progress.events, 'event')}"


def _show(applied: Applied) -> None:
    plan = applied.report.plan
    segments = output.plural(len(plan.definitions["segments"]), "segment")
    views = output.plural(len(plan.views), "feature view")
    if not applied.report.changed:
        output.say("Nothing changed: ", (plan.project, "bold"), f" has {segments} and {views}, as before")
        return
    output.say("Applied ", (plan.project, "bold"), f": {segments}, {views}")
    registry = applied.report.registry
    for what, words in (
        ("segments", (("added", applied.added), ("changed", applied.changed), ("removed", applied.removed))),
        ("features", (("added", registry.added), ("changed", registry.updated), ("removed", registry.removed))),
    ):
        for word, names in words:
            if names:
                output.say(f"  {what} {word}: {', '.join(names)}")
    if registry.added or registry.updated:
        output.say("Next: `segments materialize` brings the online store up to date")


def _data(applied: Applied) -> dict[str, Any]:
    plan, registry = applied.report.plan, applied.report.registry
    return {
        "project": plan.project,
        "changed": applied.report.changed,
        "version": applied.report.version,
        "definitions_version": plan.definitions_version,
        "segments": {"added": applied.added, "changed": applied.changed, "removed": applied.removed},
        "features": {"added": registry.added, "changed": registry.updated, "removed": registry.removed},
    }
