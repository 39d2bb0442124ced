"""Batch evaluation where no store is needed: files of answers, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from rules_engine.batch import membership_files as audience
from rules_engine.batch.engine import Answered, Sizes
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
    matches = ColumnIndex(RuleIndex(program)).match_many(batch, now=0)
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
    assert [found.name for found in path.parent.iterdir()] == [path.name]


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
