"""``segments export``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rules_engine.cli.common import output
from rules_engine.cli.common.context import Context, read_context
from rules_engine.cli.common.options import HERE, AsOf, CsvFormulas, Format, OutputFormat, Repo
from rules_engine.clock import format_instant
from rules_engine.folders import Project

if TYPE_CHECKING:
    from rules_engine.batch.export import Exports
    from rules_engine.batch.export_sql import SqlExports


def export(
    segment: Annotated[str, typer.Argument(metavar="SEGMENT", help="The segment's name.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="The ending is the format: .parquet, .csv or .jsonl.")
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="URL", help="A SQL database instead, e.g. sqlite:///audiences.db.")
    ] = None,
    table: Annotated[
        str | None, typer.Option("--table", metavar="NAME", help="Its table; made if it is not there.")
    ] = None,
    changes_since_last: Annotated[
        bool,
        typer.Option(
            "--changes-since-last", help="Write who entered and who left since the last export to the same place."
        ),
    ] = False,
    csv_formulas: CsvFormulas = False,
    as_of: AsOf = None,
    context: Context = None,
    repo: Repo = HERE,
    output_format: OutputFormat = Format.TEXT,
) -> None:
    """Write the users of a segment to a file or a table.

    All users are evaluated as of an instant, by the definitions in the files. With --changes-since-last each row has a
    user and whether they entered or left since the last export to the same place; the first time everyone enters. A
    file appears when it is complete, and a table is changed in one transaction.
    """
    from rules_engine.batch.engine import BatchProject, BatchRules

    if (out is None) == (to is None):
        raise typer.BadParameter("give one of the two", param_hint="--out / --to")
    if (to is None) != (table is None):
        raise typer.BadParameter("--to URL and --table NAME belong together", param_hint="--to / --table")
    project = Project.open(repo)
    with (
        output.working("Opening the project") as show,
        _exports(project, segment, out, to, table, csv_formulas) as exports,
    ):
        opened = BatchProject.open(project, as_of)
        rules = BatchRules(opened.repo, opened.program, [segment], read_context(context, opened.program))
        run = exports.changes if changes_since_last else exports.full
        done = run(
            rules, opened.now, lambda users, part: show(f"Evaluated {output.plural(users, 'user')} ({part:.0%})")
        )
    previous = None if done.previous is None else format_instant(done.previous)
    at, place = format_instant(opened.now), exports.shown
    if output_format is Format.JSON:
        data = {"segment": segment, "as_of": at, "file" if out is not None else "table": place, "members": done.members}
        changes = {"since": previous, "entered": done.entered, "left": done.left}
        output.print_json(data | (changes if changes_since_last else {}))
        return
    output.say("Wrote ", (place, "bold"), f": {segment} has {output.plural(done.members, 'user')} as of {at}")
    if changes_since_last:
        before = "the first export" if previous is None else f"since {previous}"
        output.say(f"{done.entered:,} entered and {done.left:,} left, {before}")


@contextmanager
def _exports(
    project: Project, segment: str, out: Path | None, to: str | None, table: str | None, csv_formulas: bool
) -> Iterator[Exports | SqlExports]:
    if out is not None:
        from rules_engine.batch.export import Exports

        yield Exports(project, segment, out, csv_formulas=csv_formulas)
        return
    from rules_engine.batch.export_sql import SqlExports

    assert to is not None
    assert table is not None
    exports = SqlExports(segment, to, table)
    try:
        yield exports
    finally:
        exports.close()
