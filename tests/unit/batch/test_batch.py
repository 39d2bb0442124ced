"""Batch evaluation where no store is needed: files of answers, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from rules_engine.batch import membership_files as audience
from rules_engine.batch.engine import Answered, Sizes, with_negations
from rules_engine.errors import DataError
from rules_engine.rules.nodes import FeatureRef, Predicate, Segment
from rules_engine.rules.program import Program
from rules_engine.rules.types import INTEGER
from rules_engine.targets.columns.column_index import ColumnIndex
from rules_engine.targets.index.rule_index import RuleIndex

NAMES = ("adult", "never", "old")
ROWS = [("a", 70), ("b", None), ("c", 20), ('é,"', 18)]


def answered() -> Answered:
    age = FeatureRef("user", "age")
    limits = {"adult": 18, "old": 65, "never": 2**70}
    program = Program(
        {name: Segment(name, Predicate(age, "at_least", limit, INTEGER)) for name, limit in limits.items()}
    )
    batch = pa.record_batch({"user:age": [value for _, value in ROWS]})
    matches = ColumnIndex(RuleIndex(with_negations(program, NAMES))).match_many(batch, now=0)
    return Answered(pa.array([key for key, _ in ROWS], pa.large_string()), matches, 1.0)


PAIRS = [("a", "adult"), ("a", "old"), ("c", "adult"), ('é,"', "adult")]


def read(path: Path) -> list[dict[str, object]]:
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".csv":
        return pa.csv.read_csv(path).to_pylist()
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("ending", audience.ENDINGS)
def test_pairs_and_matrix_hold_every_membership(tmp_path: Path, ending: str) -> None:
    path, schema = tmp_path / "deep" / f"pairs{ending}", audience.pairs_schema("id")
    with audience.TableFile(path, schema) as file:
        file.write(audience.pairs(answered(), NAMES, schema))
    assert [(row["id"], row["segment"]) for row in read(path)] == PAIRS
    assert file.rows == len(PAIRS)
    schema = audience.matrix_schema("id", NAMES)
    with audience.TableFile(path, schema) as file:
        file.write(audience.matrix(answered(), NAMES, schema))
    rows = read(path)
    assert [row["id"] for row in rows] == [key for key, _ in ROWS]
    assert [(row["id"], name) for row in rows for name in NAMES if row[name]] == PAIRS
    assert [row["old"] for row in rows] == [True, None, False, False], "unknown is null"
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_answers_are_counted_true_and_unknown() -> None:
    sizes = answered().sizes()
    assert (sizes.users, sizes.members) == (4, {"adult": 3, "never": 0, "old": 1})
    assert sizes.unknown == {"adult": 1, "never": 1, "old": 1}
    sizes.add(answered().sizes())
    assert (sizes.users, sizes.members["adult"], sizes.unknown["adult"]) == (8, 6, 2)


def test_keys_are_no_formulas_in_a_spreadsheet(tmp_path: Path) -> None:
    keys = ["=HYPERLINK(1)", "+1+1", "-2", "@SUM(A1)", "\tx", "a=b", "", None]
    schema = pa.schema([("id", pa.string()), ("n", pa.int64())])
    rows = pa.record_batch([pa.array(keys), pa.array(range(len(keys)))], schema=schema)
    shown = {}
    for name, as_they_are in (("safe.csv", False), ("plain.csv", True), ("keys.parquet", False), ("keys.jsonl", False)):
        with audience.TableFile(tmp_path / name, schema, csv_formulas=as_they_are) as file:
            file.write(rows)
        shown[name] = [row["id"] or "" for row in read(tmp_path / name)]
    plain = [key or "" for key in keys]
    assert shown == {
        "safe.csv": [f"'{key}" for key in keys[:5] if key] + plain[5:],
        "plain.csv": plain,
        "keys.parquet": plain,
        "keys.jsonl": plain,
    }


def test_a_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    path, schema = tmp_path / "out.csv", audience.pairs_schema("id")
    path.write_text("before")

    def write() -> None:
        with audience.TableFile(path, schema) as file:
            file.write(audience.pairs(answered(), NAMES, schema))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert path.read_text() == "before"
    assert [found.name for found in tmp_path.iterdir()] == ["out.csv"]


def test_a_file_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"`\.xlsx`, which names no format"):
        audience.TableFile(tmp_path / "x.xlsx", audience.pairs_schema("id"))
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(DataError, match="cannot write"),
        audience.TableFile(tmp_path / "file" / "x.csv", audience.pairs_schema("id")),
    ):
        pass


def test_nobody_is_no_share() -> None:
    assert Sizes(0, {"vip": 0}).share("vip") == 0.0
