"""Where the offline features lie: Parquet files that `python feature_repo/build.py` writes.

The paths are absolute because Feast's DuckDB store takes a relative one from wherever a command happens to run.
"""

from pathlib import Path

from feast import FileSource

_DATA = Path(__file__).resolve().parent / "data"


def _parquet(name: str, description: str) -> FileSource:
    return FileSource(
        name=name,
        path=str(_DATA / f"{name}.parquet"),
        timestamp_field="event_timestamp",
        description=description,
    )


purchase_history_source = _parquet("purchase_history", "One row per customer and day with a purchase")
rfm_source = _parquet("rfm", "One row per customer and first instant of a month")
user_clusters_source = _parquet("user_clusters", "Cluster labels, written by `segments cluster attach`")
purchase_propensity_source = _parquet("purchase_propensity", "Scores, written by `segments model score`")
