"""Lock the files by which processes agree on an embedded server: who starts or stops it, and whether it lives."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from rules_engine.errors import StoreUnavailableError


@contextlib.contextmanager
def opened_lock(path: Path) -> Iterator[int]:
    """Open a file that is only locked; a process that inherits it goes on holding its locks.

    Raises
    ------
    StoreUnavailableError
        if the file cannot be used.
    """
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise forbidden(path, error) from error
    try:
        yield file
    finally:
        os.close(file)


def try_lock(file: int, *, shared: bool) -> bool:
    """Lock an open file unless another process holds a lock that excludes this one; tell whether it is locked now."""
    import fcntl  # not on Windows, where this module must still import to say so

    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def forbidden(path: Path, error: OSError) -> StoreUnavailableError:
    """Make the error for a file of the store that this user may not use."""
    return StoreUnavailableError(
        f"the embedded store cannot use {path}: {error.strerror}",
        hint="its folder belongs to whoever started it first; run as that user, or make it writable",
    )
