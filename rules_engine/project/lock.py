"""One command at a time changes the feature store of a project."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator

from rules_engine.errors import ProjectError
from rules_engine.folders import Project

_POLL_SECONDS = 0.05


@contextlib.contextmanager
def project_lock(project: Project, wait: float = 5.0) -> Iterator[None]:
    """Hold the right to apply and materialize. It ends with the process, however that ends.

    Parameters
    ----------
    project
        the project.
    wait
        seconds to wait for another command.

    Raises
    ------
    ProjectError
        if another command still holds it then, or the project's state folder is not writable.
    """
    path = project.state_dir / "feast.lock"
    try:
        project.state_dir.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ProjectError(
            f"cannot write {path}: {error.strerror}", hint="is the project's folder writable?"
        ) from error
    try:
        _acquire(handle, path.parent.parent, time.monotonic() + wait)
        yield
    finally:
        os.close(handle)


def _acquire(handle: int, root: object, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise ProjectError(
                    f"another command is applying or materializing {root}", hint="try again when it is done"
                ) from None
            time.sleep(_POLL_SECONDS)
        else:
            return
