"""``segments lookup``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rules_engine.cli.common import output
from rules_engine.cli.common.context import Context, read_context
from rules_engine.cli.common.options import HERE, At, Entity, Format, OutputFormat, Repo
from rules_engine.clock import format_instant, from_micros, to_micros

if TYPE_CHECKING:
    from rules_engine.sdk import Membership, SegmentClient


def lookup(
    entity: Entity,
    context: Context = None,
    segments: Annotated[
        list[str] | None,
        typer.Option("--segment", metavar="NAME", help="Look at this segment only; may be given several times."),
    ] = None,
    at: At = None,
    repo: Repo = HERE,
    output_format: OutputFormat = Format.TEXT,
) -> None:
    """Show which segments someone is in.

    Answers from the online store and the definitions that were applied last. Someone of whom nothing is known is in
    no segment, which is no error.
    """
    from rules_engine.sdk import SegmentClient

    with SegmentClient.from_repo(repo) as client:
        found = client.lookup(
            entity,
            context=read_context(context, client.program),
            segments=segments or None,
            at=None if at is None else from_micros(at),
        )
        if output_format is Format.JSON:
            output.print_json(found.to_dict())
        else:
            _show(client, found, len(segments) if segments else len(client.program.names))


def _show(client: SegmentClient, found: Membership, asked: int) -> None:
    number = f"{len(found.segments) or 'none'} of {output.plural(asked, 'segment')}"
    changes_at = found.changes_at
    until = "" if changes_at is None else f", until {format_instant(to_micros(changes_at))}"
    at = format_instant(to_micros(found.at))
    output.say((found.entity, "bold"), " is in ", (number, "bold"), f" at {at}{until}")
    width = max(map(len, found.segments), default=0)
    for name in sorted(found.segments):
        description = client.program.segments[name].description
        output.say("  ", (name.ljust(width), "green"), ("  " + description if description else "", "dim"))
    for name in sorted(found.undecided):
        output.say(f"  {name} is not known: more events came than are kept; `segments evaluate` tells")
    if not found.segments and all(value is None for value in client.features(found.entity, at=found.at).values()):
        output.say(f"  the store knows nothing of {found.entity}")
