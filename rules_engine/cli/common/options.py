"""Options that several commands have, with one name, one meaning and one help text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from rules_engine.cli.common.output import Format
from rules_engine.clock import parse_duration, parse_instant


def percent(text: str) -> float:
    """Return the part that a percentage such as ``20%`` means.

    >>> percent("20%")
    0.2
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)%", text)
    if match is None:
        raise typer.BadParameter(f"`{text}` is no percentage such as 20%")
    return float(match[1]) / 100


def instant(text: str) -> int:
    """Return the instant that a text such as ``2026-01-31T09:00:00Z`` means, in microseconds."""
    try:
        return parse_instant(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def duration(text: str) -> int:
    """Return the duration that a text such as ``7d`` means, in microseconds.

    >>> duration("1h")
    3600000000
    """
    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def png(text: str) -> Path:
    """Return a path that ends in ``.png``."""
    if not text.endswith(".png"):
        raise typer.BadParameter(f"`{text}` does not end in .png")
    return Path(text)


#: The project's folder. Use as ``repo: Repo = HERE`` and open it with ``Project.open(repo)``.
Repo = Annotated[
    Path, typer.Option("--repo", metavar="PATH", help="The project: the folder with feature_repo/ and segments/ in it.")
]
HERE = Path()

#: Use as ``output_format: OutputFormat = Format.TEXT``.
OutputFormat = Annotated[Format, typer.Option("--format", help="Text for people, or JSON for programs.")]

#: An instant in microseconds, or None. Use as ``at: At = None``.
At = Annotated[
    int | None,
    typer.Option(
        "--at",
        metavar="INSTANT",
        parser=instant,
        help="The instant that counts as now, e.g. 2026-01-31T09:00:00Z. Default: the project's `now`, else the clock.",
    ),
]

#: The instant of a batch command, in microseconds, or None. Use as ``as_of: AsOf = None``.
AsOf = Annotated[
    int | None,
    typer.Option(
        "--as-of",
        metavar="INSTANT",
        parser=instant,
        help="Everyone as they were then, e.g. 2026-01-31T09:00:00Z. Default: the project's `now`, else the clock.",
    ),
]

#: Use as ``segments: Segments = None``.
Segments = Annotated[
    list[str] | None,
    typer.Option("--segment", "--segments", metavar="NAME", help="This segment only; may be given several times."),
]

#: The key of the one who is asked about.
Entity = Annotated[str, typer.Argument(metavar="ENTITY", help="The entity's key, e.g. a user id.")]

#: Use as ``csv_formulas: CsvFormulas = False``.
CsvFormulas = Annotated[
    bool,
    typer.Option(
        "--csv-formulas",
        help="Write keys into CSV as they are; by default one that a spreadsheet would compute gets a ' in front.",
    ),
]

__all__ = ["HERE", "AsOf", "At", "CsvFormulas", "Entity", "Format", "OutputFormat", "Repo", "Segments"]
