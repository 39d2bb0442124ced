"""The streams of events in Redis: what waits to be logged and judged, and what was refused.

There are sixteen, and all events of an entity go to one of them: ``segments:{PROJECT}:events:N``, where N is the CRC-32
of the entity's UTF-8 bytes modulo 16. So one worker at a time sees an entity's events, in the order in which they came.
What waits is what is in the streams: a worker deletes an entry when it is done with it.

An entry has one field, ``event``: a JSON object with ``entity``, ``event``, ``at``, ``event_id`` and ``properties``.
Whoever can write to Redis may add entries; they are checked when they are read. The keys of a project lie in one slot.
Workers also add what they hand on to a person from an id that was joined: ``handed_on``, as it waits behind a state
(:mod:`rules_engine.events.state.waiting`), and the key of the person as ``entity``.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import orjson

from rules_engine.errors import DataError
from rules_engine.redis.feast_layout import project_key

#: The field of an entry that holds the event.
FIELD = b"event"

#: The fields of an entry that a worker handed on: what it is, and for whom.
HANDED_ON, ENTITY = b"handed_on", b"entity"

#: Into how many streams entities are divided. Never to be changed: events of an entity would overtake each other.
PARTITIONS = 16

#: How many events may wait for a worker. Applications are refused beyond it, before memory is full.
MAX_WAITING = 1_000_000

#: How many refused events are kept; the oldest go first.
MAX_REFUSED = 100_000


def partition_of(entity: str) -> int:
    """Return the number of the stream that an entity's events go to.

    >>> partition_of("42"), partition_of("43")
    (8, 14)
    """
    return zlib.crc32(entity.encode("utf-8", "surrogatepass")) % PARTITIONS


def stream_key(project: str, partition: int) -> bytes:
    """Return the key of the stream in which the events of a partition wait for a worker.

    >>> stream_key("shop", partition_of("42"))
    b'segments:{shop}:events:8'
    """
    return project_key(project, f"events:{partition}")


def stream_keys(project: str) -> list[bytes]:
    """Return the streams of all partitions."""
    return [stream_key(project, partition) for partition in range(PARTITIONS)]


def refused_key(project: str) -> bytes:
    """Return the key of the stream of refused events, each with its reason."""
    return project_key(project, "refused")


def rebuild_key(project: str) -> bytes:
    """Return the key of the set of entities whose states have to be rebuilt from the log."""
    return project_key(project, "rebuild")


def encode_raw(entity: str, name: object, at: object, event_id: object, properties: object) -> bytes:
    """Return an event as its sender gave it.

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
    """Decode what :func:`encode_raw` made; a text is the reason why that is not possible."""
    try:
        raw = orjson.loads(data or b"")
    except ValueError as error:
        return f"it is no JSON: {error}"
    return raw if isinstance(raw, dict) else "it is no JSON object"
