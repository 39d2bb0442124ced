"""Reading and checking what waits in the streams of a worker's partitions, and the instant up to which all is known."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rules_engine.events.declarations.validation import Rejection
from rules_engine.events.log.event_log import Logged
from rules_engine.events.looks import LOOK, Look, decode_look
from rules_engine.events.refused import Refused
from rules_engine.events.streams import FIELD, decode_raw, partition_of, stream_key
from rules_engine.redis.pipe import Pipe, Script
from rules_engine.rules.inputs import Event
from rules_engine.stream.leases import leases_key
from rules_engine.stream.timers import DUE, Timers
from rules_engine.triggers.record import StreamId

#: The server's time in milliseconds.
_TIME = Script("local time = redis.call('TIME') return time[1] * 1000 + math.floor(time[2] / 1000)")

#: How far the worker's clock may be from the server's: timers are asked for up to so much later, in microseconds.
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
        everything that arrived before this instant is in the streams that were read, or was done: microseconds.
    next_due
        the earliest timer that is left; None if there is none.
    """

    entries: list[Entry] = field(default_factory=list)
    due: list[str] = field(default_factory=list)
    until: int = 0
    next_due: int | None = None


@dataclass(slots=True)
class Arrived:
    """An event of a stream: which entry it was, and when that came."""

    entity: str
    event: Event
    arrival: int
    stream_id: StreamId


@dataclass(slots=True)
class Checked:
    """The entries of a partition, checked: which there were, the events, requests for looks, and what is refused."""

    ids: list[bytes] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    events: list[Arrived] = field(default_factory=list)
    refused: list[tuple[bytes, Refused]] = field(default_factory=list)

    @property
    def logged(self) -> Iterable[Logged]:
        """Return the events as the log takes them."""
        return ((one.entity, one.event) for one in self.events)


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
        """Return the work that waits, by partition; ``count`` bounds what is read of each.

        ``latest`` is the instant that counts as now where it is not the clock's: no timer after it is due.

        The server's time is asked for first: what comes after it arrives at that millisecond or later.

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
        found = {}
        for place, partition in enumerate(partitions):
            entries, due = answers[2 * place : 2 * place + 2]
            until = int(clock) * 1000 if latest is None else min(int(clock) * 1000, latest)
            found[partition] = _found(entries, due, until, count)
        return found

    def wait(self, partitions: Collection[int], milliseconds: int) -> None:
        """Wait until an event comes, at most so long."""
        keys = [stream_key(self._project, partition) for partition in partitions]
        command = "XREAD", "COUNT", 1, "BLOCK", max(1, milliseconds), "STREAMS", *keys, *["0-0"] * len(keys)
        self._pipe.run([command])


def _found(entries: list[Entry], due: list[bytes], clock: int, count: int) -> PartitionWork:
    """Put together what was read: all up to the clock or, if there is more, up to the last entry."""
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
    check: Callable[[Mapping[str, Any]], Logged | Rejection],
    latest: int | None = None,
) -> Checked:
    """Check entries: events, or what is wrong with them.

    Parameters
    ----------
    latest
        the instant that counts as now, where it is not the clock's: nothing arrives later.
    """
    batch = Checked()
    for identity, fields in entries:
        batch.ids.append(identity)
        look = _field(fields, LOOK)
        if look:
            found_look = decode_look(look, partition)
            batch.looks += [] if found_look is None else [found_look]
            continue
        data = _field(fields, FIELD)
        content = decode_raw(data)
        found = Rejection("invalid-event", content) if isinstance(content, str) else check(content)
        if not isinstance(found, Rejection) and partition_of(found[0]) != partition:
            found = Rejection("wrong-partition", f"events of this entity belong to partition {partition_of(found[0])}")
        if isinstance(found, Rejection):
            batch.refused.append((identity, Refused(data, found)))
            continue
        at = stream_id(identity)
        arrival = at[0] * 1000 if latest is None else min(at[0] * 1000, latest)
        batch.events.append(Arrived(*found, arrival, at))
    return batch


def _field(fields: Any, wanted: bytes) -> bytes:
    """Return a field of an entry; nothing if it has none of that name."""
    if isinstance(fields, dict):
        found: bytes = fields.get(wanted, b"")
        return found
    if len(fields) == 2:  # as all but a few have
        return bytes(fields[1]) if fields[0] == wanted else b""
    return next((bytes(value) for name, value in zip(fields[::2], fields[1::2], strict=True) if name == wanted), b"")
