"""An event state as bytes, for the store.

A header (version, fingerprint of the requirements, checksum, sizes); then JSON, deflated unless it is short; then the
digests of ids uncompressed, because they do not compress. Instants are written as differences, in the largest unit that
divides all of them. docs/adr/0004-event-state.md has the measurements. The outlook
(:mod:`rules_engine.events.state.outlook`) and events that wait for the worker
(:mod:`rules_engine.events.state.waiting`) may be appended.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import orjson

from rules_engine.errors import StoreDataError
from rules_engine.events.state.entity_state import DIGEST_SIZE, EventState, Kept, nothing_kept
from rules_engine.events.state.outlook import outlook_size
from rules_engine.events.state.packing import pack_total, pack_value, unpack_total, unpack_value
from rules_engine.events.state.requirements import STATE_VERSION, EventRequirement, StateRequirements
from rules_engine.events.state.totals import Total
from rules_engine.rules.types import Value

_HEADER = struct.Struct("<BQIII")
#: JSON up to this size is not deflated: that would take longer than the rest of encoding, and save little.
_PLAIN = 256
#: Set in the size of JSON that is deflated.
_DEFLATED = 1 << 31
#: A small window and little memory, because setting up the compressor costs more than compressing a small state.
_WINDOW_BITS, _MEMORY_LEVEL = -12, 4
_MAX_JSON = 1 << 26
_UNITS = (1_000_000, 1_000, 1)
#: Masks with more bits are written in hexadecimal, as JSON's integers do not hold them.
_MAX_INTEGER_BITS = 63
#: What to do about a damaged state.
REBUILD_HINT = "`segments ingest --rebuild --entity KEY` makes it anew from the event log"


def encode_state(state: EventState, requirements: StateRequirements) -> bytes:
    """Encode a state.

    >>> from rules_engine.events.state.requirements import requirements_of
    >>> from rules_engine.events.state.entity_state import empty_state
    >>> from rules_engine.rules.program import Program
    >>> nothing = requirements_of(Program({}))
    >>> decode_state(encode_state(empty_state(nothing), nothing), nothing) == empty_state(nothing)
    True
    """
    pairs = zip(state.kept, requirements.events, strict=True)
    digests = b"".join([key for kept, requirement in pairs if not requirement.whole_ids for key in kept.keys])
    body, flag = _to_json(state, requirements), 0
    if len(body) > _PLAIN:
        compressor = zlib.compressobj(1, zlib.DEFLATED, _WINDOW_BITS, _MEMORY_LEVEL)
        body, flag = compressor.compress(body) + compressor.flush(), _DEFLATED
    payload = body + digests
    checksum = zlib.crc32(payload)
    return _HEADER.pack(STATE_VERSION, state.fingerprint, checksum, len(body) | flag, len(digests)) + payload


def _to_json(state: EventState, requirements: StateRequirements) -> bytes:
    pairs = list(zip(state.kept, requirements.events, strict=True))
    try:
        return orjson.dumps([state.pruned_at, *(_pack_kept(kept, requirement) for kept, requirement in pairs)])
    except TypeError:  # a value that JSON has no place for: an integer beyond 64 bits, bytes, half a surrogate pair
        packed = (_pack_kept(kept, requirement, exotic=True) for kept, requirement in pairs)
        return orjson.dumps([state.pruned_at, *packed])


def fingerprint_of(data: bytes) -> int:
    """Return the fingerprint of the requirements for which a state was encoded.

    Raises
    ------
    StoreDataError
        if these are not the bytes of a state, or of one that another version of this program wrote.
    """
    if len(data) < _HEADER.size:
        raise StoreDataError(f"an event state of {len(data)} bytes is cut off", hint=REBUILD_HINT)
    version, fingerprint, *_ = _HEADER.unpack_from(data)
    if version != STATE_VERSION:
        raise StoreDataError(
            f"an event state has version {version}; this program reads version {STATE_VERSION}", hint=REBUILD_HINT
        )
    return int(fingerprint)


def decode_state(data: bytes, requirements: StateRequirements) -> EventState:
    """Decode what :func:`encode_state` made; an outlook behind it is passed over.

    Raises
    ------
    StoreDataError
        if the bytes are damaged, or were written for other requirements.
    """
    fingerprint = fingerprint_of(data)
    if fingerprint != requirements.fingerprint:
        raise StoreDataError("an event state was written for other definitions than those applied", hint=REBUILD_HINT)
    end = state_size(data)
    payload = data[_HEADER.size : end]
    _, _, checksum, size, ids = _HEADER.unpack_from(data)
    if zlib.crc32(payload) != checksum or end + outlook_size(data, end) != len(data):
        raise StoreDataError("an event state is damaged: its checksum does not fit", hint=REBUILD_HINT)
    try:
        body = payload[: len(payload) - ids]
        return _decode_payload(_inflated(body) if size & _DEFLATED else body, payload[len(body) :], requirements)
    except (zlib.error, ValueError, TypeError, LookupError, OverflowError) as error:
        raise StoreDataError(f"an event state cannot be read: {error}", hint=REBUILD_HINT) from error


def state_size(data: bytes) -> int:
    """Return the number of bytes at the beginning that are the state; the rest are events that wait.

    Raises
    ------
    StoreDataError
        if these are not the bytes of a state.
    """
    fingerprint_of(data)
    *_, size, ids = _HEADER.unpack_from(data)
    return int(_HEADER.size + (size & ~_DEFLATED) + ids)


def _inflated(body: bytes) -> bytes:
    inflater = zlib.decompressobj(_WINDOW_BITS)
    text = inflater.decompress(body, _MAX_JSON)
    if not inflater.eof or inflater.unused_data:
        raise ValueError("it ends too early, or is too large")
    return text


def _decode_payload(text: bytes, digests: bytes, requirements: StateRequirements) -> EventState:
    pruned_at, *packed = orjson.loads(text)
    exotic = b"{" in text
    kept, read = [], 0
    for item, requirement in zip(packed, requirements.events, strict=True):
        events = _unpack_kept(item, requirement, digests, read, exotic) if item else nothing_kept(requirement)
        read += 0 if requirement.whole_ids else DIGEST_SIZE * len(events.ats)
        kept.append(events)
    if read != len(digests):
        raise ValueError("it does not hold one id for each event")
    return EventState(requirements.fingerprint, tuple(kept), pruned_at)


# --- the events of one name -----------------------------------------------------------------------------------------


def _pack_kept(kept: Kept, requirement: EventRequirement, *, exotic: bool = False) -> Any:
    """Return JSON data: unit, first instant, differences, masks, columns, keys, and the parts that are often absent."""
    rare = _pack_rare(kept)
    if not kept.ats and not rare:
        return 0
    unit = next((place for place, unit in enumerate(_UNITS) if not any(at % unit for at in kept.ats)), 0)
    size = _UNITS[unit]
    steps = [(later - earlier) // size for earlier, later in pairwise(kept.ats)]
    masks = _pack_masks(kept.masks, requirement)
    columns = [_pack_column(column, exotic=exotic) for column in kept.columns]
    keys = [key.decode("latin-1") for key in kept.keys] if requirement.whole_ids else 0
    return [unit, kept.ats[0] if kept.ats else None, steps, masks, columns, keys, *rare]


def _pack_masks(masks: Sequence[int], requirement: EventRequirement) -> Any:
    if len(requirement.bits) == 1:
        return 0
    return masks if len(requirement.bits) <= _MAX_INTEGER_BITS else [f"{mask:x}" for mask in masks]


def _pack_column(column: Sequence[Value], *, exotic: bool) -> Any:
    if column.count(None) == len(column):
        return 0
    exotic = exotic or math.inf in column or -math.inf in column
    return [pack_value(value) for value in column] if exotic else column


def _pack_rare(kept: Kept) -> list[Any]:
    if kept.settled is None and not kept.lost and not kept.late:
        return []
    return [sorted(kept.lost.items()), kept.settled, kept.late, [pack_total(total) for total in kept.totals]]


def _unpack_kept(packed: Any, requirement: EventRequirement, digests: bytes, start: int, exotic: bool) -> Kept:
    unit, first, steps, masks, columns, keys, *rare = packed
    size = _UNITS[unit]
    if size != 1:
        steps = [step * size for step in steps]
    ats = () if first is None else tuple(accumulate(steps, initial=first))
    number = len(ats)
    ends = range(start, start + DIGEST_SIZE * number, DIGEST_SIZE)
    if requirement.whole_ids:
        ids = tuple([key.encode("latin-1") for key in keys])
    else:
        ids = tuple([digests[begin : begin + DIGEST_SIZE] for begin in ends])
    kept = Kept(
        ats,
        ids,
        tuple(_unpack_masks(masks)) if masks else (1,) * number,
        _unpack_columns(columns, requirement, number, exotic),
        *_unpack_rare(rare, requirement),
    )
    if not number == len(kept.keys) == len(kept.masks) or any(len(column) != number for column in kept.columns):
        raise ValueError("its columns differ in length")
    return kept


def _unpack_masks(masks: Any) -> Sequence[int]:
    return [int(mask, 16) for mask in masks] if isinstance(masks[0], str) else masks


def _unpack_columns(
    packed: Any, requirement: EventRequirement, number: int, exotic: bool
) -> tuple[tuple[Value, ...], ...]:
    columns = []
    for values, column in zip(packed, requirement.columns, strict=True):
        if not values:
            columns.append((None,) * number)
        elif exotic or column.type is None or column.type.is_list:
            columns.append(tuple(map(unpack_value, values)))
        else:
            columns.append(tuple(values))
    return tuple(columns)


def _unpack_rare(rare: list[Any], requirement: EventRequirement) -> tuple[Any, ...]:
    if not rare:
        return {}, None, (Total(),) * len(requirement.totals), 0
    lost, settled, late, totals = rare
    if len(totals) != len(requirement.totals):
        raise ValueError("its totals are not those of the requirements")
    return dict(lost), settled, tuple(map(unpack_total, totals)), late
