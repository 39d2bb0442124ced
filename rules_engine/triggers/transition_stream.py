"""The stream of transitions in Redis: memberships that began or ended a moment ago, for those who wait for them.

``segments:{PROJECT}:transitions`` keeps the newest; the ledger keeps all. An entry has one field, ``transition``: JSON.
What a worker announces twice, because it was killed in between, has the same ``key``.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import orjson

from rules_engine.clock import format_instant
from rules_engine.redis.feast_layout import project_key
from rules_engine.triggers.record import MembershipChange, Transition

#: The field of an entry that holds the transition.
FIELD = b"transition"

#: How many transitions are kept; the oldest go first.
MAX_KEPT = 100_000

#: How many transitions one call adds.
_AT_ONCE = 1_000

#: KEYS: the stream. ARGV: how many entries to keep, the field, and the transitions.
_ANNOUNCE = """\
for i = 3, #ARGV do redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', ARGV[2], ARGV[i]) end
return #ARGV - 2"""

#: Many transitions have one instant: that at which a batch of events arrived.
_written = lru_cache(maxsize=1_024)(format_instant)


def transitions_key(project: str) -> bytes:
    """Return the key of the stream.

    >>> transitions_key("shop")
    b'segments:{shop}:transitions'
    """
    return project_key(project, "transitions")


def announce(client: Any, project: str, transitions: Iterable[tuple[str, Transition]]) -> None:
    """Tell that memberships began or ended; that one existed when it was first looked at is no news.

    Parameters
    ----------
    client
        a redis-py client.
    transitions
        by entity.

    Raises
    ------
    redis.RedisError
        if the store cannot be written.
    """
    news = [pair for pair in transitions if pair[1].change is not MembershipChange.BASELINE]
    if not news:
        return
    key = transitions_key(project)
    with client.pipeline(transaction=False) as pipeline:
        for start in range(0, len(news), _AT_ONCE):
            contents = [encode_transition(entity, transition) for entity, transition in news[start : start + _AT_ONCE]]
            pipeline.execute_command("EVAL", _ANNOUNCE, 1, key, MAX_KEPT, FIELD, *contents)
        pipeline.execute()


def encode_transition(entity: str, transition: Transition) -> bytes:
    """Return a transition as an entry of the stream has it.

    >>> encode_transition("42", Transition("vip", MembershipChange.ENTER, 0, "timer", "a1"))[:72]
    b'{"entity":"42","segment":"vip","change":"enter","at":"1970-01-01T00:00:0'
    """
    content = {
        "entity": entity,
        "segment": transition.segment,
        "change": transition.change.value,
        "at": _written(transition.at),
        "cause": transition.cause,
        "definitions_version": transition.version,
        "key": transition.key(entity),
    }
    return orjson.dumps(content)
