"""docs/cli.md, written from the commands themselves: ``python -m rules_engine.cli.reference > docs/cli.md``."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from typing import Any

import typer

from rules_engine.cli.commands import COMMANDS, load
from rules_engine.cli.main import app

_INTRODUCTION = """\
<!-- Written by `python -m rules_engine.cli.reference > docs/cli.md`; a test holds it up to date. -->
# Command line

`segments COMMAND [ARGUMENTS] [OPTIONS]`. Every command has `--help`.

Exit codes: 0 done, 1 something is wrong with what you gave, 2 usage, 130 interrupted with Ctrl-C. Results go to stdout,
everything else to stderr. With `--format json` a result is JSON, and instants in it are ISO 8601 in UTC.

"""


def reference() -> str:
    """Return the reference of all commands, as Markdown."""
    parts = [_INTRODUCTION]
    parts += ["| command | what it does |\n| --- | --- |\n"]
    parts += [f"| [`segments {entry.name}`](#segments-{entry.name}) | {entry.help} |\n" for entry in COMMANDS]
    root = typer.main.get_command(app)
    parts += ["\n## segments\n\n", *_parameters(root)]
    for entry in COMMANDS:
        command = load(entry)
        parts += _section(command, f"segments {entry.name}", "##")
        for name, verb in getattr(command, "commands", {}).items():
            parts += _section(verb, f"segments {entry.name} {name}", "###")
    return "".join(parts)


def _section(command: Any, path: str, level: str) -> Iterator[str]:
    is_group = bool(getattr(command, "commands", {}))
    arguments = [_argument(parameter) for parameter in command.params if parameter.param_type_name == "argument"]
    usage = " ".join([path, "VERB" if is_group else "", *arguments, "" if is_group else "[OPTIONS]"])
    yield f"\n{level} {path}\n\n```\n{' '.join(usage.split())}\n```\n\n"
    yield inspect.cleandoc(command.help or "").strip() + "\n"
    parameters = list(_parameters(command))
    if parameters:
        yield "\n"
        yield from parameters


def _parameters(command: Any) -> Iterator[str]:
    shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    if not shown:
        return
    yield "| | |\n| --- | --- |\n"
    for parameter in shown:
        help_text = " ".join((parameter.help or "").split()).replace("|", "\\|")
        yield f"| `{_name(parameter)}` | {help_text}{_default(parameter)} |\n"


def _argument(parameter: Any) -> str:
    name = str(parameter.metavar or parameter.name.upper())
    return (name if parameter.required else f"[{name}]") + ("..." if parameter.nargs == -1 else "")


def _name(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return _argument(parameter)
    value = "" if parameter.is_flag else f" {_value(parameter)}"
    return ", ".join(parameter.opts) + value


def _value(parameter: Any) -> str:
    choices = parameter.type_descriptor.choices
    if choices:
        return "\\|".join(str(getattr(choice, "value", choice)) for choice in choices)
    return str(parameter.metavar or "VALUE")


def _default(parameter: Any) -> str:
    default = parameter.default
    if parameter.required or default in (None, False, ()) or callable(default):
        return ""
    return f" Default: `{getattr(default, 'value', default)}`."


if __name__ == "__main__":
    sys.stdout.write(reference())
