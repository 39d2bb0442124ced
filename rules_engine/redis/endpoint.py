"""Describe a Redis or Valkey server for direct connections, and turn its error answers and failures into errors."""

from __future__ import annotations

import functools
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Never

from rules_engine.errors import ProjectError, StoreError, StoreTimeoutError, StoreUnavailableError
from rules_engine.redis.client import TIMEOUT, Address, server_error

if TYPE_CHECKING:
    import ssl

#: Connections of one client at most, unless the connection string says otherwise (``max_connections``).
MAX_CONNECTIONS = 64

#: The options of a connection string that the direct connections understand; with any other redis-py connects.
_OPTIONS = frozenset(
    {
        "db", "max_connections", "password", "socket_connect_timeout", "socket_timeout", "ssl", "ssl_ca_certs",
        "ssl_ca_path", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile", "ssl_password",
        "unix_socket_path", "username",
    }
)  # fmt: skip


@dataclass(frozen=True)
class RedisEndpoint:
    """Describes a single server.

    Attributes
    ----------
    address
        as the configuration gives it; its options hold path, password and encryption.
    timeout
        seconds for a request, from asking to the answer.
    connect_timeout
        seconds for opening a connection, which is part of a request.
    """

    address: Address
    timeout: float
    connect_timeout: float

    @classmethod
    def of(cls, address: Address, timeout: float | None) -> RedisEndpoint | None:
        """Return the server of an address; None if the address asks for what only redis-py does.

        >>> RedisEndpoint.of(Address.parse("cache:6379,db=1"), None).timeout
        5.0
        >>> RedisEndpoint.of(Address.parse("cache:6379,protocol=3"), None) is None
        True
        """
        options = address.options
        if not _OPTIONS.issuperset(options) or len(address.nodes) != 1:
            return None
        if timeout is not None:
            return cls(address, timeout, timeout)
        return cls(
            address,
            float(options.get("socket_timeout") or TIMEOUT),
            float(options.get("socket_connect_timeout") or TIMEOUT),
        )

    @property
    def path(self) -> str | None:
        """Return the path of the unix socket; None if the server is reached over TCP."""
        path = self.address.options.get("unix_socket_path")
        return None if path is None else str(path)

    @property
    def host(self) -> str:
        return self.address.nodes[0][0]

    @property
    def port(self) -> int:
        return self.address.nodes[0][1]

    @property
    def max_connections(self) -> int:
        return int(self.address.options.get("max_connections") or MAX_CONNECTIONS)

    @functools.cached_property
    def encryption(self) -> ssl.SSLContext | None:
        """Return the TLS context of connections, by redis-py's ``ssl`` options; None if they are not encrypted.

        Raises
        ------
        ProjectError
            if a certificate cannot be read, or the options contradict each other.
        """
        options = self.address.options
        if not options.get("ssl") or self.path is not None:
            return None
        import ssl  # it takes ten milliseconds, and most servers are reached without

        modes = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
        mode = options.get("ssl_cert_reqs") or "required"
        try:
            context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"), capath=options.get("ssl_ca_path"))
            context.check_hostname = mode != "none" and bool(options.get("ssl_check_hostname", True))
            context.verify_mode = modes[str(mode)]
            if options.get("ssl_certfile"):
                password = options.get("ssl_password")
                context.load_cert_chain(
                    options["ssl_certfile"], options.get("ssl_keyfile"), None if password is None else str(password)
                )
        except (OSError, KeyError, ValueError) as error:
            raise ProjectError(
                f"the encryption of the online store at {self.address} cannot be set up: {error}",
                hint="check the ssl options in the connection_string of feature_repo/feature_store.yaml",
            ) from error
        return context

    def greeting(self) -> list[bytes]:
        """Return the commands that a new connection begins with."""
        options = self.address.options
        commands = []
        if options.get("password") is not None:
            user = [str(options["username"])] if options.get("username") is not None else []
            commands.append(pack_command("AUTH", *user, str(options["password"])))
        if options.get("db"):
            commands.append(pack_command("SELECT", str(options["db"])))
        return commands

    def refuse(self, error: Exception) -> Never:
        """Raise the error of ours that an error answer of the server means.

        Raises
        ------
        StoreDataError
            if a key holds something that Feast did not write.
        StoreUnavailableError
            otherwise.
        """
        raise server_error(self.address, str(error)) from error

    @property
    def _hint(self) -> str:
        return f"is the server up, and is {self.address} its address? it is set in feature_repo/feature_store.yaml"

    def timed_out(self) -> StoreTimeoutError:
        """Return the error for an answer, or a connection, that took too long."""
        return StoreTimeoutError(f"the online store at {self.address} did not answer in time", hint=self._hint)

    def exhausted(self) -> StoreTimeoutError:
        """Return the error for a request that no connection became free for."""
        return StoreTimeoutError(
            f"all {self.max_connections} connections to the online store at {self.address} stayed busy",
            hint="ask from fewer threads at once, or add max_connections=N to the connection_string",
        )

    def unreachable(self, error: Exception) -> StoreError:
        """Return the error for a connection that cannot be opened, or broke twice."""
        return StoreUnavailableError(f"cannot reach the online store at {self.address}: {error}", hint=self._hint)


def pack_command(*parts: str | bytes) -> bytes:
    r"""Return a command as it goes over the wire.

    >>> pack_command("SELECT", "1")
    b'*2\r\n$6\r\nSELECT\r\n$1\r\n1\r\n'
    """
    packed = [part.encode() if isinstance(part, str) else part for part in parts]
    return b"*%d\r\n" % len(packed) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in packed)


def is_timeout(error: BaseException) -> bool:
    """Tell whether a socket's error says that time is up.

    A socket whose kernel keeps the time says that it would block.
    """
    return isinstance(error, TimeoutError | BlockingIOError)


def tune(sock: Any) -> None:
    """Set a socket to send at once, and to notice a peer that is gone."""
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
