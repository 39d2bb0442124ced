"""List every command with its help. The help of ``segments`` is printed from this list, without importing commands."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

START, DEFINE, RUN, ASK = "Start", "Define", "Run", "Ask"


@dataclass(frozen=True, slots=True)
class CommandEntry:
    """Lists a command. Its module ``cli.NAME`` has a function NAME, or a Typer ``app`` for several verbs."""

    name: str
    help: str
    panel: str


COMMANDS = (
    CommandEntry("init", "Make a new project that works at once.", START),
    CommandEntry("demo", "Show the main job on real purchases, end to end.", START),
    CommandEntry("validate", "Check all definitions and show every problem.", DEFINE),
    CommandEntry("schema", "Write the JSON Schema that editors complete and check with.", DEFINE),
    CommandEntry("test", "Run the tests beside the definitions.", DEFINE),
    CommandEntry("sql", "Print a segment or a decision as SQL.", DEFINE),
    CommandEntry("plan", "Show what applying the files would change, and whom it moves.", RUN),
    CommandEntry("apply", "Put features and definitions into effect.", RUN),
    CommandEntry("materialize", "Bring the online store up to date.", RUN),
    CommandEntry("ingest", "Take events from a file; replay refused ones; rebuild states.", RUN),
    CommandEntry("run", "Work off the streams of events.", RUN),
    CommandEntry("serve", "Answer over HTTP.", RUN),
    CommandEntry("cluster", "Group users by their features; the labels are features too.", RUN),
    CommandEntry("model", "Learn how likely users are to act; the scores are features too.", RUN),
    CommandEntry("drift", "Show how far users have drifted since the fits.", RUN),
    CommandEntry("store", "Look after the embedded online store.", RUN),
    CommandEntry("evaluate", "Evaluate all users as of an instant.", ASK),
    CommandEntry("backtest", "Show how a segment would have changed over time.", ASK),
    CommandEntry("simulate", "Show what segments and triggers do with recorded events.", ASK),
    CommandEntry("parity", "Compare request-time answers with batch answers.", ASK),
    CommandEntry("overlap", "Show how far segments have the same users.", ASK),
    CommandEntry("export", "Write the users of a segment to a file or a table.", ASK),
    CommandEntry("lookup", "Show which segments someone is in.", ASK),
    CommandEntry("decide", "Show which variants someone gets, and why.", ASK),
    CommandEntry("history", "Show who entered and left segments, when and why.", ASK),
    CommandEntry("triggers", "Show what waits, what fired, and what did not and why.", ASK),
    CommandEntry("explain", "Show why someone is, or is not, in a segment, or gets a variant.", ASK),
)

_BY_NAME = {entry.name: entry for entry in COMMANDS}


def load(entry: CommandEntry) -> Any:
    """Import the module of a command, and return its click command."""
    module = import_module(f"rules_engine.cli.{entry.name}")
    app = getattr(module, "app", None)
    if app is None:
        app = typer.Typer(add_completion=False)
        app.command(entry.name)(getattr(module, entry.name))
    command: Any = typer.main.get_command(app)
    command.name, command.help = entry.name, command.help or entry.help
    _plain(command)
    return command


def _plain(command: Any) -> None:
    """Print help and usage errors as plain text: Typer's boxes are wide, and noise outside a terminal."""
    command.rich_markup_mode = None
    for inner in getattr(command, "commands", {}).values():
        _plain(inner)


class LazyGroup(TyperGroup):
    """A group that knows its commands from the table, and imports one only to run it or to show its own help."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = {entry.name: TyperCommand(entry.name, help=entry.help) for entry in COMMANDS}
        _plain(self)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the named command, loaded."""
        name, stub, rest = super().resolve_command(ctx, args)
        return name, load(_BY_NAME[name]) if stub is not None and name is not None else None, rest

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Write the commands as plain help, in the sections of the table."""
        for panel in dict.fromkeys(entry.panel for entry in COMMANDS):
            with formatter.section(panel):
                formatter.write_dl([(entry.name, entry.help) for entry in COMMANDS if entry.panel == panel])
