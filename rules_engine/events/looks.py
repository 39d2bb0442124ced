"""Requests to look at entities again, because something else than an event changed what is known of them.

A request for some entities waits in the streams of their events, as an entry with the field ``look``, so that the
worker that has the partition does it, after the events that came before. A request for everybody stands in a stream of
its own (:mod:`rules_engine.stream.sweep`); it takes the place of requests for some where there are too many of them.
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

#: So many entities are looked at one by one; of more, everybody is.
MAX_ENTITIES = 1_000

#: If so many entries wait in a stream, everybody is looked at instead: workers are behind, or there are none.
MAX_WAITING_LOOKS = 10_000

#: How many requests for everybody are kept. Workers do all that they find in one go.
MAX_SWEEPS = 1_000

#: KEYS: how far sweeps are, their stream, the streams of events. ARGV: the bound of a stream, that of sweeps, the
#: request for everybody; then the number of a stream and a request for some, each. While no worker has ever looked at
#: everybody nothing is asked for: the first one does.
_ASK = """\
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local everybody = #ARGV == 3
for i = 4, #ARGV, 2 do
  local stream = KEYS[2 + ARGV[i]]
  if redis.call('XLEN', stream) < tonumber(ARGV[1]) then
    redis.call('XADD', stream, '*', 'look', ARGV[i + 1])
  else
    everybody = true
  end
end
if everybody then redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[2], '*', 'sweep', ARGV[3]) end
return 1"""


@dataclass(frozen=True, slots=True)
class Look:
    """A request to look at some entities: why, and which feature views changed (None: anything may have)."""

    entities: tuple[str, ...]
    cause: str
    views: frozenset[str] | None = None


def sweeps_key(project: str) -> bytes:
    """Return the key of the stream of requests to look at everybody."""
    return project_key(project, "sweeps")


def swept_key(project: str) -> bytes:
    """Return the key of the hash that says, by partition, which of these requests were done."""
    return project_key(project, "swept")


def encode_sweep(cause: str, views: Iterable[str] | None) -> bytes:
    """Return a request to look at everybody."""
    return orjson.dumps({"cause": cause, "views": None if views is None else sorted(views)})


def request_looks(client: Any, project: str, entities: Collection[str], cause: str, views: Iterable[str]) -> None:
    """Have some entities looked at again, or everybody where they are many. See :func:`look_command`.

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
    """Return the command of Redis that has some entities looked at again, or everybody where they are many.

    Parameters
    ----------
    cause
        what changed, e.g. ``push``. Transitions have it as their cause.
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
    """Return a request, with those of its entities that belong to a partition; None if it is no request.

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
