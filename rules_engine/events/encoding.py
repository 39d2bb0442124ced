"""An event state as bytes, for the store.

A header (version, fingerprint of the requirements, checksum); then JSON, deflated; then the digests of ids as they are,
because they do not compress. Instants are differences, in the largest unit of which all of them are whole numbers.
docs/adr/0004-event-state.md has the measurements.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

import orjson

from rules_engine.errors import StoreDataError
from rules_engine.events.packing import pack_total, pack_value, unpack_total, unpack_value
from rules_engine.events.requirements import EventRequirement, StateRequirements
from rules_engine.events.state import DIGEST_SIZE, EventState, Kept, empty_state
from rules_engine.rules.types import Value

VERSION = 1

_HEADER = struct.Struct("<BQI")
#: A small window and little memory: setting the compressor up costs more than compressing a small state.
_WINDOW_BITS, _MEMORY_LEVEL = -12, 4
_MAX_JSON = 1 << 26
_UNITS = (1_000_000, 1_000, 1)
#: Masks of more bits than JSON's integers hold are written in hexadecimal.
_MAX_INTEGER_BITS = 63
_HINT = "rebuild the entity's state from the event log"


def encode_state(state: EventState, requirements: StateRequirements) -> bytes:
    """The state as bytes.

    >>> from rules_engine.events.requirements import requirements_of
    >>> from rules_engine.rules.program import Program
    >>> nothing = requirements_of(Program({}))
    >>> decode_state(encode_state(empty_state(nothing), nothing), nothing) == empty_state(nothing)
    True
    """
    pairs = list(zip(state.kept, requirements.events, strict=True))
    body = [state.pruned_at, *(_pack_kept(kept, requirement) for kept, requirement in pairs)]
    compressor = zlib.compressobj(1, zlib.DEFLATED, _WINDOW_BITS, _MEMORY_LEVEL)
    digests = [key for kept, requirement in pairs if not requirement.whole_ids for key in kept.keys]
    payload = b"".join((compressor.compress(orjson.dumps(body)), compressor.flush(), *digests))
    return _HEADER.pack(VERSION, state.fingerprint, zlib.crc32(payload)) + payload


def fingerprint_of(data: bytes) -> int:
    """The fingerprint of the requirements for which a state was encoded.

    Raises
    ------
    StoreDataError
        if these are not the bytes of a state, or of one that another version of this program wrote.
    """
    if len(data) < _HEADER.size:
        raise StoreDataError(f"an event state of {len(data)} bytes is cut off", hint=_HINT)
    version, fingerprint, _ = _HEADER.unpack_from(data)
    if version != VERSION:
        raise StoreDataError(f"an event state has version {version}; this program reads version {VERSION}", hint=_HINT)
    return int(fingerprint)


def decode_state(data: bytes, requirements: StateRequirements) -> EventState:
    """The inverse of :func:`encode_state`.

    Raises
    ------
    StoreDataError
        if the bytes are damaged, or were written for other requirements.
    """
    fingerprint = fingerprint_of(data)
    if fingerprint != requirements.fingerprint:
        raise StoreDataError("an event state was written for other definitions than those applied", hint=_HINT)
    payload = data[_HEADER.size :]
    if zlib.crc32(payload) != _HEADER.unpack_from(data)[2]:
        raise StoreDataError("an event state is damaged: its checksum does not fit", hint=_HINT)
    try:
        return _decode_payload(payload, requirements)
    except (zlib.error, ValueError, TypeError, LookupError, OverflowError) as error:
        raise StoreDataError(f"an event state cannot be read: {error}", hint=_HINT) from error


def _decode_payload(payload: bytes, requirements: StateRequirements) -> EventState:
    inflater = zlib.decompressobj(_WINDOW_BITS)
    text = inflater.decompress(payload, _MAX_JSON)
    if not inflater.eof:
        raise ValueError("it ends too early, or is too large")
    pruned_at, *packed = orjson.loads(text)
    digests = _digests(inflater.unused_data)
    empty = empty_state(requirements)
    kept = (
        _unpack_kept(one, requirement, blank, digests) if one else blank
        for one, requirement, blank in zip(packed, requirements.events, empty.kept, strict=True)
    )
    state = EventState(requirements.fingerprint, tuple(kept), pruned_at)
    if next(digests, None) is not None:
        raise ValueError("it holds more ids than events")
    return state


def _digests(data: bytes) -> Iterator[bytes]:
    if len(data) % DIGEST_SIZE:
        raise ValueError("its ids are cut off")
    return (data[start : start + DIGEST_SIZE] for start in range(0, len(data), DIGEST_SIZE))


# --- the events of one name -----------------------------------------------------------------------------------------


def _pack_kept(kept: Kept, requirement: EventRequirement) -> Any:
    """As JSON: unit, first instant, differences, masks, columns, keys, and what is rarely there."""
    rare = _pack_rare(kept)
    if not kept.ats and not rare:
        return 0
    unit = next((place for place, unit in enumerate(_UNITS) if not any(at % unit for at in kept.ats)), 0)
    size = _UNITS[unit]
    steps = [(later - earlier) // size for earlier, later in pairwise(kept.ats)]
    masks = _pack_masks(kept.masks, requirement)
    columns = [_pack_column(column) for column in kept.columns]
    keys = [key.decode("latin-1") for key in kept.keys] if requirement.whole_ids else 0
    return [unit, kept.ats[0] if kept.ats else None, steps, masks, columns, keys, *rare]


def _pack_masks(masks: Sequence[int], requirement: EventRequirement) -> Any:
    if len(requirement.bits) == 1:
        return 0
    return masks if len(requirement.bits) <= _MAX_INTEGER_BITS else [f"{mask:x}" for mask in masks]


def _pack_column(column: Sequence[Value]) -> Any:
    if column.count(None) == len(column):
        return 0
    is_plain = all(type(value) in _PLAIN for value in column) and math.inf not in column and -math.inf not in column
    return column if is_plain else [pack_value(value) for value in column]


#: What JSON holds as it is, but for infinities; strings and integers are looked at one by one.
_PLAIN = frozenset((float, bool, type(None)))


def _pack_rare(kept: Kept) -> list[Any]:
    if not (kept.lost or kept.totals or kept.late or kept.settled is not None):
        return []
    return [sorted(kept.lost.items()), kept.settled, kept.late, [pack_total(total) for total in kept.totals]]


def _unpack_kept(packed: Any, requirement: EventRequirement, empty: Kept, digests: Iterator[bytes]) -> Kept:
    unit, first, steps, masks, columns, keys, *rare = packed
    size = _UNITS[unit]
    ats = () if first is None else tuple(accumulate([step * size for step in steps], initial=first))
    number = len(ats)
    kept = Kept(
        ats,
        tuple(key.encode("latin-1") for key in keys) if keys else tuple(next(digests) for _ in ats),
        _unpack_masks(masks, number),
        tuple(tuple(map(unpack_value, column)) if column else (None,) * number for column in columns),
        *_unpack_rare(rare, empty),
    )
    lengths = {number, len(kept.keys), len(kept.masks), *map(len, kept.columns)}
    if len(lengths) != 1 or len(kept.columns) != len(requirement.columns):
        raise ValueError("its columns differ in length")
    return kept


def _unpack_masks(masks: Any, number: int) -> tuple[int, ...]:
    if not masks:
        return (1,) * number
    return tuple(int(mask, 16) for mask in masks) if isinstance(masks[0], str) else tuple(masks)


def _unpack_rare(rare: list[Any], empty: Kept) -> tuple[Any, ...]:
    if not rare:
        return {}, None, empty.totals, 0
    lost, settled, late, totals = rare
    if len(totals) != len(empty.totals):
        raise ValueError("its totals are not those of the requirements")
    return {place: instant for place, instant in lost}, settled, tuple(map(unpack_total, totals)), late
