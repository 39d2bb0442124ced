"""Reading and writing offline features through Feast: point in time, for every user that has any.

Feast's offline store answers "these users, as of then"; who the users are is asked of the feature views themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from rules_engine.clock import format_instant, from_micros
from rules_engine.errors import DataError, ProjectError, pass_interrupt
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.features.feast_import import quiet
from rules_engine.features.offline.parquet import local_path

_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
#: Later than any row, and still within what nanoseconds can count.
_LAST = datetime(2200, 1, 1, tzinfo=UTC)


def features_as_of(repo: FeastRepo, features: Sequence[str], as_of: int) -> pd.DataFrame:
    """Read every user's features as of an instant: one row per user, one column per ``VIEW:NAME``.

    A user appears if one of the features' views has a row of theirs that was valid then; what another view lacks is
    missing in the row.

    Raises
    ------
    DataError
        if no view has any row that was valid then.
    ProjectError
        if the offline store cannot be read.
    """
    instant, key = from_micros(as_of), repo.entity().join_key
    views = [repo.registered_view(name) for name in sorted({name.partition(":")[0] for name in features})]
    users: set[str] = set()
    for view in views:
        start = instant - view.ttl if view.ttl else _FIRST
        users.update(_latest(repo, view, [], start, instant)[key].to_pylist())
    if not users:
        names = ", ".join(f"`{view.name}`" for view in views)
        raise DataError(
            f"{names} has no row that was valid at {format_instant(as_of)}",
            hint="is the offline data built? or name another instant with --at",
        )
    who = pd.DataFrame({key: sorted(users), "event_timestamp": pd.Timestamp(instant).as_unit("us")})
    repo.check_registered(views)
    job = _answer(
        repo, lambda: repo.store.get_historical_features(who, list(features), full_feature_names=True).to_df()
    )
    frame: pd.DataFrame = job.set_index(key)
    frame = frame.rename(columns={name.replace(":", "__"): name for name in features})
    return frame.loc[:, list(features)].sort_index()


def latest_rows(repo: FeastRepo, view_name: str, until: int | None = None) -> pd.DataFrame:
    """Read every user's newest row of a view, indexed by user, with its instant in ``event_timestamp``.

    ``until``, in microseconds, leaves out later rows.
    """
    view = repo.registered_view(view_name)
    names = [field.name for field in view.features]
    table = _latest(repo, view, names, _FIRST, _LAST if until is None else from_micros(until))
    frame: pd.DataFrame = table.to_pandas().set_index(repo.entity().join_key)
    frame = frame.rename(columns={view.batch_source.timestamp_field: "event_timestamp"})
    return frame.loc[:, [*names, "event_timestamp"]].sort_index()


def _latest(repo: FeastRepo, view: Any, names: list[str], start: datetime, end: datetime) -> pa.Table:
    source = view.batch_source
    offline = repo.store.provider.offline_store

    def pull() -> pa.Table:
        return offline.pull_latest_from_table_or_query(
            config=repo.store.config,
            data_source=source,
            join_key_columns=[column.name for column in view.entity_columns],
            feature_name_columns=names,
            timestamp_field=source.timestamp_field,
            created_timestamp_column=source.created_timestamp_column,
            start_date=start,
            end_date=end,
        ).to_arrow()

    return _answer(repo, pull)


def _answer(repo: FeastRepo, ask: Any) -> Any:
    try:
        with quiet():
            return ask()
    except Exception as error:  # every engine raises its own
        pass_interrupt(error)
        raise ProjectError(
            f"the offline store cannot be read: {error}",
            hint=f"do the sources in {repo.project.feature_repo} exist? `segments apply` registers new views",
        ) from error


def write_rows(repo: FeastRepo, view_name: str, rows: pd.DataFrame) -> None:
    """Add rows to a view's source. A row of the same user and instant is replaced where the source allows it.

    A Parquet file on this machine is replaced in one step: Feast would write into the file itself, and an interruption
    would leave no file at all. To every other source Feast appends.
    """
    source = repo.registered_view(view_name).batch_source
    rows = rows.rename(columns={"event_timestamp": source.timestamp_field})
    path = local_file(repo, view_name)
    if path is None:
        with quiet():
            repo.store.write_to_offline_store(view_name, rows)
        return
    before = pq.read_table(path)
    added = pa.Table.from_pandas(rows, schema=before.schema, preserve_index=False)
    identity = [repo.entity().join_key, source.timestamp_field]
    replaced = added.select(identity).append_column("replaced", pa.array([True] * len(added)))
    unchanged = before.join(replaced, identity, join_type="left anti").select(before.column_names).cast(before.schema)
    partial = path.with_suffix(".partial")
    pq.write_table(
        pa.concat_tables([unchanged, added]).sort_by([(name, "ascending") for name in identity]),
        partial,
        compression="zstd",
    )
    partial.replace(path)


def local_file(repo: FeastRepo, view_name: str) -> Path | None:
    """Return the Parquet file behind a view, if it is one on this machine, and there."""
    path = local_path(repo.project.feature_repo, repo.registered_view(view_name).batch_source)
    return path if path is not None and path.is_file() else None
