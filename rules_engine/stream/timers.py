"""Timers: one sorted set for each partition, of entities by the instant at which they are due, in microseconds.

Before a record is replaced, an entity's timer is moved to its new instant if that is earlier; after the replacement it
is set exactly. A worker that is killed in between leaves at most a timer at which there is nothing to do. The script
that sets timers exactly and deletes entries of the stream compares the lease of the partition.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from rules_engine.events.streams import FIELD, MAX_REFUSED, refused_key, stream_key
from rules_engine.redis.feast_layout import project_key
from rules_engine.redis.pipe import Command, Pipe, Script
from rules_engine.stream.leases import leases_key

_CHUNK = 2_000
_T = TypeVar("_T")

#: KEYS: the leases, the timers, the stream, the refused events. ARGV: partition, lease, the most refused events to keep
#: and the field for them; the numbers of timers, entries and refused events; entity and instant ("" is none) of each
#: timer; the entries; the refused events with their reasons. A refused event is added only by the worker that deletes
#: its entry. Returns 0 if another worker has the lease.
_SETTLE = Script("""\
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
local timers, entries = tonumber(ARGV[5]), tonumber(ARGV[6])
local at = 8
for i = 1, timers do
  if ARGV[at + 1] == '' then
    redis.call('ZREM', KEYS[2], ARGV[at])
  else
    redis.call('ZADD', KEYS[2], ARGV[at + 1], ARGV[at])
  end
  at = at + 2
end
if entries > 0 then redis.call('XDEL', KEYS[3], unpack(ARGV, at, at + entries - 1)) end
at = at + entries
for i = 1, tonumber(ARGV[7]) do
  if redis.call('XDEL', KEYS[3], ARGV[at]) == 1 then
    redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[3], '*', ARGV[4], ARGV[at + 1], 'reason', ARGV[at + 2])
  end
  at = at + 3
end
return 1""")


#: Returns the entities that are due, and the first one that is not, if there is one.
DUE = Script("""\
local due = redis.call('ZRANGE', KEYS[1], '-inf', ARGV[1], 'BYSCORE', 'LIMIT', 0, ARGV[2], 'WITHSCORES')
if #due < 2 * tonumber(ARGV[2]) then
  local rest = redis.call('ZRANGE', KEYS[1], #due / 2, #due / 2, 'WITHSCORES')
  due[#due + 1], due[#due + 2] = rest[1], rest[2]
end
return due""")


def timers_key(project: str, partition: int) -> bytes:
    """Return the key of the timers of a partition."""
    return project_key(project, f"due:{partition}")


class Timers:
    """Sets the timers and deletes the processed entries of a project's partitions.

    Parameters
    ----------
    pipe
        the connection.
    project
        the name of Feast's project.
    """

    def __init__(self, pipe: Pipe, project: str) -> None:
        self._pipe = pipe
        self._project = project
        self._leases = leases_key(project)

    def earlier(self, dues: Mapping[int, Mapping[str, int]]) -> list[Command]:
        """Return the commands that move timers to these instants, by partition and entity, where that is earlier."""
        return [
            (
                "ZADD",
                timers_key(self._project, partition),
                "LT",
                *[part for entity, due in instants.items() for part in (due, entity)],
            )
            for partition, instants in dues.items()
            if instants
        ]

    def due(self, partition: int, until: int, limit: int) -> Command:
        """Return the command that reads the entities due until an instant, with their instants, earliest first.

        It also gives the first entity that is due later, if the limit allows.
        """
        key = timers_key(self._project, partition)
        return self._pipe.call(DUE, [key], [until, limit])

    def settle(
        self,
        partition: int,
        lease: bytes,
        timers: Mapping[str, int | None],
        entries: Sequence[bytes] = (),
        refused: Iterable[tuple[bytes, bytes, bytes]] = (),
    ) -> bool:
        """Set timers exactly, then delete entries of the stream. False if another worker has the partition by now.

        Parameters
        ----------
        timers
            by entity; None is none.
        refused
            entries that are refused: the id, the event as it was sent, and the reason.
        """
        items, bad = list(timers.items()), list(refused)
        if max(len(items), len(entries), len(bad)) <= _CHUNK:
            calls = [self._call(partition, lease, items, entries, bad)]
        else:  # in this order: all timers are exact before an entry ends
            calls = [self._call(partition, lease, part, (), ()) for part in _chunks(items)]
            calls += [self._call(partition, lease, (), part, ()) for part in _chunks(entries)]
            calls += [self._call(partition, lease, (), (), part) for part in _chunks(bad)]
        return all(self._pipe.run(calls, [_SETTLE]))

    def _call(
        self,
        partition: int,
        lease: bytes,
        timers: Sequence[tuple[str, int | None]],
        entries: Sequence[bytes],
        refused: Sequence[tuple[bytes, bytes, bytes]],
    ) -> Command:
        project = self._project
        keys = self._leases, timers_key(project, partition), stream_key(project, partition), refused_key(project)
        arguments = [partition, lease, MAX_REFUSED, FIELD, len(timers), len(entries), len(refused)]
        instants = [part for entity, due in timers for part in (entity, "" if due is None else due)]
        bad = [part for entry in refused for part in entry]
        return self._pipe.call(_SETTLE, keys, [*arguments, *instants, *entries, *bad])


def _chunks(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))
