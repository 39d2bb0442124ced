"""Many commands in one go, cheaply: for the worker, whose every microsecond counts for each event."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import hiredis

from rules_engine.redis import client as redis_client
from rules_engine.redis.endpoint import RedisEndpoint
from rules_engine.redis.sockets import Pool

#: A command: its name and arguments, as the client libraries take them.
Command = tuple[Any, ...]


class Script:
    """A script of the server.

    >>> Script("return 1").digest[:8]
    b'e0e1f9fa'
    """

    def __init__(self, text: str) -> None:
        self.text = text.encode()
        self.digest = hashlib.sha1(self.text, usedforsecurity=False).hexdigest().encode()


class Pipe(Protocol):
    """Sends commands in order and gives the answers in order. Where a connection breaks some may be done twice.

    Attributes
    ----------
    ordered
        whether commands are done in the order in which they are sent, as on one server.
    """

    ordered: bool

    def run(self, commands: Sequence[Command], scripts: Iterable[Script] = ()) -> list[Any]:
        """Return the answers.

        Parameters
        ----------
        commands
            what is sent.
        scripts
            the scripts that :meth:`call` made commands of.

        Raises
        ------
        StoreError
            if the store cannot be used, or answers one of them with an error.
        """
        ...

    def call(self, script: Script, keys: Sequence[bytes], arguments: Iterable[Any]) -> Command:
        """Return the command that runs a script."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


class SocketPipe:
    """Over a plain socket to one server. hiredis packs the commands and parses the answers."""

    ordered = True

    def __init__(self, endpoint: RedisEndpoint) -> None:
        self._endpoint = endpoint
        self._pool = Pool(endpoint)

    def run(self, commands: Sequence[Command], scripts: Iterable[Script] = ()) -> list[Any]:
        loads: list[Command] = [("SCRIPT", "LOAD", script.text) for script in scripts]
        packed = list(map(hiredis.pack_command, [*loads, *commands]))
        answers: list[Any] = []
        if packed:
            self._pool.ask_many(packed, answers.append)
        for answer in answers:
            if isinstance(answer, Exception):
                self._endpoint.refuse(answer)
        return answers[len(loads) :]

    def call(self, script: Script, keys: Sequence[bytes], arguments: Iterable[Any]) -> Command:
        return ("EVALSHA", script.digest, len(keys), *keys, *arguments)

    def close(self) -> None:
        self._pool.retire()


class ClientPipe:
    """Over redis-py: for clusters, which it divides commands for, and sentinels."""

    ordered = False

    def __init__(self, client: Any, address: redis_client.Address) -> None:
        self._client = client
        self._errors = functools.partial(redis_client.store_errors, address)
        for name in ("response_callbacks", "cluster_response_callbacks"):  # answers are taken as the server gives them
            getattr(client, name, {}).clear()

    def run(self, commands: Sequence[Command], scripts: Iterable[Script] = ()) -> list[Any]:  # noqa: ARG002
        if not commands:
            return []
        with self._errors(), self._client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            answers: list[Any] = pipeline.execute()
        return answers

    def call(self, script: Script, keys: Sequence[bytes], arguments: Iterable[Any]) -> Command:
        return ("EVAL", script.text, len(keys), *keys, *arguments)  # a cluster's pipeline knows no EVALSHA

    def close(self) -> None:
        self._client.close()
