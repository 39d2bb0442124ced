"""Connections to Redis and Valkey as Feast's configuration describes them, and their failures in our own words."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rules_engine.errors import ProjectError, StoreDataError, StoreTimeoutError, StoreUnavailableError
from rules_engine.read_plan import Connection
from rules_engine.redis.embedded import EmbeddedStore

if TYPE_CHECKING:
    import redis

#: Seconds that one answer of the store may take, unless the connection string says otherwise.
TIMEOUT = 5.0

_UNSET_VARIABLE = re.compile(r"\$\{(\w+)\}")
_SECRETS = ("password", "username")


@dataclass(frozen=True, slots=True)
class Address:
    """A connection string of Feast, taken apart: ``host:port,...,key=value,...``.

    >>> address = Address.parse("cache:6379,db=1,ssl=true,password=123")
    >>> address.nodes, address.options["db"], address.options["ssl"], address.options["password"]
    ((('cache', 6379),), 1, True, '123')
    >>> str(address)
    'cache:6379'
    """

    nodes: tuple[tuple[str, int], ...]
    options: dict[str, Any] = field(default_factory=dict, repr=False)  # a password may be among them

    @classmethod
    def parse(cls, text: str) -> Address:
        """Take a connection string apart.

        Raises
        ------
        ProjectError
            if it names no server.
        """
        nodes: list[tuple[str, int]] = []
        options: dict[str, Any] = {}
        for part in text.split(","):
            name, equals, value = part.partition("=")
            if equals:
                options[name] = value if name in _SECRETS else _option(value)
                continue
            host, _, port = part.rpartition(":")
            if not host or not port.isdigit():
                raise ProjectError(
                    "the online store's connection_string names no server where one is expected",
                    hint="write host:port,key=value in feature_repo/feature_store.yaml, e.g. localhost:6379,db=1",
                )
            nodes.append((host, int(port)))
        if not nodes:
            raise ProjectError(
                "the online store's connection_string names no server",
                hint="begin it with host:port in feature_repo/feature_store.yaml",
            )
        return cls(tuple(nodes), options)

    def __str__(self) -> str:
        """The address without its options, fit for a message."""
        path = self.options.get("unix_socket_path")
        return str(path) if path else ", ".join(f"{host}:{port}" for host, port in self.nodes)


def _option(value: str) -> Any:
    """Feast reads options as JSON where they are JSON, else as text."""
    try:
        return json.loads(value)
    except ValueError:
        return value


def resolve(connection: Connection, root: Path) -> Address:
    """The address of the store, with environment variables put in; the embedded server is started if it is down.

    Raises
    ------
    ProjectError
        if a variable is not set, or the connection string names no server.
    StoreUnavailableError
        if the embedded server cannot be started.
    """
    if connection.kind == "embedded":
        store = EmbeddedStore(root)
        store.ensure_running()
        return Address.parse(store.connection_string)
    expanded = os.path.expandvars(connection.connection_string)
    unset = _UNSET_VARIABLE.search(expanded)
    if unset:
        raise ProjectError(
            f"the online store's connection_string uses ${{{unset[1]}}}, which is not set",
            hint=f"set the environment variable {unset[1]}",
        )
    return Address.parse(expanded)


def connect(connection: Connection, address: Address, timeout: float | None = None) -> redis.Redis | redis.RedisCluster:
    """A client for the address. A single server is not contacted yet; a cluster tells its layout at once.

    Parameters
    ----------
    connection
        the kind of server.
    address
        from :func:`resolve`.
    timeout
        seconds to wait for a connection and for an answer; by default what the connection string says, else 5.

    Raises
    ------
    StoreUnavailableError, StoreTimeoutError
        if a cluster or the sentinels cannot be asked.
    """
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
    from redis.sentinel import Sentinel

    options = {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT, **address.options}
    if timeout is not None:
        options |= {"socket_timeout": timeout, "socket_connect_timeout": timeout}
    options["decode_responses"] = False
    # A connection that the server closed is opened anew, once. A timeout is not tried again: the caller's time is up.
    once = Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,))
    with store_errors(address):
        if connection.redis_type == "redis_cluster":
            nodes = [redis.cluster.ClusterNode(*node) for node in address.nodes]  # type: ignore[no-untyped-call]
            return redis.RedisCluster(startup_nodes=nodes, **options)
        if connection.redis_type == "redis_sentinel":
            sentinel = Sentinel(list(address.nodes), **options)  # type: ignore[no-untyped-call]
            client: redis.Redis = sentinel.master_for(connection.sentinel_master)  # type: ignore[no-untyped-call]
            return client
        host, port = address.nodes[0]
        return redis.Redis(host=host, port=port, retry=once, **options)


@contextlib.contextmanager
def store_errors(address: Address) -> Iterator[None]:
    """Give the client's failures our names, the address, and what to do. No password gets into a message.

    Raises
    ------
    StoreTimeoutError
        if an answer or a connection took too long.
    StoreUnavailableError
        if there is no connection, or the server refuses it.
    StoreDataError
        if a key holds something that Feast did not write.
    """
    import redis

    hint = f"is the server up, and is {address} the right address? it is set in feature_repo/feature_store.yaml"
    try:
        yield
    except redis.TimeoutError as error:
        raise StoreTimeoutError(f"the online store at {address} did not answer in time", hint=hint) from error
    except redis.AuthenticationError as error:
        raise StoreUnavailableError(
            f"the online store at {address} refuses the user or password: {error}",
            hint="check username and password in the connection_string of feature_repo/feature_store.yaml",
        ) from error
    except (redis.ConnectionError, redis.exceptions.RedisClusterException) as error:
        raise StoreUnavailableError(f"cannot reach the online store at {address}: {error}", hint=hint) from error
    except redis.ResponseError as error:
        if str(error).startswith("WRONGTYPE"):
            raise StoreDataError(
                f"the online store at {address} holds a key of this project that is no hash",
                hint="does something else write into this database? give the project one of its own",
            ) from error
        raise StoreUnavailableError(f"the online store at {address} answers with an error: {error}") from error
