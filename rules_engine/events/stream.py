"""The stream of events in Redis: what waits to be logged, and what was refused.

An entry has one field, ``event``: a JSON object with ``entity``, ``event``, ``at``, ``event_id`` and ``properties``.
Whoever can write to Redis may add entries; they are checked when they are read. The keys of a project lie in one slot.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from rules_engine.errors import DataError

#: The field of an entry that holds the event.
FIELD = b"event"

#: The consumer group of the workers.
GROUP = b"workers"

#: How many events may wait for a worker. Applications are refused beyond it, before memory is full.
MAX_WAITING = 1_000_000

#: How many refused events are kept; the oldest go first.
MAX_REFUSED = 100_000


def stream_key(project: str) -> bytes:
    """Where events wait for a worker."""
    return f"segments:{{{project}}}:events".encode()


def refused_key(project: str) -> bytes:
    """Where refused events are kept, with the reason."""
    return f"segments:{{{project}}}:refused".encode()


def kept_key(project: str) -> bytes:
    """Where it stands for which definitions states are complete."""
    return f"segments:{{{project}}}:kept".encode()


def encode_raw(entity: str, name: object, at: object, event_id: object, properties: object) -> bytes:
    """An event as its sender gave it.

    Raises
    ------
    DataError
        if a property is no JSON.

    >>> encode_raw("42", "visit", "2026-01-31T09:00:00Z", "a1", {"source": "ad"})
    b'{"entity":"42","event":"visit","at":"2026-01-31T09:00:00Z","event_id":"a1","properties":{"source":"ad"}}'
    """
    raw = {"entity": entity, "event": name, "at": at, "event_id": event_id, "properties": properties}
    try:
        return orjson.dumps(raw, option=orjson.OPT_UTC_Z)
    except TypeError as error:
        raise DataError(f"the event `{name}` cannot be sent as JSON: {error}") from None


def decode_raw(data: bytes | None) -> Mapping[str, Any] | str:
    """The inverse of :func:`encode_raw`; a text says why it is none."""
    try:
        raw = orjson.loads(data or b"")
    except ValueError as error:
        return f"it is no JSON: {error}"
    return raw if isinstance(raw, dict) else "it is no JSON object"
