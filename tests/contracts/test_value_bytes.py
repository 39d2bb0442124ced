"""Our reading of Feast's bytes against the installed Feast: every field of its value message, and its keys."""

from __future__ import annotations

import contextlib
import json
import math
import struct
import uuid
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules_engine.clock import SECOND, format_instant, to_micros
from rules_engine.errors import StoreDataError
from rules_engine.features.feast_import import import_feast, quiet
from rules_engine.features.online.decode import Decoder, decode_timestamp, field_of_type
from rules_engine.features.online.value_bytes import encode, timestamp
from rules_engine.features.online.value_message import FIELDS, decode
from rules_engine.redis.feast_layout import KeyMaker, field_bytes, field_number

import_feast()

with quiet():
    from feast import types as feast_types
    from feast.infra.online_stores.helpers import _mmh3, _redis_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value
    from feast.type_map import feast_value_type_to_python_type
    from google.protobuf.timestamp_pb2 import Timestamp

DESCRIPTOR = {field.name: field for field in Value.DESCRIPTOR.fields}
NULL_TIMESTAMP = -(2**63)

# What protobuf writes in front of each type of field: https://protobuf.dev/programming-guides/encoding/
WIRE_TYPES = {
    1: 1,
    2: 5,
    3: 0,
    5: 0,
    8: 0,
    9: 2,
    11: 2,
    12: 2,
    14: 0,
}

# --- any value of any field -----------------------------------------------------------------------------------------

int32 = st.one_of(st.integers(-(2**31), 2**31 - 1), st.sampled_from([0, 1, -1, 127, 128, 2**31 - 1, -(2**31)]))
int64 = st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from([0, -1, 2**53 + 1, 2**60 + 1, 2**63 - 1, -(2**63)]))
seconds = st.one_of(
    st.integers(-62135596800, 253402300799), st.sampled_from([0, -1, 852163199, 253402300799, NULL_TIMESTAMP])
)
floats32 = st.floats(width=32)
floats64 = st.one_of(st.floats(), st.sampled_from([0.0, -0.0, 0.1, 5e-324, float("nan"), float("inf")]))
text = st.one_of(st.text(max_size=40), st.sampled_from(["", "\x00", "é", "\U0001f6d2" * 60, "a" * 300]))
blobs = st.one_of(st.binary(max_size=40), st.sampled_from([b"", b"\x00", b"\xff" * 200]))
zones = st.sampled_from(["UTC", "Europe/Berlin", ""])
uuids = st.uuids().map(str)
decimals = st.decimals(allow_nan=False, allow_infinity=False, places=3).map(str)
json_texts = st.one_of(
    st.recursive(
        st.none() | st.booleans() | st.integers() | text, lambda inner: st.lists(inner) | st.dictionaries(text, inner)
    ).map(json.dumps),
    st.just("{not json"),
)

SCALARS = {
    "bytes_val": blobs,
    "string_val": text,
    "int32_val": int32,
    "int64_val": int64,
    "double_val": floats64,
    "float_val": floats32,
    "bool_val": st.booleans(),
    "unix_timestamp_val": seconds,
    "json_val": json_texts,
    "uuid_val": uuids,
    "time_uuid_val": uuids,
    "decimal_val": decimals,
}
LISTED = {name.removesuffix("_val"): strategy for name, strategy in SCALARS.items()}


def message(field: str) -> Any:
    """An empty content for a field of the value message, such as an ``Int64List``."""
    return DESCRIPTOR[field].message_type._concrete_class


def several(field: str) -> st.SearchStrategy[Any]:
    element = LISTED[field.removesuffix("_val").removesuffix("_list").removesuffix("_set")]
    return st.lists(element, max_size=8).map(lambda values: Value(**{field: message(field)(val=values)}))


# Inside a map or a list; without JSON, whose own lists and nulls are told apart below.
simple = st.one_of(
    [strategy.map(lambda v, f=field: Value(**{f: v})) for field, strategy in SCALARS.items() if field != "json_val"]
)
maps = st.dictionaries(text, simple, max_size=4).map(lambda entries: message("map_val")(val=entries))
nested = st.recursive(
    st.lists(simple, max_size=4).map(lambda values: Value(list_val=message("list_val")(val=values))),
    lambda inner: st.lists(inner, max_size=3).map(lambda values: Value(list_val=message("list_val")(val=values))),
    max_leaves=4,
)

SCALAR_MAP = message("scalar_map_val")
ENTRY = SCALAR_MAP.DESCRIPTOR.fields_by_name["val"].message_type._concrete_class
KEY = ENTRY.DESCRIPTOR.fields_by_name["key"].message_type._concrete_class
map_keys = st.one_of(
    int32.map(lambda v: KEY(int32_key=v)),
    int64.map(lambda v: KEY(int64_key=v)),
    st.booleans().map(lambda v: KEY(bool_key=v)),
    st.floats(allow_nan=False).map(lambda v: KEY(double_key=v)),
    st.floats(allow_nan=False, width=32).map(lambda v: KEY(float_key=v)),
    blobs.map(lambda v: KEY(bytes_key=v)),
    st.integers(0, 10**9).map(lambda v: KEY(unix_timestamp_key=v)),
    uuids.map(lambda v: KEY(uuid_key=v)),
    decimals.map(lambda v: KEY(decimal_key=v)),
)

OTHERS: dict[str, st.SearchStrategy[Any]] = {
    "null_val": st.just(Value(null_val=0)),
    "map_val": maps.map(lambda content: Value(map_val=content)),
    "struct_val": maps.map(lambda content: Value(struct_val=content)),
    "map_list_val": st.lists(maps, max_size=3).map(lambda v: Value(map_list_val=message("map_list_val")(val=v))),
    "struct_list_val": st.lists(maps, max_size=3).map(
        lambda v: Value(struct_list_val=message("struct_list_val")(val=v))
    ),
    "list_val": nested,
    "set_val": st.lists(simple, max_size=4).map(lambda v: Value(set_val=message("set_val")(val=v))),
    "scalar_map_val": st.lists(st.tuples(map_keys, simple), max_size=3).map(
        lambda entries: Value(scalar_map_val=SCALAR_MAP(val=[ENTRY(key=k, value=v) for k, v in entries]))
    ),
    "zoned_timestamp_val": st.tuples(seconds.filter(lambda at: at < 2**37), zones).map(
        lambda v: Value(zoned_timestamp_val=message("zoned_timestamp_val")(unix_timestamp=v[0], zone=v[1]))
    ),
}


def strategy_of(field: str) -> st.SearchStrategy[Any]:
    if field in SCALARS:
        return SCALARS[field].map(lambda value: Value(**{field: value}))
    return OTHERS[field] if field in OTHERS else several(field)


# --- Feast's Python value in our terms -------------------------------------------------------------------------------


def ours(value: Any) -> Any:
    """What Feast's ``get_online_features`` gives, in the terms of ``redis_decode``; sets are compared as sets."""
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, datetime):
        return to_micros(value)
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, Decimal):
        return value
    if isinstance(value, list | set | frozenset):
        found = [ours(element) for element in value]
        return tuple(element for element in found if element is not None)
    if isinstance(value, dict):
        return {ours(key): ours(inner) for key, inner in value.items()}
    return value


def same(mine: Any, feasts: Any) -> bool:
    """Equality that tells 1 from True and 1.0, reads a decimal's text, and ignores the order of a set."""
    if isinstance(feasts, Decimal):
        return Decimal(mine) == feasts
    if isinstance(feasts, tuple):
        return len(mine) == len(feasts) and all(map(same, mine, feasts))
    if isinstance(feasts, dict):
        pairs = {str(key): value for key, value in feasts.items()}
        return {str(key) for key in mine} == pairs.keys() and all(same(v, pairs[str(k)]) for k, v in mine.items())
    return type(mine) is type(feasts) and mine == feasts


def test_the_table_is_feasts_message() -> None:
    """Every field of the installed Feast's value message, and no other: its number, name and wire type."""
    assert {field.number: field.name for field in DESCRIPTOR.values()} == {
        n: name for n, (name, _, _) in FIELDS.items()
    }
    for field in DESCRIPTOR.values():
        assert FIELDS[field.number][1] == WIRE_TYPES[field.type], field.name


@pytest.mark.parametrize("field", sorted(DESCRIPTOR))
def test_every_value_reads_as_feast_reads_it(field: str) -> None:
    @given(strategy_of(field))
    def check(value: Any) -> None:
        mine = decode(value.SerializeToString())
        if field.startswith("json"):
            feasts = feast_value_type_to_python_type(value)
            mine = list(mine) if field == "json_list_val" else mine
            assert mine == feasts
            return
        if field.endswith("_set_val") and field != "set_val":
            elements = [ours(element) for element in getattr(value, field).val]
            if field == "unix_timestamp_set_val":
                elements = [None if element == NULL_TIMESTAMP else element * SECOND for element in elements]
            feasts = tuple(element for element in elements if element is not None)
        elif field == "null_val":
            feasts = None
        elif field == "set_val":
            feasts = ours([feast_value_type_to_python_type(element) for element in value.set_val.val])
        else:
            feasts = ours(feast_value_type_to_python_type(value))
        assert same(mine, feasts), (mine, feasts)

    check()


def declared_types() -> list[Any]:
    base = [t for t in feast_types.SUPPORTED_BASE_TYPES if t not in (feast_types.Invalid,)]
    with_map = [*base, feast_types.ScalarMap]
    arrays = [feast_types.Array(t) for t in base if t is not feast_types.ZonedTimestamp]
    sets = [feast_types.Set(t) for t in base if t not in (feast_types.Map, feast_types.ZonedTimestamp)]
    struct_type = feast_types.Struct({"a": feast_types.Int64})
    more = [struct_type, feast_types.Array(struct_type), feast_types.Array(feast_types.Array(feast_types.String))]
    declared = [*with_map, *arrays, *sets, *more, feast_types.Set(feast_types.Array(feast_types.Int32))]
    return [one for one in declared if storable(one)]


def storable(declared: Any) -> bool:
    """Feast lets some types be declared that it has no way to store, such as a set of JSON."""
    try:
        declared.to_value_type()
    except KeyError:
        return False
    return True


@pytest.mark.parametrize("declared", declared_types(), ids=str)
def test_every_declared_type_is_known(declared: Any) -> None:
    """By Feast's own number of the type: where the message has a field for it, that is the field we expect."""
    number = declared.to_value_type().value
    # PDFs and images are plain bytes in the message; Feast gives their lists and sets the numbers of plain ones.
    expected = {30: 1, 31: 1}.get(number, number)
    assert field_of_type(str(declared)) == expected


def test_numbers_may_be_wider_or_narrower_than_declared() -> None:
    assert Decoder("Int64")(Value(int32_val=-5).SerializeToString(), "v:f") == -5
    assert Decoder("Float64")(Value(float_val=0.5).SerializeToString(), "v:f") == 0.5
    assert Decoder("Array(Int32)")(
        Value(int64_list_val=message("int64_list_val")(val=[1])).SerializeToString(), "v:f"
    ) == (1,)
    widened = Decoder("Float32")(Value(float_val=0.1).SerializeToString(), "v:f")
    assert widened == struct.unpack("<f", struct.pack("<f", 0.1))[0] != 0.1


@pytest.mark.parametrize(
    ("declared", "raw", "what"),
    [
        ("Int64", Value(string_val="5").SerializeToString(), "a value of another type (string)"),
        ("Bool", Value(int64_val=1).SerializeToString(), "a value of another type (int64)"),
        ("Int64", Value(double_val=1.0).SerializeToString(), "a value of another type (double)"),
        ("Array(String)", Value(string_val="5").SerializeToString(), "a value of another type (string)"),
        ("Float64", Value(int64_val=1).SerializeToString(), "a value of another type (int64)"),
        ("String", b"\x12\x05abc", "bytes that are no value"),
        ("String", b"\x12\x02\xff\xff", "bytes that are no value"),
        ("Int64", b"\x20\xff", "bytes that are no value"),
        ("Int64", b"\x20" + b"\xff" * 12, "bytes that are no value"),
        ("Float64", b"\x29\x00", "bytes that are no value"),
        ("Array(Float64)", b"\x7a\x05\x0a\x03abc", "bytes that are no value"),
        ("Array(String)", b"\x62\x04\x0a\x09ab", "bytes that are no value"),
        ("String", b"garbage", "bytes that are no value"),
        ("String", b"\xff", "bytes that are no value"),
    ],
)
def test_a_value_that_is_not_what_was_declared_is_an_error(declared: str, raw: bytes, what: str) -> None:
    with pytest.raises(StoreDataError) as caught:
        Decoder(declared)(raw, "profile:age")
    assert what in str(caught.value)
    assert f"profile:age, which is declared as {declared}" in str(caught.value)


@given(st.binary(max_size=30), st.sampled_from(["Int64", "String", "Float64", "Array(String)", "Array(Int64)", "Map"]))
def test_no_bytes_break_the_reader(raw: bytes, declared: str) -> None:
    """Whatever lies in the store: a value or our error, never another one."""
    with contextlib.suppress(StoreDataError):
        Decoder(declared)(raw, "v:f")


@given(st.integers(-62135596800, 253402300799), st.integers(0, 999_999_999))
def test_row_timestamps(whole: int, nanos: int) -> None:
    raw = Timestamp(seconds=whole, nanos=nanos).SerializeToString()
    assert decode_timestamp(raw) == whole * SECOND + nanos // 1000


# --- writing ----------------------------------------------------------------------------------------------------------

finite = floats64.filter(math.isfinite)
#: By the field that holds them: the name of the Feast type, values as JSON has them, and what the message holds.
WRITTEN: dict[str, tuple[str, st.SearchStrategy[Any], Callable[[Any], Any]]] = {
    "string_val": ("String", text, str),
    "int32_val": ("Int32", int32, int),
    "int64_val": ("Int64", int64, int),
    "double_val": ("Float64", finite, float),
    "float_val": ("Float32", floats32.filter(math.isfinite), float),
    "bool_val": ("Bool", st.booleans(), bool),
    "unix_timestamp_val": ("UnixTimestamp", st.integers(-2_000_000_000, 253402300799), int),
}


def as_given(field: str, value: Any) -> Any:
    return format_instant(value * SECOND) if field == "unix_timestamp_val" else value


@pytest.mark.parametrize("field", sorted(WRITTEN))
def test_what_is_written_is_what_feast_writes(field: str) -> None:
    name, values, held = WRITTEN[field]
    several = field.replace("_val", "_list_val")

    @given(values, st.lists(values, max_size=5))
    def check(value: Any, many: list[Any]) -> None:
        assert encode(as_given(field, value), name) == Value(**{field: held(value)}).SerializeToString()
        listed = Value(**{several: message(several)(val=[held(one) for one in many])})
        assert encode([as_given(field, one) for one in many], f"Array({name})") == listed.SerializeToString()

    check()


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("5", "Int64"),
        (True, "Int64"),
        (5.0, "Int64"),
        (2**31, "Int32"),
        (2**63, "Int64"),
        (True, "Float64"),
        (float("inf"), "Float64"),
        (2**53 + 1, "Float64"),
        (1e300, "Float32"),
        (1, "Bool"),
        (5, "String"),
        ("\ud800", "String"),
        ("2026-01-31T09:00:00", "UnixTimestamp"),
        (5, "UnixTimestamp"),
        ("a", "Array(String)"),
        ([None], "Array(String)"),
        ({}, "Map"),
    ],
)
def test_what_is_not_of_the_type_is_refused(value: Any, kind: str) -> None:
    with pytest.raises(ValueError, match=r"is not of the type|cannot be sent"):
        encode(value, kind)


@given(st.integers(-62135596800 * SECOND, 253402300799 * SECOND))
def test_written_row_timestamps_are_feasts(micros: int) -> None:
    whole, rest = divmod(micros, SECOND)
    assert timestamp(micros) == Timestamp(seconds=whole, nanos=rest * 1_000).SerializeToString()


# --- keys and fields --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [2, 3])
def test_keys_are_feasts(version: int) -> None:
    @given(text, st.sampled_from(["user_id", "kunden_nummer_ä", "x"]), st.sampled_from(["shop", "my_shop", "p"]))
    def check(entity: str, join_key: str, project: str) -> None:
        key = EntityKey(join_keys=[join_key], entity_values=[Value(string_val=entity)])
        with quiet():
            expected = _redis_key(project, key, entity_key_serialization_version=version)
        assert KeyMaker(project, join_key, version)(entity) == expected

    check()


@given(text, text)
def test_fields_are_feasts(view: str, feature: str) -> None:
    assert field_bytes(field_number(view, feature)) == _mmh3(f"{view}:{feature}")


def test_a_key_that_is_no_unicode_finds_nobody_and_breaks_nothing() -> None:
    make: Callable[[str], bytes] = KeyMaker("shop", "user_id", 3)
    assert make("\ud800") != make("\ufffd")
