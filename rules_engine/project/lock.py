"""Let one command at a time change the feature store of a project."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from filelock import FileLock, Timeout

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
    lock = FileLock(path, timeout=wait, mode=0o600, thread_local=False)
    try:
        project.state_dir.mkdir(parents=True, exist_ok=True)
        lock.acquire(poll_interval=_POLL_SECONDS)
    except Timeout:
        raise ProjectError(
            f"another command is applying or materializing {project.root}", hint="try again when it is done"
        ) from None
    except OSError as error:
        raise ProjectError(
            f"cannot write {path}: {error.strerror}", hint="is the project's folder writable?"
        ) from error
    try:
        yield
    finally:
        lock.release()
