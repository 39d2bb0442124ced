"""Online reads: the values of one user or of many, in one round trip to the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from rules_engine.errors import StoreUnavailableError
from rules_engine.features.online.selection import EntityFeatures, Layout, Layouts, Row
from rules_engine.read_plan import ReadPlan
from rules_engine.redis import client as redis_client
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.redis.endpoint import Endpoint
from rules_engine.redis.feast_layout import beside as beside_key
from rules_engine.redis.sockets import PIECE, Pool

_Answer = TypeVar("_Answer")


class OnlineReader(Protocol):
    """Reads features from an online store. Safe to share between threads."""

    def read(
        self, entities: Sequence[str], features: Sequence[str] | None = None, beside: bytes | None = None
    ) -> list[EntityFeatures]:
        """Read entities, in order.

        Parameters
        ----------
        entities
            their keys. An entity that the store does not know gives an ``EntityFeatures`` without values.
        features
            ``"view:name"`` each; by default all of the read plan.
        beside
            the name of what is kept beside the features and is to be read with them.

        Raises
        ------
        UnknownNameError
            if the read plan has no such feature.
        StoreError
            if the store cannot be read.
        UnsupportedError
            if the store keeps nothing beside features.
        """
        ...

    def for_plan(self, plan: ReadPlan) -> OnlineReader:
        """A reader of a newer plan. This one still ends what it began, and is not to be closed."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


class Transport(Protocol):
    """Carries prepared commands to the store, and decodes what comes back."""

    def rows(self, layout: Layout, entities: Sequence[str]) -> list[Row]:
        """The contents of the layout's fields, undecoded."""
        ...

    def each(self, layout: Layout, entities: Sequence[str], accept: Callable[[Row], None]) -> None:
        """Hand over the contents of the layout's fields, entity by entity, as they come in."""
        ...

    def read(self, layout: Layout, entities: Sequence[str]) -> list[EntityFeatures]:
        """Read entities, in order."""
        ...

    def close(self) -> None:
        """Close the connections; those that are busy, when they are done."""
        ...


class SocketTransport:
    """One server over plain sockets: the fast way.

    Parameters
    ----------
    endpoint
        the server.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._pool = Pool(endpoint)

    def rows(self, layout: Layout, entities: Sequence[str]) -> list[Row]:
        """The contents of the layout's fields, undecoded. What is on its way at once is bounded."""
        rows: list[Row] = []
        if len(entities) == 1:
            self._taker(layout, rows.append)(self._pool.ask(self._command(layout)(entities[0])))
        else:
            self.each(layout, entities, rows.append)
        return rows

    def each(self, layout: Layout, entities: Sequence[str], accept: Callable[[Row], None]) -> None:
        """Hand over the contents of the layout's fields, entity by entity, as they come in."""
        command = self._command(layout)
        self._pool.ask_many([command(entity) for entity in entities], self._taker(layout, accept))

    @staticmethod
    def _command(layout: Layout) -> Callable[[str], bytes]:
        return layout.whole_command if layout.whole else layout.command

    def _taker(self, layout: Layout, accept: Callable[[Row], None]) -> Callable[[Any], None]:
        """What takes the server's answers."""
        refuse = self._endpoint.refuse
        picked = layout.picked if layout.whole else None

        def take(answer: Any) -> None:
            if answer.__class__ is not list:
                refuse(answer)
            accept(answer if picked is None else picked(answer))

        return take

    def read(self, layout: Layout, entities: Sequence[str]) -> list[EntityFeatures]:
        """Read entities, in order."""
        if layout.name is None:
            return [layout.decode(*pair) for pair in zip(entities, self.rows(layout, entities), strict=True)]
        found: list[EntityFeatures] = []
        self._pool.ask_many(layout.commands(entities), layout.collector(entities, found, self._endpoint.refuse))
        return found

    def close(self) -> None:
        """Close the connections; those that are busy, when they are done."""
        self._pool.retire()


class ClientTransport:
    """Whatever redis-py connects to: clusters, sentinels, and options that only it knows."""

    def __init__(self, plan: ReadPlan, address: redis_client.Address, timeout: float | None) -> None:
        self._address = address
        self._client: Any = redis_client.connect(plan.connection, address, timeout)  # its types cover one server only

    def rows(self, layout: Layout, entities: Sequence[str]) -> list[Row]:
        """The contents of the layout's fields, undecoded."""
        return [answers[0] for answers in self._answers(layout, entities)]

    def each(self, layout: Layout, entities: Sequence[str], accept: Callable[[Row], None]) -> None:
        """Hand over the contents of the layout's fields, entity by entity."""
        for row in self.rows(layout, entities):
            accept(row)

    def read(self, layout: Layout, entities: Sequence[str]) -> list[EntityFeatures]:
        """Read entities, in order."""
        return [layout.decoded(*pair) for pair in zip(entities, self._answers(layout, entities), strict=True)]

    def _answers(self, layout: Layout, entities: Sequence[str]) -> list[list[Any]]:
        """The answers for each entity: one pipeline for each piece, which redis-py splits by the nodes of a cluster."""
        found: list[list[Any]] = []
        for start in range(0, len(entities), PIECE):
            piece = entities[start : start + PIECE]
            with redis_client.store_errors(self._address), self._client.pipeline(transaction=False) as pipeline:
                for entity in piece:
                    if layout.fields:
                        pipeline.hmget(layout.key(entity), layout.fields)
                    if layout.name is not None:
                        pipeline.get(beside_key(layout.key(entity), layout.name))
                answers = pipeline.execute()
            size = len(answers) // len(piece)
            found += [answers[at * size : (at + 1) * size] for at in range(len(piece))]
        return found

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class RedisReader:
    """Reads what Feast's Redis store wrote, directly.

    Parameters
    ----------
    plan
        the project's read plan.
    root
        the project's folder; it says where the embedded server is.
    timeout
        seconds to wait for an answer, and for a connection.
    """

    def __init__(self, plan: ReadPlan, root: Path, *, timeout: float | None = None) -> None:
        address = redis_client.resolve(plan.connection, root)
        self._set(plan, root, timeout, address, _transport(plan, address, timeout))

    def _set(
        self, plan: ReadPlan, root: Path, timeout: float | None, address: redis_client.Address, transport: Transport
    ) -> None:
        self.address = address
        self.transport = transport
        self._plan = plan
        self._root = root
        self._timeout = timeout
        self._layouts = Layouts(plan)

    def read(
        self, entities: Sequence[str], features: Sequence[str] | None = None, beside: bytes | None = None
    ) -> list[EntityFeatures]:
        """Read entities, in order. See :meth:`OnlineReader.read`."""
        layout = self._layouts.of(features, beside)
        for entity in entities:
            if entity.__class__ is not str:
                checked(entity)
        if not entities:
            return []
        if not layout.fields and beside is None:
            return [EntityFeatures(entity) for entity in entities]
        return self._started(self.transport.read, layout, entities)

    def rows(self, layout: Layout, entities: Sequence[str]) -> list[Row]:
        """What the store has of entities, undecoded, in order.

        Parameters
        ----------
        layout
            of features of the same store, with nothing beside them.
        entities
            their keys.

        Raises
        ------
        StoreError
            if the store cannot be read.
        """
        return self._started(self.transport.rows, layout, entities)

    def judged(self, layout: Layout, entities: Sequence[str], judge: Callable[[str, Row], _Answer]) -> list[_Answer]:
        """What is said of each entity by its row, in order. It is said while the store works on the next ones."""
        found: list[_Answer] = []

        def accept(row: Row) -> None:
            found.append(judge(entities[len(found)], row))

        def ask(layout: Layout, entities: Sequence[str]) -> list[_Answer]:
            self.transport.each(layout, entities[len(found) :], accept)
            return found

        return self._started(ask, layout, entities)

    def _started(
        self, ask: Callable[[Layout, Sequence[str]], list[_Answer]], layout: Layout, entities: Sequence[str]
    ) -> list[_Answer]:
        """What is asked; the embedded server is started if it was stopped: whoever needs it starts it."""
        try:
            return ask(layout, entities)
        except StoreUnavailableError:
            if self._plan.connection.kind != "embedded":
                raise
            EmbeddedStore(self._root).ensure_running()
            return ask(layout, entities)

    def for_plan(self, plan: ReadPlan) -> RedisReader:
        """A reader of a newer plan, with the same connections if the plan has the same store.

        This one still ends what it began, and is not to be closed.
        """
        if plan.connection != self._plan.connection:
            reader = RedisReader(plan, self._root, timeout=self._timeout)
            self.close()
            return reader
        reader = RedisReader.__new__(RedisReader)
        reader._set(plan, self._root, self._timeout, self.address, self.transport)  # noqa: SLF001 (our own class)
        return reader

    def close(self) -> None:
        """Close the connections."""
        self.transport.close()


def _transport(plan: ReadPlan, address: redis_client.Address, timeout: float | None) -> Transport:
    endpoint = Endpoint.of(address, timeout) if plan.connection.redis_type == "redis" else None
    return ClientTransport(plan, address, timeout) if endpoint is None else SocketTransport(endpoint)


def checked(entity: str) -> str:
    """The key itself, if it is a string."""
    if not isinstance(entity, str):
        raise TypeError(f"an entity key is a string, and {entity!r} is none: write {str(entity)!r}")
    return entity


def open_reader(plan: ReadPlan, root: Path, *, timeout: float | None = None) -> OnlineReader:
    """The reader that fits the project's online store.

    Redis, Valkey and the embedded server are read directly. Any other store is read through Feast, which takes seconds
    to import.
    """
    if plan.connection.kind in ("embedded", "redis"):
        return RedisReader(plan, root, timeout=timeout)
    from rules_engine.features.online.feast_reader import FeastReader

    return FeastReader(plan, root)
