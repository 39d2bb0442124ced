"""The queues of actions in Redis: one for each sink, so that a sink that is down delays only itself.

All keys of a project lie in one slot. One script queues an action and remembers its key, so an action that is handed
over twice is queued once.

============================================  =========================================================================
``segments:{PROJECT}:actions:NAME``           the stream of the sink ``{stream: NAME}``, for applications to read
``segments:{PROJECT}:queue:NAME``             the actions that wait for the sink NAME of another kind
``segments:{PROJECT}:undelivered``            the actions that were given up, with the reason
``segments:{PROJECT}:sink:NAME``              which worker serves the sink NAME
``segments:{PROJECT}:sent:KEY``               that an action was taken, until ten minutes after nobody repeats it
============================================  =========================================================================
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from rules_engine.triggers.actions import Action

#: The field of an entry that holds the action.
FIELD = b"action"

#: Seconds for which the key of a queued action is remembered while its entity's record still holds the action, which
#: another worker publishes again if this one is killed.
REMEMBERED = 3 * 86_400

#: Seconds for which it is remembered afterwards, for a worker that read the record before and was suspended. So there
#: are about as many keys as actions in ten minutes.
REMEMBERED_AFTERWARDS = 600

#: The most actions that wait for one sink. Further ones are given up with the reason ``queue-full``.
MAX_QUEUED = 100_000

#: The most actions that the stream of a sink keeps; the oldest are deleted first.
MAX_STREAM = 1_000_000

#: The most undelivered actions that are kept; the oldest are deleted first.
MAX_UNDELIVERED = 100_000

_CHUNK = 500

#: KEYS: the queue, the undelivered actions, and for each action the key that marks it as queued. ARGV: the seconds of
#: these marks, the limit of the queue, "trim" or "refuse", the reason for a full queue, the most undelivered actions to
#: keep, and for each action its content. Returns how many were queued and how many refused.
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
    """Counts of actions: queued, queued before, and given up because their sink's queue is full."""

    taken: int = 0
    repeated: int = 0
    full: int = 0


def queue_key(project: str, sink: str) -> bytes:
    """Return the key of the actions that wait for a sink; ``sink`` is ``KIND:NAME``.

    >>> queue_key("shop", "stream:mails"), queue_key("shop", "webhook:crm")
    (b'segments:{shop}:actions:mails', b'segments:{shop}:queue:crm')
    """
    kind, _, name = sink.partition(":")
    return f"segments:{{{project}}}:{'actions' if kind == 'stream' else 'queue'}:{name}".encode()


def undelivered_key(project: str) -> bytes:
    """Return the key of the actions that were given up."""
    return f"segments:{{{project}}}:undelivered".encode()


def lease_key(project: str, sink: str) -> bytes:
    """Return the key whose value is the worker that serves the sink of this name."""
    return f"segments:{{{project}}}:sink:{sink}".encode()


def sent_key(project: str, key: str) -> bytes:
    """Return the key that marks an action as queued."""
    return f"segments:{{{project}}}:sent:{key}".encode()


def enqueue(client: Any, project: str, actions: Sequence[Action]) -> Enqueued:
    """Hand actions over for delivery, in one pipelined round trip. Repeating it changes nothing.

    Parameters
    ----------
    client
        a redis-py client.
    project
        Feast's project name.
    actions
        the actions; those of one sink are delivered in this order.

    Raises
    ------
    redis.RedisError
        if the store cannot be written; call it again then.
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


def confirm(client: Any, project: str, actions: Iterable[Action]) -> None:
    """Note that these actions will not be handed over again, so that their keys are remembered only for ten minutes.

    Raises
    ------
    redis.RedisError
        if the store cannot be written; their keys are then remembered for longer.
    """
    with client.pipeline(transaction=False) as pipeline:
        for action in actions:
            pipeline.expire(sent_key(project, action.key), REMEMBERED_AFTERWARDS)
        pipeline.execute()


def _by_sink(actions: Iterable[Action]) -> dict[str, list[Action]]:
    groups: dict[str, list[Action]] = {}
    for action in actions:
        groups.setdefault(action.sink, []).append(action)
    return groups


def _send(pipeline: Any, project: str, sink: str, actions: Sequence[Action]) -> None:
    streams = sink.startswith("stream:")
    keys = [queue_key(project, sink), undelivered_key(project), *(sent_key(project, action.key) for action in actions)]
    limit, policy = (MAX_STREAM, "trim") if streams else (MAX_QUEUED, "refuse")
    reason = orjson.dumps({"code": "queue-full", "message": f"{MAX_QUEUED:,} actions wait for the sink already"})
    contents = [action.body() if streams else action.encode() for action in actions]
    pipeline.execute_command(
        "EVAL", _ENQUEUE, len(keys), *keys, REMEMBERED, limit, policy, reason, MAX_UNDELIVERED, *contents
    )


# --- actions that were given up -------------------------------------------------------------------------------------

#: KEYS: the undelivered actions, the queue. ARGV: the limit of the queue, and ids with contents. Returns how many were
#: queued again.
_RESEND = """\
local back = 0
for i = 2, #ARGV, 2 do
  if redis.call('XLEN', KEYS[2]) >= tonumber(ARGV[1]) then break end
  if redis.call('XDEL', KEYS[1], ARGV[i]) == 1 then
    redis.call('XADD', KEYS[2], '*', 'action', ARGV[i + 1])
    back = back + 1
  end
end
return back"""


@dataclass(frozen=True, slots=True)
class Undelivered:
    """An action that was given up.

    Attributes
    ----------
    identity
        the id by which :func:`resend` finds it.
    reason
        ``code``, ``message``, ``tries``, ``queued_at``, ``given_up_at``.
    """

    identity: str
    action: Action
    reason: Mapping[str, Any]


def undelivered(client: Any, project: str, limit: int = 100) -> tuple[int, list[Undelivered]]:
    """Return how many actions were given up and not resent, and the newest of them.

    Raises
    ------
    redis.RedisError
        if the store cannot be read.
    """
    key = undelivered_key(project)
    total, newest = client.xlen(key), client.xrevrange(key, count=limit)
    entries = (_given_up(identity, fields) for identity, fields in newest)
    return int(total), [entry for entry in entries if entry is not None]


def resend(
    client: Any, project: str, sinks: Collection[str] | None = None, identities: Collection[str] | None = None
) -> int:
    """Put actions that were given up into their queues again, with their keys. Return how many.

    Parameters
    ----------
    client
        a redis-py client.
    project
        Feast's project name.
    sinks
        only actions of these sinks, ``KIND:NAME``; None: of all.
    identities
        only actions with these ids; None: all.

    Raises
    ------
    redis.RedisError
        if the store cannot be written.
    """
    key, back, start = undelivered_key(project), 0, b"-"
    while entries := client.xrange(key, start, "+", count=_CHUNK):
        start = b"(" + entries[-1][0]
        groups: dict[str, list[bytes]] = {}
        for identity, fields in entries:
            entry = _given_up(identity, fields)
            if entry is None or (sinks is not None and entry.action.sink not in sinks):
                continue
            if identities is None or entry.identity in identities:
                groups.setdefault(entry.action.sink, []).extend((identity, fields[FIELD]))
        for sink, arguments in groups.items():
            back += int(client.eval(_RESEND, 2, key, queue_key(project, sink), MAX_QUEUED, *arguments))
    return back


def _given_up(identity: bytes, fields: Mapping[bytes, bytes]) -> Undelivered | None:
    try:
        action = Action.decode(fields[FIELD])
        return Undelivered(identity.decode(), action, orjson.loads(fields[b"reason"]))
    except (KeyError, ValueError):
        return None
