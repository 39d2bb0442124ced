"""Timers: the entities that are due, in one sorted set for each partition, by the instant in microseconds.

Before a record is replaced its next instant is written if it is earlier than what is there; after that it is made
exact. A worker that is killed in between leaves at most an instant at which there is nothing to do. What makes it
exact, and what ends the entries of the stream, compares the lease of the partition.
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

#: KEYS: the leases, the timers, the stream, the refused. ARGV: partition, lease, the bound and the field of the
#: refused; the number of timers and of entries and of refused events; entity and instant ("" is none) each; entries;
#: refused events with their reasons. An event is set aside only by whoever ends its entry. Gives 0 if the lease is
#: another's.
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


#: Gives what is due, and the first that is not, if there is one.
DUE = Script("""\
local found = redis.call('ZRANGE', KEYS[1], '-inf', ARGV[1], 'BYSCORE', 'LIMIT', 0, ARGV[2], 'WITHSCORES')
if #found < 2 * tonumber(ARGV[2]) then
  local rest = redis.call('ZRANGE', KEYS[1], #found / 2, #found / 2, 'WITHSCORES')
  found[#found + 1], found[#found + 2] = rest[1], rest[2]
end
return found""")


def timers_key(project: str, partition: int) -> bytes:
    """Return the timers of a partition."""
    return project_key(project, f"due:{partition}")


class Timers:
    """The timers and the ends of a project's partitions.

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
        """Return the commands that note instants by partition and entity, where they are earlier than what is noted."""
        return [
            ("ZADD", timers_key(self._project, partition), "LT", *[part for one in found.items() for part in one[::-1]])
            for partition, found in dues.items()
            if found
        ]

    def due(self, partition: int, until: int, limit: int) -> Command:
        """Return the command for the entities that are due until an instant, with their instants, earliest first.

        The next one after them is among them, if the limit allows it to be.
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
        """Make timers exact, then end entries of the stream. False if the partition is another worker's by now.

        Parameters
        ----------
        timers
            by entity; None is none.
        refused
            entries that are no events: the id, what was given, and the reason.
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
        bad = [part for one in refused for part in one]
        return self._pipe.call(_SETTLE, keys, [*arguments, *instants, *entries, *bad])


def _chunks(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))
