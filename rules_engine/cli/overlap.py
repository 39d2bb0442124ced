"""``segments overlap``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rules_engine.cli.common import output
from rules_engine.cli.common.context import Context, read_context
from rules_engine.cli.common.options import HERE, AsOf, Format, OutputFormat, Repo, Segments, png
from rules_engine.clock import format_instant
from rules_engine.folders import Project

if TYPE_CHECKING:
    from rules_engine.batch.overlap import Overlap, Pair

#: So many pairs are shown as text; JSON has all.
_SHOWN = 20


def overlap(
    as_of: AsOf = None,
    segments: Segments = None,
    duplicates: Annotated[
        float,
        typer.Option("--duplicates", min=0, max=1, metavar="PART", help="From so much in common on, say so."),
    ] = 0.9,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", parser=png, help="Draw a heat map; needs matplotlib.")
    ] = None,
    context: Context = None,
    repo: Repo = HERE,
    output_format: OutputFormat = Format.TEXT,
) -> None:
    """Show how far segments have the same users.

    For each pair of segments: how many users are in both, which part of those in either that is (Jaccard), and which
    part of each. All users are evaluated as of an instant, by the definitions in the files.
    """
    from rules_engine.batch.engine import BatchProject, BatchRules
    from rules_engine.batch.overlap import heat_map
    from rules_engine.batch.overlap import overlap as run

    with output.working("Opening the project") as show:
        opened = BatchProject.open(Project.open(repo), as_of)
        rules = BatchRules(opened.repo, opened.program, segments or None, read_context(context, opened.program))
        counted = run(rules, opened.now, lambda users, done: show(f"Evaluated {users:,} users ({done:.0%})"))
        if plot is not None:
            heat_map(counted, plot)
    if output_format is Format.JSON:
        near = [[pair.first, pair.second] for pair in counted.duplicates(duplicates)]
        output.print_json(
            {
                "as_of": format_instant(opened.now),
                "users": counted.users,
                "sizes": counted.sizes,
                "pairs": [_data(pair) for pair in counted.pairs],
                "near_duplicates": near,
            }
        )
        return
    output.say((output.plural(counted.users, "user"), "bold"), f" as of {format_instant(opened.now)}")
    _show(counted, duplicates)
    if plot is not None:
        output.say(f"Wrote {plot}")


def _data(pair: Pair) -> dict[str, object]:
    return {
        "first": pair.first,
        "second": pair.second,
        "both": pair.both,
        "jaccard": pair.jaccard,
        "of_first": pair.contained,
        "of_second": pair.contains,
    }


def _show(counted: Overlap, least: float) -> None:
    sized = [[name, f"{size:,}"] for name, size in counted.sizes.items()]
    output.table(["segment", "users"], sized, right=["users"])
    alike = [pair for pair in counted.pairs if pair.both]
    output.say()
    headers = ["first", "second", "both", "jaccard", "of first", "of second"]
    output.table(headers, [_row(pair) for pair in alike[:_SHOWN]], right=headers[2:])
    if len(alike) > _SHOWN:
        output.say(f"and {len(alike) - _SHOWN:,} more; --format json shows all")
    for pair in counted.duplicates(least):
        output.say(f"{pair.first} and {pair.second} are nearly the same: {pair.jaccard:.1%} in common")


def _row(pair: Pair) -> list[str]:
    return [
        pair.first,
        pair.second,
        f"{pair.both:,}",
        *(f"{part:.1%}" for part in (pair.jaccard, pair.contained, pair.contains)),
    ]
