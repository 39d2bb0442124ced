"""``segments explain``."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from rules_engine.cli.common import output
from rules_engine.cli.common.context import Context, read_context
from rules_engine.cli.common.options import HERE, At, Entity, Format, OutputFormat, Repo
from rules_engine.clock import from_micros

_VERDICT = re.compile(r"^([ │├└─-]*)(true|false|unknown):", re.MULTILINE)
_STYLES = {"true": "green", "false": "red", "unknown": "yellow"}


def explain(
    entity: Entity,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of a segment or a decision.")],
    context: Context = None,
    at: At = None,
    repo: Repo = HERE,
    output_format: OutputFormat = Format.TEXT,
) -> None:
    """Show why someone is, or is not, in a segment, or gets a variant.

    Every condition is shown with what it read, its verdict, and until when it holds; below, the fewest conditions that
    would have to change.
    """
    from rules_engine.sdk import SegmentClient

    with SegmentClient.from_repo(repo) as client:
        instant = None if at is None else from_micros(at)
        values = read_context(context, client.conditions)
        explain_it = client.explain_decision if name in client.decisions else client.explain
        explanation = explain_it(entity, name, context=values, at=instant)
    if output_format is Format.JSON:
        output.print_json(explanation.to_dict())
        return
    for line in str(explanation).splitlines():
        _show(line)


def _show(line: str) -> None:
    verdict_match = _VERDICT.match(line)
    if verdict_match is None:
        output.say(line)
        return
    start, verdict = verdict_match.groups()
    output.say((start, "dim"), (verdict, _STYLES[verdict]), line[verdict_match.end() - 1 :])
