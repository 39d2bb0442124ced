"""Carries what is asked about entities to the store and back: over plain sockets, or over redis-py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from rules_engine.events.state.stored import reading
from rules_engine.features.online.row_layout import Row, RowLayout
from rules_engine.features.online.selection import EntityFeatures
from rules_engine.redis.client import store_errors
from rules_engine.redis.endpoint import RedisEndpoint, pack_command
from rules_engine.redis.eviction import ASK_MEMORY, policy_in, worst_policy
from rules_engine.redis.feast_layout import sibling_key
from rules_engine.redis.server import RedisServer
from rules_engine.redis.sockets import PIECE, Pool


class Transport(Protocol):
    """Carries prepared commands to the store, and decodes what comes back."""

    def rows(self, layout: RowLayout, entities: Sequence[str]) -> list[Row]:
        """Read the contents of the layout's fields, undecoded."""
        ...

    def each(self, layout: RowLayout, entities: Sequence[str], accept: Callable[[Row], None]) -> None:
        """Hand over the contents of the layout's fields, entity by entity, as they come in."""
        ...

    def read(self, layout: RowLayout, entities: Sequence[str]) -> list[EntityFeatures]:
        """Read entities with their event states, in order.

        Raises
        ------
        StoreDataError
            if the store does not hold what is read.
        """
        ...

    def confirmed(self, layout: RowLayout, entities: Sequence[str]) -> list[Row]:
        """Read rows, and then the mark, which is checked if an entity has no row.

        Raises
        ------
        StoreDataError
            if the store does not hold what is read.
        """
        ...

    def eviction_policy(self) -> str | None:
        """Ask the server what it does when its memory is full; None if it does not say."""
        ...

    def close(self) -> None:
        """Close the connections; those that are busy, when they are done."""
        ...


def open_transport(server: RedisServer) -> Transport:
    """Open the fastest transport that reaches a server."""
    endpoint = server.endpoint
    return ClientTransport(server) if endpoint is None else SocketTransport(endpoint)


class SocketTransport:
    """One server over plain sockets: the fast way. redis-py takes longer for a request than the server does.

    Parameters
    ----------
    endpoint
        the server.
    """

    def __init__(self, endpoint: RedisEndpoint) -> None:
        self._endpoint = endpoint
        self._pool = Pool(endpoint)

    def rows(self, layout: RowLayout, entities: Sequence[str]) -> list[Row]:
        """Read the contents of the layout's fields, undecoded. What is on its way at once is bounded."""
        if len(entities) == 1 and layout.state_name is None:
            return [self._row(layout, entities[0])]
        rows: list[Row] = []
        self.each(layout, entities, rows.append)
        return rows

    def _row(self, layout: RowLayout, entity: str) -> Row:
        whole = layout.whole  # it may change while this is under way
        answer = self._pool.ask(layout.whole_command(entity) if whole else layout.command(entity))
        if answer.__class__ is not list:
            self._endpoint.refuse(answer)
        row: Row = layout.picked(answer) if whole else answer
        return row

    def each(self, layout: RowLayout, entities: Sequence[str], accept: Callable[[Row], None]) -> None:
        """Hand over the contents of the layout's fields, entity by entity, as they come in."""
        self._pool.ask_many(*layout.requests(entities, accept, self._endpoint.refuse))

    def read(self, layout: RowLayout, entities: Sequence[str]) -> list[EntityFeatures]:
        """Read entities with their event states, in order."""
        features: list[EntityFeatures] = []
        self._pool.ask_many(layout.commands(entities), layout.collector(entities, features, self._endpoint.refuse))
        return features

    def confirmed(self, layout: RowLayout, entities: Sequence[str]) -> list[Row]:
        """Read rows and the mark in one piece, so that nothing is written in between."""
        rows: list[Row] = []
        self._pool.ask_many(*layout.confirming(entities, rows.append, self._endpoint.refuse))
        return rows

    def eviction_policy(self) -> str | None:
        """Ask the server what it does when its memory is full; None if it does not say."""
        return policy_in(self._pool.ask(pack_command(*ASK_MEMORY)))

    def close(self) -> None:
        """Close the connections; those that are busy, when they are done."""
        self._pool.retire()


class ClientTransport:
    """Connects through redis-py: to clusters and sentinels, and with options that only it knows.

    Parameters
    ----------
    server
        what is connected to.
    """

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._address = server.address
        self._client: Any = server.client()  # its types cover one server only

    def rows(self, layout: RowLayout, entities: Sequence[str]) -> list[Row]:
        """Read the contents of the layout's fields, undecoded."""
        answers = self._answers(layout, entities)
        if layout.state_name is None:
            return [answer[0] for answer in answers]
        self._verify(layout)
        return [[*(answer[0] if layout.fields else ()), answer[-1]] for answer in answers]

    def each(self, layout: RowLayout, entities: Sequence[str], accept: Callable[[Row], None]) -> None:
        """Hand over the contents of the layout's fields, entity by entity."""
        for row in self.rows(layout, entities):
            accept(row)

    def read(self, layout: RowLayout, entities: Sequence[str]) -> list[EntityFeatures]:
        """Read entities with their event states, in order."""
        features = [layout.decoded(*pair) for pair in zip(entities, self._answers(layout, entities), strict=True)]
        self._verify(layout)
        return features

    def confirmed(self, layout: RowLayout, entities: Sequence[str]) -> list[Row]:
        """Read rows, and then the mark if an entity has no row."""
        rows = self.rows(layout, entities)
        if layout.unknown(rows):
            self._verify(layout)
        return rows

    def _answers(self, layout: RowLayout, entities: Sequence[str]) -> list[list[Any]]:
        """Ask in one pipeline for each piece of the entities, which redis-py splits by the nodes of a cluster."""
        answers_by_entity: list[list[Any]] = []
        for start in range(0, len(entities), PIECE):
            piece = entities[start : start + PIECE]
            with store_errors(self._address), self._client.pipeline(transaction=False) as pipeline:
                for entity in piece:
                    if layout.fields:
                        pipeline.hmget(layout.key(entity), layout.fields)
                    if layout.state_name is not None:
                        key = sibling_key(layout.key(entity), layout.state_name)
                        command = ("GETRANGE", key, -layout.end, -1) if layout.end else reading(key)
                        pipeline.execute_command(*command)
                answers = pipeline.execute()
            size = len(answers) // len(piece)
            answers_by_entity += [answers[at * size : (at + 1) * size] for at in range(len(piece))]
        return answers_by_entity

    def _verify(self, layout: RowLayout) -> None:
        with store_errors(self._address):
            answer = self._client.hmget(layout.mark_check.key, layout.mark_check.fields)
        layout.mark_check.verify(answer)

    def eviction_policy(self) -> str | None:
        """Ask the servers what they do when their memory is full: the worst of it; None if they do not say."""
        return worst_policy(self._server)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
