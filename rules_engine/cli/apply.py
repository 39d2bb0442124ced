"""``segments apply``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rules_engine.cli import output
from rules_engine.cli.options import HERE, Format, OutputFormat, Repo
from rules_engine.project import Project

if TYPE_CHECKING:
    from rules_engine.lifecycle.backfill import BackfillProgress
    from rules_engine.lifecycle.definitions import Applied


def apply(repo: Repo = HERE, output_format: OutputFormat = Format.TEXT) -> None:
    """Put features and definitions into effect.

    The definitions are checked, the Feast repository is applied, and the read plan is written that lookups answer
    from. If anything is refused, nothing is changed. Applications answer from the new plan when they make a new client.
    """
    from rules_engine.lifecycle.definitions import apply_project

    project = Project.open(repo)
    with output.working("Applying the definitions") as show:
        applied = apply_project(project, progress=lambda progress: show(_progress(progress)))
    if output_format is Format.JSON:
        output.print_json(_data(applied))
    else:
        _show(applied)


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
        "definitions_version": plan.definitions_version,
        "segments": {"added": applied.added, "changed": applied.changed, "removed": applied.removed},
        "features": {"added": registry.added, "changed": registry.updated, "removed": registry.removed},
    }
