"""``segments backtest``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rules_engine.cli.common import output
from rules_engine.cli.common.context import Context, read_context
from rules_engine.cli.common.options import HERE, Format, OutputFormat, Repo, duration, instant, png
from rules_engine.clock import format_duration, format_instant
from rules_engine.folders import Project

if TYPE_CHECKING:
    from rules_engine.batch.backtest import Backtest, Point

#: So many instants, and so many other segments, are shown as text; JSON and --out have all.
_SHOWN, _OTHERS = 40, 5


def backtest(
    segment: Annotated[str, typer.Argument(metavar="SEGMENT", help="The segment's name.")],
    start: Annotated[
        int,
        typer.Option("--from", metavar="INSTANT", parser=instant, help="The first instant, e.g. 2026-01-01T00:00:00Z."),
    ],
    end: Annotated[
        int | None,
        typer.Option(
            "--to",
            metavar="INSTANT",
            parser=instant,
            help="No instant is later. Default: the project's `now`, else the clock.",
        ),
    ] = None,
    every: Annotated[
        int,
        typer.Option("--every", metavar="DURATION", parser=duration, help="From instant to instant, e.g. 1h or 7d."),
    ] = "1d",  # type: ignore[assignment]  # what the parser gets
    compared: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="NAME", help="Compare with this segment only; several times for several."),
    ] = None,
    alone: Annotated[bool, typer.Option("--alone", help="Compare with no other segment, which is faster.")] = False,
    flap_within: Annotated[
        int | None,
        typer.Option(
            "--flap-within",
            metavar="DURATION",
            parser=duration,
            help="A move that is undone so soon is a flap. Default: three times --every.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write a row for each instant, to a .parquet, .csv or .jsonl file."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", parser=png, help="Draw it; needs matplotlib.")
    ] = None,
    context: Context = None,
    repo: Repo = HERE,
    output_format: OutputFormat = Format.TEXT,
) -> None:
    """Show how a segment would have changed over time.

    Evaluates everyone at instants at equal distances, by the definitions in the files, with what was known then. Shows
    how many users were in the segment, entered and left; how many of these moves were soon undone; and how much it had
    in common with other segments.
    """
    from rules_engine.batch.backtest import backtest as run
    from rules_engine.batch.backtest import instants, write
    from rules_engine.batch.engine import BatchProject
    from rules_engine.batch.plots import draw_backtest, new_figure
    from rules_engine.batch.through_time import RulesThroughTime

    if plot is not None:
        new_figure(1, 1, "the plot")  # before the work is done
    with output.working("Opening the project") as show:
        opened = BatchProject.open(Project.open(repo))
        opened.program.segment(segment)
        at = instants(start, opened.now if end is None else end, every)
        names = [segment] if alone else None if not compared else {segment, *compared}
        rules = RulesThroughTime(opened.repo, opened.program, names, read_context(context, opened.program))
        history = run(
            rules, segment, at, flap_within, lambda users, done: show(f"Evaluated {users:,} times a user ({done:.0%})")
        )
        if out is not None:
            write(history, out)
        if plot is not None:
            draw_backtest(history, plot)
    if output_format is Format.JSON:
        output.print_json(_data(history))
        return
    _show(history)
    for path in (out, plot):
        if path is not None:
            output.say(f"Wrote {path}")


def _show(history: Backtest) -> None:
    from rules_engine.batch.backtest import shown_points

    points = history.points
    first, last = format_instant(points[0].at), format_instant(points[-1].at)
    output.say((history.segment, "bold"), f" at {output.plural(len(points), 'instant')} from {first} to {last}")
    headers = ["at", "users", "size", "share", "enter", "leave", "flaps"]
    rows = [["..."] + [""] * 6 if point is None else _row(point) for point in shown_points(history, _SHOWN)]
    rows[0][4:] = [""] * 3  # before the first instant nothing is known
    output.table(headers, rows, right=headers[1:])
    entered, left = sum(point.entered for point in points), sum(point.left for point in points)
    undone = (
        f"{history.flap_rate:.1%} of these moves undid one that was at most {format_duration(history.flap_within)} old"
    )
    output.say(f"{entered:,} entered and {left:,} left; {undone}")
    if not any(point.users for point in points):
        output.say("Nobody is known yet at any of these instants: the first rows of features and events are later.")
    alike = [name for name in history.alike() if any(point.both[name] for point in points)]
    if alike:
        output.say()
        headers = ["in common with", "first", "mean", "last"]
        output.table(headers, [_common(history, name) for name in alike[:_OTHERS]], right=headers[1:])
    if len(alike) > _OTHERS:
        output.say(f"and {len(alike) - _OTHERS:,} more; --format json shows all")


def _row(point: Point) -> list[str]:
    moves = [f"{count:,}" for count in (point.entered, point.left, point.flaps)]
    return [format_instant(point.at), f"{point.users:,}", f"{point.size:,}", f"{point.share:.1%}", *moves]


def _common(history: Backtest, name: str) -> list[str]:
    """Return the row of another segment: its Jaccard index at the first instant, on average, and at the last."""
    measures = [point.jaccard(name) for point in history.points]
    shown = (measures[0], sum(measures) / len(measures), measures[-1])
    return [name, *(f"{measure:.1%}" for measure in shown)]


def _data(history: Backtest) -> dict[str, Any]:
    return {
        "segment": history.segment,
        "every": format_duration(history.every),
        "flap_within": format_duration(history.flap_within),
        "flap_rate": history.flap_rate,
        "points": [
            {
                "at": format_instant(point.at),
                "users": point.users,
                "size": point.size,
                "entered": point.entered,
                "left": point.left,
                "flaps": point.flaps,
                "overlap": {
                    name: {"size": point.others[name], "both": point.both[name], "jaccard": point.jaccard(name)}
                    for name in point.others
                },
            }
            for point in history.points
        ],
    }
