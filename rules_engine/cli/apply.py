"""``segments apply``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from rules_engine.cli.common import output
from rules_engine.cli.common.options import HERE, Format, OutputFormat, Repo
from rules_engine.clock import format_instant
from rules_engine.folders import Project

if TYPE_CHECKING:
    from rules_engine.deploy.backfill import BackfillProgress
    from rules_engine.deploy.stages import ApplyReport, Stage


def apply(
    repo: Repo = HERE,
    to: Annotated[
        int | None,
        typer.Option("--to", metavar="VERSION", help="Go back to the segments of a version, in place of the files'."),
    ] = None,
    versions: Annotated[
        bool, typer.Option("--versions", help="List what was applied, when and by whom, and change nothing.")
    ] = False,
    expect: Annotated[
        str | None,
        typer.Option("--expect", metavar="PLAN", help="Only if it is the plan that `segments plan` showed, by its id."),
    ] = None,
    output_format: OutputFormat = Format.TEXT,
) -> None:
    """Put features and definitions into effect.

    Walks the stages that `segments plan` shows, and prints each when it is done: the Feast repository is applied, event
    states are built that the definitions need, and the read plan is replaced that lookups answer from, in one step. If
    anything is refused, nothing is changed. Applications answer from the new plan from their next requests on.
    Every plan is kept as a version with a number; with --to its segments are put into effect again.
    """
    from rules_engine.cli.plan import shows, stage_text
    from rules_engine.deploy.definitions import apply_project

    project = Project.open(repo)
    if versions:
        _list(project, output_format)
        return
    done: list[Stage] = []
    with output.working("Applying the definitions") as show:

        def finished(stage: Stage) -> None:
            if not shows(stage):
                return
            done.append(stage)
            show(f"Done: {stage_text(stage)}")

        applied = apply_project(
            project, progress=lambda progress: show(_progress(progress)), to=to, expect=expect, done=finished
        )
    if output_format is Format.JSON:
        output.print_json(_data(applied))
    else:
        _show(applied, done)
        if to is not None:
            output.say("The files are as they were: `segments plan` shows how they differ from this version")


def _list(project: Project, output_format: Format) -> None:
    from rules_engine.project.versions import versions

    rows = [
        {
            "version": version.number,
            "applied_at": format_instant(version.applied_at),
            "who": version.who,
            "segments": len(version.plan.definitions["segments"]),
            "hash": version.hash,
        }
        for version in versions(project)
    ]
    if output_format is Format.JSON:
        output.print_json(rows)
        return
    headers = ["version", "applied_at", "who", "segments", "hash"]
    output.table(headers, [[str(row[header]) for header in headers] for row in rows], right=["version", "segments"])


def _progress(progress: BackfillProgress) -> str:
    return f"Reading the event log: day {progress.done} of {progress.days}, {output.plural(progress.events, 'event')}"


def _show(applied: ApplyReport, done: list[Stage]) -> None:
    from rules_engine.cli.plan import stage_text

    plan = applied.plan
    segments = output.plural(len(plan.definitions["segments"]), "segment")
    decisions = len(plan.definitions.get("decisions", {}))
    views = output.plural(len(plan.views), "feature view")
    if not applied.stages.differs:
        output.say("Nothing changed: ", (plan.project, "bold"), f" has {segments} and {views}, as before")
        return
    parts = [segments, *([output.plural(decisions, "decision")] if decisions else []), views]
    output.say("Applied ", (plan.project, "bold"), f": {', '.join(parts)}")
    for number, stage in enumerate(done, 1):
        output.say(f"  {number}. {stage_text(stage)}")
    for note in applied.notes:
        output.say(note)
    registry = applied.registry
    if registry.added or registry.updated:
        output.say("Next: `segments materialize` brings the online store up to date")


def _data(applied: ApplyReport) -> dict[str, Any]:
    from rules_engine.cli.plan import shows
    from rules_engine.deploy.stages import NameChanges, stage_data, to_data

    plan, registry, stages = applied.plan, applied.registry, applied.stages
    return {
        "project": plan.project,
        "changed": stages.differs,
        "plan": stages.id,
        "version": applied.version,
        "definitions_version": plan.definitions_version,
        "segments": to_data(stages.of("segments")),
        "triggers": to_data(stages.of("triggers")),
        "events": to_data(stages.of("events")),
        "features": to_data(NameChanges(registry.added, registry.updated, registry.removed)),
        "notes": list(applied.notes),
        "stages": [stage_data(stage) for stage in stages.stages if shows(stage)] if stages.differs else [],
    }
