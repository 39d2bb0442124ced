"""The queues of actions in Redis: one per sink, so that a sink that is down delays only itself.

All keys of a project lie in one slot. Taking an action and remembering its key is one step, so an action that is
handed over twice is queued once.

============================================  =========================================================================
``segments:{PROJECT}:actions:NAME``           the stream of the sink ``{stream: NAME}``, for applications to read
``segments:{PROJECT}:queue:NAME``             the actions that wait for the sink NAME of another kind
``segments:{PROJECT}:undelivered``            the actions that were given up, with the reason
``segments:{PROJECT}:sent:DIGEST``            that an action was taken, for three days
============================================  =========================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from rules_engine.triggers.actions import Action

#: The field of an entry that holds the action.
FIELD = b"action"

#: How long it is remembered that an action was taken, in seconds.
REMEMBERED = 3 * 86_400

#: How many actions may wait for one sink. Beyond it they are given up with the reason ``queue-full``.
MAX_QUEUED = 100_000

#: How many actions the stream of a sink keeps; the oldest go first.
MAX_STREAM = 1_000_000

#: How many undelivered actions are kept; the oldest go first.
MAX_UNDELIVERED = 100_000

_CHUNK = 500

#: KEYS: where to, undelivered, and per action its mark. ARGV: seconds, limit, "trim" or "refuse", what is said of a
#: full queue, the bound of the undelivered, and per action its content. Gives how many were taken and how many refused.
_ENQUEUE = """\
local taken, full = 0, 0
for i = 3, #KEYS do
  if redis.call('SET', KEYS[i], '', 'NX', 'EX', ARGV[1]) then
    local data = ARGV[i + 3]
    if ARGV[3] == 'trim' then
      redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'action', data)
      taken = taken + 1
    elseif redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[2]) then
      redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], '*', 'action', data, 'reason', ARGV[4])
      full = full + 1
    else
      redis.call('XADD', KEYS[1], '*', 'action', data)
      taken = taken + 1
    end
  end
end
return {taken, full}"""


@dataclass(frozen=True, slots=True)
class Enqueued:
    """What became of actions: taken, known already, and given up because their sink's queue is full."""

    taken: int = 0
    known: int = 0
    full: int = 0


def queue_key(project: str, sink: str) -> bytes:
    """Where actions for a sink wait; ``sink`` is ``KIND:NAME``.

    >>> queue_key("shop", "stream:mails"), queue_key("shop", "webhook:crm")
    (b'segments:{shop}:actions:mails', b'segments:{shop}:queue:crm')
    """
    kind, _, name = sink.partition(":")
    return f"segments:{{{project}}}:{'actions' if kind == 'stream' else 'queue'}:{name}".encode()


def undelivered_key(project: str) -> bytes:
    """Where actions are that were given up."""
    return f"segments:{{{project}}}:undelivered".encode()


def sent_key(project: str, key: str) -> bytes:
    """Where it stands that an action was taken."""
    return f"segments:{{{project}}}:sent:{key}".encode()


def enqueue(client: Any, project: str, actions: Sequence[Action]) -> Enqueued:
    """Hand actions over for delivery, in one pipelined round trip. Doing it again changes nothing.

    Parameters
    ----------
    client
        a redis-py client.
    project
        Feast's project name.
    actions
        those of one sink are delivered in this order.

    Raises
    ------
    redis.RedisError
        if the store cannot be written; then do it again.
    """
    if not actions:
        return Enqueued()
    with client.pipeline(transaction=False) as pipeline:
        for sink, group in _by_sink(actions).items():
            for start in range(0, len(group), _CHUNK):
                _send(pipeline, project, sink, group[start : start + _CHUNK])
        answers = pipeline.execute()
    taken, full = (sum(int(answer[place]) for answer in answers) for place in (0, 1))
    return Enqueued(taken, len(actions) - taken - full, full)


def _by_sink(actions: Iterable[Action]) -> dict[str, list[Action]]:
    groups: dict[str, list[Action]] = {}
    for action in actions:
        groups.setdefault(action.sink, []).append(action)
    return groups


def _send(pipeline: Any, project: str, sink: str, actions: Sequence[Action]) -> None:
    streams = sink.startswith("stream:")
    keys = [queue_key(project, sink), undelivered_key(project), *(sent_key(project, one.key) for one in actions)]
    limit, policy = (MAX_STREAM, "trim") if streams else (MAX_QUEUED, "refuse")
    reason = orjson.dumps({"code": "queue-full", "message": f"{MAX_QUEUED:,} actions wait for the sink already"})
    contents = [one.body() if streams else one.encode() for one in actions]
    pipeline.eval(_ENQUEUE, len(keys), *keys, REMEMBERED, limit, policy, reason, MAX_UNDELIVERED, *contents)
