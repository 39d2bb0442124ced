"""``segments materialize``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from rules_engine.cli import output
from rules_engine.cli.options import HERE, At, Format, OutputFormat, Repo
from rules_engine.clock import format_instant
from rules_engine.project import Project

if TYPE_CHECKING:
    from rules_engine.lifecycle.materialize import MaterializeReport, ViewProgress, ViewReport


def materialize(
    views: Annotated[
        list[str] | None, typer.Argument(metavar="[VIEW]...", help="The feature views. Default: all.")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Start from the first row, to take up rows that came late or were corrected.")
    ] = False,
    at: At = None,
    repo: Repo = HERE,
    output_format: OutputFormat = Format.TEXT,
) -> None:
    """Bring the online store up to date.

    The newest row of every entity goes from the offline store to the online store. Only rows since the last run are
    read; a run that was interrupted is completed by the next one.
    """
    from rules_engine.lifecycle.materialize import materialize as run

    project = Project.open(repo)
    with output.working("Opening the feature repository") as show:
        report = run(project, end=at, views=views, full=full, progress=lambda progress: show(_progress(progress)))
    if output_format is Format.JSON:
        output.print_json({"rows": report.rows, "views": [_data(view) for view in report.views]})
    else:
        _show(report)


def _progress(progress: ViewProgress) -> str:
    speed = f", {progress.rows / progress.seconds:,.0f} a second" if progress.rows and progress.seconds else ""
    return f"{progress.view} ({progress.number} of {progress.views}): {output.plural(progress.rows, 'row')}{speed}"


def _show(report: MaterializeReport) -> None:
    rows = [[view.view, f"{view.rows:,}", f"{view.seconds:.1f}", _start(view), view.reason] for view in report.views]
    output.table(["view", "rows", "seconds", "from", "why from there"], rows, right=["rows", "seconds"])
    until = "".join(f" up to {format_instant(end)}" for end in {view.end for view in report.views})
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
    }
