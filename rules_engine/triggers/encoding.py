"""Encodes a record as bytes for the store: a header with version and checksum, then JSON, deflated where it is long."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

import orjson

from rules_engine.errors import StoreDataError
from rules_engine.triggers.record import (
    MembershipChange,
    Outgoing,
    Pending,
    Record,
    State,
    SuppressionReason,
    Transition,
    TriggerStep,
)

#: Incremented when the encoding of records changes.
RECORD_VERSION = 1

_HEADER = struct.Struct("<BBI")
_DEFLATED = 1
#: Shorter JSON is not deflated: setting up the compressor costs more than the rest of encoding.
_PLAIN = 400
_WINDOW_BITS, _MEMORY_LEVEL = -12, 4
_MAX_JSON = 1 << 26
_HINT = "remove it: the entity is then looked at as if it were new"


def encode_record(record: Record) -> bytes:
    """Return the record as bytes.

    >>> record = Record(at=5, members={"vip": 3}, pending=(Pending("mail", "enter:vip:3", 3, 9),))
    >>> decode_record(encode_record(record)) == record
    True
    """
    body, flags = orjson.dumps(_pack(record)), 0
    if len(body) > _PLAIN and record.is_published:  # a record that is not is replaced in a moment
        compressor = zlib.compressobj(1, zlib.DEFLATED, _WINDOW_BITS, _MEMORY_LEVEL)
        body, flags = compressor.compress(body) + compressor.flush(), _DEFLATED
    return _HEADER.pack(RECORD_VERSION, flags, zlib.crc32(body)) + body


def decode_record(data: bytes | None) -> Record:
    """Return the inverse of :func:`encode_record`; without bytes, the record of a new entity.

    Raises
    ------
    StoreDataError
        if the bytes are damaged, or were written by another version of this program.
    """
    if data is None:
        return Record()
    if len(data) < _HEADER.size:
        raise StoreDataError(f"a record of triggers of {len(data)} bytes is cut off", hint=_HINT)
    version, flags, checksum = _HEADER.unpack_from(data)
    if version != RECORD_VERSION:
        message = f"a record of triggers has version {version}; this program reads version {RECORD_VERSION}"
        raise StoreDataError(message, hint=_HINT)
    body = data[_HEADER.size :]
    if zlib.crc32(body) != checksum:
        raise StoreDataError("a record of triggers is damaged: its checksum does not fit", hint=_HINT)
    try:
        return _unpack(orjson.loads(_inflated(body) if flags & _DEFLATED else body))
    except (zlib.error, ValueError, TypeError, LookupError) as error:
        raise StoreDataError(f"a record of triggers cannot be read: {error}", hint=_HINT) from error


def _inflated(body: bytes) -> bytes:
    inflater = zlib.decompressobj(_WINDOW_BITS)
    text = inflater.decompress(body, _MAX_JSON)
    if not inflater.eof:
        raise ValueError("it ends too early, or is too large")
    return text


def _pack(record: Record) -> list[Any]:
    """Return the fields in order; empty ones at the end are left out."""
    packed = [
        record.rules,
        record.at,
        record.last_id,
        record.members,
        record.dues,
        [_pack_pending(pending) for pending in record.pending],
        record.fired,
        [*record.seen, *record.seen.values()],
        sorted(record.fresh),
        record.repeats,
        [_pack_outgoing(item) for item in record.outbox],
        record.person,
        [base64.b64encode(entry).decode() for entry in record.handed_on],
    ]
    while packed and not packed[-1]:
        packed.pop()
    return packed


def _unpack(packed: list[Any]) -> Record:
    rules, at, last_id, members, dues, pending, fired, seen, fresh, repeats, outbox, person, handed_on = (
        *packed,
        *_EMPTY[len(packed) :],
    )
    half = len(seen) // 2
    return Record(
        rules=rules,
        at=at,
        last_id=None if last_id is None else (last_id[0], last_id[1]),
        members=members,
        dues=dues,
        pending=tuple([Pending(*fields) for fields in pending]),
        fired={name: tuple(instants) for name, instants in fired.items()},
        seen=dict(zip(seen[:half], seen[half:], strict=True)),
        fresh=frozenset(fresh),
        repeats=repeats,
        outbox=tuple([_unpack_outgoing(item) for item in outbox]),
        person=person,
        handed_on=tuple(map(base64.b64decode, handed_on)),
    )


_EMPTY: tuple[Any, ...] = (0, None, None, {}, {}, (), {}, (), (), {}, (), None, ())


def _pack_pending(pending: Pending) -> list[Any]:
    packed: list[Any] = [pending.trigger, pending.cause, pending.begins, pending.due]
    return [*packed, pending.properties] if pending.properties else packed


def _pack_outgoing(item: Outgoing) -> list[Any]:
    if isinstance(item, Transition):
        return [0, item.segment, item.change.value, item.at, item.cause, item.version, item.number]
    reason = None if item.reason is None else item.reason.value
    return [
        1,
        item.trigger,
        item.cause,
        item.state.value,
        item.at,
        item.due,
        reason,
        item.version,
        *([item.payload, item.sinks] if item.sinks else []),
    ]


def _unpack_outgoing(packed: list[Any]) -> Outgoing:
    kind, *fields = packed
    if kind == 0:
        segment, change, *rest = fields
        return Transition(segment, MembershipChange(change), *rest)
    trigger, cause, state, at, due, reason, version, *sent = fields
    payload, sinks = sent or ({}, ())
    suppression = None if reason is None else SuppressionReason(reason)
    return TriggerStep(trigger, cause, State(state), at, due, suppression, version, payload, tuple(sinks))
