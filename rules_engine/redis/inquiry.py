"""Ask an embedded server a few questions over its socket, without a client: whether it answers, and how it is."""

from __future__ import annotations

import socket
from pathlib import Path

from rules_engine.redis.socket_path import check_private

_SECONDS = 1.0


class ServerInquiry:
    """Asks the server behind a unix socket, with a connection for each question.

    Parameters
    ----------
    socket_path
        the socket.
    is_shared_folder
        whether the socket lies where other users have folders too, so that it is checked whose it is.
    """

    def __init__(self, socket_path: Path, *, is_shared_folder: bool) -> None:
        self._path = socket_path
        self._is_shared_folder = is_shared_folder

    def ask(self, command: str) -> str:
        """Send one command; return its one-line or bulk reply.

        Raises
        ------
        OSError
            if the server cannot be reached.
        StoreUnavailableError
            if the folder of the socket belongs to another user.
        """
        if self._is_shared_folder:
            check_private(self._path.parent)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_SECONDS)
            connection.connect(str(self._path))
            connection.sendall(f"{command}\r\n".encode())
            with connection.makefile("rb") as reply:
                head = reply.readline()
                body = reply.read(int(head[1:])) if head.startswith(b"$") else head
        return body.decode(errors="replace").strip()

    def answers(self) -> bool:
        """Tell whether the server answers, whatever it answers: one whose disk is full still answers reads.

        Only while it loads its data is there nothing to be had from it.
        """
        try:
            reply = self.ask("PING")
        except OSError:
            return False
        return bool(reply) and not reply.startswith("-LOADING")

    def info(self, section: str = "") -> dict[str, str]:
        """Return what the server says about itself; nothing if it cannot be reached."""
        try:
            return dict(line.split(":", 1) for line in self.ask(f"INFO {section}").splitlines() if ":" in line)
        except OSError:
            return {}
