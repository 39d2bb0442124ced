"""A file of JSON lines: one write for each batch, on disk when the actions count as delivered."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath

import orjson

from rules_engine.sinks.base import DELIVERED, Message, Outcome, Sink, Verdict
from rules_engine.sinks.settings import SettingError, SinkSettings, text, words
from rules_engine.sinks.variables import VARIABLE

#: How much of a file's end is read before its first write: more than a batch, and more than a store can lose.
_TAIL = 16_000_000

#: How many keys of the lines last written are kept in memory.
_KEYS = 100_000

_CHUNK = 1_000_000

#: What the line of every action begins with.
_BEGINNING = b'{"key":"'

#: The folders of a project that are read as code or definitions.
_READ = frozenset({"segments", "feature_repo"})


def _check_path(path: str) -> None:
    if ".." in PurePosixPath(path).parts:
        raise SettingError("the path leads out of the folder that it begins in", "write it without `..`")


def _check_folder(folder: str) -> None:
    if not folder.startswith("/") or ".." in PurePosixPath(folder).parts or VARIABLE.search(folder):
        raise SettingError(f"`{folder}` is no folder outside the project", "write its whole path, e.g. `/var/log/shop`")


@dataclass(frozen=True)
class FileSettings(SinkSettings):
    """A file of JSON lines below the project's folder."""

    path: str = field(
        metadata=text(
            "The path of a file of JSON lines, below the project's folder.",
            expected="the path of a file",
            check=_check_path,
        )
    )
    allow: tuple[str, ...] = field(
        default=(),
        metadata=words(
            "Folders outside the project that may be written to, such as /var/log/shop.",
            expected="a folder outside the project",
            check=_check_folder,
        ),
    )

    def check(self) -> None:
        """Refuse a path that is plainly outside the project; links are looked at when the file is written."""
        path = PurePosixPath(self.path)
        folders = [folder for folder in self.allow if path.is_relative_to(folder)]
        if path.is_absolute() and not folders:
            hint = "write a path below the project's folder, or name the folder: `allow: [FOLDER]`"
            raise SettingError("the file lies outside the project", hint)
        if not _is_writable((path.relative_to(folders[0]) if folders else path).parts, in_project=not folders):
            hint = "write a path in a folder of its own, e.g. `logs/actions.jsonl`"
            message = "`segments/`, `feature_repo/`, and what begins with a dot, are not written to"
            raise SettingError(message, hint)


def _is_writable(parts: Sequence[str], *, in_project: bool) -> bool:
    """Return whether a sink may write to a path inside a project or another folder."""
    is_read = in_project and bool(parts) and parts[0].casefold() in _READ
    return bool(parts) and not is_read and not any(part.startswith(".") for part in parts)


class FileSink(Sink, kind="file", settings=FileSettings):
    """Appends actions to a file, and each of them once.

    An action may come again: its writer was killed, or the store lost its last second, before the action was taken off
    the queue; or another worker served the sink while this one slept. So whatever was appended since the last look is
    read first, with the file locked, and what is in the file already is not written.

    Parameters
    ----------
    settings
        with the values of variables.
    root
        the project's folder.
    """

    def __init__(self, settings: FileSettings, root: Path) -> None:
        self._root, self._path = root, root / settings.path
        self._allowed = [root, *map(Path, settings.allow)]
        self._file: tuple[int, int] | None = None
        self._end = 0
        self._written: dict[str, None] = {}

    def send(self, actions: Sequence[Message]) -> Sequence[Outcome]:
        """Append actions that the file does not have."""
        try:
            self._append(actions)
        except _OutsideError:
            message = "the path leads through a link out of the project, or into a folder that is not written to"
            return [Outcome(Verdict.RETRY, "outside", message, is_sick=True)] * len(actions)
        except OSError as error:
            failed = Outcome(Verdict.RETRY, "unwritable", f"the file cannot be written: {error.strerror}", is_sick=True)
            return [failed] * len(actions)
        return [DELIVERED] * len(actions)

    def _append(self, actions: Sequence[Message]) -> None:
        with self._locked() as handle:
            self._read_on(handle)
            new = {action.key: action for action in actions if action.key not in self._written}
            if new:
                self._end = _write(handle, b"".join(action.body() + b"\n" for action in new.values()), self._end)
            self._remember(new)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """Open the file, and keep other writers out until it is closed."""
        handle = _open(_resolved(self._path, self._root, self._allowed))
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield handle
        finally:
            os.close(handle)

    def _read_on(self, handle: int) -> None:
        """Take in the keys of the lines that were appended since the last look, and mend the end of the file."""
        status = os.fstat(handle)
        if self._file != (status.st_dev, status.st_ino) or status.st_size < self._end:
            self._file, self._end = (status.st_dev, status.st_ino), max(0, status.st_size - _TAIL)
        rest = b""
        while chunk := os.pread(handle, _CHUNK, self._end + len(rest)):
            *lines, rest = (rest + chunk).split(b"\n")
            self._end += sum(len(line) + 1 for line in lines)
            self._remember(key for line in lines if (key := _key(line)) is not None)
        if not rest:
            return
        if rest.startswith(_BEGINNING) or _BEGINNING.startswith(rest):
            os.ftruncate(handle, self._end)  # an action that was cut off when a machine went down; it comes again
        else:
            self._end = _write(handle, b"\n", self._end + len(rest))

    def _remember(self, keys: Iterable[str]) -> None:
        self._written.update(dict.fromkeys(keys))
        for key in list(islice(self._written, max(0, len(self._written) - _KEYS))):
            del self._written[key]


class _OutsideError(Exception):
    """Raised for a path that leads to where a sink does not write."""


def _resolved(path: Path, root: Path, allowed: Sequence[Path]) -> Path:
    """Return the path with its links followed, if it ends where a sink may write."""
    real = path.resolve()
    for folder in allowed:
        base = folder.resolve()
        if real.is_relative_to(base) and _is_writable(real.relative_to(base).parts, in_project=folder == root):
            return real
    raise _OutsideError


def _open(path: Path) -> int:
    """Open a file by a path without links, and make its folders; a link that was put there meanwhile is refused."""
    folder = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in path.parts[1:-1]:
            with suppress(FileExistsError):
                os.mkdir(part, dir_fd=folder)
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        return os.open(path.name, flags, 0o640, dir_fd=folder)
    finally:
        os.close(folder)


def _write(handle: int, lines: bytes, size: int) -> int:
    """Write all of the lines or none, and return the size that the file has then."""
    try:
        left = memoryview(lines)
        while left:
            left = left[os.write(handle, left) :]
        os.fsync(handle)
    except OSError:
        os.ftruncate(handle, size)
        raise
    return size + len(lines)


def _key(line: bytes) -> str | None:
    """Return the key of an action; None for other lines, and for the first one read, which may be cut in two."""
    try:
        key = orjson.loads(line)["key"]
    except (ValueError, KeyError, TypeError):
        return None
    return key if isinstance(key, str) else None
