"""``segments lookup``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rules_engine.cli.common import output
from rules_engine.cli.common.context import Context, read_context
from rules_engine.cli.common.options import HERE, At, Entity, Format, OutputFormat, Repo
from rules_engine.clock import format_instant, from_micros, to_micros
from rules_engine.folders import Project

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

    project = Project.open_applied(repo)
    with SegmentClient(project) as client:
        membership = client.lookup(
            entity,
            context=read_context(context, client.program),
            segments=segments or None,
            at=None if at is None else from_micros(at),
        )
        if output_format is Format.JSON:
            output.print_json(membership.to_dict())
        else:
            _show(client, membership, len(segments) if segments else len(client.program.names))
            if not membership.segments and not _is_known(client, project, membership):
                output.say(f"  the store knows nothing of {membership.entity}")


def _show(client: SegmentClient, membership: Membership, segments: int) -> None:
    number = f"{len(membership.segments) or 'none'} of {output.plural(segments, 'segment')}"
    changes_at = membership.changes_at
    until = "" if changes_at is None else f", until {format_instant(to_micros(changes_at))}"
    at = format_instant(to_micros(membership.at))
    output.say((membership.entity, "bold"), " is in ", (number, "bold"), f" at {at}{until}")
    width = max(map(len, membership.segments), default=0)
    for name in sorted(membership.segments):
        description = client.program.segments[name].description
        output.say("  ", (name.ljust(width), "green"), ("  " + description if description else "", "dim"))
    for name in sorted(membership.undecided):
        output.say(f"  {name} is not known: more events came than are kept; `segments evaluate` tells")


def _is_known(client: SegmentClient, project: Project, membership: Membership) -> bool:
    """Return whether the store holds a feature of an entity, also one past its ttl, or an event that is kept of it."""
    from rules_engine.read_plan import ReadPlan
    from rules_engine.redis.feast_layout import KeyMaker, sibling_key
    from rules_engine.redis.server import event_server
    from rules_engine.sdk.rules import Rules

    plan = ReadPlan.load(project.read_plan)
    names = [f"{view.name}:{feature.name}" for view in plan.views for feature in view.features]
    if any(value is not None for value in client.features(membership.entity, names, at=from_micros(0)).values()):
        return True
    events = Rules(plan).events
    if not events.requirements.events:
        return False
    key = sibling_key(KeyMaker(plan.project, plan.join_key, plan.key_version)(membership.entity), events.name)
    with event_server(plan.connection, project.root).connected() as store:
        return bool(store.exists(key))
