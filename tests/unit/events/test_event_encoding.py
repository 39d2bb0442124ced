"""An event state as bytes: the same state comes back, and damaged bytes never pass for one."""

from __future__ import annotations

import math
import random
import struct
import zlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules_engine.clock import DAY, MINUTE, SECOND
from rules_engine.errors import StoreDataError
from rules_engine.events.state.encoding import decode_state, encode_state, fingerprint_of
from rules_engine.events.state.entity_state import EventState, empty_state, update
from rules_engine.events.state.pruning import prune
from rules_engine.events.state.requirements import STATE_VERSION, StateRequirements, requirements_of
from rules_engine.rules.aggregates import Aggregate
from rules_engine.rules.inputs import Event
from rules_engine.rules.nodes import EventAggregate, EventMatch, Predicate, PropertyRef
from rules_engine.rules.program import Program
from rules_engine.rules.types import FLOAT, STRING

NOW = 1_800_000_000_000_000
HEADER = struct.Struct("<BQIII")


def where(name: str) -> tuple[Predicate, ...]:
    return (Predicate(PropertyRef("kind", STRING), "equals", name, STRING),)


REQUIREMENTS = requirements_of(
    Program({}),
    {
        "first": EventAggregate(Aggregate.FIRST, EventMatch("visit"), 30 * DAY, "page", None),
        "spent": EventAggregate(Aggregate.SUM, EventMatch("buy"), None, "amount", FLOAT),
        "mean": EventAggregate(Aggregate.AVG, EventMatch("buy", where("a")), 30 * DAY, "amount", FLOAT),
        "views": EventAggregate(Aggregate.COUNT, EventMatch("view"), 30 * DAY),
    },
)

#: Everything that a property can hold, also what JSON has no place for.
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.characters(categories=["Cs"]),
    st.sampled_from((math.inf, -math.inf, -0.0, 2**63, -(2**63) - 1, 2**400, "{", '{"int": "1"}')),
    st.lists(st.text() | st.integers(), max_size=3),
)  # fmt: skip
EVENTS = st.builds(
    lambda name, age, unit, given_id, page, amount, kind: Event(
        name, NOW - age * unit, given_id, {"page": page, "amount": amount, "kind": kind}
    ),
    st.sampled_from(("visit", "buy", "view")),
    st.integers(-3, 60),
    st.sampled_from((1, 1_000, SECOND, MINUTE, DAY)),
    st.text(st.characters(), min_size=1, max_size=40),
    VALUES,
    st.floats() | st.integers(),
    st.sampled_from(("a", "b")),
)


@given(st.lists(EVENTS, max_size=20), st.booleans())
def test_the_same_state_comes_back(events: list[Event], pruned: bool) -> None:
    state = update(empty_state(REQUIREMENTS), events, REQUIREMENTS)
    state = prune(state, REQUIREMENTS, NOW) if pruned else state
    data = encode_state(state, REQUIREMENTS)
    decoded = decode_state(data, REQUIREMENTS)
    assert decoded == state
    assert repr(decoded) == repr(state)  # 1 is not 1.0, -0.0 is not 0
    assert fingerprint_of(data) == REQUIREMENTS.fingerprint


def test_more_streams_than_an_integer_has_bits() -> None:
    features = {
        str(number): EventAggregate(Aggregate.COUNT, EventMatch("view", where(str(number))), DAY)
        for number in range(100)
    }
    requirements = requirements_of(Program({}), features)
    events = [Event("view", NOW, str(number), {"kind": str(number)}) for number in range(100)]
    state = update(empty_state(requirements), events, requirements)
    assert max(state.kept[0].masks) == 2**99
    assert decode_state(encode_state(state, requirements), requirements) == state


def shop() -> tuple[EventState, StateRequirements]:
    """A user with 30 events, and ten windows to look at them through."""
    amounts = {"of": "amount", "of_type": FLOAT}
    month = 30 * DAY
    features = [
        EventAggregate(Aggregate.COUNT, EventMatch("view"), DAY),
        EventAggregate(Aggregate.COUNT, EventMatch("view"), month),
        EventAggregate(Aggregate.COUNT, EventMatch("view", where("a")), 7 * DAY),
        EventAggregate(Aggregate.DISTINCT, EventMatch("view"), 7 * DAY, "sku", STRING),
        EventAggregate(Aggregate.COUNT, EventMatch("cart"), DAY),
        EventAggregate(Aggregate.SUM, EventMatch("buy"), month, **amounts),
        EventAggregate(Aggregate.AVG, EventMatch("buy"), month, **amounts),
        EventAggregate(Aggregate.MAX, EventMatch("buy", where("a")), month, **amounts),
        EventAggregate(Aggregate.LAST, EventMatch("visit"), month, "page", STRING),
        EventAggregate(Aggregate.COUNT, EventMatch("buy"), month),
    ]
    requirements = requirements_of(Program({}), {str(number): one for number, one in enumerate(features)})
    chance = random.Random(7)
    events = [
        Event(
            chance.choice(("view", "view", "view", "cart", "buy", "visit")),
            NOW - chance.randrange(30 * DAY // 1_000) * 1_000,
            f"{chance.getrandbits(128):032x}",
            {
                "kind": chance.choice("ab"),
                "sku": f"SKU{chance.randrange(500):05}",
                "amount": chance.randrange(20_000) / 100,
                "page": chance.choice(("/home", "/sale", "/search")),
            },
        )
        for _ in range(30)
    ]
    return prune(update(empty_state(requirements), events, requirements), requirements, NOW), requirements


def test_a_typical_state_is_small() -> None:
    assert len(encode_state(*shop())) < 640


def test_damaged_bytes_never_pass_for_a_state() -> None:
    state, requirements = shop()
    data, chance = encode_state(state, requirements), random.Random(1)
    for _ in range(3_000):
        damaged = bytearray(data)
        match chance.randrange(3):
            case 0:
                damaged[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            case 1:
                del damaged[chance.randrange(len(data)) :]
            case 2:
                damaged[chance.randrange(len(data)) :] = chance.randbytes(chance.randrange(1, 50))
        if bytes(damaged) != data:
            with pytest.raises(StoreDataError):
                decode_state(bytes(damaged), requirements)


@given(st.binary(max_size=60))
def test_bytes_with_a_fitting_checksum(payload: bytes) -> None:
    for deflated in (0, 1 << 31):
        sizes = len(payload) | deflated, 0
        data = HEADER.pack(STATE_VERSION, REQUIREMENTS.fingerprint, zlib.crc32(payload), *sizes) + payload
        with pytest.raises(StoreDataError):
            decode_state(data, REQUIREMENTS)


JSON = st.recursive(
    st.none() | st.integers(-5, 5) | st.text(max_size=3) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=30,
)


@given(JSON | st.lists(JSON, min_size=4, max_size=4))
def test_any_json_in_its_place(body: Any) -> None:
    payload = orjson.dumps(body)
    data = HEADER.pack(STATE_VERSION, REQUIREMENTS.fingerprint, zlib.crc32(payload), len(payload), 0) + payload
    try:
        decoded = decode_state(data, REQUIREMENTS)
    except StoreDataError:
        return
    assert not any(kept.ats for kept in decoded.kept), decoded


def test_messages() -> None:
    state, requirements = shop()
    data = encode_state(state, requirements)
    with pytest.raises(StoreDataError, match="for other definitions"):
        decode_state(data, REQUIREMENTS)
    with pytest.raises(StoreDataError, match="cut off"):
        decode_state(data[:5], requirements)
    with pytest.raises(StoreDataError, match="version 9; this program reads version"):
        decode_state(b"\x09" + data[1:], requirements)
    with pytest.raises(StoreDataError, match="its checksum does not fit") as refused:
        decode_state(data + b"x", requirements)
    assert refused.value.hint is not None
