"""``segments materialize``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from rules_engine.cli.common import output
from rules_engine.cli.common.options import HERE, At, Format, OutputFormat, Repo
from rules_engine.clock import format_instant
from rules_engine.folders import Project

if TYPE_CHECKING:
    from rules_engine.deploy.materialize import MaterializeReport, ViewProgress, ViewReport
    from rules_engine.deploy.memberships import Memberships


def materialize(
    views: Annotated[list[str] | None, typer.Argument(metavar="VIEW", help="The feature views. Default: all.")] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Start from the first row, to take up rows that came late or were corrected.")
    ] = False,
    memberships: Annotated[
        bool,
        typer.Option(
            "--memberships", help="First write who is in which segment, and since when, as the view user_segments."
        ),
    ] = False,
    at: At = None,
    repo: Repo = HERE,
    output_format: OutputFormat = Format.TEXT,
) -> None:
    """Bring the online store up to date.

    The newest row of every entity goes from the offline store to the online store. Only rows since the last run are
    read; a run that was interrupted is completed by the next one.

    With --memberships everyone is evaluated by the applied definitions first. Who is in which segment, and since when,
    becomes the feature view user_segments, with a column for each segment: other systems read it from Feast.
    """
    from rules_engine.deploy.materialize import materialize as run

    project = Project.open(repo)
    written: Memberships | None = None
    with output.working("Opening the feature repository") as show:
        if memberships:
            from rules_engine.deploy.memberships import write_memberships
            from rules_engine.features.feast.membership_view import VIEW

            written = write_memberships(
                project, at, lambda users, done: show(f"Evaluated {users:,} users ({done:.0%})")
            )
            views = [*views, VIEW] if views else None
        report = run(project, end=at, views=views, full=full, progress=lambda progress: show(_progress(progress)))
    if output_format is Format.JSON:
        data = {"rows": report.rows, "views": [_data(view) for view in report.views]}
        output.print_json(data if written is None else data | {"memberships": _memberships(written)})
        return
    if written is not None:
        _show_memberships(project, written)
    _show(report)


def _show_memberships(project: Project, written: Memberships) -> None:
    from rules_engine.features.feast.membership_view import definition_file

    users, segments = output.plural(written.users, "user"), output.plural(len(written.members), "segment")
    at = format_instant(written.as_of)
    output.say(f"Memberships of {users} in {segments} as of {at}: {output.plural(written.changed, 'new row')}")
    if written.is_new:
        path = definition_file(project).relative_to(project.root)
        output.say("Wrote ", (str(path), "bold"), " and registered it: it belongs into version control")


def _memberships(written: Memberships) -> dict[str, Any]:
    return {
        "as_of": format_instant(written.as_of),
        "users": written.users,
        "changed": written.changed,
        "segments": written.members,
        "defined": written.is_new,
    }


def _progress(progress: ViewProgress) -> str:
    speed = f", {progress.rows / progress.seconds:,.0f} a second" if progress.rows and progress.seconds else ""
    return f"{progress.view} ({progress.number} of {progress.views}): {output.plural(progress.rows, 'row')}{speed}"


def _show(report: MaterializeReport) -> None:
    rows = [[view.view, f"{view.rows:,}", f"{view.seconds:.1f}", _start(view), view.reason] for view in report.views]
    output.table(["view", "rows", "seconds", "from", "why from there"], rows, right=["rows", "seconds"])
    until = "".join(f" up to {format_instant(end)}" for end in {view.end for view in report.views})
    for note in [note for view in report.views for note in view.notes]:
        output.say(note)
    output.say(f"Materialized {output.plural(report.rows, 'row')}{until} in {report.seconds:.1f} s")


def _start(view: ViewReport) -> str:
    return "the first row" if view.start is None else format_instant(view.start)


def _data(view: ViewReport) -> dict[str, Any]:
    return {
        "view": view.view,
        "rows": view.rows,
        "seconds": round(view.seconds, 3),
        "from": None if view.start is None else format_instant(view.start),
        "to": format_instant(view.end),
        "reason": view.reason,
        "notes": list(view.notes),
    }
