"""Write the offline features with the exact types that the feature views declare."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

#: Microseconds, because Feast's DuckDB store fails on nanoseconds with a zone.
TIME = pa.timestamp("us", tz="UTC")

PURCHASE_HISTORY = pa.schema(
    [
        ("user_id", pa.string()),
        ("event_timestamp", TIME),
        ("frequency", pa.int64()),
        ("items", pa.int64()),
        ("monetary_value", pa.float64()),
        ("mean_basket", pa.float64()),
        ("last_basket", pa.float64()),
        ("typical_gap_days", pa.float64()),
        ("first_purchase", TIME),
        ("last_purchase", TIME),
    ]
)

RFM = pa.schema(
    [
        ("user_id", pa.string()),
        ("event_timestamp", TIME),
        ("recency_days", pa.int64()),
        ("tenure_days", pa.int64()),
        ("frequency", pa.int64()),
        ("monetary_value", pa.float64()),
        ("mean_basket", pa.float64()),
        ("purchases_90d", pa.int64()),
        ("spend_90d", pa.float64()),
    ]
)

USER_CLUSTERS = pa.schema(
    [
        ("user_id", pa.string()),
        ("event_timestamp", TIME),
        ("label", pa.string()),
        ("cluster", pa.int64()),
        ("distance", pa.float64()),
        ("model_version", pa.string()),
        ("confidence", pa.float64()),
        ("outlier", pa.bool_()),
    ]
)

PURCHASE_PROPENSITY = pa.schema(
    [
        ("user_id", pa.string()),
        ("event_timestamp", TIME),
        ("score", pa.float64()),
        ("percentile", pa.float64()),
        ("model_version", pa.string()),
    ]
)


def write(path: Path, frame: pd.DataFrame, schema: pa.Schema) -> None:
    """Write a frame in one step: a reader sees the old file or the new one, never half of one."""
    _replace(path, pa.Table.from_pandas(frame, schema=schema, preserve_index=False))


def write_empty(path: Path, schema: pa.Schema) -> None:
    """Make the file if there is none: Feast wants every source to exist, and labels that are there must stay.

    A file of before a column was added gets that column, empty.
    """
    if not path.exists():
        _replace(path, schema.empty_table())
    elif set(pq.read_schema(path).names) < set(schema.names):
        rows = pq.read_table(path)
        columns = [
            rows[name] if name in rows.column_names else pa.nulls(len(rows), schema.field(name).type)
            for name in schema.names
        ]
        _replace(path, pa.table(columns, schema=schema))


def _replace(path: Path, table: pa.Table) -> None:
    partial = path.with_suffix(".partial")
    pq.write_table(table, partial, compression="zstd")
    partial.replace(path)
