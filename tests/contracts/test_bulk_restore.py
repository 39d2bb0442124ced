"""Users put in place whole: as the server itself would keep them, and never over one that is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import numpy as np
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rules_engine.features.writing.crc64 import crc64
from rules_engine.features.writing.ragged import Ragged
from rules_engine.features.writing.restore import restores
from rules_engine.redis.embedded import EmbeddedStore
from tests.contracts.test_bulk_writes import AT, BulkRows, BulkWriter, crowd, rows_of


def bitwise(row: bytes) -> int:
    """The checksum as it is defined: a division of polynomials, bit by bit."""
    remainder = 0
    for byte in row:
        remainder ^= byte
        for _ in range(8):
            remainder = remainder >> 1 ^ (0x95AC9329AC4BC9B5 if remainder & 1 else 0)
    return remainder


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=6))
def test_checksums_of_rows_of_all_lengths(rows: list[bytes]) -> None:
    assert crc64(Ragged.of(rows)).tolist() == [bitwise(row) for row in rows]


def table(values: list[list[bytes]]) -> BulkRows:
    """A row for each of the lists, of its values."""
    fields = (b"_ts:v", *(b"f%03d" % number for number in range(len(values[0]))))
    columns = [[Ragged.of(list(column))] for column in zip(*values, strict=True)]
    keys = Ragged.of([b"k%d" % number for number in range(len(values))])
    instants = np.arange(len(values)) * 1_000_001 + 1_772_368_215_123_456
    return BulkRows.of(fields, [keys], instants, columns, distinct=True)


def as_stored(client: redis.Redis, keys: int) -> list[tuple[bytes, bytes]]:
    return [(client.dump(f"k{number}"), client.object("ENCODING", f"k{number}")) for number in range(keys)]


def no_number(value: bytes) -> bool:
    return not value.lstrip(b"-").isdigit()  # a server keeps these as numbers; no stored value of Feast's is one


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # each example empties the store
@given(
    st.integers(1, 250).flatmap(
        lambda width: (
            st.lists(
                st.lists(st.binary(max_size=63).filter(no_number), min_size=width, max_size=width),
                min_size=1,
                max_size=3,
            )
            if width < 12
            else st.lists(
                st.sampled_from([b"", b"x", b"\xff" * 63 if width < 60 else b"yy"]).map(lambda value: [value] * width),
                min_size=1,
                max_size=3,
            )
        )
    )
)
def test_the_server_keeps_the_very_same_as_after_plain_commands(
    store: EmbeddedStore, values: list[list[bytes]]
) -> None:
    """Byte for byte, as ``DUMP`` tells."""
    piece = table(values)
    commands = restores(piece, 0)
    with redis.Redis.from_url(store.url) as client:
        client.flushall()
        for row in range(len(piece)):
            assert client.execute_command(*arguments(piece.commands.row(row))) == len(piece.fields)
        plain = as_stored(client, len(piece))
        if commands is None:
            assert len(piece.fields) > 250
            return
        client.flushall()
        for row in range(len(piece)):
            assert client.execute_command(*arguments(commands.row(row))) == b"OK"
        assert as_stored(client, len(piece)) == plain


def arguments(command: bytes) -> list[bytes]:
    """What a command of the server's protocol is made of."""
    found, at = [], command.index(b"\r\n") + 2
    while at < len(command):
        end = command.index(b"\r\n", at)
        size = int(command[at + 1 : end])
        found.append(command[end + 2 : end + 2 + size])
        at = end + 4 + size
    return found


def test_rows_that_a_server_keeps_in_another_form_are_not_made() -> None:
    assert restores(table([[b"x" * 63]]), 0) is not None
    assert restores(table([[b"x" * 64]]), 0) is None
    assert restores(table([[b"x"] * 249]), 0) is not None
    assert restores(table([[b"x"] * 250]), 0) is None
    assert restores(table([[b"x" * 60] * 200]), 0) is None
    twice = BulkRows.of(
        (b"_ts:v", b"f", b"f"), [Ragged.of([b"k"])], np.array([1]), [[Ragged.of([b""])]] * 2, distinct=True
    )
    assert restores(twice, 0) is None
    number = BulkRows.of((b"_ts:v", b"1234"), [Ragged.of([b"k"])], np.array([1]), [[Ragged.of([b""])]], distinct=True)
    assert restores(number, 0) is None


@pytest.fixture
def calls(client: redis.Redis) -> Callable[[str], int]:
    """How often a command was called since."""
    client.config_resetstat()

    def count(command: str) -> int:
        return int(client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])

    return count


def test_new_users_take_one_command_each(client: redis.Redis, calls: Callable[[str], int]) -> None:
    assert BulkWriter(client, 3600).write([rows_of(crowd(b"x", AT))]) == 500
    assert (calls("restore"), calls("hset"), calls("watch")) == (500, 0, 0)
    assert {3500 < client.ttl(f"u{number}") <= 3600 for number in range(500)} == {True}


@pytest.mark.parametrize("known", [1, 50, 51, 500])
def test_some_users_are_known(client: redis.Redis, known: int) -> None:
    """A third of those by a newer row, which stays."""
    later = AT + timedelta(seconds=1)
    stored = {f"u{number}": (later if number % 3 == 0 else AT, b"old") for number in range(known)}
    BulkWriter(client).write([rows_of(stored)])
    client.hset("u0", "other", "view")
    newer = len(range(0, known, 3))
    assert BulkWriter(client, 3600).write([rows_of(crowd(b"new", AT))] * 2) == 2 * (500 - newer)
    expected = [b"old" if number < known and number % 3 == 0 else b"new" for number in range(500)]
    assert [client.hget(f"u{number}", "f") for number in range(500)] == expected
    assert client.hget("u0", "other") == b"view"
    assert {client.ttl(f"u{number}") > 3500 for number in range(500) if expected[number] == b"new"} == {True}


def test_users_are_not_taken_for_new_once_many_are_known(client: redis.Redis, calls: Callable[[str], int]) -> None:
    pieces = [rows_of(crowd(b"x", AT)) for _ in range(4)]
    assert BulkWriter(client).write(pieces) == 2_000
    assert calls("restore") <= 1_500, "the second piece shows that they are known; the third may be under way by then"
    assert calls("exec") > 0


def test_a_user_who_comes_twice_in_a_piece(client: redis.Redis) -> None:
    """Of the same instant the last counts, else the newest, whether the user is new or not."""
    seconds = [number * 7919 % 3 for number in range(600)]
    keys = Ragged.of([b"k%d" % (number % 200) for number in range(600)])
    instants = np.array([1_772_368_215_000_000 + 1_000_000 * second for second in seconds])
    values = [[Ragged.of([b"%d." % number for number in range(600)])]]
    piece = BulkRows.of((b"_ts:v", b"f"), [keys], instants, values, distinct=False)
    best = {}
    for number in range(600):
        if seconds[number] >= best.get(number % 200, (0, 0))[0]:
            best[number % 200] = seconds[number], number
    for _ in range(2):
        BulkWriter(client).write([piece])
        assert [client.hget(f"k{user}", "f") for user in range(200)] == [b"%d." % best[user][1] for user in range(200)]


@pytest.fixture
def without_restore(store: EmbeddedStore, client: redis.Redis) -> Iterator[redis.Redis]:
    client.acl_setuser("writer", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-restore"], reset=True)
    with redis.Redis.from_url(store.url, username="writer", password="any") as limited:
        yield limited
    client.acl_deluser("writer")


def test_a_user_of_the_server_who_may_not_use_the_command(
    without_restore: redis.Redis, client: redis.Redis, calls: Callable[[str], int]
) -> None:
    pieces = [rows_of({f"{name}{number}": (AT, b"x") for number in range(500)}) for name in "abcd"]
    assert BulkWriter(without_restore).write(pieces) == 2_000
    assert client.dbsize() == 2_000
    assert calls("hset") == 2_000


def test_a_server_that_does_not_take_the_form(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one does that is older than the form."""
    monkeypatch.setattr("rules_engine.features.writing.restore._VERSION", b"\xff\x00")
    one = restores(rows_of(crowd(b"x", AT, 1)), 0)
    assert one is not None
    with pytest.raises(redis.ResponseError, match="DUMP payload version"):
        client.execute_command(*arguments(one.row(0)))
    assert BulkWriter(client).write([rows_of(crowd(b"x", AT))]) == 500
    assert client.dbsize() == 500


def test_a_full_server_is_an_error(client: redis.Redis) -> None:
    client.config_set("maxmemory", "1mb")
    try:
        with pytest.raises(redis.ResponseError, match="maxmemory"):
            BulkWriter(client).write([rows_of(crowd(b"x", AT))])
    finally:
        client.config_set("maxmemory", "0")


def test_a_key_that_is_no_hash_is_an_error(client: redis.Redis) -> None:
    for number in range(100):
        client.set(f"u{number}", "text")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        BulkWriter(client).write([rows_of(crowd(b"x", AT))])
    assert client.get("u99") == b"text"
