"""``segments ingest``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rules_engine.cli.common import output
from rules_engine.cli.common.event_options import (
    AtUnit,
    EventName,
    Ids,
    Mapping,
    Names,
    Separator,
    Unit,
    mapped_by,
)
from rules_engine.cli.common.exit_codes import PARTLY_REFUSED
from rules_engine.cli.common.options import HERE, Format, OutputFormat, Repo
from rules_engine.errors import UnknownNameError
from rules_engine.folders import Project

if TYPE_CHECKING:
    from rules_engine.stream.event_sink import EventSink
    from rules_engine.stream.files.ingest import IngestReport
    from rules_engine.stream.files.mapping import Mapped


def ingest(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="JSON lines, CSV or TSV, also compressed, or Parquet.",
        ),
    ] = None,
    mapping: Mapping = None,
    event: EventName = None,
    names: Names = None,
    at_unit: Unit = AtUnit.MICROSECONDS,
    ids: Ids = None,
    separator: Separator = None,
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
    late: Annotated[
        bool,
        typer.Option("--late", help="Show the entities whose states events came too late for, or are damaged."),
    ] = False,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Rebuild the states of these entities from the event log.")
    ] = False,
    entities: Annotated[
        list[str] | None,
        typer.Option("--entity", metavar="KEY", help="With --rebuild: of these entities instead; repeatable."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="With --dead-letters or --late: how many to show.")] = 20,
    repo: Repo = HERE,
    output_format: OutputFormat = Format.TEXT,
) -> None:
    """Take events from a file; replay refused ones; rebuild states.

    Every row is checked against feature_repo/events.yaml. Good ones go to the event log and into the online store; the
    others are set aside with the reason. Taking a file again changes nothing, and a run that was interrupted goes on
    where it ended. Columns that are no part of the event are its properties, unless a column `properties` holds them.

    Exit codes: 0 every row was taken, 1 none was or the file is a wrong one, 3 some rows were refused.
    """
    if sum([file is not None, dead_letters, late, rebuild]) != 1 or (replay and not dead_letters):
        raise typer.BadParameter(
            "give either a FILE, or --dead-letters with or without --replay, or --late, or --rebuild"
        )
    if entities and not rebuild:
        raise typer.BadParameter("--entity goes with --rebuild")
    from rules_engine.read_plan import ReadPlan
    from rules_engine.sdk.rules import Rules
    from rules_engine.stream.event_sink import EventSink

    project = Project.open(repo)
    sink = EventSink(project, Rules(ReadPlan.load(project.read_plan)))
    try:
        if file is not None:
            mapped = mapped_by(mapping, event, names, at_unit, ids, separator)
            _ingest(project, sink, file, mapped, output_format, live=live)
        elif rebuild:
            _rebuild(project, sink, entities, output_format)
        elif late:
            _late(sink, limit, output_format)
        elif replay:
            _replay(sink, output_format)
        else:
            _list(sink, limit, output_format)
    finally:
        sink.close()


def _ingest(
    project: Project, sink: EventSink, file: Path, mapped: Mapped, output_format: Format, *, live: bool
) -> None:
    from rules_engine.diagnostics import nearest
    from rules_engine.stream.files.ingest import ingest_file

    declared = sink.declarations.events
    for name in [*mapped.names.values(), *([] if mapped.name is None else [mapped.name])]:
        if name not in declared:
            raise UnknownNameError(
                f"there is no event `{name}` in the applied events.yaml", hint=nearest(name, declared)
            )
    with output.working("Taking events") as show:
        report = ingest_file(
            project, sink, file, mapped, lambda report: show(f"Taking events: {report.rows:,} rows"), live=live
        )
    if output_format is Format.JSON:
        output.print_json(asdict(report))
    else:
        _say(report)
    if report.refused:
        raise typer.Exit(PARTLY_REFUSED if report.accepted else 1)


def _say(report: IngestReport) -> None:
    output.say(f"Took {output.plural(report.accepted, 'event')} of {output.plural(report.rows, 'row')}")
    if report.skipped:
        output.say(f"  {output.plural(report.skipped, 'row')} of them in a run that was interrupted")
    if report.known:
        output.say(f"  {output.plural(report.known, 'event')} of them came before, and count once")
    if report.without_id:
        rows = output.plural(report.without_id, "row")
        output.say(f"  {rows} had no id: those that are equal in everything count once; see --id")
    if report.rebuilt:
        entities = output.plural(report.rebuilt, "entity")
        output.say(f"  the states of {entities} were rebuilt from the log, as events came late for a total")
    for code, count in sorted(report.reasons.items()):
        output.say(f"  refused {output.plural(count, 'row')}: {code}")
    if report.refused:
        output.say("See them with `segments ingest --dead-letters`")


def _rebuild(project: Project, sink: EventSink, entities: list[str] | None, output_format: Format) -> None:
    from rules_engine.stream.rebuilding import entities_to_rebuild, rebuild_states
    from rules_engine.stream.reevaluation import look_again

    chosen = entities or entities_to_rebuild(sink)
    remaining = rebuild_states(project, sink, chosen)
    if chosen:
        look_again(project, "rebuild")
    if output_format is Format.JSON:
        output.print_json({"rebuilt": len(chosen) - len(remaining), "remaining": len(remaining)})
    else:
        output.say(f"Rebuilt the states of {output.plural(len(chosen) - len(remaining), 'entity')} from the event log")
        if remaining:
            output.say(f"  late events of {output.plural(len(remaining), 'entity')} keep coming: do it again later")


def _late(sink: EventSink, limit: int, output_format: Format) -> None:
    from rules_engine.stream.rebuilding import entities_to_rebuild

    entities = entities_to_rebuild(sink)
    if output_format is Format.JSON:
        output.print_json({"total": len(entities), "entities": entities[:limit]})
        return
    for entity in entities[:limit]:
        output.say(entity)
    output.say(
        f"{output.plural(len(entities), 'entity')} to rebuild" + (": `segments ingest --rebuild`" if entities else "")
    )


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
    rows = [
        [event["refused_at"][:19] + "Z", event["source"], f"{event['code']}: {event['message']}"] for event in newest
    ]
    if rows:
        output.table(["refused at", "from", "why"], rows)
    output.say(f"{output.plural(total, 'refused event')}" + (f", the newest {len(rows)} shown" if rows else ""))
