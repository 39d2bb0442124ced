"""Who gets actions in tests: a real HTTP server that fails as real ones do."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson

from rules_engine.sinks.base import Sink
from rules_engine.sinks.settings import SinkSettings

#: Opens a sink that is closed at the end of the test.
Open = Callable[[SinkSettings], Sink]


@dataclass(frozen=True)
class Request:
    """A request that came."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float

    @property
    def key(self) -> str:
        return self.headers["idempotency-key"]

    @property
    def action(self) -> dict[str, Any]:
        found: dict[str, Any] = orjson.loads(self.body)
        return found


@dataclass
class Answer:
    """What is answered: after some seconds, and one byte at a time if it drips."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    after: float = 0.0
    drips: bool = False


@dataclass
class Receiver:
    """A server with what it got, and what it answers."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    answer: Callable[[Request], Answer] = lambda _: Answer()
    lock: threading.Lock = field(default_factory=threading.Lock)
    under_way: int = 0
    most: int = 0

    def accepted(self) -> list[Request]:
        with self.lock:
            return list(self.requests)

    def wait_for(self, number: int, timeout: float = 60.0) -> list[Request]:
        """The requests, once there are so many."""
        wait_until(lambda: len(self.requests) >= number, timeout)
        return self.accepted()


def wait_until(condition: Callable[[], object], timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@contextlib.contextmanager
def receiver(port: int = 0) -> Iterator[Receiver]:
    """A server on this machine."""
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("content-length", 0))
            body = self.rfile.read(length)
            if len(body) < length:
                return  # the client was killed before it had sent all
            request = Request(self.path, {key.lower(): value for key, value in self.headers.items()}, body, time.time())
            with found.lock:
                found.requests.append(request)
                found.under_way += 1
                found.most = max(found.most, found.under_way)
            try:
                self._answer(found.answer(request))
            finally:
                with found.lock:
                    found.under_way -= 1

        def _answer(self, answer: Answer) -> None:
            time.sleep(answer.after)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(answer.body)))
                if answer.drips:
                    for _ in range(100):
                        self.wfile.write(b"X-Drip: drop\r\n")
                        time.sleep(0.1)
                self.end_headers()
                self.wfile.write(answer.body)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """A client that goes away is no error of ours."""

    server = Server(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}/actions"
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
