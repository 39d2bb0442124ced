"""``segments simulate``."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rules_engine.cli.common import output
from rules_engine.cli.common.event_options import AtUnit, EventName, Mapping, Names, Unit, mapped_by
from rules_engine.cli.common.options import HERE, Format, OutputFormat, Repo, Segments, instant
from rules_engine.clock import format_instant
from rules_engine.folders import Project
from rules_engine.triggers.causes import cause_text

if TYPE_CHECKING:
    from rules_engine.simulation.simulate import Happening, Simulation

#: Rows that are written at once.
_PIECE = 10_000


def simulate(
    events: Annotated[
        Path | None,
        typer.Argument(
            metavar="EVENTS",
            help="A file that ends in .jsonl, .ndjson, .csv or .parquet. Default: the project's own event log.",
        ),
    ] = None,
    start: Annotated[
        int | None,
        typer.Option(
            "--from",
            metavar="INSTANT",
            parser=instant,
            help="Start there; events before are known, and start nothing. Default: the first event.",
        ),
    ] = None,
    end: Annotated[
        int | None,
        typer.Option(
            "--to", metavar="INSTANT", parser=instant, help="Let timers run until then. Default: the last event."
        ),
    ] = None,
    segments: Segments = None,
    triggers: Annotated[
        list[str] | None,
        typer.Option("--trigger", "--triggers", metavar="NAME", help="This trigger only; may be given several times."),
    ] = None,
    no_features: Annotated[
        bool,
        typer.Option("--no-features", help="Take all features as missing; entities without events are then unknown."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write everything that happens to a .parquet, .csv or .jsonl file."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="How many of the first actions to show.")] = 20,
    mapping: Mapping = None,
    event: EventName = None,
    names: Names = None,
    at_unit: Unit = AtUnit.MICROSECONDS,
    repo: Repo = HERE,
    output_format: OutputFormat = Format.TEXT,
) -> None:
    """Show what segments and triggers do with recorded events.

    The definitions are those of the files. The clock is simulated: an event arrives when it happened, and timers come
    in between. Features are those of the offline store as they were at each instant. Nothing is sent, and nothing is
    written to the store.
    """
    from rules_engine.simulation.simulate import Simulator

    mapped = mapped_by(mapping, event, names, at_unit)
    with output.working("Opening the project") as show, ExitStack() as stack:
        simulator = Simulator(Project.open(repo), segments, triggers, features=not no_features)
        tell = _writer(out, stack) if out is not None else lambda _: None
        simulation = simulator.run(events, mapped, start, end, tell=tell, progress=show, shown=limit)
    if output_format is Format.JSON:
        output.print_json(_data(simulation))
    else:
        _show(simulation)
        if out is not None:
            output.say(f"Wrote {out}")


def _writer(out: Path, stack: ExitStack) -> Any:
    from rules_engine.batch.membership_files import TableFile
    from rules_engine.simulation.simulate import schema, write_rows

    file = stack.enter_context(TableFile(out, schema()))
    happenings: list[Happening] = []

    def flush() -> None:
        file.write(write_rows(happenings))
        happenings.clear()

    def tell(happening: Happening) -> None:
        happenings.append(happening)
        if len(happenings) >= _PIECE:
            flush()

    stack.callback(flush)
    return tell


def _show(simulation: Simulation) -> None:
    start, end = format_instant(simulation.start), format_instant(simulation.end)
    what = f"{output.plural(simulation.events, 'event')} of {output.plural(simulation.entities, 'entity')}"
    output.say(f"{what}, from {start} to {end}")
    for code, count in sorted(simulation.refused.items()):
        output.say(f"  refused {output.plural(count, 'row')}: {code}")
    if simulation.segments:
        output.say()
        headers = ["segment", "at start", "entered", "left", "at end"]
        rows = [
            [name, *(f"{number:,}" for number in (counts.at_start, counts.entered, counts.left, counts.at_end))]
            for name, counts in simulation.segments.items()
        ]
        output.table(headers, rows, right=headers[1:])
    if simulation.triggers:
        output.say()
        headers = ["trigger", "started", "fired", "cancelled", "suppressed", "still waits"]
        rows = [
            [
                name,
                *(
                    f"{number:,}"
                    for number in (
                        counts.started,
                        counts.fired,
                        counts.cancelled,
                        counts.suppressed.total(),
                        counts.pending,
                    )
                ),
            ]
            for name, counts in simulation.triggers.items()
        ]
        output.table(headers, rows, right=headers[1:])
        _show_reasons(simulation)
    if simulation.actions:
        output.say()
        output.table(["fired at", "trigger", "entity", "cause", "payload"], map(_action, simulation.actions))
        more = sum(counts.fired for counts in simulation.triggers.values()) - len(simulation.actions)
        if more:
            output.say(f"and {output.plural(more, 'other')}")


def _show_reasons(simulation: Simulation) -> None:
    for name, counts in simulation.triggers.items():
        if counts.suppressed:
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(counts.suppressed.items()))
            output.say(f"  {name} was suppressed: {reasons}")


def _action(happening: Happening) -> list[str]:
    row = happening.row()
    return [str(row["at"]), str(row["name"]), str(row["entity"]), cause_text(str(row["cause"])), str(row["payload"])]


def _data(simulation: Simulation) -> dict[str, Any]:
    return {
        "from": format_instant(simulation.start),
        "to": format_instant(simulation.end),
        "entities": simulation.entities,
        "events": simulation.events,
        "refused": dict(simulation.refused),
        "segments": {
            name: {"at_start": counts.at_start, "entered": counts.entered, "left": counts.left, "at_end": counts.at_end}
            for name, counts in simulation.segments.items()
        },
        "triggers": {
            name: {
                "started": counts.started,
                "fired": counts.fired,
                "cancelled": counts.cancelled,
                "suppressed": dict(counts.suppressed),
                "pending": counts.pending,
            }
            for name, counts in simulation.triggers.items()
        },
        "actions": [_fired(happening) for happening in simulation.actions],
    }


def _fired(happening: Happening) -> dict[str, Any]:
    row = happening.row()
    payload = getattr(happening.what, "payload", {})
    return {"at": row["at"], "trigger": row["name"], "entity": row["entity"], "cause": row["cause"], "payload": payload}
