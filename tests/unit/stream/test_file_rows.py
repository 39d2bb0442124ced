"""Files of events as people have them: every kind, with mistakes in the file and in single rows."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rules_engine.errors import DataError
from rules_engine.events.declarations.events_yaml import parse_events
from rules_engine.events.declarations.validation import EventValidator, Rejection, check_entity
from rules_engine.rules.inputs import Event
from rules_engine.stream.files import rows as file_rows
from rules_engine.stream.files.mapping import FileEvent, Mapped, file_events
from rules_engine.stream.files.rows import BadRow

AT = "2026-01-31T10:00:00Z"
DECLARED = parse_events(
    """
events:
  buy:
    properties:
      sku: {type: string}
      amount: {type: number}
      quantity: {type: integer}
      gift: {type: boolean}
      tags: {type: array, items: {type: string}}
      due: {type: string, format: date-time}
    retention: ever
  pay:
    properties: {order: {type: string}}
    id: order
    retention: ever
"""
)
RECEIVED = 4_000_000_000_000_000


def read(path: Path, mapped: Mapped | None = None) -> list[tuple[str, Event] | str]:
    """What becomes of each row: who did what, or the code of the reason why it is refused."""
    validator, found = EventValidator(DECLARED), []
    for row in file_events(path, mapped or Mapped(), DECLARED.events):
        if isinstance(row, BadRow):
            found.append(row.rejection.code)
            continue
        entity = check_entity(row.raw["entity"])
        given = row.raw["event"], row.raw["at"], row.raw["event_id"], row.raw["properties"]
        event = validator.check(*given, received=RECEIVED)
        bad = next((one for one in (entity, event) if isinstance(one, Rejection)), None)
        found.append((entity, event) if bad is None else bad.code)
    return found


def properties(found: list[tuple[str, Event] | str]) -> list[Any]:
    return [dict(one[1].properties) if isinstance(one, tuple) else one for one in found]


def text(tmp_path: Path, content: str | bytes, name: str = "a.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def lines(tmp_path: Path, *rows: Any) -> Path:
    return text(
        tmp_path, b"\n".join(row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows), "a.jsonl"
    )


def table(tmp_path: Path, columns: dict[str, Any], rows: int = 1) -> Path:
    base = {"entity": ["u"] * rows, "event": ["buy"] * rows, "at": [datetime(2026, 1, 31, 10, tzinfo=UTC)] * rows}
    pq.write_table(pa.table({**base, **columns}), tmp_path / "a.parquet")
    return tmp_path / "a.parquet"


# --- whole files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("A.CSV", f"entity,event,at,sku\nu,buy,{AT},x\n"),
        ("a.tsv", f"entity\tevent\tat\tsku\nu\tbuy\t{AT}\tx\n"),
        ("a.csv", f"\ufeffentity,event,at,sku\r\nu,buy,{AT},x\r\n"),
        ("a.csv", f"entity,event,at,sku\nu,buy,{AT},x"),
        ("a.jsonl", f'\ufeff{{"entity":"u","event":"buy","at":"{AT}","sku":"x"}}\n'),
        ("a.NDJSON", f'\n{{"entity":"u","event":"buy","at":"{AT}","properties":{{"sku":"x"}}}}\n\n'),
    ],
)
@pytest.mark.parametrize("packing", ["", ".gz", ".ZST"])
def test_every_kind_of_text_file_is_read(tmp_path: Path, name: str, content: str, packing: str) -> None:
    data = content.encode()
    if packing == ".gz":
        data = gzip.compress(data[:20]) + gzip.compress(data[20:])
    elif packing:
        data = pa.compress(data, codec="zstd", asbytes=True)
    found = read(text(tmp_path, data, name + packing))
    assert properties(found) == [{"sku": "x"}]


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        ("Entity,Event,At\nu,buy,x\n", "has no column `entity`", "--map entity=Entity"),
        ("entity;event;at;amount\nu;buy;x;1,5\n", "it has only `entity;event;at;amount`", "--separator ';'"),
        ("entity\tevent\tat\nu\tbuy\tx\n", "it has only", "--separator TAB"),
        ("entity, event, at\nu, buy, x\n", "has no column `at`", "--map at=' at'"),
        ("entity,at\nu,x\n", "has no column `event`", "--event NAME"),
        ("", "is empty", "first line"),
        ("entity,event,at,sku,sku\nu,buy,x,a,b\n", "several columns `sku`", "name of its own"),
        ("entity,event,at\n".encode("utf-16"), "is UTF-16", "UTF-8"),
        ("entity,event,at,größe\n".encode("latin-1"), "no UTF-8", "save the file as UTF-8"),
    ],
)
def test_a_wrong_file_is_one_error(tmp_path: Path, content: str | bytes, message: str, hint: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        read(text(tmp_path, content))
    assert hint in str(raised.value.hint)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'[\n{"entity": "u"}\n]', "not one object in each line"),
        ("a.jsonl", b'{\n"entity": "u"\n}', "not one object in each line"),
        ("a.jsonl", b'{"user": "u", "event": "buy"}\n', "no column `entity`"),
        ("a.csv.gz", b"entity,event,at\n", "cannot read"),
        ("a.csv.gz", gzip.compress(b"entity,event,at\n" * 9, mtime=0)[:-12], "cannot read"),
        ("a.csv.zst", b"entity,event,at\n", "cannot read"),
        ("a.parquet", b"PAR1", "cannot read"),
        ("a.parquet.gz", b"", "is no file of events"),
        ("a.json", b"", "is no file of events"),
    ],
)
def test_a_file_that_is_no_such_file_is_one_error(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(text(tmp_path, content, name))


@pytest.mark.parametrize(
    "mapped", [Mapped(id_columns=("order",)), Mapped(event_id="order"), Mapped(renamed={"order": "sku"})]
)
def test_a_column_that_an_option_names_has_to_be_there(tmp_path: Path, mapped: Mapped) -> None:
    with pytest.raises(DataError, match="no column `order`"):
        read(text(tmp_path, f"entity,event,at,Order\nu,buy,{AT},1\n"), mapped)


# --- single rows ----------------------------------------------------------------------------------------------------

GOOD = f"u,buy,{AT},x"


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (f"u,buy,{AT},12,50", "wrong-columns"),
        (f"u,buy,{AT}", "wrong-columns"),
        (b"u,buy,2026-01-31T10:00:00Z,\xff", "invalid-text"),
        ("u,buy,²,x", "invalid-instant"),
        ("u,buy,--5,x", "invalid-instant"),
        ("u,buy," + "9" * 5_000 + ",x", "invalid-instant"),
        ("u,buy,1e300,x", "invalid-instant"),
        ("u,buy,0001-01-01T00:00:00Z,x", "invalid-instant"),
        ("u,buy,1899-12-31T23:59:59Z,x", "invalid-instant"),
        ("u,buy,99999999999999999999,x", "invalid-instant"),
        (f"u,buy,{AT}," + "x" * 40_000, "event-too-large"),
        (f"u,buy,{AT}," + "x" * 200_000, "invalid-row"),
        (f"u,buy,{AT}," + "x" * (file_rows.MAX_LINE + 9), "invalid-row"),
        (f",buy,{AT},x", "missing-entity"),
        (f"u,,{AT},x", "unknown-event"),
    ],
)
def test_a_bad_row_of_csv_ends_nothing_but_itself(tmp_path: Path, row: str | bytes, code: str) -> None:
    raw = row if isinstance(row, bytes) else row.encode()
    content = b"\n".join([b"entity,event,at,sku", GOOD.encode(), raw, GOOD.encode(), b""])
    found = properties(read(text(tmp_path, content)))
    assert found == [{"sku": "x"}, code, {"sku": "x"}]


def test_a_long_row_is_text_to_its_end_and_no_further(tmp_path: Path) -> None:
    row = f"u,buy,{AT},{'å' * 15_000}\n".encode()
    found = read(text(tmp_path, b"entity,event,at,sku\n" + row + row.replace(b"\n", b"\xff\n")))
    assert isinstance(found[0], tuple), found
    assert found[1] == "invalid-text"


def test_a_quote_that_is_not_closed_costs_the_rows_behind_it_and_not_the_file(tmp_path: Path) -> None:
    rows = [GOOD] * 20_000
    rows[5] = f'u,buy,{AT},"x'
    found = read(text(tmp_path, "\n".join(["entity,event,at,sku", *rows])))
    assert found.count("invalid-row") == 1
    assert sum(isinstance(one, tuple) for one in found) > 10_000


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (b"{broken", "invalid-event"),
        (b"[1]", "invalid-event"),
        (b"7", "invalid-event"),
        (b'{"entity":"u","event":"buy","at":"' + AT.encode() + b'","sku":"\xff"}', "invalid-event"),
        (b'{"entity":"u","event":"buy","at":1e309}', "invalid-event"),
        (b'{"entity":"u","event":"buy","at":1e300}', "invalid-instant"),
        (b'{"entity":"u","event":"buy","at":-1e300}', "invalid-instant"),
        (b'{"entity":"u","event":"buy","at":true}', "invalid-instant"),
        (b'{"a":' + b"[" * 3_000 + b"]" * 3_000 + b"}", "invalid-event"),
        ({"entity": "u", "event": "buy", "at": AT, "quantity": 10**25}, "invalid-property"),
        ({"entity": "u", "event": "buy", "at": AT, "quantity": 2**63}, "invalid-property"),
        ({"entity": 1.5, "event": "buy", "at": AT}, "invalid-entity"),
        ({"entity": "\ud800", "event": "buy", "at": AT}, "invalid-event"),
        ({"entity": "u" * 1_001, "event": "buy", "at": AT}, "invalid-entity"),
        ({"entity": "u", "event": ["buy"], "at": AT}, "unknown-event"),
        ({"entity": "u", "event": "buy", "at": AT, "properties": "x"}, "invalid-event"),
        ({"entity": "u", "event": "buy", "at": AT, "properties": "[]"}, "invalid-event"),
        ({"entity": "u", "event": "buy", "at": AT, "properties": [1]}, "invalid-event"),
        (b'{"a":"' + b"x" * (file_rows.MAX_LINE + 9) + b'"}', "event-too-large"),
    ],
)
def test_a_bad_row_of_json_ends_nothing_but_itself(tmp_path: Path, row: Any, code: str) -> None:
    good = {"entity": "u", "event": "buy", "at": AT, "sku": "x"}
    assert properties(read(lines(tmp_path, good, row, good))) == [{"sku": "x"}, code, {"sku": "x"}]


def test_a_bad_row_of_parquet_ends_nothing_but_itself(tmp_path: Path) -> None:
    far = pa.array([0, 2**62, -(2**61)], pa.timestamp("us", "UTC"))
    found = read(table(tmp_path, {"at": far.cast(pa.int64()).cast(pa.timestamp("us", "UTC"))}, 3))
    assert found[0] != "invalid-instant"
    assert found[1:] == ["invalid-instant"] * 2
    floats = read(table(tmp_path, {"at": [1.7e15, float("inf"), float("nan")]}, 3))
    assert [one if isinstance(one, str) else one[1].at for one in floats] == [
        1_700_000_000_000_000,
        "invalid-instant",
        "invalid-instant",
    ]
    assert properties(read(table(tmp_path, {"sku": [b"x", b"\xff"]}, 2))) == [{"sku": "x"}, "invalid-text"]


# --- values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"amount": [Decimal("12.50")], "quantity": [Decimal("2.00")]}, {"amount": 12.5, "quantity": 2}),
        ({"amount": [0.1], "waited": [timedelta(seconds=5)]}, {"amount": 0.1, "waited": "5s"}),
        ({"day": [date(2026, 1, 31)], "sku": pa.array(["x"]).dictionary_encode()}, {"day": "2026-01-31", "sku": "x"}),
        ({"due": [datetime(2026, 1, 31, 10, tzinfo=UTC)]}, {"due": 1_769_853_600_000_000}),
        ({"quantity": pa.array([2**63], pa.uint64())}, "invalid-property"),
        ({"quantity": [Decimal("2.50")]}, "invalid-property"),
        ({"tags": [["a", "b"]]}, {"tags": ("a", "b")}),
        ({"properties": ['{"sku": "x", "amount": 3}']}, {"sku": "x", "amount": 3}),
        ({"properties": [{"sku": "x", "amount": 3}]}, {"sku": "x", "amount": 3}),
        (
            {"properties": pa.array([[("sku", "7"), ("amount", "1.5")]], pa.map_(pa.string(), pa.string()))},
            {"sku": "7", "amount": 1.5},
        ),
        ({"properties": pa.array([None], pa.string()), "sku": ["x"]}, {}),
        ({"properties": ["no json"]}, "invalid-event"),
    ],
)
def test_values_of_parquet(tmp_path: Path, columns: dict[str, Any], expected: Any) -> None:
    assert properties(read(table(tmp_path, columns))) == [expected]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("amount", "12.50", 12.5),
        ("amount", "1e3", 1000.0),
        ("amount", "99999999999999999999999", 1e23),
        ("amount", "12,50", "invalid-property"),
        ("amount", "٣", "invalid-property"),
        ("amount", "1_000", "invalid-property"),
        ("amount", "inf", "invalid-property"),
        ("amount", "nan", None),
        ("quantity", "7.0", 7),
        ("quantity", "7.5", "invalid-property"),
        ("quantity", "9" * 23, "invalid-property"),
        ("quantity", "9" * 5_000, "invalid-property"),
        ("gift", "True", True),
        ("tags", '["a"]', ("a",)),
        ("due", "2026-01-31T10:00:00.123456789Z", 1_769_853_600_123_456),
        ("sku", "007", "007"),
        ("undeclared", "1.50", "1.50"),
    ],
)
def test_texts_of_csv_are_read_as_declared(tmp_path: Path, name: str, value: str, expected: Any) -> None:
    quoted = value.replace('"', '""')
    found = properties(read(text(tmp_path, f'entity,event,at,{name}\nu,buy,{AT},"{quoted}"\n')))
    assert found == [expected if expected == "invalid-property" else {} if expected is None else {name: expected}]


def test_properties_of_csv_may_be_json(tmp_path: Path) -> None:
    content = f'entity,event,at,properties\nu,buy,{AT},"{{""sku"": ""z"", ""amount"": 3}}"\nu,buy,{AT},not json\n'
    assert properties(read(text(tmp_path, content))) == [{"sku": "z", "amount": 3}, "invalid-event"]


@pytest.mark.parametrize(
    ("given", "entity"), [("42", "42"), ("42.0", "42"), ("  c5  ", "c5"), ("1.50", "1.50"), ("00.0", "00.0")]
)
def test_keys_of_csv(tmp_path: Path, given: str, entity: str) -> None:
    assert read(text(tmp_path, f"entity,event,at\n{given},buy,{AT}\n"))[0][0] == entity


@pytest.mark.parametrize(
    ("given", "entity"), [([17850.0], "17850"), ([17850], "17850"), ([Decimal("42")], "42"), ([b"c5"], "c5")]
)
def test_keys_of_parquet(tmp_path: Path, given: Any, entity: str) -> None:
    assert read(table(tmp_path, {"entity": given}))[0][0] == entity


@pytest.mark.parametrize("given", [[1.5], [2.0**60], [float("inf")]])
def test_keys_that_a_float_does_not_hold_exactly_are_refused(tmp_path: Path, given: Any) -> None:
    assert read(table(tmp_path, {"entity": given})) == ["invalid-entity"]


@pytest.mark.parametrize(
    ("unit", "given", "at"),
    [
        ("s", "1769853600", 1_769_853_600_000_000),
        ("s", "1769853600.123456", 1_769_853_600_123_456),
        ("s", 1769853600.7, 1_769_853_600_700_000),
        ("ms", 1769853600123, 1_769_853_600_123_000),
        ("us", 1769853600123456, 1_769_853_600_123_456),
        ("s", -86_400, -86_400_000_000),
        ("us", "2026-01-31T11:00:00.1234569+01:00", 1_769_853_600_123_456),
    ],
)
def test_instants_of_files(tmp_path: Path, unit: str, given: Any, at: int) -> None:
    found = read(lines(tmp_path, {"entity": "u", "event": "buy", "at": given}), Mapped(at_unit=unit))
    assert isinstance(found[0], tuple), found
    assert found[0][1].at == at


# --- ids ------------------------------------------------------------------------------------------------------------


def ids(path: Path, mapped: Mapped | None = None, declared: Any = DECLARED) -> list[str]:
    found = list(file_events(path, mapped or Mapped(), declared.events))
    assert all(isinstance(row, FileEvent) for row in found), found
    return [row.raw["event_id"] for row in found if isinstance(row, FileEvent)]


def test_a_row_has_one_id_however_it_is_written(tmp_path: Path) -> None:
    same = [
        text(tmp_path, f"entity,event,at,amount,sku,note\nu,buy,{AT},1,007,\n", "a.csv"),
        text(tmp_path, "sku,entity,event,at,amount\n007,u,buy,2026-01-31T11:00:00.000+01:00,1.0\n", "b.csv"),
        text(tmp_path, f"entity;event;at;amount;sku\nu;buy;{AT};1.00;007\n", "c.csv"),
        lines(tmp_path, {"entity": "u", "event": "buy", "at": AT, "amount": 1, "sku": "007", "note": None}),
        table(tmp_path, {"amount": [Decimal("1.00")], "sku": ["007"], "note": [""]}),
    ]
    found = {ids(path, Mapped(separator=";") if path.name == "c.csv" else None)[0] for path in same}
    assert len(found) == 1
    fewer = parse_events("events: {buy: {retention: ever}}")
    assert {ids(path, declared=fewer)[0] for path in same[:2]} == found, "an id depends on what is declared"
    other = [f"u,buy,{AT},1,7", f"u,buy,{AT},2,007", f"v,buy,{AT},1,007", "u,buy,2026-01-31T10:00:01Z,1,007"]
    for row in other:
        assert not found & set(ids(text(tmp_path, f"entity,event,at,amount,sku\n{row}\n", "d.csv"))), row


def test_columns_can_tell_rows_apart(tmp_path: Path) -> None:
    path = text(
        tmp_path, f"entity,event,at,order,line,sku\nu,buy,{AT},o1,1,x\nu,buy,{AT},o1,1.0,y\nu,buy,{AT},o1,2,x\n"
    )
    first, second, third = ids(path, Mapped(id_columns=("order", "line")))
    assert first == second != third
    assert ids(path, Mapped(id_columns=("order",))) == ["o1"] * 3
    empty = text(tmp_path, f"entity,event,at,order\nu,buy,{AT},\n", "e.csv")
    assert read(empty, Mapped(id_columns=("order",))) == ["missing-id"]


def test_it_is_known_which_rows_had_no_id(tmp_path: Path) -> None:
    path = text(tmp_path, f"entity,event,at,event_id,order\nu,buy,{AT},1,\nu,buy,{AT},,\nu,pay,{AT},,o1\n")
    assert [row.had_id for row in file_events(path, Mapped(), DECLARED.events) if isinstance(row, FileEvent)] == [
        True,
        False,
        True,
    ]
