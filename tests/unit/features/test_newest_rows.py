"""The newest rows out of a Parquet file, against those that Feast's DuckDB store finds."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import pytest

from rules_engine.features.feast_import import import_feast, quiet

import_feast()

from feast import FileSource  # noqa: E402  # Feast is imported as the commands import it
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore  # noqa: E402

from rules_engine.features.offline.newest_rows import Newest, newest_rows, parquet_file  # noqa: E402

START = datetime(2026, 1, 1, tzinfo=UTC)
COLUMNS = ["user", "account", "amount", "word", "list", "at", "made"]


def table(seed: int, unit: str, zone: str | None, rows: int = 400) -> pa.Table:
    """Few users and few instants, so that there is much to choose from; every row is made at another time."""
    draw = random.Random(seed)
    instants = [START + timedelta(hours=draw.randrange(100)) for _ in range(rows)]
    made = [START + timedelta(microseconds=number) for number in draw.sample(range(10**6), rows)]
    kind = pa.timestamp(unit, zone)
    return pa.table(
        {
            "user": [f"user {draw.randrange(40)}" for _ in range(rows)],
            "account": [draw.randrange(3) for _ in range(rows)],
            "amount": [draw.choice([None, 1.5, float("nan"), -2.0]) for _ in range(rows)],
            "word": [draw.choice([None, "", "é \U0001f6d2"]) for _ in range(rows)],
            "list": pa.array([draw.choice([None, [], [1, 2]]) for _ in range(rows)], pa.list_(pa.int64())),
            "at": pa.array([at if zone else at.replace(tzinfo=None) for at in instants]).cast(kind),
            "made": pa.array(made, pa.timestamp("us", "UTC")),
        }
    )


def asked(keys: list[str], created: str | None = "made") -> Newest:
    features = [name for name in COLUMNS if name not in (*keys, "at", "made")]
    return Newest(keys, features, "at", created, START + timedelta(hours=10), START + timedelta(hours=90))


def feasts(path: Path, wanted: Newest, store: Any = DuckDBOfflineStore) -> pa.Table:
    config = SimpleNamespace(
        repo_path=path.parent,
        offline_store=SimpleNamespace(staging_location=None, staging_location_endpoint_override=None),
    )
    with quiet():
        job = store.pull_latest_from_table_or_query(
            config=config,
            data_source=FileSource(path=str(path), timestamp_field="at"),
            join_key_columns=wanted.keys,
            feature_name_columns=wanted.features,
            timestamp_field=wanted.timestamp,
            created_timestamp_column=wanted.created,
            start_date=wanted.start,
            end_date=wanted.end,
        )
        return job.to_arrow()


def ours(path: Path, wanted: Newest, folder: Path, limit: str = "100MB") -> pa.Table:
    with newest_rows(path, wanted, limit, str(folder)) as batches:
        return pa.Table.from_batches(list(batches))


def rows(found: pa.Table) -> list[str]:
    """In any order; a NaN equals another."""
    return sorted(repr(row) for row in found.to_pylist())


@pytest.mark.parametrize(("unit", "zone"), [("us", "UTC"), ("us", None), ("ns", None), ("ms", "UTC")])
@pytest.mark.parametrize("keys", [["user"], ["user", "account"]])
def test_the_same_rows_as_feasts_store(tmp_path: Path, keys: list[str], unit: str, zone: str | None) -> None:
    path = tmp_path / "it's a file.parquet"
    pq.write_table(table(1, unit, zone), path, row_group_size=64)
    wanted = asked(keys)
    found, expected = ours(path, wanted, tmp_path), feasts(path, wanted)
    assert found.schema.names == expected.schema.names
    assert rows(found) == rows(expected)
    assert 30 < found.num_rows <= 40 * (3 if len(keys) > 1 else 1)


def test_a_large_file_is_looked_at_in_several_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(table(4, "us", "UTC"), path)
    monkeypatch.setattr("rules_engine.features.offline.newest_rows._ROWS_OF_A_PASS", 60)
    for keys in (["user"], ["user", "account"]):
        assert rows(ours(path, asked(keys), tmp_path)) == rows(feasts(path, asked(keys)))


def test_without_a_time_of_creation_the_latest_timestamp_counts(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    several = table(2, "us", "UTC")
    pq.write_table(several, path)
    wanted = asked(["user"], created=None)
    found = ours(path, wanted, tmp_path)
    expected = feasts(path, wanted)
    latest = {row["user"]: row["at"] for row in expected.to_pylist()}
    assert {row["user"]: row["at"] for row in found.to_pylist()} == latest
    assert found.num_rows == len(latest)


def test_more_than_the_limit_goes_to_disk(tmp_path: Path) -> None:
    """The memory is that of the keys of 1.2 million rows, several times the limit."""
    path, count = tmp_path / "rows.parquet", 1_200_000
    numbers = pa.array(range(count))
    keys = pa.compute.binary_join_element_wise("user", pa.compute.cast(numbers, pa.string()), "")
    at = pa.array([START + timedelta(hours=20)] * count, pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"user": keys, "at": at, "amount": numbers}), path)
    wanted = Newest(["user"], ["amount"], "at", None, START, START + timedelta(days=2))
    with newest_rows(path, wanted, "24MB", str(tmp_path / "spilled")) as batches:
        assert sum(batch.num_rows for batch in batches) == count
    with pytest.raises(duckdb.Error), newest_rows(path, wanted, "24MB", str(path)) as batches:  # no folder: no room
        list(batches)


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    found = tmp_path / "rows.parquet"
    pq.write_table(table(3, "us", "UTC", 5), found)
    return found


def source(path: Path | str, **options: Any) -> FileSource:
    return FileSource(path=str(path), timestamp_field="at", **options)


def test_which_sources_are_read_directly(path: Path) -> None:
    store, wanted = DuckDBOfflineStore(), asked(["user"])
    assert parquet_file(store, source(path), wanted) == path
    assert parquet_file(object(), source(path), wanted) is None
    assert parquet_file(store, source(path.parent), wanted) is None
    assert parquet_file(store, source(path.parent / "*.parquet"), wanted) is None
    assert parquet_file(store, source("s3://bucket/rows.parquet"), wanted) is None
    assert parquet_file(store, source(path), asked(["nobody"])) is None, "Feast's store says which column is missing"
    pq.write_table(table(3, "us", "UTC", 5).append_column("file_row_number", [[1] * 5]), path)
    assert parquet_file(store, source(path), wanted) is None
    words = pa.array(["a"] * 5).dictionary_encode()
    pq.write_table(table(3, "us", "UTC", 5).set_column(3, "word", words), path)
    assert parquet_file(store, source(path), wanted) is None
