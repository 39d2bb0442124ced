"""Choose the path of an embedded server's socket: next to its data, or a short one where that is too long."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from rules_engine.errors import StoreUnavailableError

MAX_SOCKET_PATH = 100
"""Bytes. The kernels take 107 (Linux) and 103 (macOS)."""

_SAFE_SOCKET_PATH = re.compile(r"[A-Za-z0-9/._@+-]+")


def socket_path(root: Path, data_dir: Path) -> Path:
    """Return a path next to the data if a socket can have it; else a short one that depends on the root only.

    Feast's connection strings take no comma and no equals sign. The environment has no say (as it would through
    ``TMPDIR``): every command of every session must find the same socket.
    """
    path = data_dir / "v.sock"
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH and _SAFE_SOCKET_PATH.fullmatch(str(path)):
        return path
    import hashlib

    digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:20]
    return Path("/tmp") / f"feast-segments-{os.getuid()}" / f"{digest}.sock"  # noqa: S108 (see check_private)


def check_private(folder: Path) -> None:
    """Refuse a folder that another user owns or may enter: the socket in it could be theirs."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise StoreUnavailableError(
            f"{folder} is not a folder that belongs to you alone, so the embedded store uses no socket in it",
            hint="remove it, or move the project to a shorter path of plain letters",
        )
