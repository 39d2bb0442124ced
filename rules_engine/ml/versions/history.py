"""The history of promotions, rollbacks and attachments: ``history.json`` beside the versions of one name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import orjson

from rules_engine.clock import format_instant, parse_instant
from rules_engine.errors import DataError
from rules_engine.files import write_atomically

FILE = "history.json"


@dataclass(frozen=True, slots=True)
class HistoryStep:
    """Something done with a version: ``promote``, ``rollback`` (back to it) or ``attach``, at an instant in µs."""

    action: str
    version: str
    at: int


def read_history(folder: Path) -> tuple[HistoryStep, ...]:
    """Return every step of a folder of versions, oldest first.

    Raises
    ------
    DataError
        if the file cannot be read.
    """
    path = folder / FILE
    try:
        content = orjson.loads(path.read_bytes())
        return tuple(HistoryStep(step["action"], step["version"], parse_instant(step["at"])) for step in content)
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{path} cannot be read, and it says which version is promoted: {error}"
        raise DataError(message, hint="remove it, and promote a version anew") from error


def write_history(folder: Path, steps: tuple[HistoryStep, ...]) -> None:
    """Replace the file in one step."""
    content = [{"action": step.action, "version": step.version, "at": format_instant(step.at)} for step in steps]
    write_atomically(folder / FILE, orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n")


def promotions(steps: tuple[HistoryStep, ...]) -> list[str]:
    """Return the promoted versions that were not rolled back, the current one last.

    >>> promotions((HistoryStep("promote", "v1", 0), HistoryStep("promote", "v2", 1), HistoryStep("rollback", "v1", 2)))
    ['v1']
    """
    standing: list[str] = []
    for step in steps:
        if step.action == "promote":
            standing.append(step.version)
        elif step.action == "rollback":
            while standing and standing[-1] != step.version:
                standing.pop()
    return standing
