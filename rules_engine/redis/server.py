"""The server that a project's online store lives on, and what each kind of it can do.

This is the one place that tells the kinds apart. A store that is not reached from here is read through Feast: it keeps
features, and neither events nor memberships.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from rules_engine.errors import ProjectError, StoreUnavailableError, UnsupportedError
from rules_engine.read_plan import Connection
from rules_engine.redis.client import Address, connect, store_errors
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.redis.endpoint import RedisEndpoint
from rules_engine.redis.pipe import ClientPipe, Pipe, SocketPipe

_T = TypeVar("_T")

_UNSET_VARIABLE = re.compile(r"\$\{(\w+)\}")


class RedisServer:
    """A Redis or Valkey server, cluster, or master behind sentinels, as ``feature_store.yaml`` names it.

    Parameters
    ----------
    connection
        how the online store is reached.
    root
        the project's folder.
    timeout
        seconds to wait for a connection and for an answer; by default what the connection string says, else 5.
    """

    def __init__(self, connection: Connection, root: Path, timeout: float | None = None) -> None:
        self.connection = connection
        self.root = root
        self.timeout = timeout

    @cached_property
    def address(self) -> Address:
        """Return the address, with environment variables put in.

        Raises
        ------
        ProjectError
            if a variable is not set, or the connection string names no server.
        """
        expanded = os.path.expandvars(self.connection.connection_string)
        unset = _UNSET_VARIABLE.search(expanded)
        if unset:
            raise ProjectError(
                f"the online store's connection_string uses ${{{unset[1]}}}, which is not set",
                hint=f"set the environment variable {unset[1]}",
            )
        return Address.parse(expanded)

    @property
    def endpoint(self) -> RedisEndpoint | None:
        """Return the server for connections of our own; None if only redis-py can connect to it."""
        return RedisEndpoint.of(self.address, self.timeout) if self.connection.redis_type == "redis" else None

    def client(self) -> Any:
        """Connect with redis-py. A single server is not contacted yet; a cluster tells its layout at once.

        Raises
        ------
        StoreError
            if a cluster or the sentinels cannot be asked.
        """
        return connect(self.connection, self.address, self.timeout)

    def pipe(self) -> Pipe:
        """Open a pipe for many commands at once: over plain sockets where that works, else over redis-py."""
        endpoint = self.endpoint
        return ClientPipe(self.client(), self.address) if endpoint is None else SocketPipe(endpoint)

    def revive(self) -> bool:
        """Start the server if it is ours to start, and was stopped; return whether it is worth to ask again."""
        return False

    def retried(self, action: Callable[[], _T]) -> _T:
        """Do something with the server; if it was stopped and is ours to start, start it and do it again.

        Raises
        ------
        StoreError
            if the server cannot be used.
        """
        try:
            return action()
        except StoreUnavailableError:
            if not self.revive():
                raise
            return action()

    def do(self, action: Callable[[], _T]) -> _T:
        """Do something with a client of redis-py: as :meth:`retried`, with the client's failures as ours."""

        def named() -> _T:
            with store_errors(self.address):
                return action()

        return self.retried(named)

    @contextmanager
    def connected(self) -> Iterator[Any]:
        """Lend a client of redis-py for a while; its failures are given our names.

        Raises
        ------
        StoreError
            if the server cannot be used.
        """
        client = self.client()
        try:
            with store_errors(self.address):
                yield client
        finally:
            client.close()


class EmbeddedServer(RedisServer):
    """The server that comes with this package, started by whoever needs it."""

    @cached_property
    def address(self) -> Address:
        """Return the path of its socket; the server is started if it is down.

        Raises
        ------
        StoreUnavailableError
            if it cannot be started.
        """
        store = EmbeddedStore(self.root)
        store.ensure_running()
        return Address.parse(store.connection_string)

    def revive(self) -> bool:
        """Start the server unless it runs."""
        EmbeddedStore(self.root).ensure_running()
        return True


#: The kinds of store that we talk to ourselves, by the kind that the read plan names.
_SERVERS: dict[str, type[RedisServer]] = {"embedded": EmbeddedServer, "redis": RedisServer}


def server_of(connection: Connection, root: Path, timeout: float | None = None) -> RedisServer | None:
    """Give the server of an online store; None if the store is read through Feast.

    >>> type(server_of(Connection("embedded"), Path("shop"))).__name__, server_of(Connection("feast"), Path("shop"))
    ('EmbeddedServer', None)
    """
    kind = _SERVERS.get(connection.kind)
    return None if kind is None else kind(connection, root, timeout)


def is_direct(connection: Connection) -> bool:
    """Say whether we talk to the store ourselves: only then does it keep events and memberships."""
    return connection.kind in _SERVERS


def event_server(connection: Connection, root: Path, timeout: float | None = None) -> RedisServer:
    """Give the server of an online store that has to keep events.

    Raises
    ------
    UnsupportedError
        if the store is read through Feast.
    """
    server = server_of(connection, root, timeout)
    if server is None:
        raise keeps_no_events(connection)
    return server


def keeps_no_events(connection: Connection) -> UnsupportedError:
    """Make the error for asking a store for events that keeps features only."""
    return UnsupportedError(
        f"the online store ({connection.store}) keeps no events",
        hint="set `online_store` in feature_repo/feature_store.yaml to the embedded store or to Redis",
    )
