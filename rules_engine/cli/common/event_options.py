"""Options of the commands that read events from files: where a row has the parts of an event."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rules_engine.stream.files.mapping import Mapped

_PARTS = ("entity", "event", "at", "event_id", "properties")


class AtUnit(Enum):
    """The unit of a number in the column of instants."""

    SECONDS = "s"
    MILLISECONDS = "ms"
    MICROSECONDS = "us"


#: Use as ``mapping: Mapping = None``.
Mapping = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="NAME=COLUMN",
        help="The column that holds a part of the event (entity, event, at, event_id, properties) or a property; "
        "may be given several times. Default: the column of that name.",
    ),
]

#: Use as ``event: EventName = None``.
EventName = Annotated[str | None, typer.Option("--event", metavar="NAME", help="The event that every row is.")]

#: Use as ``names: Names = None``.
Names = Annotated[
    list[str] | None,
    typer.Option(
        "--name", metavar="WORD=EVENT", help="The event that a word in the column of events stands for; repeatable."
    ),
]

#: Use as ``at_unit: Unit = AtUnit.MICROSECONDS``.
Unit = Annotated[AtUnit, typer.Option("--at-unit", help="What a number in the column `at` counts since 1970.")]


#: Use as ``ids: Ids = None``.
Ids = Annotated[
    str | None,
    typer.Option(
        "--id",
        metavar="COLUMN[,COLUMN]",
        help="The columns that tell a row from all others, where none is an event_id; by default all of them do.",
    ),
]

#: Use as ``separator: Separator = None``.
Separator = Annotated[
    str | None,
    typer.Option("--separator", metavar="CHARACTER", help="What is between columns in CSV, e.g. ';' or TAB."),
]


def mapped_by(
    mapping: list[str] | None,
    event: str | None,
    names: list[str] | None,
    at_unit: AtUnit,
    ids: str | None = None,
    separator: str | None = None,
) -> Mapped:
    """Return what the options say."""
    from rules_engine.stream.files.mapping import Mapped

    pairs = _pairs(mapping, "--map")
    columns = {name: column for name, column in pairs.items() if name in _PARTS}
    renamed = {column: name for name, column in pairs.items() if name not in _PARTS}
    id_columns = tuple(part for part in (ids or "").split(",") if part)
    if id_columns and "event_id" in columns:
        raise typer.BadParameter("give either --id or --map event_id=COLUMN", param_hint="--id")
    between = "\t" if separator is not None and separator.upper() in ("TAB", "\\T") else separator
    if between is not None and (len(between) != 1 or between in '"\r\n'):
        raise typer.BadParameter(f"`{separator}` is not one character, nor TAB", param_hint="--separator")
    return Mapped(
        **columns,
        name=event,
        names=_pairs(names, "--name"),
        renamed=renamed,
        at_unit=at_unit.value,
        id_columns=id_columns,
        separator=between,
    )


def _pairs(texts: list[str] | None, option: str) -> dict[str, str]:
    pairs = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise typer.BadParameter(f"`{text}` is not NAME=VALUE", param_hint=option)
        pairs[name] = value
    return pairs
