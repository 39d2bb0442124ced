"""The command line as it was typed, so that what is printed works when it is pasted into the same shell."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path


def this_command() -> str:
    """Return what called this program: ``segments`` if a shell finds it by that name, else its path."""
    called = Path(sys.argv[0])
    if called.name != "segments":
        return f"{shlex.quote(typed(Path(sys.executable)))} -m rules_engine"
    command = shutil.which("segments")
    if command and Path(command).resolve() == called.resolve():
        return "segments"
    return shlex.quote(typed(called))


def typed(path: Path) -> str:
    """Return a path as one would type it here. Links stay: behind the environment's python is another one."""
    relative = os.path.relpath(path)
    return relative if not relative.startswith("..") else str(path.absolute())
