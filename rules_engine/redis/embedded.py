"""Run the online store that needs no installation: a Valkey server out of a wheel, one for each project.

The first command that needs it starts it, later ones find it again, and it runs on between commands until
``segments store stop`` or until its folder is deleted. Its data lies in ``ROOT/.segments/store/`` and survives a stop,
a kill and a reboot.

Two locks make sure that there is only one server. ``start.lock`` is held by whoever starts or stops the server, so that
others wait and then find what was done. ``server.lock`` is inherited by the server, which holds it until it ends:
whether a server lives is asked of the kernel, and no stale process id or socket can mislead.

Nothing is ever evicted and memory is not limited: a feature store that forgets would answer wrongly without a word.

This module imports neither Feast nor a Redis client, so the request path may use it.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rules_engine.errors import StoreUnavailableError
from rules_engine.folders import Project
from rules_engine.redis.file_locks import forbidden, opened_lock, try_lock
from rules_engine.redis.inquiry import ServerInquiry
from rules_engine.redis.socket_path import socket_path
from rules_engine.redis.valkey import guard_folder, runs_server, server_binary, server_environment

if TYPE_CHECKING:
    from rules_engine.redis.loading import LoadingWatch, Report

_LOG_LINES_SHOWN = 8
_LOG_BYTES_KEPT = 1_000_000
_POLL_SECONDS = 0.005
#: A server that could not write tries again every second.
_DISK_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """Holds the status of an embedded server. What only a running server knows is None if it does not answer."""

    running: bool
    socket: Path
    data_dir: Path
    disk_bytes: int
    pid: int | None = None
    memory_bytes: int | None = None
    keys: int | None = None
    version: str | None = None


class EmbeddedStore:
    """Starts, stops and describes the embedded Valkey server of one project.

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
    >>> deep.socket_path.parent.parent.as_posix()
    '/tmp'
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser().resolve()
        self.data_dir = Project(self.root).state_dir / "store"
        self.socket_path = socket_path(self.root, self.data_dir)
        self.log_file = self.data_dir / "server.log"
        self._pid_file = self.data_dir / "v.pid"

    @property
    def connection_string(self) -> str:
        """Return the address in the form that Feast's Redis store takes."""
        return f"localhost:0,unix_socket_path={self.socket_path}"

    @property
    def url(self) -> str:
        """Return the address in the form that Redis clients take."""
        return f"unix://{self.socket_path}"

    @property
    def _inquiry(self) -> ServerInquiry:
        return ServerInquiry(self.socket_path, is_shared_folder=self.socket_path.parent != self.data_dir)

    def ensure_running(self, timeout: float = 60.0, report: Report | None = None) -> str:
        """Start the server unless it runs; return the path of its socket once it answers.

        Parameters
        ----------
        timeout
            Seconds to wait while nothing goes on. A start takes hundredths of a second; a large store takes as long as
            it goes on loading its data from disk.
        report
            Is told how far the loading is; by default the log is, every few seconds.

        Raises
        ------
        MissingExtraError
            if the wheel with the server is not installed.
        StoreUnavailableError
            if the server cannot be started; the message ends with what the server logged.
        """
        if self._inquiry.answers():
            return str(self.socket_path)
        from rules_engine.redis.loading import LoadingWatch  # most processes find the server running

        binary = server_binary()
        watch = LoadingWatch(self._inquiry, timeout, report)
        self._make_folders()
        log_start: int | None = None
        with self._exclusive(watch):
            while not self._inquiry.answers():
                with self._server_lock() as lock:
                    if lock is not None and log_start is not None:
                        raise self._unavailable("stopped while starting", self._log_since(log_start))
                    if lock is not None:
                        log_start = self._launch(binary, lock)
                watch.look()
                if time.monotonic() >= watch.deadline:
                    what = f"runs (pid {self._recorded_pid()}) but neither answered nor went on for {timeout:g} s"
                    raise self._unavailable(what, self._log_since(log_start or 0))
                time.sleep(_POLL_SECONDS)
            pid = self._recorded_pid()
            if log_start is not None and pid is not None:
                guard_folder(self.data_dir, pid)
        return str(self.socket_path)

    def stop(self, timeout: float = 30.0) -> bool:
        """Stop the server, its data written to disk; return whether one was running.

        Raises
        ------
        StoreUnavailableError
            if the server cannot write to disk what it took, and was not stopped therefore; or if it still runs after
            ``timeout`` seconds.
        """
        if not self._is_alive():
            return False
        from rules_engine.redis.loading import LoadingWatch

        watch = LoadingWatch(self._inquiry, timeout)
        deadline = watch.deadline
        with self._exclusive(watch):
            self._await_disk()
            self._ask_to_stop()
            while self._is_alive():
                if time.monotonic() >= deadline:
                    raise self._unavailable(f"(pid {self._recorded_pid()}) did not stop within {timeout:g} s")
                time.sleep(_POLL_SECONDS)
        return True

    def status(self) -> StoreStatus:
        """Return the status, without starting or changing anything.

        Raises
        ------
        StoreUnavailableError
            if its folder belongs to another user.
        """
        try:
            disk_bytes = sum(_size(file) for file in self.data_dir.rglob("*") if file.is_file())
        except PermissionError as error:
            raise forbidden(self.data_dir, error) from error
        info = self._inquiry.info()
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
                env=server_environment(),
                # SIGXFSZ stays ignored, as in Python: a limit of file sizes is then an error like a full disk.
                restore_signals=False,
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
            # Files of snapshots are a tenth larger so, and load a quarter faster.
            "rdbcompression": "no",
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
    def _exclusive(self, watch: LoadingWatch) -> Iterator[None]:
        """Hold the right to start or stop the server; wait for it as long as the server goes on loading."""
        with opened_lock(self.data_dir / "start.lock") as file:
            while not try_lock(file, shared=False):
                watch.look()
                if time.monotonic() >= watch.deadline:
                    raise self._unavailable("is being started or stopped by another command that does not finish")
                time.sleep(_POLL_SECONDS)
            yield

    @contextlib.contextmanager
    def _server_lock(self, *, shared: bool = False) -> Iterator[int | None]:
        """Return the lock that a living server holds, or None while one does. To only ask, take it shared."""
        with opened_lock(self.data_dir / "server.lock") as file:
            yield file if try_lock(file, shared=shared) else None

    def _is_alive(self) -> bool:
        try:
            if not (self.data_dir / "server.lock").exists():
                return False
        except PermissionError as error:
            raise forbidden(self.data_dir / "server.lock", error) from error
        with self._server_lock(shared=True) as lock:
            return lock is None

    # Stopping

    def _await_disk(self) -> None:
        """Wait until all that the server took is written to its file.

        Raises
        ------
        StoreUnavailableError
            if it cannot write.
        """
        deadline = time.monotonic() + _DISK_SECONDS
        while True:
            persistence = self._inquiry.info("persistence")
            can_write = persistence.get("aof_last_write_status", "ok") == "ok"
            if can_write and persistence.get("aof_buffer_length", "0") == "0":
                return
            if time.monotonic() >= deadline:
                break
            time.sleep(_POLL_SECONDS)
        if can_write:
            return  # others write all the time; what they write is written before the server ends
        raise StoreUnavailableError(
            f"the embedded store of {self.root} cannot write to its disk, so it was not stopped: the last of what it "
            "took would be lost",
            hint=f"is the disk full? free some space for {self.data_dir} and stop it then; or give up what is not "
            f"written: kill {self._recorded_pid()}",
        )

    def _ask_to_stop(self) -> None:
        """Ask by command; by signal if the socket is gone. With both the server writes everything to disk first."""
        with contextlib.suppress(OSError):
            # A refusal is the only reply there is: a server that stops hangs up.
            if not self._inquiry.ask("SHUTDOWN"):
                return
        pid = self._recorded_pid()
        if pid is not None and runs_server(pid):
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
        log = "".join(f"\n    {line}" for line in lines)
        return StoreUnavailableError(
            f"the embedded store of {self.root} {what}{':' if log else ''}{log}",
            hint=f"the server's log is {self.log_file}; its data is in {self.data_dir}",
        )


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
