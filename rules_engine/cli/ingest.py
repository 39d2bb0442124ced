"""``segments ingest``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rules_engine.cli.common import output
from rules_engine.cli.common.event_options import AtUnit, EventName, Mapping, Names, Unit, mapped_by
from rules_engine.cli.common.options import HERE, Format, OutputFormat, Repo
from rules_engine.errors import UnknownNameError
from rules_engine.folders import Project

if TYPE_CHECKING:
    from rules_engine.stream.event_files import IngestReport, Mapped
    from rules_engine.stream.event_sink import EventSink


def ingest(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="A file that ends in .jsonl, .ndjson, .csv or .parquet.")
    ] = None,
    mapping: Mapping = None,
    event: EventName = None,
    names: Names = None,
    at_unit: Unit = AtUnit.MICROSECONDS,
    live: Annotated[
        bool,
        typer.Option("--live", help="Hand the events to the workers as if they were reported now: triggers start."),
    ] = False,
    dead_letters: Annotated[
        bool, typer.Option("--dead-letters", help="Show the events that were refused, with the reason.")
    ] = False,
    replay: Annotated[
        bool, typer.Option("--replay", help="With --dead-letters: check them again, and take those that are good now.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="With --dead-letters: how many to show.")] = 20,
    repo: Repo = HERE,
    output_format: OutputFormat = Format.TEXT,
) -> None:
    """Take events from a file; list and replay refused ones.

    Every row is checked against feature_repo/events.yaml. Good ones go to the event log and into the online store; the
    others are set aside with the reason. Taking a file again changes nothing, and a run that was interrupted goes on
    where it ended. Columns that are no part of the event are its properties, unless a column `properties` holds them.
    """
    if (file is None) == (not dead_letters) or (replay and not dead_letters):
        raise typer.BadParameter("give either a FILE, or --dead-letters with or without --replay")
    from rules_engine.read_plan import ReadPlan
    from rules_engine.sdk.rules import Rules
    from rules_engine.stream.event_sink import EventSink

    project = Project.open(repo)
    sink = EventSink(project, Rules(ReadPlan.load(project.read_plan)))
    try:
        if file is not None:
            _ingest(project, sink, file, mapped_by(mapping, event, names, at_unit), output_format, live=live)
        elif replay:
            _replay(sink, output_format)
        else:
            _list(sink, limit, output_format)
    finally:
        sink.close()


def _ingest(
    project: Project, sink: EventSink, file: Path, mapped: Mapped, output_format: Format, *, live: bool
) -> None:
    from rules_engine.stream.event_files import ingest_file

    if mapped.name is not None and mapped.name not in sink.property_types:
        raise UnknownNameError(f"there is no event `{mapped.name}` in the applied events.yaml")
    with output.working("Taking events") as show:
        report = ingest_file(
            project, sink, file, mapped, lambda report: show(f"Taking events: {report.rows:,} rows"), live=live
        )
    if output_format is Format.JSON:
        output.print_json(_data(report))
    else:
        output.say(f"Took {output.plural(report.accepted, 'event')} of {output.plural(report.rows, 'row')}")
        if report.skipped:
            output.say(f"  {output.plural(report.skipped, 'row')} of them in a run that was interrupted")
        for code, count in sorted(report.reasons.items()):
            output.say(f"  refused {output.plural(count, 'row')}: {code}")
        if report.refused:
            output.say("See them with `segments ingest --dead-letters`")
    if report.refused and not report.accepted:
        raise typer.Exit(1)


def _data(report: IngestReport) -> dict[str, Any]:
    return {
        "rows": report.rows,
        "accepted": report.accepted,
        "refused": report.refused,
        "skipped": report.skipped,
        "reasons": report.reasons,
    }


def _replay(sink: EventSink, output_format: Format) -> None:
    from rules_engine.stream.refused import replay_refused

    taken, remaining = replay_refused(sink)
    if output_format is Format.JSON:
        output.print_json({"taken": taken, "remaining": remaining})
    else:
        output.say(f"Took {output.plural(taken, 'event')}; {remaining:,} remain refused")


def _list(sink: EventSink, limit: int, output_format: Format) -> None:
    from rules_engine.stream.refused import refused_events

    total, newest = refused_events(sink, limit)
    if output_format is Format.JSON:
        output.print_json({"total": total, "events": newest})
        return
    rows = [[one["refused_at"][:19] + "Z", one["source"], f"{one['code']}: {one['message']}"] for one in newest]
    if rows:
        output.table(["refused at", "from", "why"], rows)
    output.say(f"{output.plural(total, 'refused event')}" + (f", the newest {len(rows)} shown" if rows else ""))
