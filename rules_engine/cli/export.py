"""``segments export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rules_engine.cli import output
from rules_engine.cli.context import Context, read_context
from rules_engine.cli.options import HERE, AsOf, Format, OutputFormat, Repo
from rules_engine.clock import format_instant
from rules_engine.project import Project


def export(
    segment: Annotated[str, typer.Argument(metavar="SEGMENT", help="The segment's name.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="The ending is the format: .parquet, .csv or .jsonl.")
    ],
    changes_since_last: Annotated[
        bool,
        typer.Option(
            "--changes-since-last", help="Write who entered and who left since the last export to this file instead."
        ),
    ] = False,
    as_of: AsOf = None,
    context: Context = None,
    repo: Repo = HERE,
    output_format: OutputFormat = Format.TEXT,
) -> None:
    """Write the users of a segment to a file.

    All users are evaluated as of an instant, by the definitions in the files. With --changes-since-last each row has a
    user and whether they entered or left since the last export to the same file; the first time everyone enters.
    """
    from rules_engine.lifecycle.batch import BatchProject, BatchRules
    from rules_engine.lifecycle.export import Exports

    project = Project.open(repo)
    with output.working("Opening the project") as show:
        opened = BatchProject.open(project, as_of)
        rules = BatchRules(opened.repo, opened.program, [segment], read_context(context, opened.program))
        exports = Exports(project, segment, out)
        run = exports.changes if changes_since_last else exports.full
        done = run(rules, opened.now, lambda users, part: show(f"Evaluated {users:,} users ({part:.0%})"))
    since = None if done.since is None else format_instant(done.since)
    at = format_instant(opened.now)
    if output_format is Format.JSON:
        data = {"segment": segment, "as_of": at, "file": str(out), "members": done.members}
        changes = {"since": since, "entered": done.entered, "left": done.left}
        output.print_json(data | (changes if changes_since_last else {}))
        return
    output.say("Wrote ", (str(out), "bold"), f": {segment} has {output.plural(done.members, 'user')} as of {at}")
    if changes_since_last:
        before = "the first export" if since is None else f"since {since}"
        output.say(f"{done.entered:,} entered and {done.left:,} left, {before}")
