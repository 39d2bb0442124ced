"""``segments init``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from rules_engine.cli.common import output
from rules_engine.cli.common.called import this_command


def init(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The folder to make; its last part names the project.")],
) -> None:
    """Make a new project that works at once.

    It has a small Feast repository with sample data, three segments with their tests, and an online store that needs
    no installation. Files that exist are never overwritten: if one is in the way, nothing is written.
    """
    from rules_engine.deploy.new_project import new_project, require_store
    from rules_engine.deploy.schema import write_schema

    require_store()
    root = Path(name)
    with output.working("Making the project"):
        project = new_project(root)
        write_schema(project)
    output.say("Made the project ", (project.root.name, "bold"), f" in {project.root}")
    output.say("Try:")
    lines = [f"{this_command()} {arguments.format(name=shlex.quote(name))}" for arguments, _ in _STEPS]
    width = max(map(len, lines))
    for line, (_, remark) in zip(lines, _STEPS, strict=True):
        output.say("  ", (line.ljust(width), "cyan"), ("  # " + remark, "dim"))


_STEPS = (
    ("apply --repo {name}", "put features and segments into effect"),
    ("materialize --repo {name}", "bring the sample into the online store"),
    ("lookup c015 --repo {name}", "which segments is this customer in?"),
    ("explain c015 vip --repo {name}", "and why?"),
    ("test --repo {name}", "do the segments mean what their tests say?"),
)
