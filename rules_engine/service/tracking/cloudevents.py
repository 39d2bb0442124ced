"""CloudEvents 1.0 over HTTP: one event in structured or in binary mode, or several in batch mode.

See https://github.com/cloudevents/spec. The entity is the ``subject``, the event is the ``type`` (or an alias of an
event), and ``source`` with ``id`` is what tells an event from all others. ``data`` holds the properties.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any
from urllib.parse import unquote

from rules_engine.events.declarations.validation import MAX_ID_LENGTH
from rules_engine.events.declarations.vocabulary import Vocabulary
from rules_engine.events.refused import Refused
from rules_engine.sdk.tracking import Report
from rules_engine.service.tracking.messages import UnclearMessageError, instant_in, object_in, refused

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"

_REQUIRED = ("specversion", "id", "source", "type", "subject")


def read_cloud_event(content: object, received: int, words: Vocabulary) -> Report | Refused:
    """Return what an event in structured mode reports, or what is set aside of it. Nothing raises.

    Parameters
    ----------
    content
        the event, as JSON has it.
    received
        when it came, in microseconds.
    words
        the names that are declared.

    Examples
    --------
    >>> from rules_engine.events.declarations.events_yaml import parse_events
    >>> words = Vocabulary(parse_events("events: {purchase: {retention: 30d, aliases: [com.shop.paid]}}"))
    >>> event = {"specversion": "1.0", "id": "7", "source": "/shop", "type": "com.shop.paid", "subject": "42"}
    >>> report = read_cloud_event(event, 1_800_000_000_000_000, words)
    >>> report.entity, report.event, report.at, report.event_id
    ('42', 'purchase', 1800000000000000, '/shop#7')
    """
    try:
        event = object_in(content, "a CloudEvent")
        attributes = [event.get(name) for name in _REQUIRED]
        if not all(isinstance(value, str) and value for value in attributes) or attributes[0] != "1.0":
            raise UnclearMessageError("invalid-event", f"a CloudEvent 1.0 has the texts {', '.join(_REQUIRED)}")
        _, identity, source, kind, subject = map(str, attributes)
        if "data_base64" in event:
            raise UnclearMessageError("invalid-event", "`data` is a JSON object; `data_base64` is not read")
        data = object_in({} if event.get("data") is None else event["data"], "`data`")
        at = received if event.get("time") is None else instant_in(event["time"], "time")
        name = words.event(kind)
        return Report(subject, name, at, _unique(source, identity), words.properties(name, data))
    except UnclearMessageError as unclear:
        return refused(content, unclear.rejection)


def from_headers(headers: Iterable[tuple[bytes, bytes]], data: object) -> dict[str, Any]:
    """Return an event of binary mode as it would be in structured mode: its attributes are headers ``ce-...``.

    >>> from_headers([(b"ce-id", b"7"), (b"ce-subject", b"%C3%A4"), (b"accept", b"*/*")], {"sku": "A1"})
    {'id': '7', 'subject': 'ä', 'data': {'sku': 'A1'}}
    """
    attributes: Mapping[str, Any] = {
        name.decode("latin-1")[3:]: unquote(value.decode("utf-8", "replace"))
        for name, value in headers
        if name.startswith(b"ce-")
    }
    return {**attributes, "data": data}


def _unique(source: str, identity: str) -> str:
    """Return one text for source and id, as only both together are unique."""
    text = f"{source}#{identity}"
    return text if len(text) <= MAX_ID_LENGTH else blake2b(text.encode("utf-8", "surrogatepass")).hexdigest()[:64]
