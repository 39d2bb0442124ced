"""The newest rows of a Parquet file: with DuckDB and without it the same, by a rule that a loop over rows can say."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import pytest

from rules_engine.clock import to_micros
from rules_engine.errors import DataError, FeatureColumnError, ProjectError
from rules_engine.features.offline import newest
from rules_engine.features.offline.newest import Reach, Survey, newest_rows, survey
from rules_engine.features.offline.parquet_rows import NewestRows
from rules_engine.features.offline.parquet_stream import raw_rows
from rules_engine.features.offline.source_file import SourceFile
from rules_engine.features.offline.view_columns import ViewColumns

START = datetime(2026, 1, 1, tzinfo=UTC)
REACH = Reach(to_micros(START + timedelta(hours=90)), to_micros(START + timedelta(hours=10)))
KEYS = {
    "text": "it's {}".format,
    "whole": int,
    "float": float,
}


def columns(created: str | None = "made") -> ViewColumns:
    return ViewColumns("v", "user", "at", created, {"v:amount": "amount", "v:word": "word"})


def table(seed: int, unit: str = "us", zone: str | None = "UTC", keys: str = "text", rows: int = 400) -> pa.Table:
    """Few users, instants and times of creation, so that many rows tie; some rows have no key or no timestamp."""
    draw = random.Random(seed)
    instants = [None if draw.random() < 0.05 else START + timedelta(hours=draw.randrange(100)) for _ in range(rows)]
    made = [None if draw.random() < 0.2 else START + timedelta(hours=draw.randrange(3)) for _ in range(rows)]
    naive = [at if zone or at is None else at.replace(tzinfo=None) for at in instants]
    return pa.table(
        {
            "user": [None if draw.random() < 0.05 else KEYS[keys](draw.randrange(40)) for _ in range(rows)],
            "amount": [draw.choice([None, 1.5, float("nan"), -2.0]) for _ in range(rows)],
            "word": pa.array([draw.choice([None, "", "é \U0001f6d2"]) for _ in range(rows)]).dictionary_encode(),
            "at": pa.array(naive, pa.timestamp("us", zone)).cast(pa.timestamp(unit, zone)),
            "made": pa.array(made, pa.timestamp("us", "UTC")),
        }
    )


def by_hand(rows: list[dict[str, Any]], created: str | None) -> tuple[list[int], Survey]:
    """The numbers of the newest rows, and what is odd, from one loop over the rows."""
    best: dict[Any, tuple[Any, int]] = {}
    seen: dict[Any, int] = {}
    for number, row in enumerate(rows):
        at = row["at"] if row["at"] is None or row["at"].tzinfo else row["at"].replace(tzinfo=UTC)
        if row["user"] is None or at is None or not REACH.first <= to_micros(at) <= REACH.last:
            continue
        made = row[created] or datetime.min.replace(tzinfo=UTC) if created else None
        seen[row["user"], at, made] = seen.get((row["user"], at, made), 0) + 1
        order = (at, *([made] if created else []), number)
        if row["user"] not in best or order > best[row["user"]][0]:
            best[row["user"]] = order, number
    early = [row for row in rows if row["user"] is not None and row["at"] is not None]
    before = sum(
        to_micros(row["at"] if row["at"].tzinfo else row["at"].replace(tzinfo=UTC)) < REACH.first for row in early
    )
    no_instant = sum(row["user"] is not None and row["at"] is None for row in rows) + before
    odd = Survey(sum(row["user"] is None for row in rows), no_instant, sum(count > 1 for count in seen.values()))
    return sorted(number for _, number in best.values()), odd


@pytest.fixture(params=["with duckdb", "without duckdb"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if request.param == "without duckdb":
        monkeypatch.setattr(newest, "has_duckdb", lambda: False)
    return tmp_path


@pytest.mark.parametrize(("unit", "zone"), [("us", "UTC"), ("us", None), ("ns", None), ("ns", "UTC"), ("ms", "UTC")])
@pytest.mark.parametrize("created", ["made", None])
@pytest.mark.parametrize("keys", KEYS)
def test_the_rows_that_a_loop_finds(folder: Path, unit: str, zone: str | None, created: str | None, keys: str) -> None:
    path = folder / "it's a file.parquet"
    made = table(1, unit, zone, keys)
    pq.write_table(made, path, row_group_size=64)
    source = SourceFile.open(path, columns(created))
    expected, odd = by_hand(made.cast(pa.schema([*made.schema])).to_pylist(), created)
    chosen = newest_rows(source, REACH, folder)
    assert chosen.nonzero()[0].tolist() == expected
    assert survey(source, REACH, folder) == odd
    assert odd.ties >= 5
    assert odd.no_key
    found = list(raw_rows(source, NewestRows(chosen), ["user", "word"], 7))
    assert max(batch.num_rows for batch in found) <= 7
    assert pa.Table.from_batches(found).to_pylist() == made.select(["user", "word"]).take(expected).to_pylist()


def test_a_large_file_is_looked_at_in_several_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.parquet"
    made = table(4)
    pq.write_table(made, path)
    monkeypatch.setattr(newest, "_ROWS_OF_A_PASS", 60)
    for created in ("made", None):
        source = SourceFile.open(path, columns(created))
        expected, odd = by_hand(made.to_pylist(), created)
        assert newest_rows(source, REACH, tmp_path).nonzero()[0].tolist() == expected
        assert survey(source, REACH, tmp_path) == odd


def test_dates_are_midnights(folder: Path) -> None:
    days = [date(2026, 1, 2), date(2026, 1, 3), date(2026, 1, 3), None]
    pq.write_table(pa.table({"user": ["a"] * 4, "at": pa.array(days)}), folder / "days.parquet")
    source = SourceFile.open(folder / "days.parquet", ViewColumns("v", "user", "at", None, {}))
    midnight = to_micros(datetime(2026, 1, 3, tzinfo=UTC))
    assert newest_rows(source, Reach(midnight), folder).tolist() == [False, False, True, False]
    assert newest_rows(source, Reach(midnight - 1), folder).tolist() == [True, False, False, False]
    assert survey(source, Reach(midnight), folder) == Survey(0, 1, 1)


@pytest.mark.slow
def test_more_than_the_limit_goes_to_disk(tmp_path: Path) -> None:
    """The memory is that of the keys of 1.2 million rows, several times the limit."""
    path, count = tmp_path / "rows.parquet", 1_200_000
    numbers = pa.array(range(count))
    keys = pa.compute.binary_join_element_wise("user", pa.compute.cast(numbers, pa.string()), "")
    at = pa.array([START + timedelta(hours=20)] * count, pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"user": keys, "at": at, "made": at}), path)
    for created in ("made", None):
        source = SourceFile.open(path, ViewColumns("v", "user", "at", created, {}))
        assert newest_rows(source, REACH, tmp_path / "spilled", "24MB").all()
        assert survey(source, REACH, tmp_path / "spilled", "24MB") == Survey()
        assert not list((tmp_path / "spilled").iterdir())


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "rows.parquet"
    pq.write_table(table(3, rows=5), path)
    return path


def test_what_cannot_be_used_says_what_is_wrong(written: Path) -> None:
    types = {"v:amount": "Float64", "v:word": "String"}
    assert list(SourceFile.open(written, columns()).check_features(types)) == []
    (refused,) = SourceFile.open(written, columns()).check_features(types | {"v:amount": "String"})
    assert "`v:amount` is declared String, and its source holds double" in str(refused)
    lacking = ViewColumns("v", "user", "at", None, {"v:amout": "amout"})
    (refused,) = SourceFile.open(written, lacking).check_features({"v:amout": "Float64"})
    assert (refused.feature, refused.hint) == ("v:amout", "did you mean `amount`?")
    assert f"{written} has no column `amout`, which is feature `v:amout`" in str(refused)
    with pytest.raises(FeatureColumnError, match="has no column `amout`"):
        SourceFile.open(written, lacking).require({"v:amout": "amout"})
    for wrong, kind, words in (
        (
            ViewColumns("v", "nobody", "at", None, {}),
            ProjectError,
            "has no column `nobody`, which feature view `v` reads",
        ),
        (ViewColumns("v", "made", "at", None, {}), DataError, "the join key `made` holds timestamp"),
        (ViewColumns("v", "user", "amount", None, {}), DataError, "the timestamp column `amount` holds double"),
        (ViewColumns("v", "user", "at", "word", {}), DataError, "the timestamp column `word` holds dictionary"),
    ):
        with pytest.raises(kind, match=words):
            SourceFile.open(written, wrong)
    written.write_bytes(b"PAR1 is not all of it")
    with pytest.raises(ProjectError, match="the source of feature view `v` cannot be read"):
        SourceFile.open(written, columns())


def test_a_column_of_nothing_may_be_of_any_type(tmp_path: Path) -> None:
    none = pa.array([float("nan"), None])
    pq.write_table(
        pa.table({"user": ["a", "b"], "at": [START, START], "amount": none, "word": none}), tmp_path / "n.parquet"
    )
    source = SourceFile.open(tmp_path / "n.parquet", columns(None))
    assert list(source.check_features({"v:amount": "UnixTimestamp", "v:word": "Array(String)"})) == []


def test_duckdb_is_what_the_tests_run_with() -> None:
    assert newest.has_duckdb()
    assert duckdb.__version__
