"""What our stores and engine write, against what Feast's own write into the same server: every key, field and byte."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from rules_engine.deploy.apply import apply
from rules_engine.deploy.materialize import ViewProgress, materialize
from rules_engine.errors import FeatureColumnError
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.features.feast_import import import_feast, quiet
from rules_engine.features.online.decode import Decoder, decode_timestamp
from rules_engine.folders import Project
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.redis.feast_layout import KeyMaker, field_bytes, field_number
from rules_engine.redis.store_mark import mark_key

import_feast()

from feast import types as feast_types  # noqa: E402  # Feast is imported as the commands import it

from rules_engine.features.writing.arrow_values import feasts_values, timestamp_parts, value_parts  # noqa: E402
from rules_engine.features.writing.ragged import Ragged, bulk, join, varint  # noqa: E402
from rules_engine.features.writing.row_times import heads, newer  # noqa: E402
from rules_engine.features.writing.rows import BulkRows  # noqa: E402
from rules_engine.features.writing.writer import BulkWriter  # noqa: E402

AT = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
END = AT + timedelta(days=1)
UTC_MICROS = pa.timestamp("us", tz="UTC")

FEASTS = "type: redis"
OURS = "type: rules_engine.features.online_store.BulkRedisOnlineStore"
ENGINE = "batch_engine: {type: rules_engine.features.arrow_engine.ArrowEngine}\n"

HEAD = """\
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import (
    Array, Bool, Bytes, Decimal, Float32, Float64, Int32, Int64, Json, Map, Set, String, UnixTimestamp, Uuid,
)

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)


def view(name, **fields):
    path = str(Path(__file__).parent / f"{name}.parquet")
    source = FileSource(name=name, path=path, timestamp_field="event_timestamp")
    schema = [Field(name=field, dtype=dtype) for field, dtype in fields.items()]
    return FeatureView(name=name, entities=[user], ttl=timedelta(0), source=source, schema=schema)

"""

#: By feature: its Feast type, its Arrow type, and values of three users, of whom the last has nothing.
TYPES: dict[str, tuple[str, pa.DataType, list[Any]]] = {
    "int32": ("Int32", pa.int32(), [-7, 0]),
    "int64": ("Int64", pa.int64(), [2**40 + 1, -(2**40)]),
    "float32": ("Float32", pa.float32(), [0.1, float("nan")]),
    "float64": ("Float64", pa.float64(), [-0.0, float("inf")]),
    "string": ("String", pa.string(), ["", "\U0001f6d2\x00é" * 200]),
    "bytes": ("Bytes", pa.binary(), [b"", b"\x00\xff"]),
    "bool": ("Bool", pa.bool_(), [True, False]),
    "time": ("UnixTimestamp", UTC_MICROS, [datetime(1997, 1, 1, 23, 59, 59, 999999, tzinfo=UTC), AT]),
    "old": ("UnixTimestamp", UTC_MICROS, [datetime(1969, 12, 31, 23, 59, 59, 500000, tzinfo=UTC), AT]),
    "int32s": ("Array(Int32)", pa.list_(pa.int32()), [[1, -1], []]),
    "int64s": ("Array(Int64)", pa.list_(pa.int64()), [[2**60 + 1, 0], list(range(300))]),
    "float32s": ("Array(Float32)", pa.list_(pa.float32()), [[0.5, 0.1], []]),
    "float64s": ("Array(Float64)", pa.list_(pa.float64()), [[0.1, -0.0], [float("nan")]]),
    "strings": ("Array(String)", pa.list_(pa.string()), [["a", "", "ü"], []]),
    "bytess": ("Array(Bytes)", pa.list_(pa.binary()), [[b"", b"\xff" * 200], []]),
    "bools": ("Array(Bool)", pa.list_(pa.bool_()), [[True, False, True], []]),
    "times": ("Array(UnixTimestamp)", pa.list_(UTC_MICROS), [[AT, datetime(1969, 12, 31, tzinfo=UTC)], []]),
    "json": ("Json", pa.string(), ['{"a": [1, null]}', "null"]),
    "uuid": ("Uuid", pa.string(), ["6f1f7a5e-8a6c-4f7e-9d3a-0c1f5d0e9b11"] * 2),
    "decimal": ("Decimal", pa.string(), ["12.30", "0"]),
}
USERS = ["plain", "Üser \U0001f6d2 with everything", "nothing"]


def database(store: EmbeddedStore, number: int) -> redis.Redis:
    return redis.Redis.from_url(f"{store.url}?db={number}")


def dump(client: redis.Redis) -> dict[bytes, dict[bytes, bytes]]:
    return {key: client.hgetall(key) for key in client.scan_iter(count=1000)}


def make(
    make_project: Callable[..., Project],
    store: EmbeddedStore,
    number: int,
    online: str,
    definitions: str,
    *,
    folder: str,
    name: str = "shop",
    engine: str = "",
) -> Project:
    """A project on a database of the shared server. Two may have the same name, in different folders."""
    yaml = (
        f"project: {name}\nprovider: local\nregistry: ../.segments/registry.db\noffline_store: {{type: duckdb}}\n"
        f"entity_key_serialization_version: 3\n{engine}"
        f"online_store:\n  {online}\n  connection_string: '{store.connection_string},db={number}'\n"
    )
    return make_project(
        {"feature_repo/feature_store.yaml": yaml, "feature_repo/definitions.py": HEAD + definitions}, name=folder
    )


def write_parquet(project: Project, view: str, columns: dict[str, pa.Array]) -> None:
    pq.write_table(pa.table(columns), project.feature_repo / f"{view}.parquet")


def materialized(project: Project) -> FeastRepo:
    """Applied, and materialized by Feast's own call, as ``feast materialize`` does it."""
    repo = FeastRepo(project)
    repo.apply()
    with quiet():
        repo.store.materialize(AT - timedelta(days=20_000), END)
    return repo


@pytest.fixture
def both(make_project: Callable[..., Project], store: EmbeddedStore) -> Callable[..., tuple[Any, Any]]:
    """Materialize the same tables with Feast's own parts and with ours; give what lies in the two databases."""

    def run(definitions: str, tables: dict[str, dict[str, pa.Array]]) -> tuple[Any, Any]:
        dumps = []
        for number, (online, engine) in enumerate([(FEASTS, ""), (OURS, ENGINE)]):
            project = make(make_project, store, number, online, definitions, folder=f"p{number}", engine=engine)
            for view, columns in tables.items():
                write_parquet(project, view, columns)
            materialized(project)
            with database(store, number) as client:
                dumps.append(dump(client))
        return dumps[0], dumps[1]

    return run


def all_types(values: Callable[[list[Any]], list[Any]], users: list[str]) -> tuple[str, dict[str, pa.Array]]:
    fields = ", ".join(f"{name}={declared}" for name, (declared, _, _) in TYPES.items())
    columns = {
        "user_id": pa.array(users),
        "event_timestamp": pa.array([AT - timedelta(microseconds=i) for i in range(len(users))], UTC_MICROS),
    }
    columns |= {name: pa.array(values(found), kind) for name, (_, kind, found) in TYPES.items()}
    return f"everything = view('everything', {fields})\n", columns


# --- the same bytes ---------------------------------------------------------------------------------------------------


def test_a_dump_of_every_type_is_feasts(both: Callable[..., tuple[Any, Any]]) -> None:
    definitions, columns = all_types(lambda found: found, USERS[:2])
    feasts, ours = both(definitions, {"everything": columns})
    assert len(ours) == 2
    assert {len(row) for row in ours.values()} == {len(TYPES) + 1}
    assert ours == feasts


def test_a_dump_with_nulls_is_feasts(both: Callable[..., tuple[Any, Any]]) -> None:
    definitions, columns = all_types(lambda found: [*found, None], USERS)
    columns["int64s"] = pa.array([[1, 2], [], None], pa.list_(pa.int64()))
    feasts, ours = both(definitions, {"everything": columns})
    assert len(ours) == 3
    assert ours == feasts
    empty = ours[KeyMaker("shop", "user_id", 3)("nothing")]
    assert sum(value == b"" for value in empty.values()) == len(TYPES) - 2  # Feast stores a value for a missing time


def test_only_the_newest_row_of_each_user_and_views_side_by_side(both: Callable[..., tuple[Any, Any]]) -> None:
    users = [f"user{number % 500}" for number in range(3_000)]
    instants = [AT - timedelta(seconds=number * 7919 % 3_000) for number in range(3_000)]
    columns = {"user_id": pa.array(users), "event_timestamp": pa.array(instants, UTC_MICROS)}
    tables = {
        "one": {**columns, "total": pa.array(np.arange(3_000) / 7)},
        "two": {**columns, "city": pa.array([f"city{number}" for number in range(3_000)])},
    }
    feasts, ours = both("one = view('one', total=Float64)\ntwo = view('two', city=String)\n", tables)
    assert len(ours) == 500
    assert ours == feasts


def test_a_large_whole_number_beside_a_null_is_kept_where_feast_loses_digits(
    both: Callable[..., tuple[Any, Any]],
) -> None:
    columns = {
        "user_id": pa.array(["a", "b"]),
        "event_timestamp": pa.array([AT, AT], UTC_MICROS),
        "points": pa.array([2**60 + 1, None], pa.int64()),
    }
    feasts, ours = both("v = view('v', points=Int64)\n", {"v": columns})
    key, field = KeyMaker("shop", "user_id", 3)("a"), field_bytes(field_number("v", "points"))
    assert Decoder("Int64")(feasts[key].pop(field), "v:points") == 2**60
    assert Decoder("Int64")(ours[key].pop(field), "v:points") == 2**60 + 1
    assert ours == feasts


def test_feast_reads_what_we_wrote_and_pushes_arrive(
    make_project: Callable[..., Project], store: EmbeddedStore
) -> None:
    definitions = "v = view('v', points=Int64, city=String)\n"
    project = make(make_project, store, 0, OURS, definitions, folder="p", engine=ENGINE)
    columns = {
        "user_id": pa.array(["a", "b"]),
        "event_timestamp": pa.array([AT, AT], UTC_MICROS),
        "points": pa.array([5, None], pa.int64()),
        "city": pa.array(["Oslo", "Århus"]),
    }
    write_parquet(project, "v", columns)
    repo = materialized(project)

    def read() -> dict[str, list[Any]]:
        with quiet():
            rows = [{"user_id": "a"}, {"user_id": "b"}]
            return dict(repo.store.get_online_features(["v:points", "v:city"], rows).to_dict())

    assert read() == {"user_id": ["a", "b"], "points": [5, None], "city": ["Oslo", "Århus"]}
    frame = pd.DataFrame({"user_id": ["b"], "event_timestamp": [AT], "points": [7], "city": ["Bergen"]})
    with quiet():
        repo.store.write_to_online_store("v", frame)  # the same instant: a correction
        repo.store.write_to_online_store("v", frame.assign(event_timestamp=AT - timedelta(seconds=1), points=8))
    assert read() == {"user_id": ["a", "b"], "points": [5, 7], "city": ["Oslo", "Bergen"]}


def test_several_join_keys_and_key_types_lie_where_feast_puts_them(both: Callable[..., tuple[Any, Any]]) -> None:
    definitions = """
account = Entity(name="account", join_keys=["account_id"], value_type=ValueType.INT64)
path = str(Path(__file__).parent / "pairs.parquet")
source = FileSource(name="pairs", path=path, timestamp_field="event_timestamp")
pairs = FeatureView(name="pairs", entities=[user, account], source=source, schema=[Field(name="x", dtype=Int64)])
other = FileSource(name="numbers", path=path.replace("pairs", "numbers"), timestamp_field="event_timestamp")
numbers = FeatureView(name="numbers", entities=[account], source=other, schema=[Field(name="x", dtype=Int64)])
"""
    columns = {"event_timestamp": pa.array([AT, AT], UTC_MICROS), "x": pa.array([1, 2])}
    columns["account_id"] = pa.array([2**60 + 1, -3])
    feasts, ours = both(definitions, {"numbers": columns, "pairs": {**columns, "user_id": pa.array(["a", "b"])}})
    assert len(ours) == 4
    assert ours == feasts


def test_columns_are_renamed_as_the_source_says(both: Callable[..., tuple[Any, Any]]) -> None:
    definitions = """
path = str(Path(__file__).parent / "v.parquet")
source = FileSource(name="s", path=path, timestamp_field="event_timestamp", field_mapping={"total_eur": "total"})
v = FeatureView(name="v", entities=[user], source=source, schema=[Field(name="total", dtype=Float64)])
"""
    columns = {"user_id": pa.array(["a"]), "event_timestamp": pa.array([AT], UTC_MICROS), "total_eur": pa.array([1.5])}
    feasts, ours = both(definitions, {"v": columns})
    assert len(ours) == 1
    assert ours == feasts


@given(st.integers(-(2**63), 2**63 - 1))
def test_numbers_as_protobuf_writes_them(number: int) -> None:
    from feast.protos.feast.types.Value_pb2 import Value

    expected = Value(int64_val=number).SerializeToString()
    assert b"\x20" + join([varint(np.array([number]))]).row(0) == expected


@given(st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999))
def test_row_timestamps_as_protobuf_writes_them(instant: int) -> None:
    from google.protobuf.timestamp_pb2 import Timestamp

    seconds, micros = divmod(instant, 1_000_000)
    expected = Timestamp(seconds=seconds, nanos=micros * 1_000).SerializeToString()
    assert join(timestamp_parts(np.array([instant]))).row(0) == expected


@given(st.lists(st.none() | st.lists(st.text(st.characters(codec="utf-8"), max_size=5), max_size=4), max_size=8))
def test_lists_of_any_shape_also_from_the_middle_of_a_column(rows: list[list[str] | None]) -> None:
    column = pa.array(rows, pa.list_(pa.string()))
    declared = feast_types.Array(feast_types.String)
    for part in (column, column.slice(1), column.slice(2, 3)):
        mine, feasts = join(value_parts(part, declared, "v:x")), feasts_values(part, declared.to_value_type())
        assert [mine.row(number) for number in range(len(part))] == [feasts.row(n) for n in range(len(part))]


def test_one_long_value_among_short_ones() -> None:
    """It must not make the matrix of bytes as wide for all rows."""
    rows = [b"x"] * 20_000
    rows[7_777] = b"y" * 30_000_000
    joined = join(bulk([Ragged.of(rows)]))
    assert len(joined.data) == 19_999 * 7 + len(b"$30000000\r\n\r\n") + 30_000_000
    assert (joined.row(7_776), joined.row(7_777)[:14]) == (b"$1\r\nx\r\n", b"$30000000\r\nyyy")


def test_a_value_that_feast_cannot_convert_is_refused() -> None:
    with pytest.raises(FeatureColumnError, match="`v:x` cannot be stored as Json"):
        value_parts(pa.array(["{"]), feast_types.Json, "v:x")


# --- old and new rows -------------------------------------------------------------------------------------------------


def rows_of(values: dict[str, tuple[datetime, bytes]]) -> BulkRows:
    from rules_engine.clock import to_micros

    instants = np.array([to_micros(at) for at, _ in values.values()], np.int64)
    keys, found = Ragged.of([key.encode() for key in values]), Ragged.of([value for _, value in values.values()])
    return BulkRows.of((b"_ts:v", b"f"), [keys], instants, [[found]], distinct=True)


def instants() -> st.SearchStrategy[int]:
    """Around those whose stored form changes its length, and any."""
    edges = [0, 2**28 * 10**6, 2**35 * 10**6, 1_772_368_215_000_000]
    near = st.sampled_from(edges).flatmap(lambda edge: st.integers(edge - 1_500_000, edge + 1_500_000))
    return near | st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999)


INSTANTS = [
    datetime(1900, 1, 1, 0, 0, 0, 1, tzinfo=UTC), datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC),
    datetime(1970, 1, 1, tzinfo=UTC), datetime(1970, 1, 1, 0, 0, 0, 5, tzinfo=UTC),
    datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 1, 0, 0, 0, 1, tzinfo=UTC), datetime(2261, 1, 1, tzinfo=UTC),
]  # fmt: skip


@pytest.mark.parametrize("stored", INSTANTS)
@pytest.mark.parametrize("given_at", INSTANTS)
def test_an_older_row_is_left_out_and_one_of_the_same_instant_is_written(
    client: redis.Redis, stored: datetime, given_at: datetime
) -> None:
    writer = BulkWriter(client)
    assert writer.write([rows_of({"k": (stored, b"stored")})]) == 1
    newer = given_at >= stored
    assert writer.write([rows_of({"k": (given_at, b"given")})]) == newer
    assert client.hget("k", "f") == (b"given" if newer else b"stored")


def test_several_rows_of_a_user_in_one_piece(client: redis.Redis) -> None:
    """In whatever order: the newest stays, and of the same instant the last."""
    for order in ([1, 2, 3], [3, 2, 1], [2, 3, 1]):
        client.flushall()
        pieces = [rows_of({"k": (AT + timedelta(seconds=second), b"%d" % second)}) for second in order]
        BulkWriter(client).write(pieces)
        assert client.hget("k", "f") == b"3"


def crowd(value: bytes, at: datetime, count: int = 500) -> dict[str, tuple[datetime, bytes]]:
    return {f"u{number}": (at, value) for number in range(count)}


def test_older_rows_among_newer_ones_are_left_out_under_watch_too(client: redis.Redis) -> None:
    writer = BulkWriter(client)
    later = AT + timedelta(seconds=1)
    stored = {key: (later if number % 3 == 0 else AT, b"old") for number, key in enumerate(crowd(b"", AT))}
    assert writer.write([rows_of(stored)]) == 500
    assert writer.write([rows_of(crowd(b"new", AT))]) == 500 - 167
    assert [client.hget(f"u{number}", "f") for number in range(4)] == [b"old", b"new", b"new", b"old"]
    assert writer.write([rows_of(crowd(b"older", AT - timedelta(microseconds=1)))]) == 0
    assert writer.write([rows_of(crowd(b"newest", later))]) == 500


@given(st.lists(st.tuples(st.none() | instants(), instants()), max_size=8))
def test_what_is_newer_is_found_by_the_first_bytes_or_by_all(rows: list[tuple[int | None, int]]) -> None:
    stored = [None if at is None else join(timestamp_parts(np.array([at]))).row(0) for at, _ in rows]
    expected = [7 + number for number, (at, given_at) in enumerate(rows) if at is not None and at > given_at]
    given_at = np.array([at for _, at in rows], np.int64)
    assert newer(stored, given_at, heads(given_at), 7) == expected


def test_several_rows_of_a_user_at_once_from_feast(make_project: Callable[..., Project], store: EmbeddedStore) -> None:
    """In one call, among so many others that they could be written out of order."""
    project = make(make_project, store, 0, OURS, "v = view('v', x=Int64)\n", folder="p", engine=ENGINE)
    repo = FeastRepo(project)
    repo.apply()
    users = [f"user {number % 200}" for number in range(600)]
    seconds = [(number * 7919) % 3 for number in range(600)]  # each user's three in different orders, some equal
    frame = pd.DataFrame(
        {"user_id": users, "event_timestamp": [AT + timedelta(seconds=s) for s in seconds], "x": range(600)}
    )
    with quiet():
        repo.store.write_to_online_store("v", frame)
    expected = {}
    for user, second, x in zip(users, seconds, range(600), strict=True):
        if second >= expected.get(user, (0, 0))[0]:
            expected[user] = second, x
    key, field, decode = KeyMaker("shop", "user_id", 3), field_bytes(field_number("v", "x")), Decoder("Int64")
    with database(store, 0) as client:
        found = {user: decode(client.hget(key(user), field), "v:x") for user in expected}
    assert found == {user: x for user, (_, x) in expected.items()}


def test_many_users_expire_when_configured(client: redis.Redis) -> None:
    assert BulkWriter(client, 3600).write([rows_of(crowd(b"x", AT))]) == 500
    assert {3500 < client.ttl(f"u{number}") <= 3600 for number in range(500)} == {True}


def test_one_connection_is_enough(store: EmbeddedStore) -> None:
    with redis.Redis.from_url(store.url, max_connections=1) as client:
        assert BulkWriter(client).write([rows_of(crowd(b"x", AT)), rows_of(crowd(b"y", AT))]) == 1_000
        assert client.hget("u499", "f") == b"y"


def test_a_key_that_is_no_hash_is_an_error_under_watch_too(client: redis.Redis) -> None:
    client.set("u7", "text")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        BulkWriter(client).write([rows_of(crowd(b"x", AT))])
    assert client.get("u7") == b"text"


def test_a_view_of_very_many_features_is_one_row(client: redis.Redis) -> None:
    """More than Lua passes on at once."""
    count = 9_001
    values = [[Ragged.of([b"%d" % number])] for number in range(count)]
    fields = (b"_ts:v", *(b"f%d" % number for number in range(count)))
    piece = BulkRows.of(fields, [Ragged.of([b"k"])], np.array([1_000_000]), values, distinct=True)
    BulkWriter(client).write([piece])
    assert client.hlen("k") == count + 1
    assert client.hmget("k", "f0", "f4000", "f9000") == [b"0", b"4000", b"9000"]


def test_keys_expire_when_configured(make_project: Callable[..., Project], store: EmbeddedStore) -> None:
    online = f"{OURS}\n  key_ttl_seconds: 3600"
    project = make(make_project, store, 0, online, "v = view('v', x=Int64)\n", folder="p", engine=ENGINE)
    columns = {"user_id": pa.array(["a"]), "event_timestamp": pa.array([AT], UTC_MICROS), "x": pa.array([1])}
    write_parquet(project, "v", columns)
    materialized(project)
    with database(store, 0) as client:
        (key,) = client.scan_iter()
        assert 3500 < client.ttl(key) <= 3600


def test_a_server_that_lost_its_scripts_and_its_connections_is_met_by_sending_again(client: redis.Redis) -> None:
    def pieces() -> Iterator[BulkRows]:
        for number in range(20):
            if number in (5, 12):
                client.script_flush()
            if number == 8:
                client.client_kill_filter(_type="normal", skipme=True)
            yield rows_of({f"u{number}-{i}": (AT, b"x") for i in range(100)})

    assert BulkWriter(client).write(pieces()) == 2_000
    assert client.dbsize() == 2_000


def test_a_key_that_is_no_hash_is_an_error(client: redis.Redis) -> None:
    client.set("k", "text")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        BulkWriter(client).write([rows_of({"a": (AT, b"x"), "k": (AT, b"x")})])


def test_an_unreachable_server_is_an_error_and_not_a_wait_for_ever(store: EmbeddedStore) -> None:
    with redis.Redis(host="127.0.0.1", port=1) as nowhere, pytest.raises(redis.ConnectionError):
        BulkWriter(nowhere).write([rows_of({"a": (AT, b"x")})])


WRITER = """\
import sys, redis
sys.path[:0] = {path!r}
from rules_engine.features.feast_import import import_feast
import_feast()
from datetime import timedelta
from tests.contracts.test_bulk_writes import AT, BulkWriter, rows_of
client = redis.Redis.from_url({url!r})
print("ready", flush=True)
sys.stdin.readline()
for step in range({start}, 400, 2):
    second = step if {forward} else 399 - step
    row = AT + timedelta(seconds=second), b"%d" % second
    BulkWriter(client).write([rows_of({{f"u{{i}}": row for i in range(50)}})])
"""


def other_process(code: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_writers_at_the_same_time_never_put_an_older_row_over_a_newer(
    store: EmbeddedStore, client: redis.Redis
) -> None:
    """One goes forward in time and the other backward, over the same users; no user's row ever gets older."""
    path = [str(Path(__file__).parents[2])]
    writers = [
        other_process(WRITER.format(path=path, url=store.url, start=start, forward=forward))
        for start, forward in ((0, True), (1, False))
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    seen = [0] * 50
    changes = 0
    while any(writer.poll() is None for writer in writers):
        with client.pipeline(transaction=False) as pipe:
            for number in range(50):
                pipe.hmget(f"u{number}", "_ts:v", "f")
            found = pipe.execute()
        for number, (stamp, value) in enumerate(found):
            if stamp is not None:
                at = decode_timestamp(stamp)
                assert at >= seen[number]
                assert at == decode_timestamp(join(timestamp_parts(np.array([at]))).row(0))
                assert int(value) == (at - 1_772_368_215_123_456) // 1_000_000  # the fields of one row
                changes += at > seen[number]
                seen[number] = at
    for writer in writers:
        with writer:
            assert writer.wait() == 0
    assert changes > 0
    assert {client.hget(f"u{number}", "f") for number in range(50)} == {b"398"}


STRANGER = """\
import random, sys, redis
sys.path[:0] = {path!r}
from rules_engine.features.feast_import import import_feast
import_feast()
from datetime import timedelta
import numpy as np
from tests.contracts.test_bulk_writes import AT, join, timestamp_parts
client = redis.Redis.from_url({url!r})
stamps = [join(timestamp_parts(np.array([1_800_000_000_000_000 + step]))).row(0) for step in range(3_000)]
print("ready", flush=True)
sys.stdin.readline()
users = list(range(3_000))
random.Random(1).shuffle(users)
for step, user in enumerate(users):
    client.hset(f"u{{user}}", mapping={{"_ts:v": stamps[step], "f": b"theirs"}})
"""


def test_a_writer_that_knows_nothing_of_us_is_not_overwritten_with_older_rows(
    store: EmbeddedStore, client: redis.Redis
) -> None:
    """It writes newer rows with plain commands, while we write older ones again and again over the same users."""
    path = [str(Path(__file__).parents[2])]
    stranger = other_process(STRANGER.format(path=path, url=store.url))
    older = rows_of(crowd(b"ours", AT, 3_000))
    writer = BulkWriter(client)
    assert writer.write([older]) == 3_000
    assert stranger.stdin is not None
    stranger.stdin.write("go\n")
    stranger.stdin.flush()
    with stranger:
        while stranger.poll() is None:
            writer.write([older])
    assert stranger.returncode == 0
    assert {client.hget(f"u{number}", "f") for number in range(3_000)} == {b"theirs"}
    assert writer.write([older]) == 0
    scripts = client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"]
    assert scripts > 0, "no chunk was refused, so nothing was shown"


# --- killed ----------------------------------------------------------------------------------------------------------

KILLED = """\
import sys
from rules_engine.folders import Project
from rules_engine.deploy.materialize import materialize
print("ready", flush=True)
def progress(state):
    if state.rows >= 20_000:
        print("some", flush=True)
        sys.stdin.readline()
materialize(Project.open({root!r}), progress=progress)
"""


def test_a_killed_run_leaves_whole_users_and_the_next_completes(
    make_project: Callable[..., Project], store: EmbeddedStore
) -> None:
    count = 60_000
    names = [f"f{number}" for number in range(8)]
    definitions = f"v = view('v', {', '.join(f'{name}=Int64' for name in names)})\n"
    project = make(make_project, store, 0, OURS, definitions, folder="p", engine=ENGINE)
    columns = {
        "user_id": pa.array([str(number) for number in range(count)]),
        "event_timestamp": pa.array([AT] * count, UTC_MICROS),
        **{name: pa.array(np.arange(count)) for name in names},
    }
    write_parquet(project, "v", columns)
    apply(project, {})
    with other_process(KILLED.format(root=str(project.root))) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "some\n"
        os.kill(process.pid, signal.SIGKILL)
    with database(store, 0) as client:
        time.sleep(0.2)
        half_way = client.dbsize() - client.exists(mark_key("shop"))  # beside the mark of what is held
        assert 20_000 <= half_way < count
        assert whole_users(client, count) == half_way
        seen: list[ViewProgress] = []
        report = materialize(project, progress=seen.append)
        assert report.rows == count
        assert [state.rows for state in seen] == sorted(state.rows for state in seen)
        assert len(seen) > 5
        assert whole_users(client, count) == count
    assert materialize(project).views[0].reason == "since the last run"


def whole_users(client: redis.Redis, count: int) -> int:
    """How many users there are; each must have all of its fields, with the values of that user."""
    key = KeyMaker("shop", "user_id", 3)
    with client.pipeline(transaction=False) as pipe:
        for number in range(count):
            pipe.hgetall(key(str(number)))
        found = pipe.execute()
    decode = Decoder("Int64")
    for number, row in enumerate(found):
        values = [decode(value, "v:f") for field, value in row.items() if not field.startswith(b"_ts:")]
        assert values in ([], [number] * 8)
    return sum(bool(row) for row in found)


# --- deletions --------------------------------------------------------------------------------------------------------

ONE_USER = {"user_id": pa.array(["a"]), "event_timestamp": pa.array([AT], UTC_MICROS), "x": pa.array([1])}


def two_projects(make_project: Callable[..., Project], store: EmbeddedStore, online: str) -> FeastRepo:
    """`myseg` and `seg` in one database, and two views each; gives the open `seg`."""
    definitions = "v = view('v', x=Int64)\nw = view('w', x=Int64)\n"
    repo = None
    for name in ("myseg", "seg"):
        project = make(make_project, store, 0, online, definitions, folder=name, name=name)
        write_parquet(project, "v", ONE_USER)
        write_parquet(project, "w", ONE_USER)
        repo = materialized(project)
    assert repo is not None
    return repo


def fields_by_project(client: redis.Redis) -> dict[str, int]:
    names = {KeyMaker(name, "user_id", 3)("a"): name for name in ("seg", "myseg")}
    return {names[key]: client.hlen(key) for key in client.scan_iter()}


@pytest.mark.parametrize(("online", "left"), [(FEASTS, {}), (OURS, {"myseg": 4})])
def test_teardown_deletes_this_project_only(
    make_project: Callable[..., Project], store: EmbeddedStore, client: redis.Redis, online: str, left: dict[str, int]
) -> None:
    """Feast's own deletes the other project as well: the first case says so, and fails once that is mended."""
    repo = two_projects(make_project, store, online)
    assert fields_by_project(client) == {"seg": 4, "myseg": 4}
    with quiet():
        repo.store.teardown()
    assert fields_by_project(client) == left


@pytest.mark.parametrize(("online", "others"), [(FEASTS, 2), (OURS, 4)])
def test_a_deleted_view_leaves_other_views_and_projects(
    make_project: Callable[..., Project], store: EmbeddedStore, client: redis.Redis, online: str, others: int
) -> None:
    repo = two_projects(make_project, store, online)
    with quiet():
        repo.store.provider.online_store.delete_table(repo.store.config, repo.store.get_feature_view("v"))
        assert fields_by_project(client) == {"seg": 2, "myseg": others}
        repo.store.provider.online_store.delete_table(repo.store.config, repo.store.get_feature_view("w"))
    assert fields_by_project(client) == ({"myseg": 4} if online == OURS else {})


def test_what_lies_in_a_name_is_no_pattern(
    make_project: Callable[..., Project], store: EmbeddedStore, client: redis.Redis
) -> None:
    """A join key of 42 letters has a `*` in its prefix, by its length."""
    join_key = "k" * 42
    definitions = textwrap.dedent(f"""
        long = Entity(name="long", join_keys=["{join_key}"], value_type=ValueType.STRING)
        source = FileSource(name="v", path=str(Path(__file__).parent / "v.parquet"), timestamp_field="event_timestamp")
        v = FeatureView(name="v", entities=[long], source=source, schema=[Field(name="x", dtype=Int64)])
    """)
    project = make(make_project, store, 0, OURS, definitions, folder="p", engine=ENGINE)
    write_parquet(project, "v", {**ONE_USER, join_key: pa.array(["a"])})
    repo = materialized(project)
    assert client.dbsize() == 1
    with quiet():
        repo.store.teardown()
    assert client.dbsize() == 0
