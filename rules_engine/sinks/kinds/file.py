"""A file of JSON lines: one write for each batch, on disk when the actions count as delivered."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from rules_engine.sinks.base import DELIVERED, Message, Outcome, Sink, Verdict
from rules_engine.sinks.settings import SinkSettings, text

#: How much of the file's end is looked at when it is opened.
_TAIL = 1_000_000


@dataclass(frozen=True)
class FileSettings(SinkSettings):
    """A file of JSON lines."""

    path: str = field(
        metadata=text("The path of a file of JSON lines, below the project's folder.", expected="the path of a file")
    )


class FileSink(Sink, kind="file", settings=FileSettings):
    """Appends actions to a file.

    Where a process was killed between writing and taking the actions off their queue, they are in the file already:
    its last lines are looked at first, and what they hold is not written again.

    Parameters
    ----------
    settings
        with the values of variables.
    root
        the project's folder, below which a relative path lies.
    """

    def __init__(self, settings: FileSettings, root: Path) -> None:
        self._path = root / settings.path
        self._written: frozenset[str] | None = None

    def send(self, actions: Sequence[Message]) -> Sequence[Outcome]:
        """Append actions that the end of the file does not have."""
        try:
            self._append(actions)
        except OSError as error:
            failed = Outcome(Verdict.RETRY, "unwritable", f"the file cannot be written: {error.strerror}", is_sick=True)
            return [failed] * len(actions)
        return [DELIVERED] * len(actions)

    def _append(self, actions: Sequence[Message]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o640)
        try:
            size = os.fstat(handle).st_size
            if self._written is None:
                self._written, size = _repaired(handle, size)
            lines = b"".join(one.body() + b"\n" for one in actions if one.key not in self._written)
            if lines:
                _write(handle, lines, size)
        finally:
            os.close(handle)
        self._written = frozenset()  # what this process wrote it does not get again


def _write(handle: int, lines: bytes, size: int) -> None:
    """Write all of the lines, or none."""
    try:
        left = memoryview(lines)
        while left:
            left = left[os.write(handle, left) :]
        os.fsync(handle)
    except OSError:
        os.ftruncate(handle, size)
        raise


def _repaired(handle: int, size: int) -> tuple[frozenset[str], int]:
    """The keys in the last lines, and the size without a line that was cut off when a machine went down."""
    start = max(0, size - _TAIL)
    tail = os.pread(handle, size - start, start)
    whole = tail.rfind(b"\n") + 1
    if whole < len(tail) and (start == 0 or whole):
        os.ftruncate(handle, start + whole)
        size = start + whole
    keys = set()
    for line in tail[:whole].split(b"\n"):
        try:
            keys.add(orjson.loads(line)["key"])
        except (ValueError, KeyError, TypeError):
            continue  # the first line may be cut in two, and lines of others are none of ours
    return frozenset(key for key in keys if isinstance(key, str)), size
