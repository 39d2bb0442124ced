"""Sorts events by entity and instant, however many there are: beyond a bound on disk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self
from zlib import crc32

import orjson

from rules_engine.events.state.packing import pack_value, unpack_value
from rules_engine.rules.inputs import Event
from rules_engine.simulation.recorded import Recorded

#: Events that are held in memory before any goes to disk.
IN_MEMORY = 200_000

#: Files on disk; one of them at a time is read back whole.
PARTS = 200


class Spool:
    """Takes events in any order, and gives them back entity by entity. Use it in a ``with`` block.

    >>> with Spool() as spool:
    ...     spool.add("b", Event("visit", 2, "visit:2"))
    ...     spool.add("b", Event("visit", 1, "visit:1"), arrival=3)
    ...     [(entity, [(arrival, event.at) for arrival, event in events]) for entity, events in spool.entities()]
    [('b', [(2, 2), (3, 1)])]
    """

    def __init__(self, in_memory: int = IN_MEMORY) -> None:
        self._limit = in_memory
        self._in_memory: list[tuple[str, Recorded | None]] = []
        self._open = ExitStack()
        self._files: list[BinaryIO] = []
        self.first: int | None = None
        self.last: int | None = None
        self.events = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def add(self, entity: str, event: Event, arrival: int | None = None) -> None:
        """Take an event, which arrives when it happened if nothing else is said."""
        self.events += 1
        self.first = event.at if self.first is None else min(self.first, event.at)
        self.last = event.at if self.last is None else max(self.last, event.at)
        self._hold(entity, (event.at if arrival is None else arrival, event))

    def know(self, entity: str) -> None:
        """Take an entity that is to be given back also without any event."""
        self._hold(entity, None)

    def _hold(self, entity: str, event: Recorded | None) -> None:
        self._in_memory.append((entity, event))
        if len(self._in_memory) >= self._limit:
            self._spill()

    def entities(self) -> Iterator[tuple[str, list[Recorded]]]:
        """Yield every entity with its events, ordered by arrival, instant and id."""
        if not self._files:
            yield from _by_entity(self._in_memory)
            return
        self._spill()
        for file in self._files:
            file.seek(0)
            yield from _by_entity(map(_decoded, file))

    def _spill(self) -> None:
        if not self._files:
            folder = Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="segments-")))
            self._files = [self._open.enter_context((folder / str(part)).open("w+b")) for part in range(PARTS)]
        for entity, event in self._in_memory:
            part = crc32(entity.encode("utf-8", "surrogatepass")) % PARTS
            self._files[part].write(_encoded(entity, event))
        self._in_memory = []


def _by_entity(events: Iterable[tuple[str, Recorded | None]]) -> Iterator[tuple[str, list[Recorded]]]:
    by_entity: dict[str, list[Recorded]] = {}
    for entity, event in events:
        of_entity = by_entity.setdefault(entity, [])
        if event is not None:
            of_entity.append(event)
    for entity in sorted(by_entity):
        yield entity, sorted(by_entity[entity], key=lambda item: (item[0], *item[1].order))


def _encoded(entity: str, item: Recorded | None) -> bytes:
    if item is None:
        return orjson.dumps([pack_value(entity)], option=orjson.OPT_APPEND_NEWLINE)
    arrival, event = item
    properties = {name: pack_value(value) for name, value in event.properties.items()}
    packed = [pack_value(entity), arrival, event.name, event.at, pack_value(event.id), properties]
    return orjson.dumps(packed, option=orjson.OPT_APPEND_NEWLINE)


def _decoded(line: bytes) -> tuple[str, Recorded | None]:
    entity, *of_event = orjson.loads(line)
    if not of_event:
        return unpack_value(entity), None
    arrival, name, at, identity, properties = of_event
    values = {key: unpack_value(value) for key, value in properties.items()}
    return unpack_value(entity), (arrival, Event(name, at, unpack_value(identity), values))
