"""Requests to evaluate entities anew, because something other than an event changed.

A request for some entities waits in the streams of their events, as an entry with the field ``look``, so that the
worker that has the partition does it, after the events that came before. A request for all entities is in a stream of
its own (:mod:`rules_engine.stream.sweep`), and replaces requests for some entities if there are too many of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from rules_engine.events.streams import partition_of, stream_keys
from rules_engine.redis.feast_layout import project_key

#: The field of an entry that asks for a look.
LOOK = b"look"

#: The most entities that are requested by name. For more of them, all entities are requested.
MAX_ENTITIES = 1_000

#: If so many entries wait in a stream, all entities are requested instead: workers are behind, or there are none.
MAX_WAITING_LOOKS = 10_000

#: The most requests for all entities that are kept. Workers do all of them at once.
MAX_SWEEPS = 1_000

#: KEYS: the sweeps that were done, the stream of sweeps, the streams of events. ARGV: the most entries of a stream, the
#: most sweeps, the request for all entities; then for each request for some entities the number of the stream, and the
#: request. If no worker has ever evaluated all entities nothing is requested, because the first worker will do so.
_ASK = """\
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local all = #ARGV == 3
for i = 4, #ARGV, 2 do
  local stream = KEYS[2 + ARGV[i]]
  if redis.call('XLEN', stream) < tonumber(ARGV[1]) then
    redis.call('XADD', stream, '*', 'look', ARGV[i + 1])
  else
    all = true
  end
end
if all then redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[2], '*', 'sweep', ARGV[3]) end
return 1"""


@dataclass(frozen=True, slots=True)
class Look:
    """A request to evaluate some entities: the cause, and the feature views that changed (None: any may have)."""

    entities: tuple[str, ...]
    cause: str
    views: frozenset[str] | None = None


def sweeps_key(project: str) -> bytes:
    """Return the key of the stream of requests for all entities."""
    return project_key(project, "sweeps")


def swept_key(project: str) -> bytes:
    """Return the key of the hash of the last of these requests that was done, by partition."""
    return project_key(project, "swept")


def encode_sweep(cause: str, views: Iterable[str] | None) -> bytes:
    """Return a request for all entities."""
    return orjson.dumps({"cause": cause, "views": None if views is None else sorted(views)})


def request_looks(client: Any, project: str, entities: Collection[str], cause: str, views: Iterable[str]) -> None:
    """Request that some entities are evaluated anew, or all if they are too many. See :func:`look_command`.

    Parameters
    ----------
    client
        a redis-py client.

    Raises
    ------
    redis.RedisError
        if the store cannot be written.
    """
    if entities:
        client.execute_command(*look_command(project, entities, cause, views))


def look_command(project: str, entities: Collection[str], cause: str, views: Iterable[str]) -> tuple[Any, ...]:
    """Return the Redis command that requests some entities, or all entities if they are too many.

    Parameters
    ----------
    cause
        the change, e.g. ``push``, which transitions have as their cause.
    views
        the feature views that changed.
    """
    names = sorted(views)
    groups: dict[int, list[str]] = {}
    if len(entities) <= MAX_ENTITIES:
        for entity in dict.fromkeys(entities):
            groups.setdefault(partition_of(entity), []).append(entity)
    arguments: list[Any] = [MAX_WAITING_LOOKS, MAX_SWEEPS, encode_sweep(cause, names)]
    for partition, some in groups.items():
        arguments += [partition + 1, orjson.dumps({"entities": some, "cause": cause, "views": names})]
    keys = [swept_key(project), sweeps_key(project), *stream_keys(project)]
    return ("EVAL", _ASK, len(keys), *keys, *arguments)


def decode_look(data: bytes, partition: int) -> Look | None:
    """Return a request with only the entities of a partition; None if the data is not a request.

    >>> decode_look(b'{"entities": ["42", "43"], "cause": "push", "views": ["user"]}', 8)
    Look(entities=('42',), cause='push', views=frozenset({'user'}))
    """
    try:
        content = orjson.loads(data)
        views = content["views"]
        entities = tuple(entity for entity in content["entities"] if partition_of(entity) == partition)
        return Look(entities, str(content["cause"]), None if views is None else frozenset(map(str, views)))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
