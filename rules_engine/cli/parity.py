"""``segments parity``."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer

from rules_engine.cli.common import output
from rules_engine.cli.common.options import HERE, AsOf, Format, OutputFormat, Repo
from rules_engine.clock import format_instant
from rules_engine.folders import Project

if TYPE_CHECKING:
    from rules_engine.batch.parity import Disagreement, Parity

#: So many disagreements are shown as text; JSON has all.
_SHOWN = 20

_WORDS = {True: "true", False: "false", None: "unknown"}


def parity(
    sample: Annotated[int, typer.Option("--sample", min=1, metavar="N", help="Compare so many users.")] = 1000,
    all_users: Annotated[bool, typer.Option("--all", help="Compare all users.")] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Another seed draws other users.")] = 0,
    as_of: AsOf = None,
    repo: Repo = HERE,
    output_format: OutputFormat = Format.TEXT,
) -> None:
    """Compare request-time answers with batch answers.

    Users are drawn at random and answered by the applied definitions: from the online store and, as of the same
    instant, from the offline store and the event log. Every condition that comes out differently is shown with both
    values, and the exit code is 1. Before the end of the last materialization the two differ rightly: the online store
    keeps the newest rows only.
    """
    from rules_engine.batch.parity import compare

    with output.working("Opening the project") as show:
        compared = compare(Project.open(repo), None if all_users else sample, as_of, seed, show)
    if output_format is Format.JSON:
        refused = {name: str(error) for name, error in compared.refused.items()}
        data = asdict(replace(compared, refused={}))
        output.print_json(data | {"as_of": format_instant(compared.as_of), "refused": refused})
    else:
        _show(compared)
    output.refuse(compared.refused)
    if compared.disagreements:
        raise typer.Exit(1)


def _show(parity: Parity) -> None:
    number = output.plural(len(parity.disagreements), "disagreement")
    compared = f"{output.plural(parity.users, 'user')} and {output.plural(len(parity.segments), 'segment')}"
    output.say((number, "bold"), f" among {compared} as of {format_instant(parity.as_of)}")
    if not parity.disagreements:
        return
    rows = [_row(disagreement) for disagreement in parity.disagreements[:_SHOWN]]
    output.table(["user", "segment", "condition", "online", "offline"], rows)
    rest = len(parity.disagreements) - _SHOWN
    if rest > 0:
        output.say(f"and {rest:,} more; --format json shows all")


def _row(disagreement: Disagreement) -> list[str]:
    online = _side(disagreement.online, disagreement.online_value)
    return [
        disagreement.entity,
        disagreement.segment,
        disagreement.condition,
        online,
        _side(disagreement.offline, disagreement.offline_value),
    ]


def _side(verdict: bool | None, value: str | None) -> str:
    return _WORDS[verdict] if value is None else f"{_WORDS[verdict]} ({value})"
