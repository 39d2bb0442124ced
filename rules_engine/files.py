"""Files that are replaced in one step, and JSON that carries a checksum of itself.

A reader finds the old content or the new, never half of one; and what a disk or an editor damaged is noticed.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
import zlib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO

from rules_engine.errors import ProjectError

#: What a sealed object begins with. CRC-32 finds accidents, which is all that is asked of it, and needs no slow import.
_SEAL = re.compile(rb'\{"checksum": "([0-9a-f]{8})",\n')


def seal(json_object: bytes) -> bytes:
    r"""Put a checksum of a JSON object in front of its first key.

    >>> seal(b'{"a": 1}')
    b'{"checksum": "f2d50346",\n"a": 1}'
    """
    rest = json_object[1:]
    return b'{"checksum": "%08x",\n' % zlib.crc32(rest) + rest


def is_sealed(text: bytes) -> bool:
    """Say whether a text is a JSON object with a checksum that fits its content.

    >>> is_sealed(seal(b'{"a": 1}')), is_sealed(seal(b'{"a": 1}').replace(b"1", b"2")), is_sealed(b'{"a": 1}')
    (True, False, False)
    """
    seal_match = _SEAL.match(text)
    return seal_match is not None and int(seal_match[1], 16) == zlib.crc32(text[seal_match.end() :])


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file in one step, so that it is whole after a crash at any moment.

    A file that exists keeps its permissions. A new one gets those that the umask leaves, as if a shell had made it: who
    may read what was deployed is for the deployer to say.

    Parameters
    ----------
    path
        The file; folders above it that do not exist are made.
    content
        What it holds afterwards.

    Raises
    ------
    ProjectError
        if it cannot be written; the old file is as it was.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_atomically(Path(folder) / "notes" / "one.txt", b"kept")
    ...     (Path(folder) / "notes" / "one.txt").read_text()
    'kept'
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _temporary(path) as (file, temporary):
            _keep_permissions(path, file)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
    except OSError as error:
        raise ProjectError(
            f"cannot write {path}: {error.strerror}", hint="is the folder writable, is the disk full?"
        ) from error


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """Make a file beside `path`; it is gone afterwards, unless it took the place of `path`."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:  # not `tempfile`: its files are for their owner only, whatever the umask
            yield file, temporary
    finally:
        temporary.unlink(missing_ok=True)


def _keep_permissions(path: Path, file: BinaryIO) -> None:
    with contextlib.suppress(FileNotFoundError, PermissionError):
        os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))


def entries(folder: Path, pattern: str) -> list[Path]:
    """Return what lies in a folder under names like a pattern, sorted; nothing if the folder does not exist.

    Unlike ``Path.glob`` it does not take a folder that may not be read for an empty one.

    Raises
    ------
    OSError
        if the folder exists and cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if fnmatchcase(path.name, pattern))
    except FileNotFoundError:
        return []


def files_below(folder: Path) -> list[Path]:
    """Return all files below a folder, sorted. See :func:`entries` on what cannot be read.

    Raises
    ------
    OSError
        if a folder cannot be read.
    """
    paths = [Path(parent) / name for parent, _, names in os.walk(folder, onerror=_refuse) for name in names]
    return sorted(path for path in paths if path.is_file())


def _refuse(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
