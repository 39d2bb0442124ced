"""``segments schema``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rules_engine.cli.common import output
from rules_engine.cli.common.options import HERE, Repo
from rules_engine.folders import Project


def schema(
    repo: Repo = HERE,
    to: Annotated[
        Path | None,
        typer.Option(
            "--output", metavar="FILE", help="Where to write it; - is stdout. Default: .segments/schema.json."
        ),
    ] = None,
) -> None:
    """Write the JSON Schema that editors complete and check with.

    It knows the features and segments of this project by name. Editors with a YAML language server use it for a file
    whose first line is: # yaml-language-server: $schema=../.segments/schema.json
    """
    from rules_engine.deploy.schema import project_schema, write_schema

    project = Project.open(repo)
    if to == Path("-"):
        output.print_json(project_schema(project))
        return
    with output.working("Reading the features"):
        path = write_schema(project, to=to)
    output.say(f"Wrote {path}")
