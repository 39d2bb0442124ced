"""Runs the service: sockets, processes, and the end of a process."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn
from uvicorn.supervisors import Multiprocess

from rules_engine.errors import SegmentsError
from rules_engine.folders import Project
from rules_engine.service import feast_paths, ofrep, operation, reads, streams
from rules_engine.service.application import Application
from rules_engine.service.console.background import Background
from rules_engine.service.console.routes import routes as console_routes
from rules_engine.service.core import Service, open_keys, read_settings
from rules_engine.service.metrics import SHARED
from rules_engine.service.openapi import with_document
from rules_engine.service.routes import Route
from rules_engine.service.telemetry import Telemetry
from rules_engine.service.tracking import routes as tracking
from rules_engine.stream.logs import set_up_logs

#: Connections that wait until a process takes them.
_BACKLOG = 2048

#: Seconds that requests which are being answered have at the end of a process.
_ENDING = 30


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Says how the service runs.

    Attributes
    ----------
    root
        the project's folder.
    host, port
        where it listens; port 0 is any free one.
    uds
        the path of a Unix socket to listen on, instead of host and port.
    workers
        how many processes answer.
    dev
        whether it runs without keys; only for this machine.
    drain
        seconds for which it goes on answering after SIGTERM, while ``/readyz`` says that it ends.
    json_logs
        whether log lines are JSON.
    access_log
        whether every request is logged.
    telemetry
        whether traces and evaluations are sent to an OpenTelemetry collector.
    certificate, private_key
        files for TLS.
    """

    root: Path
    host: str = "127.0.0.1"
    port: int = 8080
    uds: Path | None = None
    workers: int = 1
    dev: bool = False
    drain: float = 5.0
    json_logs: bool = False
    access_log: bool = False
    telemetry: bool = False
    certificate: Path | None = None
    private_key: Path | None = None


def all_routes() -> list[Route]:
    """Return the operations of the service; those asked most often come first."""
    asking = [*ofrep.routes(), *tracking.routes(), *reads.routes(), *feast_paths.routes()]
    return with_document([*asking, *streams.routes(), *operation.routes()])


def serve(options: ServeOptions, started: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM.

    Parameters
    ----------
    options
        how.
    started
        called with the address once it is bound.

    Raises
    ------
    ProjectError
        if nothing was applied, or the keys cannot be used.
    SegmentsError
        if the address cannot be used.
    """
    settings = read_settings(Project(options.root))
    if options.telemetry:
        Telemetry().close()  # refused here, and not in each process
    if options.dev:
        _check_is_local(options)
    else:
        open_keys(settings, options.workers)
    with ExitStack() as stack:
        listening = stack.enter_context(_bound(options))
        started(_address(options, listening))
        config = uvicorn.Config(
            _Factory(options),
            factory=True,
            workers=options.workers,
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=True,
            proxy_headers=False,
            lifespan="on",
            ws="none",
            backlog=_BACKLOG,
            timeout_graceful_shutdown=_ENDING,
            ssl_certfile=options.certificate,
            ssl_keyfile=options.private_key,
        )
        if options.workers == 1:
            uvicorn.Server(config).run([listening])
        else:
            os.environ[SHARED] = stack.enter_context(tempfile.TemporaryDirectory())
            Multiprocess(config, [listening]).run()


@dataclass(frozen=True, slots=True)
class _Factory:
    """Makes the application of one process; sent to the processes that are started."""

    options: ServeOptions

    def __call__(self) -> Application:
        set_up_logs(as_json=self.options.json_logs)
        background = Background()
        return Application(lambda: self.open(background), [*all_routes(), *console_routes(background)])

    def open(self, background: Background) -> Service:
        options = self.options
        service = Service(
            Project(options.root),
            dev=options.dev,
            workers=options.workers,
            access_log=options.access_log,
            telemetry=Telemetry() if options.telemetry else None,
        )
        service.at_end.append(background.close)
        _end_streams_first(service)
        if options.drain:
            _drain_first(service, options.drain)
        return service


def _end_streams_first(service: Service) -> None:
    """Make the signals that end the process end the streams, which would go on for ever."""
    loop = asyncio.get_running_loop()

    def wrap(end: Callable[[int, FrameType | None], object]) -> Callable[[int, FrameType | None], None]:
        def handle(number: int, frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(service.hub.end_all, "draining")
            end(number, frame)

        return handle

    for number in (signal.SIGINT, signal.SIGTERM):
        end = signal.getsignal(number)
        if callable(end):
            signal.signal(number, wrap(end))


def _drain_first(service: Service, seconds: float) -> None:
    """Make SIGTERM wait: requests are answered for a while longer, while those who send them are told to go."""
    end = signal.getsignal(signal.SIGTERM)
    loop = asyncio.get_running_loop()

    def drain(number: int, frame: FrameType | None) -> None:
        if not callable(end):
            return
        if service.draining:
            end(number, frame)
            return
        service.draining = True
        loop.call_soon_threadsafe(loop.call_later, seconds, end, number, None)

    signal.signal(signal.SIGTERM, drain)


def _check_is_local(options: ServeOptions) -> None:
    if options.uds is not None or options.host == "localhost":
        return
    try:
        local = ipaddress.ip_address(options.host).is_loopback
    except ValueError:
        local = False
    if not local:
        raise SegmentsError(
            f"--dev answers everybody without a key, so it listens on this machine only, and not on {options.host}",
            hint="leave --host out, or name keys in the `project:` document",
        )


@contextmanager
def _bound(options: ServeOptions) -> Iterator[socket.socket]:
    """Yield the socket that all processes listen on."""
    try:
        listening = _unix(options.uds) if options.uds is not None else _tcp(options.host, options.port)
    except OSError as error:
        where = options.uds or f"{options.host}:{options.port}"
        hint = "choose another --port, or end what listens there" if error.errno == 98 else None
        raise SegmentsError(f"cannot listen on {where}: {error.strerror or error}", hint=hint) from None
    try:
        listening.listen(_BACKLOG)  # so that nobody is refused while the processes start
        yield listening
    finally:
        listening.close()
        if options.uds is not None:
            options.uds.unlink(missing_ok=True)


def _tcp(host: str, port: int) -> socket.socket:
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = addresses[0]
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError:
        listening.close()
        raise
    listening.set_inheritable(True)
    return listening


def _unix(path: Path) -> socket.socket:
    """Return a socket at a path, in the place of one that a process left behind."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode) and not _is_served(path):
            path.unlink()
        listening.bind(str(path))
    except OSError:
        listening.close()
        raise
    listening.set_inheritable(True)
    return listening


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        return asking.connect_ex(str(path)) == 0


def _address(options: ServeOptions, listening: socket.socket) -> str:
    if options.uds is not None:
        return f"unix:{options.uds}"
    host, port = listening.getsockname()[:2]
    scheme = "http" if options.certificate is None else "https"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
