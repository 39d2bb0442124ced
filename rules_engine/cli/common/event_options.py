"""Options of the commands that read events from files: where a row has the parts of an event."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rules_engine.stream.event_files import Mapped

_PARTS = ("entity", "event", "at", "event_id", "properties")


class AtUnit(Enum):
    """What a number in the column of instants counts."""

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


def mapped_by(mapping: list[str] | None, event: str | None, names: list[str] | None, at_unit: AtUnit) -> Mapped:
    """What the options say."""
    from rules_engine.stream.event_files import Mapped

    pairs = _pairs(mapping, "--map")
    columns = {name: column for name, column in pairs.items() if name in _PARTS}
    renamed = {column: name for name, column in pairs.items() if name not in _PARTS}
    return Mapped(**columns, name=event, names=_pairs(names, "--name"), renamed=renamed, at_unit=at_unit.value)


def _pairs(given: list[str] | None, option: str) -> dict[str, str]:
    pairs = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise typer.BadParameter(f"`{text}` is not NAME=VALUE", param_hint=option)
        pairs[name] = value
    return pairs
