"""Give every user a score: rows of a Feast feature view, in the offline and in the online store.

A run is a snapshot: one row for everyone, valid from the instant that it was computed for, so that training sets and
backtests get the score of their time, by the version of their time. Users are read, scored and written a bounded number
at a time, whatever their number.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rules_engine.clock import format_instant, from_micros, now_micros, to_micros
from rules_engine.errors import DataError, ProjectError, pass_interrupt
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.features.feast.writes import DirectWrites, watched_writes
from rules_engine.features.feast_import import quiet
from rules_engine.ml.filled_view import SCORES
from rules_engine.ml.offline import local_file
from rules_engine.ml.propensity.batch import scores
from rules_engine.ml.propensity.model import PropensityModel
from rules_engine.ml.propensity.training import Population
from rules_engine.project.lock import project_lock
from rules_engine.redis import client as redis_client
from rules_engine.redis.server import is_direct
from rules_engine.stream.reevaluation import look_again

_BATCH = 10_000
_TIME = pa.timestamp("us", tz="UTC")
_FIRST, _LAST = 0, 7_258_118_400_000_000  # 1970 and 2200, which nanoseconds can count
#: How far after their instant corrected scores may lie, see `_instant`.
_CORRECTIONS = 1_000_000

Progress = Callable[[str], None]


@dataclass(slots=True)
class Scored:
    """The result of a run of scores.

    Attributes
    ----------
    users
        how many users got a score.
    left_out
        how many did not, because all of the model's features are missing.
    mean
        the mean of the scores.
    parts
        how many users have a score from 0 to below 0.1, from there to below 0.2, and so on.
    online
        whether the online store was written: not if it has newer scores.
    seconds
        by stage, how long it took.
    """

    users: int = 0
    left_out: int = 0
    total: float = 0.0
    parts: list[int] = field(default_factory=lambda: [0] * 10)
    online: bool = True
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        return self.total / self.users if self.users else 0.0

    def add(self, scores: Any, left_out: int) -> None:
        """Count some users."""
        self.users += len(scores)
        self.left_out += left_out
        self.total += float(scores.sum())
        counts = np.bincount(np.minimum((scores * 10).astype(np.int64), 9), minlength=10)
        self.parts = [old + int(new) for old, new in zip(self.parts, counts, strict=True)]


def attach(
    repo: FeastRepo,
    model: PropensityModel,
    population: Population,
    as_of: int,
    progress: Progress = lambda _text: None,
) -> Scored:
    """Score everyone of a population as of an instant.

    Raises
    ------
    DataError
        if nobody has a score, or the model learned from what came after the instant.
    ProjectError
        if the view cannot hold scores, or the offline store cannot be read or written.
    StoreError
        if the online store cannot be written.
    """
    name = model.definition.name
    SCORES.check(repo, name)
    if as_of < model.train.until:
        raise DataError(
            f"{model.version} learned from what users did until {format_instant(model.train.until)}, and scores as of "
            f"{format_instant(as_of)} would know it",
            hint="score as of that instant or later",
        )
    with project_lock(repo.project), tempfile.TemporaryDirectory(dir=repo.project.state_dir) as folder:
        instant, newest = _instant(repo, name, as_of)
        spool = Path(folder) / "scores.parquet"
        scored = _spooled(repo, model, population, (as_of, instant), spool, progress)
        began = time.perf_counter()
        progress("Writing the offline store")
        _write_offline(repo, name, spool, instant)
        scored.seconds["offline"] = time.perf_counter() - began
        scored.online = newest is None or newest <= instant
        if scored.online:
            began = time.perf_counter()
            _write_online(repo, name, spool, lambda done: progress(f"Wrote {done:,} of {scored.users:,} scores"))
            scored.seconds["online"] = time.perf_counter() - began
    if scored.online:
        look_again(repo.project, "model", [name])
    return scored


def _spooled(
    repo: FeastRepo,
    model: PropensityModel,
    population: Population,
    instants: tuple[int, int],
    path: Path,
    progress: Progress,
) -> Scored:
    """Write everyone's row into a file of its own: it is then in place at once, and whole."""
    as_of, instant = instants
    source = repo.registered_view(model.definition.name).batch_source
    key, scored, began = repo.entity().join_key, Scored(), time.perf_counter()
    schema = pa.schema(
        [(key, pa.string()), (source.timestamp_field, _TIME)]
        + [(name, pa.string() if kind == "String" else pa.float64()) for name, kind in SCORES.needed.items()]
    )
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in population.batches(as_of):
            values, percentiles, has_score = scores(model.scorer, batch.values)
            scored.add(values[has_score], int((~has_score).sum()))
            count = int(has_score.sum())
            columns = [
                pa.array(batch.users[has_score], pa.string()),
                pa.array(np.full(count, instant), pa.int64()).cast(_TIME),
                pa.array(values[has_score]),
                pa.array(percentiles[has_score]),
                pa.array([model.version] * count, pa.string()),
            ]
            if count:
                writer.write_batch(pa.record_batch(columns, schema=schema))
            progress(f"Scored {scored.users:,} users")
    if not scored.users:
        raise DataError(
            f"nobody has any of the features that the model needs: {', '.join(model.features)}",
            hint=f"is there data as of {format_instant(as_of)}? and someone in the population?",
        )
    scored.seconds["score"] = time.perf_counter() - began
    return scored


# --- the offline store ----------------------------------------------------------------------------------------------


def _instant(repo: FeastRepo, name: str, as_of: int) -> tuple[int, int | None]:
    """Return the instant from which the scores hold, and that of the newest stored ones.

    They hold from ``as_of``. Where a source can only be added to, scores that correct others of the same instant come a
    microsecond later, so that they are the newer ones.
    """
    view = repo.registered_view(name)
    path = local_file(repo, name)
    source = view.batch_source
    if path is not None:
        newest = pc.max(pq.read_table(path, columns=[source.timestamp_field])[source.timestamp_field]).as_py()
        return as_of, None if newest is None else _micros(newest)
    store = repo.store.provider.offline_store
    try:
        with quiet():
            table = store.pull_latest_from_table_or_query(
                config=repo.store.config,
                data_source=source,
                join_key_columns=[column.name for column in view.entity_columns],
                feature_name_columns=[],
                timestamp_field=source.timestamp_field,
                created_timestamp_column=source.created_timestamp_column,
                start_date=from_micros(_FIRST),
                end_date=from_micros(_LAST),
            ).to_arrow()
    except Exception as error:  # every engine raises its own
        pass_interrupt(error)
        raise ProjectError(f"the offline store cannot be read: {error}", hint="does its source exist?") from error
    newest = pc.max(table[source.timestamp_field]).as_py() if table.num_rows else None
    if newest is None:
        return as_of, None
    after = _micros(newest)
    return (after + 1 if as_of <= after < as_of + _CORRECTIONS else as_of), after


def _micros(instant: Any) -> int:
    instant = instant.to_pydatetime() if hasattr(instant, "to_pydatetime") else instant
    return to_micros(instant.replace(tzinfo=instant.tzinfo or from_micros(0).tzinfo))


def _write_offline(repo: FeastRepo, name: str, spool: Path, instant: int) -> None:
    """Add the rows to the view's source; a Parquet file loses those of an earlier run for the same instant.

    Such a file is replaced in one step: Feast would write into the file itself, and an interruption would leave none.
    """
    view = repo.registered_view(name)
    source, path = view.batch_source, local_file(repo, name)
    if path is None:
        for batch in pq.ParquetFile(spool).iter_batches(_BATCH):
            with quiet():
                repo.store.write_to_offline_store(name, batch.to_pandas())
        return
    partial = path.with_suffix(".partial")
    before = pq.ParquetFile(path)
    now = pa.scalar(instant, pa.int64()).cast(_TIME)
    with pq.ParquetWriter(partial, before.schema_arrow, compression="zstd") as writer:
        for batch in before.iter_batches(_BATCH):
            at = batch.column(source.timestamp_field).cast(_TIME, safe=False)
            writer.write_batch(batch.filter(pc.fill_null(pc.not_equal(at, now), True)))
        for batch in pq.ParquetFile(spool).iter_batches(_BATCH):
            writer.write_batch(_shaped(batch, before.schema_arrow, source.created_timestamp_column))
    partial.replace(path)


def _shaped(batch: pa.RecordBatch, schema: pa.Schema, created: str) -> pa.RecordBatch:
    """Return the rows as the file has them: of its types, in its order."""
    columns = []
    for column in schema:
        if column.name in batch.schema.names:
            columns.append(batch.column(column.name).cast(column.type))
        elif column.name == created:
            columns.append(pa.array([now_micros()] * batch.num_rows, pa.int64()).cast(_TIME).cast(column.type))
        else:
            columns.append(pa.nulls(batch.num_rows, column.type))
    return pa.record_batch(columns, schema=schema)


# --- the online store -----------------------------------------------------------------------------------------------


def _write_online(repo: FeastRepo, name: str, spool: Path, progress: Callable[[int], None]) -> None:
    """Write the rows in batches. The store leaves out a row older than the one it has."""
    done = 0

    def on_rows(count: int) -> None:
        nonlocal done
        done += count
        progress(done)

    def batches() -> Iterator[pa.RecordBatch]:
        yield from pq.ParquetFile(spool).iter_batches(_BATCH)

    direct = DirectWrites(repo) if is_direct(repo.connection()) else None
    errors = contextlib.nullcontext() if direct is None else redis_client.store_errors(direct.address)
    try:
        if repo.writes_in_bulk:
            view = repo.registered_view(name)
            with quiet(), errors:
                repo.store.provider.online_store.write_arrow(repo.store.config, view, batches(), on_rows)
            return
        with quiet(), errors, watched_writes(repo, direct, on_rows):
            for batch in batches():
                repo.store.write_to_online_store(name, batch.to_pandas())
    finally:
        if direct is not None:
            direct.close()
