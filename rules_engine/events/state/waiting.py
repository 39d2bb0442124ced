"""Events that wait behind a state: reported, and not yet seen by the worker that judges what follows from them.

What the store keeps of an entity is one string: the state, as far as workers have come, its outlook, and behind them
the events that were reported since. Reporting appends to the string, which needs no reading; readers put the events
into the state that they decoded; and the worker, which takes the same events from the stream one after the other, takes
them out again when it replaces the state. So an answer sees an event as soon as it was reported, and the state stays
exactly what was judged.

When an id is joined to a person, its state waits behind the person's in the same way, until the worker has come to it.
Entries are also what one worker hands on to another: the events of an id that is joined, and its state.

An entry is a mark, the length of its content, the digest of the event's id, and the event as JSON. A state of which
older events lie in pieces is read together with them: each of them with a mark and its length, then the string.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import orjson

from rules_engine.errors import StoreDataError
from rules_engine.events.joins import JOIN, handed_on
from rules_engine.events.state.encoding import (
    REBUILD_HINT,
    decode_state,
    encode_piece,
    encode_state,
    fingerprint_of,
    name_of,
    named_pieces,
    state_size,
)
from rules_engine.events.state.entity_state import EventState, digest_of, empty_state, update
from rules_engine.events.state.merging import merged
from rules_engine.events.state.outlook import outlook_size
from rules_engine.events.state.packing import pack_value, unpack_value
from rules_engine.events.state.requirements import StateRequirements
from rules_engine.rules.inputs import Event

#: What an entry begins with. No state begins so: a state begins with its version.
MARK = 0xF5

#: What a piece in front of a state begins with.
_PIECE_MARK = 0xF7

_HEAD = struct.Struct("<BI8s")
_PIECE_HEAD = struct.Struct("<BI")

#: The kinds of entries: an event, one with values that JSON has no place for, and the state of an id that is joined.
_EVENT, _PACKED, _STATE = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Handover:
    """Holds what is kept of an id that was joined to a person, on its way to that person.

    Attributes
    ----------
    via
        the id, and further ids by which it came.
    at
        the instant of the join, in microseconds.
    state
        the state of the id, and events that wait behind it, as the store has them.
    """

    via: tuple[str, ...]
    at: int
    state: bytes = b""

    @property
    def id(self) -> str:
        """Return the id that tells the handover from others, and from events."""
        return f"{JOIN}:{self.via[0]}"


#: What may wait behind a state.
Waiting = Event | Handover


def encode_waiting(event: Waiting) -> bytes:
    """Return an event, or a state that is handed over, as it is appended.

    >>> entry = encode_waiting(Event("view", 5, "view:a", {"page": "x"}))
    >>> waiting_events(entry)
    [Event(name='view', at=5, id='view:a', properties={'page': 'x'})]
    """
    if isinstance(event, Handover):
        body = orjson.dumps([_STATE, event.via, event.at, base64.b64encode(event.state).decode()])
    else:
        body = _event_body(event)
    return _HEAD.pack(MARK, len(body), waiting_digest(event)) + body


def _event_body(event: Event) -> bytes:
    content = [event.name, event.at, event.id, event.properties]
    try:
        return orjson.dumps([_EVENT, *content])
    except TypeError:
        content[3] = {name: pack_value(value) for name, value in event.properties.items()}
        return orjson.dumps([_PACKED, *content])


def passed_on(event: Waiting, entity: str) -> Waiting:
    """Return what waits behind an entity's state as it counts for the person to whom that is joined."""
    return replace(event, via=(*event.via, entity)) if isinstance(event, Handover) else handed_on(event, entity)


def waiting_digest(event: Waiting) -> bytes:
    """Return the digest that tells an entry from others."""
    return digest_of(event.id.encode("utf-8", "surrogatepass"))


def split(data: bytes | None) -> tuple[bytes, bytes]:
    """Split what the store keeps of an entity: the state with its outlook, and the events that wait. Each may be empty.

    Raises
    ------
    StoreDataError
        if it does not begin with a state nor with an entry.
    """
    if not data:
        return b"", b""
    size = 0 if data[0] == MARK else state_size(data)
    size += outlook_size(data, size)
    return data[:size], data[size:]


def with_pieces(stored: bytes, pieces: Iterable[bytes]) -> bytes:
    """Return the bytes of a state with those of its pieces in front, as the store gives them together."""
    return b"".join([*(_PIECE_HEAD.pack(_PIECE_MARK, len(piece)) + piece for piece in pieces), stored])


def whole_state(state: EventState, requirements: StateRequirements) -> bytes:
    """Encode a state with its pieces in front."""
    pieces = [encode_piece(piece, requirement) for piece, requirement in named_pieces(state, requirements).values()]
    return with_pieces(encode_state(state, requirements), pieces)


def without_pieces(data: bytes | None) -> tuple[dict[bytes, bytes], bytes]:
    """Return what the store gives together as the pieces, by name, and the rest.

    Raises
    ------
    StoreDataError
        if it is cut off.
    """
    pieces: dict[bytes, bytes] = {}
    at, data = 0, data or b""
    while data[at : at + 1] == b"\xf7":
        if len(data) < at + _PIECE_HEAD.size:
            raise _damaged()
        start = at + _PIECE_HEAD.size
        at = start + int(_PIECE_HEAD.unpack_from(data, at)[1])
        piece = data[start:at]
        pieces[name_of(piece)] = piece
    return pieces, data[at:] if at else data


def waiting_events(data: bytes) -> list[Waiting]:
    """Return what is in entries one after the other.

    Raises
    ------
    StoreDataError
        if the bytes are damaged.
    """
    return [_event(body) for _, body in _entries(data)]


def digests(data: bytes) -> list[bytes]:
    """Return the digests of entries one after the other."""
    return [digest for digest, _ in _entries(data)]


def decode_current(data: bytes | None, requirements: StateRequirements) -> EventState:
    """Decode a state, with the pieces that are read in front of it, together with the events that wait behind it.

    Raises
    ------
    StoreDataError
        if the bytes are damaged, or were written for other requirements.
    """
    pieces, rest = without_pieces(data)
    stored, entries = split(rest)
    state = decode_state(stored, requirements, pieces) if stored else empty_state(requirements)
    return taken_in(state, waiting_events(entries), requirements) if entries else state


def taken_in(state: EventState, waiting: Iterable[Waiting], requirements: StateRequirements) -> EventState:
    """Put what waits into a state; states of ids that are part of it already are passed over."""
    items = list(waiting)
    state = update(state, [item for item in items if isinstance(item, Event)], requirements)
    for item in items:
        if isinstance(item, Handover) and item.via[0] not in state.joined:
            state = received(state, item, requirements)
    return state


def received(state: EventState, handover: Handover, requirements: StateRequirements) -> EventState:
    """Return a person's state with what is handed over to it.

    The state of an id that was kept for other definitions is passed over: for those that count, it is in the person's
    state already, which `segments apply` made from the log.

    Raises
    ------
    StoreDataError
        if the bytes are damaged.
    """
    stored = split(without_pieces(handover.state)[1])[0]
    if stored and fingerprint_of(stored) != requirements.fingerprint:
        return state
    theirs = decode_current(handover.state, requirements)
    return merged(state, theirs, handover.via, handover.at, requirements)


def _entries(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(data):
        try:
            mark, size, digest = _HEAD.unpack_from(data, at)
        except struct.error:
            mark, size, digest = 0, 0, b""
        at += _HEAD.size + size
        if mark != MARK or at > len(data):
            raise _damaged()
        yield digest, data[at - size : at]


def _damaged() -> StoreDataError:
    return StoreDataError("the events that wait behind a state are damaged", hint=REBUILD_HINT)


def _event(body: bytes) -> Waiting:
    try:
        kind, *content = orjson.loads(body)
        if kind == _STATE:
            via, joined_at, state = content
            return Handover(tuple(via), joined_at, base64.b64decode(state))
        name, at, identity, properties = content
        values = {key: unpack_value(value) if kind == _PACKED else _value(value) for key, value in properties.items()}
    except (ValueError, TypeError, LookupError, AttributeError):
        raise _damaged() from None
    return Event(name, at, identity, values)


def _value(value: Any) -> Any:
    return tuple(map(_value, value)) if isinstance(value, list) else value
