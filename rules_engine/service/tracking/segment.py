"""A message of Segment's tracking API: what it says, as an event of ours, as traits, or as both.

See https://segment.com/docs/connections/spec/. A message belongs to its ``userId``, else to its ``anonymousId``.

====================  ======================================================================
``track``             the event that it names
``page``, ``screen``  an event ``page`` or ``screen`` with ``name`` and ``category`` as properties
``identify``          traits, and an event ``identify`` if one is declared; with a ``userId``, the
                      ``anonymousId`` is joined to it
``group``             an event ``group``: the group's traits, and ``group_id``
``alias``             ``previousId`` is joined to the ``userId``, and an event ``alias`` with
                      ``previous_id`` if one is declared
====================  ======================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any
from uuid import uuid4

import orjson

from rules_engine.events.declarations.validation import MAX_BYTES, Rejection
from rules_engine.events.declarations.vocabulary import Vocabulary
from rules_engine.events.refused import Refused, as_bytes
from rules_engine.sdk.tracking import Report
from rules_engine.service.tracking.messages import UnclearMessageError, instant_in, object_in, refused

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Arrival:
    """Says how messages came.

    Attributes
    ----------
    received
        when, in microseconds.
    sent
        the batch's ``sentAt``, as the sender wrote it; a message's own counts first.
    corrects_clock
        whether instants are corrected by what the sender's clock was off. Not for imports of what happened long ago.
    """

    received: int
    sent: object = None
    corrects_clock: bool = True


def read_message(content: object, kind: str | None, arrival: Arrival, words: Vocabulary) -> Report | Refused:
    """Return what a message reports, or what is set aside of it. Nothing raises.

    Parameters
    ----------
    content
        the message, as JSON has it.
    kind
        what the path says that it is, e.g. ``track``; None: its ``type`` says so.
    arrival
        how it came.
    words
        the names that are declared.

    Examples
    --------
    >>> from rules_engine.events.declarations.events_yaml import parse_events
    >>> words = Vocabulary(parse_events("events: {product_viewed: {retention: 30d}}"))
    >>> message = {"userId": "42", "event": "Product Viewed", "messageId": "m1", "properties": {"sku": "A1"}}
    >>> report = read_message(message, "track", Arrival(received=1_800_000_000_000_000), words)
    >>> report.entity, report.event, report.at, report.event_id, report.properties
    ('42', 'product_viewed', 1800000000000000, 'm1', {'sku': 'A1'})
    """
    try:
        message = object_in(content, "a message")
        read = _KINDS.get(kind or str(message.get("type")))
        if read is None:
            raise UnclearMessageError("unknown-type", f"a message is one of {', '.join(_KINDS)}")
        event, properties, traits = read(message, words)
        previous = _previous(kind or str(message.get("type")), message)
        if previous is not None and not words.declares(str(event)):
            event = None
        at, identity = _instant(message, arrival), _identity(message)
        return Report(_entity(message), event, at, identity, properties, traits, previous)
    except UnclearMessageError as unclear:
        return refused(content, unclear.rejection)


def size_problem(message: object) -> Rejection | None:
    """Return why a message is too large, or None."""
    try:
        size = len(orjson.dumps(message))
    except TypeError:
        return None  # what is wrong with it is told where it is read
    if size <= MAX_BYTES:
        return None
    return Rejection("event-too-large", f"the message takes {size:,} bytes; at most {MAX_BYTES:,} are taken")


# --- what a message says --------------------------------------------------------------------------------------------

#: The event (None: there is none), its properties, and the traits (None: there are none).
_Content = tuple[str | None, dict[str, Any], dict[str, Any] | None]


def _track(message: Message, words: Vocabulary) -> _Content:
    name = message.get("event")
    if not isinstance(name, str) or not name:
        raise UnclearMessageError("missing-event", "a `track` message names its `event`")
    return _event(name, _part(message, "properties"), words)


def _view(kind: str) -> Callable[[Message, Vocabulary], _Content]:
    def read(message: Message, words: Vocabulary) -> _Content:
        named = {key: message[key] for key in ("name", "category") if message.get(key) is not None}
        return _event(kind, {**_part(message, "properties"), **named}, words)

    return read


def _identify(message: Message, words: Vocabulary) -> _Content:
    traits = _traits(message)
    event, properties, _ = _event("identify", traits, words)
    if not words.writes_traits:
        return event, properties, None
    return (event if words.declares(str(event)) else None), properties, traits


def _traits(message: Message) -> dict[str, Any]:
    """Return the traits of an ``identify`` message. RudderStack's SDKs put them into its ``context``."""
    context = message.get("context")
    if message.get("traits") is None and isinstance(context, Mapping):
        return _part(context, "traits")
    return _part(message, "traits")


def _group(message: Message, words: Vocabulary) -> _Content:
    return _event("group", {**_part(message, "traits"), "group_id": message.get("groupId")}, words)


def _alias(message: Message, words: Vocabulary) -> _Content:
    return _event("alias", {"previous_id": message.get("previousId")}, words)


def _event(name: str, properties: dict[str, Any], words: Vocabulary) -> _Content:
    declared = words.event(name)
    return declared, words.properties(declared, properties), None


_KINDS: Mapping[str, Callable[[Message, Vocabulary], _Content]] = {
    "track": _track,
    "page": _view("page"),
    "screen": _view("screen"),
    "identify": _identify,
    "group": _group,
    "alias": _alias,
}


# --- who, when, which -----------------------------------------------------------------------------------------------


def _entity(message: Message) -> str:
    for key in ("userId", "anonymousId"):
        if (value := _key(message, key)) is not None:
            return value
    raise UnclearMessageError("missing-entity", "a message belongs to a `userId` or an `anonymousId`")


def _previous(kind: str, message: Message) -> str | None:
    """Return the id that a message joins to its `userId`; None if it joins none."""
    key = _JOINING.get(kind)
    return None if key is None or _key(message, "userId") is None else _key(message, key)


#: By kind of message: what holds the id that it joins to the ``userId``.
_JOINING = {"identify": "anonymousId", "alias": "previousId"}


def _key(message: Message, key: str) -> str | None:
    """Return the key of an entity; None if the message has none there."""
    value = message.get(key)
    if value is None or value == "":
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise UnclearMessageError("invalid-entity", f"`{key}` is a string or a whole number")
    return value


def _instant(message: Message, arrival: Arrival) -> int:
    """Return when it happened: what the sender's clock said, corrected by how far it was from ours."""
    written = message.get("timestamp") or message.get("originalTimestamp")
    if written is None:
        return arrival.received
    at = instant_in(written, "timestamp")
    sent = message.get("sentAt") or arrival.sent
    if not arrival.corrects_clock or sent is None:
        return at
    return arrival.received - (instant_in(sent, "sentAt") - at)


def _identity(message: Message) -> object:
    """Return the message's id. Without one, the content is the id if it says when it happened, else a random one."""
    identity = message.get("messageId")
    if identity is not None and identity != "":
        return identity
    if message.get("timestamp") is None:
        return uuid4().hex
    content = {key: message[key] for key in sorted(message) if key != "sentAt"}
    return blake2b(as_bytes(content), digest_size=16).hexdigest()


def _part(message: Message, key: str) -> dict[str, Any]:
    return dict(object_in({} if message.get(key) is None else message[key], f"`{key}`"))
