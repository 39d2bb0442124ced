"""Connections to Redis and Valkey as Feast's configuration describes them, and their failures in our own words."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rules_engine.errors import ProjectError, StoreDataError, StoreError, StoreTimeoutError, StoreUnavailableError
from rules_engine.read_plan import Connection

if TYPE_CHECKING:
    import redis

#: Seconds that one answer of the store may take, unless the connection string says otherwise.
TIMEOUT = 5.0

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
        """Return the address without its options, fit for a message."""
        path = self.options.get("unix_socket_path")
        return str(path) if path else ", ".join(f"{host}:{port}" for host, port in self.nodes)


def _option(value: str) -> Any:
    """Read an option as Feast does: as JSON where it is JSON, else as text."""
    try:
        return json.loads(value)
    except ValueError:
        return value


def connect(connection: Connection, address: Address, timeout: float | None = None) -> redis.Redis | redis.RedisCluster:
    """Return a client for the address. A single server is not contacted yet; a cluster tells its layout at once.

    Parameters
    ----------
    connection
        the kind of server.
    address
        where it is.
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
    except (redis.ResponseError, redis.BusyLoadingError, redis.AuthenticationError) as error:
        code = _STRIPPED.get(type(error).__name__)
        raise server_error(address, str(error) if code is None else f"{code} {error}") from error
    except redis.TimeoutError as error:
        raise StoreTimeoutError(f"the online store at {address} did not answer in time", hint=hint) from error
    except (redis.ConnectionError, redis.exceptions.RedisClusterException) as error:
        raise StoreUnavailableError(f"cannot reach the online store at {address}: {error}", hint=hint) from error


#: The beginnings of the server's errors that redis-py replaces by a class.
_STRIPPED = {
    "AuthenticationError": "NOAUTH",
    "BusyLoadingError": "LOADING",
    "NoPermissionError": "NOPERM",
    "OutOfMemoryError": "OOM",
    "ReadOnlyError": "READONLY",
}

#: What an error of the server begins with, what it means, and what to do about it.
_ANSWERS: tuple[tuple[tuple[str, ...], type[StoreError], str, str], ...] = (
    (
        ("WRONGTYPE",),
        StoreDataError,
        "holds a key of this project that is of another type",
        "does something else write into this database? give the project one of its own",
    ),
    (
        ("NOAUTH", "WRONGPASS", "NOPERM", "ERR AUTH", "ERR invalid password", "ERR Client sent AUTH"),
        StoreUnavailableError,
        "refuses the user or password",
        "check username and password in the connection_string of feature_repo/feature_store.yaml",
    ),
    (
        ("MISCONF",),
        StoreUnavailableError,
        "cannot write to its disk, so it takes no writes; it still answers reads",
        "is the disk full? free some space: it goes on by itself",
    ),
    (
        ("OOM",),
        StoreUnavailableError,
        "has no memory left, so it takes no writes; it still answers reads",
        "give the server more memory (`maxmemory`)",
    ),
    (
        ("LOADING", "BUSYLOADING"),
        StoreUnavailableError,
        "is loading its data from disk",
        "wait until it has; its log says how far it is",
    ),
    (
        ("READONLY",),
        StoreUnavailableError,
        "is a replica, which takes no writes",
        "name the primary in feature_repo/feature_store.yaml, or use redis_type: redis_sentinel",
    ),
    (
        ("MOVED", "ASK "),
        StoreUnavailableError,
        "answers with an error",
        "is it a cluster? set redis_type: redis_cluster",
    ),
)


def server_error(address: Address, text: str) -> StoreError:
    r"""Make the error that says what an error of the server means.

    >>> error = server_error(Address.parse("cache:6379"), "MISCONF Writing to the AOF file: No space left on device")
    >>> print(error)
    the online store at cache:6379 cannot write to its disk, so it takes no writes; ...No space left on device
    >>> error.hint
    'is the disk full? free some space: it goes on by itself'
    """
    for starts, kind, what, hint in _ANSWERS:
        if text.startswith(starts):
            return kind(f"the online store at {address} {what}: {text}", hint=hint)
    return StoreUnavailableError(f"the online store at {address} answers with an error: {text}")
