"""``segments decide``."""

from __future__ import annotations

from typing import Annotated

import typer

from rules_engine.cli.common import output
from rules_engine.cli.common.context import Context, read_context
from rules_engine.cli.common.options import HERE, At, Entity, Format, OutputFormat, Repo
from rules_engine.clock import format_instant, from_micros, to_micros


def decide(
    entity: Entity,
    decisions: Annotated[
        list[str] | None, typer.Argument(metavar="DECISION", help="The decisions. Default: all.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show the rules, with values and verdicts.")] = False,
    context: Context = None,
    at: At = None,
    repo: Repo = HERE,
    output_format: OutputFormat = Format.TEXT,
) -> None:
    """Show which variants someone gets, and why.

    Answers from the online store and the definitions that were applied last.
    """
    from rules_engine.sdk import SegmentClient

    instant = None if at is None else from_micros(at)
    with SegmentClient.from_repo(repo) as client:
        values = read_context(context, client.conditions)
        assignments = client.decide_all(entity, decisions or None, context=values, at=instant)
        explanations = {
            name: client.explain_decision(entity, name, context=values, at=instant)
            for name in (assignments if explain else ())
        }
    if output_format is Format.JSON:
        rules = {name: {"explanation": each.to_dict()} for name, each in explanations.items()}
        output.print_json([assignment.to_dict() | rules.get(name, {}) for name, assignment in assignments.items()])
        return
    if not assignments:
        output.say("no decision was applied: write a `decision:` document, then run `segments apply`")
    for name, assignment in assignments.items():
        if name in explanations:
            output.say_lines(str(explanations[name]))
            continue
        change = assignment.changes_at
        until = "" if change is None else f", until {format_instant(to_micros(change))}"
        output.say((name, "bold"), ": ", (assignment.variant, "green"), f" ({assignment.reason()}){until}")
        if assignment.is_undecided:
            output.say("  this is not known: more events came than are kept; `segments evaluate` tells")
