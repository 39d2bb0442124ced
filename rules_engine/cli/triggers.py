"""``segments triggers``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import Annotated, Any

import typer

from rules_engine.cli.common import output
from rules_engine.cli.common.options import HERE, Format, OutputFormat, Repo
from rules_engine.cli.history import From, Limit, To, shown, text
from rules_engine.clock import format_instant, to_micros
from rules_engine.errors import UnknownNameError
from rules_engine.folders import Project
from rules_engine.triggers.causes import cause_text

app = typer.Typer(add_completion=False)


class Shown(Enum):
    """Says what became of an instance of a trigger."""

    PENDING = "pending"
    FIRED = "fired"
    CANCELLED = "cancelled"
    SUPPRESSED = "suppressed"


@app.callback(invoke_without_command=True)
def triggers(
    context: typer.Context,
    trigger: Annotated[str | None, typer.Option("--trigger", metavar="NAME", help="Of this trigger only.")] = None,
    entity: Annotated[str | None, typer.Option("--entity", metavar="ENTITY", help="Of this entity only.")] = None,
    state: Annotated[
        list[Shown] | None, typer.Option("--state", help="Only what is in this state now; may be given several times.")
    ] = None,
    start: From = None,
    end: To = None,
    limit: Limit = 50,
    repo: Repo = HERE,
    output_format: OutputFormat = Format.TEXT,
) -> None:
    """Show what waits, what fired, and what did not and why.

    One line for each instance of a trigger: an entity and what started it. The instant is that of its last step, the
    latest first; one that waits says when it is due.
    """
    if context.invoked_subcommand is not None:
        return
    from rules_engine.stream.ledger import Ledger

    project = Project.open(repo)
    states = None if not state else {shown_state.value for shown_state in state}
    rows = Ledger.of(project).instances(
        entity=entity, trigger=trigger, states=states, start=start, end=end, limit=limit
    )
    if not rows and trigger is not None:
        _check(project, trigger)
    if output_format is Format.JSON:
        output.print_json([{name: shown(value) for name, value in row.items()} for row in rows])
        return
    if not rows:
        chosen = [f"the trigger {trigger}"] if trigger else []
        chosen += [f"the entity {entity}"] if entity else []
        chosen += [f"the state {' or '.join(sorted(states))}"] if states else []
        between = " in that time" if start is not None or end is not None else ""
        output.say("Nothing is noted" + (f" of {' and '.join(chosen)}" if chosen else "") + between)
        output.say("Triggers work on what `segments apply` applied, while `segments run` runs.")
        return
    names = ["at", "trigger", "entity", "state", "reason", "due", "cause"]
    output.table(
        names, [[cause_text(row[name]) if name == "cause" else text(row[name]) for name in names] for row in rows]
    )
    _say_that_time_stands_still(project, rows)


def _say_that_time_stands_still(project: Project, rows: Iterable[Mapping[str, Any]]) -> None:
    """Say so where the project names the instant that is now: what is due later waits for ever."""
    from rules_engine.read_plan import ReadPlan

    now = ReadPlan.load(project.read_plan).now
    late = now is not None and any(row["state"] == "pending" and to_micros(row["due"]) > now for row in rows)
    if now is not None and late:
        output.say(
            f"Now is always {format_instant(now)} here (`now:` of the project): what is due later goes on waiting."
        )


@app.command("dead-letters")
def dead_letters(
    resend: Annotated[
        bool, typer.Option("--resend", help="Put them into their queues again; they keep their keys.")
    ] = False,
    sinks: Annotated[
        list[str] | None,
        typer.Option("--sink", metavar="KIND:NAME", help="Of this sink only, e.g. webhook:crm; repeatable."),
    ] = None,
    identities: Annotated[
        list[str] | None, typer.Option("--id", metavar="ID", help="With --resend: this action only; repeatable.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many to show.")] = 20,
    repo: Repo = HERE,
    output_format: OutputFormat = Format.TEXT,
) -> None:
    """Show the actions that could not be delivered, and why; send them again."""
    if identities and not resend:
        raise typer.BadParameter("--id goes with --resend")
    from rules_engine.delivery import queues

    project = Project.open(repo)
    with _store(project) as (client, name):
        if resend:
            back = queues.resend(client, name, sinks, identities)
            if output_format is Format.JSON:
                output.print_json({"resent": back})
            else:
                output.say(f"{output.plural(back, 'action')} wait for their sinks again")
            return
        total, newest = queues.undelivered(client, name, limit)
    chosen = [letter for letter in newest if not sinks or letter.action.sink in sinks]
    rows = [
        {
            "id": letter.identity,
            "sink": letter.action.sink,
            "trigger": letter.action.trigger,
            "entity": letter.action.entity,
            "key": letter.action.key,
            **letter.reason,
        }
        for letter in chosen
    ]
    if output_format is Format.JSON:
        output.print_json({"total": total, "actions": rows})
        return
    if rows:
        cells = [[row["id"], row["sink"], row["trigger"], row["entity"], _why(row)] for row in rows]
        output.table(["id", "sink", "trigger", "entity", "why"], cells)
    output.say(f"{output.plural(total, 'undelivered action')}" + (f", the newest {len(rows)} shown" if rows else ""))


def _why(row: dict[str, Any]) -> str:
    return f"{row.get('code', '')}: {row.get('message', '')}"


def _check(project: Project, trigger: str) -> None:
    from rules_engine.diagnostics import nearest
    from rules_engine.read_plan import ReadPlan

    names = ReadPlan.load(project.read_plan).definitions.get("triggers") or {}
    if trigger not in names:
        hint = nearest(trigger, names) or "`segments apply` puts triggers into effect"
        raise UnknownNameError(f"there is no trigger `{trigger}`, and there was none", hint=hint)


@contextmanager
def _store(project: Project) -> Iterator[tuple[Any, str]]:
    """Give a client of the online store, and the name of Feast's project."""
    from rules_engine.read_plan import ReadPlan
    from rules_engine.redis.server import event_server

    plan = ReadPlan.load(project.read_plan)
    with event_server(plan.connection, project.root).connected() as client:
        yield client, plan.project
