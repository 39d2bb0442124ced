"""Turns a message of Kafka into an entry of a stream of events, or into a refused event."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import orjson

from rules_engine.clock import from_micros, now_micros
from rules_engine.events.streams import decode_raw, partition_of

if TYPE_CHECKING:
    from confluent_kafka import Message

#: The type that Kafka's client gives to a missing timestamp.
_NO_TIMESTAMP = 0


def entry_of(message: Message) -> tuple[int, bytes, bytes]:
    """Return the number of the stream, from 1 on, and the event; or 0, the message's value, and why it is refused.

    Missing parts come from the message itself: ``entity`` is its key, ``at`` its timestamp, ``event_id`` its topic,
    partition and offset.
    """
    value, key = _bytes(message.value()), message.key()
    raw = decode_raw(value)
    if isinstance(raw, str):
        return _refused(message, "invalid-event", raw)
    event = dict(raw)
    if event.get("entity") is None and key:
        try:
            event["entity"] = _bytes(key).decode()
        except UnicodeDecodeError:
            return _refused(message, "missing-entity", "it has no `entity`, and its key is no UTF-8")
    entity = event.get("entity")
    if not isinstance(entity, str) or not entity:
        text = "an event belongs to an `entity`, whose key is a string that is not empty"
        return _refused(message, "missing-entity", text)
    kind, milliseconds = message.timestamp()
    if event.get("at") is None and kind != _NO_TIMESTAMP:
        event["at"] = datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat()
    if event.get("event_id") is None:
        event["event_id"] = f"{message.topic()}:{message.partition()}:{offset_of(message)}"
    data = value if event == raw else orjson.dumps(event)
    return partition_of(entity) + 1, data, b""


def _refused(message: Message, code: str, text: str) -> tuple[int, bytes, bytes]:
    source = f"kafka {message.topic()} {message.partition()}:{offset_of(message)}"
    at = from_micros(now_micros()).isoformat()
    reason = orjson.dumps({"code": code, "message": text, "source": source, "refused_at": at})
    return 0, _bytes(message.value()), reason


def offset_of(message: Message) -> int:
    """Return the place of a message in its partition."""
    offset = message.offset()
    assert offset is not None, "a message that was taken has an offset"
    return offset


def _bytes(value: str | bytes | None) -> bytes:
    return value.encode() if isinstance(value, str) else value or b""
