"""An event state as bytes, for the store.

A header (version, fingerprint of the requirements, checksum, sizes); then JSON, deflated unless it is short; then the
digests of ids uncompressed, because they do not compress. Instants are written as differences, in the largest unit that
divides all of them. docs/adr/0004-event-state.md has the measurements. The outlook
(:mod:`rules_engine.events.state.outlook`) and events that wait for the worker
(:mod:`rules_engine.events.state.waiting`) may be appended.

Older events of a state with many lie in pieces, which are encoded each by itself. A state names its pieces by the
digest of their bytes.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import accumulate, pairwise
from typing import Any

import orjson

from rules_engine.errors import StoreDataError
from rules_engine.events.state.entity_state import DIGEST_SIZE, EventState, Kept, nothing_kept
from rules_engine.events.state.outlook import outlook_size
from rules_engine.events.state.packing import pack_total, pack_value, unpack_total, unpack_value
from rules_engine.events.state.pieces import NOTHING_OLDER, EventRows, Older, Piece
from rules_engine.events.state.requirements import STATE_VERSION, EventRequirement, StateRequirements
from rules_engine.events.state.totals import Total
from rules_engine.rules.types import Value

_HEADER = struct.Struct("<BQIII")
#: The sizes of a piece: of its JSON, and of its digests.
_PIECE_HEADER = struct.Struct("<II")
#: JSON up to this size is not deflated: that would take longer than the rest of encoding, and save little.
_PLAIN = 256
#: Set in the size of JSON that is deflated.
_DEFLATED = 1 << 31
#: Set in the size of the digests of a state that has pieces.
_HAS_PIECES = 1 << 31
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
    digests = b"".join([_digests(kept, requirement) for kept, requirement in pairs])
    body, flag = _deflated(_to_json(state, requirements))
    payload = body + digests
    ids = len(digests) | (_HAS_PIECES if any(kept.older.pieces for kept in state.kept) else 0)
    return _HEADER.pack(STATE_VERSION, state.fingerprint, zlib.crc32(payload), len(body) | flag, ids) + payload


def _digests(rows: EventRows, requirement: EventRequirement) -> bytes:
    return b"" if requirement.whole_ids else b"".join(rows.keys)


def _to_json(state: EventState, requirements: StateRequirements) -> bytes:
    pairs = list(zip(state.kept, requirements.events, strict=True))
    head = [state.pruned_at, list(state.joined.items())] if state.joined else state.pruned_at
    try:
        return orjson.dumps([head, *(_pack_kept(kept, requirement) for kept, requirement in pairs)])
    except TypeError:  # a value that JSON has no place for: an integer beyond 64 bits, bytes, half a surrogate pair
        packed = (_pack_kept(kept, requirement, exotic=True) for kept, requirement in pairs)
        return orjson.dumps([head, *packed])


def _deflated(body: bytes) -> tuple[bytes, int]:
    """Return JSON, deflated unless it is short, and the flag that says so."""
    if len(body) <= _PLAIN:
        return body, 0
    compressor = zlib.compressobj(1, zlib.DEFLATED, _WINDOW_BITS, _MEMORY_LEVEL)
    return compressor.compress(body) + compressor.flush(), _DEFLATED


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


def decode_state(
    data: bytes, requirements: StateRequirements, pieces: Mapping[bytes, bytes] | None = None
) -> EventState:
    """Decode what :func:`encode_state` made; an outlook behind it is passed over.

    Parameters
    ----------
    data
        the bytes of the state.
    requirements
        what it was kept for.
    pieces
        the bytes of the pieces that it names, by name; others may be among them.

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
        body = payload[: len(payload) - (ids & ~_HAS_PIECES)]
        text = _inflated(body) if size & _DEFLATED else body
        state = _decode_payload(text, payload[len(body) :], requirements, pieces or {})
    except (zlib.error, ValueError, TypeError, LookupError, OverflowError) as error:
        raise StoreDataError(f"an event state cannot be read: {error}", hint=REBUILD_HINT) from error
    if any(kept.older.pieces for kept in state.kept) is not has_pieces(data):
        raise StoreDataError("an event state is damaged: it does not say whether it has pieces", hint=REBUILD_HINT)
    return state


def state_size(data: bytes) -> int:
    """Return the number of bytes at the beginning that are the state; the rest are events that wait.

    Raises
    ------
    StoreDataError
        if these are not the bytes of a state.
    """
    fingerprint_of(data)
    *_, size, ids = _HEADER.unpack_from(data)
    return int(_HEADER.size + (size & ~_DEFLATED) + (ids & ~_HAS_PIECES))


def has_pieces(data: bytes) -> bool:
    """Say whether bytes are those of a state of which older events lie in pieces."""
    return len(data) >= _HEADER.size and data[0] == STATE_VERSION and bool(_HEADER.unpack_from(data)[4] & _HAS_PIECES)


def _inflated(body: bytes) -> bytes:
    inflater = zlib.decompressobj(_WINDOW_BITS)
    text = inflater.decompress(body, _MAX_JSON)
    if not inflater.eof or inflater.unused_data:
        raise ValueError("it ends too early, or is too large")
    return text


def _decode_payload(
    text: bytes, digests: bytes, requirements: StateRequirements, pieces: Mapping[bytes, bytes]
) -> EventState:
    head, *packed = orjson.loads(text)
    pruned_at, joined = head if isinstance(head, list) else (head, ())
    exotic = b"{" in text
    kept, read = [], 0
    for item, requirement in zip(packed, requirements.events, strict=True):
        if not item:
            kept.append(nothing_kept(requirement))
            continue
        rows, rare = _unpack_rows(item, requirement, digests, read, exotic)
        lost, settled, totals, late, names = _unpack_rare(rare, requirement)
        older = Older(tuple([_decode_piece(name, pieces, requirement) for name in names])) if names else NOTHING_OLDER
        kept.append(Kept(rows.ats, rows.keys, rows.masks, rows.columns, lost, settled, totals, late, older))
        read += 0 if requirement.whole_ids else DIGEST_SIZE * len(rows.ats)
    if read != len(digests):
        raise ValueError("it does not hold one id for each event")
    return EventState(requirements.fingerprint, tuple(kept), pruned_at, dict(joined))


# --- pieces ---------------------------------------------------------------------------------------------------------


def named_pieces(state: EventState, requirements: StateRequirements) -> dict[bytes, tuple[Piece, EventRequirement]]:
    """Return the pieces of a state by name, each with the requirement that it is for."""
    pairs = zip(state.kept, requirements.events, strict=True)
    return {
        _named(piece, requirement): (piece, requirement) for kept, requirement in pairs for piece in kept.older.pieces
    }


def encode_piece(piece: Piece, requirement: EventRequirement) -> bytes:
    """Encode a piece; the digest of its bytes is its name."""
    try:
        body = orjson.dumps(_pack_rows(piece, requirement))
    except TypeError:
        body = orjson.dumps(_pack_rows(piece, requirement, exotic=True))
    body, flag = _deflated(body)
    digests = _digests(piece, requirement)
    return _PIECE_HEADER.pack(len(body) | flag, len(digests)) + body + digests


def name_of(data: bytes) -> bytes:
    """Return the name of a piece with these bytes."""
    return blake2b(data, digest_size=DIGEST_SIZE).hexdigest().encode()


def _named(piece: Piece, requirement: EventRequirement) -> bytes:
    if not piece.name:
        piece.name = name_of(encode_piece(piece, requirement))
    return piece.name


def _decode_piece(name: str, pieces: Mapping[bytes, bytes], requirement: EventRequirement) -> Piece:
    data = pieces.get(name.encode())
    if data is None or name_of(data).decode() != name:
        raise ValueError(f"older events are lacking, which the state names {name}")
    size, ids = _PIECE_HEADER.unpack_from(data)
    end = _PIECE_HEADER.size + (size & ~_DEFLATED)
    body = data[_PIECE_HEADER.size : end]
    text = _inflated(body) if size & _DEFLATED else body
    rows, _ = _unpack_rows(orjson.loads(text), requirement, data[end : end + ids], 0, b"{" in text)
    return Piece(rows.ats, rows.keys, rows.masks, rows.columns, name.encode())


# --- the events of one name -----------------------------------------------------------------------------------------


def _pack_kept(kept: Kept, requirement: EventRequirement, *, exotic: bool = False) -> Any:
    """Return JSON data: the events, and the parts that are often absent; 0 if there is nothing."""
    rare = _pack_rare(kept, requirement)
    return [*_pack_rows(kept, requirement, exotic=exotic), *rare] if kept.ats or rare else 0


def _pack_rows(rows: EventRows, requirement: EventRequirement, *, exotic: bool = False) -> list[Any]:
    """Return JSON data: unit, first instant, differences, masks, columns, keys."""
    unit = next((place for place, unit in enumerate(_UNITS) if not any(at % unit for at in rows.ats)), 0)
    size = _UNITS[unit]
    steps = [(later - earlier) // size for earlier, later in pairwise(rows.ats)]
    masks = _pack_masks(rows.masks, requirement)
    columns = [_pack_column(column, exotic=exotic) for column in rows.columns]
    keys = [key.decode("latin-1") for key in rows.keys] if requirement.whole_ids else 0
    return [unit, rows.ats[0] if rows.ats else None, steps, masks, columns, keys]


def _pack_masks(masks: Sequence[int], requirement: EventRequirement) -> Any:
    if len(requirement.bits) == 1:
        return 0
    return masks if len(requirement.bits) <= _MAX_INTEGER_BITS else [f"{mask:x}" for mask in masks]


def _pack_column(column: Sequence[Value], *, exotic: bool) -> Any:
    if column.count(None) == len(column):
        return 0
    exotic = exotic or math.inf in column or -math.inf in column
    return [pack_value(value) for value in column] if exotic else column


def _pack_rare(kept: Kept, requirement: EventRequirement) -> list[Any]:
    pieces = [_named(piece, requirement).decode() for piece in kept.older.pieces]
    if kept.settled is None and not kept.lost and not kept.late and not pieces:
        return []
    return [sorted(kept.lost.items()), kept.settled, kept.late, [pack_total(total) for total in kept.totals], pieces]


def _unpack_rows(
    packed: Any, requirement: EventRequirement, digests: bytes, start: int, exotic: bool
) -> tuple[EventRows, list[Any]]:
    """Return the events in JSON data, and what comes behind them; their digests begin at ``start``."""
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
    rows = EventRows(
        ats,
        ids,
        tuple(_unpack_masks(masks)) if masks else (1,) * number,
        _unpack_columns(columns, requirement, number, exotic),
    )
    if not number == len(rows.keys) == len(rows.masks) or any(len(column) != number for column in rows.columns):
        raise ValueError("its columns differ in length")
    return rows, rare


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
        return {}, None, (Total(),) * len(requirement.totals), 0, ()
    lost, settled, late, totals, pieces = rare
    if len(totals) != len(requirement.totals):
        raise ValueError("its totals are not those of the requirements")
    return dict(lost), settled, tuple(map(unpack_total, totals)), late, pieces
