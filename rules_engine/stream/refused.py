"""Shows refused events with the reason, and checks them anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from rules_engine.events.streams import FIELD, decode_raw, refused_key
from rules_engine.stream.event_sink import EventSink

#: Entries that are checked at once.
BATCH = 4_000


def replay_refused(sink: EventSink) -> tuple[int, int]:
    """Check refused events by the present definitions, and send the valid ones.

    Returns how many were sent, and how many remain refused.
    """
    key = refused_key(sink.rules.plan.project)
    entries: list[tuple[bytes, dict[bytes, bytes]]] = sink.on_store(lambda: sink.client.xrange(key))
    taken = 0
    for start in range(0, len(entries), BATCH):
        good: dict[bytes, tuple[str, bytes]] = {}
        for identity, fields in entries[start : start + BATCH]:
            data = fields.get(FIELD, b"")
            content = decode_raw(data)
            outcome = None if isinstance(content, str) else sink.check(content)
            if isinstance(outcome, tuple):
                good[identity] = outcome[0], data
        if good:
            sink.on_store(lambda good=good: _back(sink, key, good))  # type: ignore[misc]
        taken += len(good)
    return taken, len(entries) - taken


def _back(sink: EventSink, key: bytes, good: Mapping[bytes, tuple[str, bytes]]) -> None:
    sink.send(good.values())
    sink.client.xdel(key, *good)


def refused_events(sink: EventSink, limit: int) -> tuple[int, list[dict[str, Any]]]:
    """Return how many refused events are kept, and the newest of them."""
    return sink.on_store(lambda: read_refused(sink.client, sink.rules.plan.project, limit))


def read_refused(client: Any, project: str, limit: int) -> tuple[int, list[dict[str, Any]]]:
    """Return how many refused events of a project are kept, and the newest of them.

    Raises
    ------
    redis.RedisError
        if the store cannot be read.
    """
    key = refused_key(project)
    total, newest = client.xlen(key), client.xrevrange(key, count=limit)
    shown = []
    for identity, fields in newest:
        content = decode_raw(fields.get(FIELD))
        reason = orjson.loads(fields[b"reason"])
        event = content if isinstance(content, dict) else fields.get(FIELD, b"").decode("utf-8", "replace")
        shown.append({"id": identity.decode(), **reason, "event": event})
    return int(total), shown
