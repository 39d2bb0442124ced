"""Reads and checks what waits in a worker's partitions, and works out up to which instant everything has been read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rules_engine.errors import StoreDataError
from rules_engine.events.declarations.validation import Rejection
from rules_engine.events.log.event_log import Logged
from rules_engine.events.looks import LOOK, Look, decode_look
from rules_engine.events.refused import Refused
from rules_engine.events.state.waiting import Waiting, waiting_events
from rules_engine.events.streams import ENTITY, FIELD, HANDED_ON, decode_raw, partition_of, stream_key
from rules_engine.redis.pipe import Pipe, Script
from rules_engine.rules.inputs import Event
from rules_engine.stream.leases import leases_key
from rules_engine.stream.timers import DUE, Timers
from rules_engine.triggers.record import StreamId

#: The server's time in milliseconds.
_TIME = Script("local time = redis.call('TIME') return time[1] * 1000 + math.floor(time[2] / 1000)")

#: How far the worker's clock may be behind the server's, in microseconds: timers are read up to so much later.
_SKEW = 2_000_000

Entry = tuple[bytes, Any]


@dataclass(slots=True)
class PartitionWork:
    """The work that waits in one partition.

    Attributes
    ----------
    entries
        from the stream, in order.
    due
        the entities with a timer before ``until``.
    until
        every event that arrived before this instant, in microseconds, was read or was done before.
    next_due
        the earliest timer that is left; None if there is none.
    """

    entries: list[Entry] = field(default_factory=list)
    due: list[str] = field(default_factory=list)
    until: int = 0
    next_due: int | None = None


@dataclass(slots=True)
class Arrived:
    """An event of a stream, or a state that is handed over, with the id of its entry and the instant of its arrival.

    What a worker handed on was logged where it came from.
    """

    entity: str
    event: Waiting
    arrival: int
    stream_id: StreamId
    is_handed_on: bool = False


@dataclass(slots=True)
class Checked:
    """The entries of a partition after checking: their ids, requests for looks, events, and refused events."""

    ids: list[bytes] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    events: list[Arrived] = field(default_factory=list)
    refused: list[tuple[bytes, Refused]] = field(default_factory=list)

    @property
    def logged(self) -> Iterable[Logged]:
        """Return the events as the log takes them."""
        for arrived in self.events:
            if not arrived.is_handed_on and isinstance(arrived.event, Event):
                yield arrived.entity, arrived.event


class Intake:
    """Reads the partitions of one project.

    Parameters
    ----------
    pipe
        the connection.
    project
        the name of Feast's project.
    timers
        the timers of the project.
    """

    def __init__(self, pipe: Pipe, project: str, timers: Timers) -> None:
        self._pipe = pipe
        self._project = project
        self._timers = timers
        self._key = leases_key(project)

    def look(
        self, partitions: Collection[int], count: int, now: int, latest: int | None = None
    ) -> dict[int, PartitionWork]:
        """Return the work that waits, by partition; ``count`` is the most entries and timers that are read of each.

        ``latest`` is the instant that counts as now in a project whose clock is fixed: no timer after it is due.

        The server's time is read first, so whatever is not read arrives at that millisecond or later.

        Raises
        ------
        StoreError
            if the store cannot be used.
        """
        commands = [self._pipe.call(_TIME, [self._key], [])]
        for partition in partitions:
            commands += [
                ("XRANGE", stream_key(self._project, partition), "-", "+", "COUNT", count),
                self._timers.due(partition, now + _SKEW, count),
            ]
        if self._pipe.ordered:
            clock, *answers = self._pipe.run(commands, [_TIME, DUE])
        else:
            (clock,), answers = self._pipe.run(commands[:1], [_TIME]), self._pipe.run(commands[1:], [DUE])
        works = {}
        for place, partition in enumerate(partitions):
            entries, due = answers[2 * place : 2 * place + 2]
            until = int(clock) * 1000 if latest is None else min(int(clock) * 1000, latest)
            works[partition] = _partition_work(entries, due, until, count)
        return works

    def wait(self, partitions: Collection[int], milliseconds: int) -> None:
        """Wait until an event comes, at most so long."""
        keys = [stream_key(self._project, partition) for partition in partitions]
        command = "XREAD", "COUNT", 1, "BLOCK", max(1, milliseconds), "STREAMS", *keys, *["0-0"] * len(keys)
        self._pipe.run([command])


def _partition_work(entries: list[Entry], due: list[bytes], clock: int, count: int) -> PartitionWork:
    """Return the work of a partition: all up to the clock or, if more entries wait, up to the last one read."""
    until = clock if len(entries) < count else min(clock, stream_id(entries[-1][0])[0] * 1000)
    timers = [(member.decode(), int(float(score))) for member, score in _pairs(due)]
    return PartitionWork(
        entries,
        [entity for entity, at in timers if at < until],
        until,
        next((at for _, at in timers if at >= until), None),
    )


def _pairs(flat: list[Any]) -> Iterable[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True) if flat and not isinstance(flat[0], list | tuple) else flat


def stream_id(identity: bytes) -> StreamId:
    """Return the millisecond and the number of an entry.

    >>> stream_id(b"1772323200000-3")
    (1772323200000, 3)
    """
    milliseconds, _, number = identity.partition(b"-")
    return int(milliseconds), int(number)


def checked(
    partition: int,
    entries: Iterable[Entry],
    check: Callable[[Mapping[str, Any], int], Logged | Rejection],
    received: int,
    latest: int | None = None,
) -> Checked:
    """Check the entries of a partition.

    Parameters
    ----------
    received
        the instant at which they were received.
    latest
        the instant that counts as now in a project whose clock is fixed: nothing arrives later.
    """
    batch = Checked()
    for identity, fields in entries:
        batch.ids.append(identity)
        look = _field(fields, LOOK)
        if look:
            request = decode_look(look, partition)
            batch.looks += [] if request is None else [request]
            continue
        at = stream_id(identity)
        arrival = at[0] * 1000 if latest is None else min(at[0] * 1000, latest)
        handed_on = _field(fields, HANDED_ON)
        data = handed_on or _field(fields, FIELD)
        outcome = _handed_on(data, _field(fields, ENTITY)) if handed_on else _reported(data, check, received)
        if not isinstance(outcome, Rejection) and partition_of(outcome[0]) != partition:
            outcome = Rejection(
                "wrong-partition", f"events of this entity belong to partition {partition_of(outcome[0])}"
            )
        if isinstance(outcome, Rejection):
            batch.refused.append((identity, Refused(data, outcome)))
            continue
        batch.events.append(Arrived(*outcome, arrival, at, bool(handed_on)))
    return batch


def _reported(
    data: bytes, check: Callable[[Mapping[str, Any], int], Logged | Rejection], received: int
) -> Logged | Rejection:
    content = decode_raw(data)
    return Rejection("invalid-event", content) if isinstance(content, str) else check(content, received)


def _handed_on(data: bytes, entity: bytes) -> tuple[str, Waiting] | Rejection:
    try:
        (event,) = waiting_events(data)
        return entity.decode("utf-8"), event
    except (StoreDataError, ValueError) as error:
        return Rejection("invalid-event", f"what was handed on is damaged: {error}")


def _field(fields: Any, name: bytes) -> bytes:
    """Return a field of an entry; nothing if it has none of that name."""
    if isinstance(fields, dict):
        return bytes(fields.get(name, b""))
    if len(fields) == 2:  # as all but a few have
        return bytes(fields[1]) if fields[0] == name else b""
    return next((bytes(value) for field, value in zip(fields[::2], fields[1::2], strict=True) if field == name), b"")
