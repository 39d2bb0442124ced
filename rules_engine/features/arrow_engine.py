"""Hand Arrow columns from the offline to the online store, a batch at a time: a compute engine for Feast.

::

    batch_engine:
      type: rules_engine.features.arrow_engine.ArrowEngine

Feast's local engine turns the whole view into a pandas table, and every value into an object. This one reads the newest
row of each entity out of a local Parquet file by itself, whichever offline store the project has, and else asks the
offline store for them, as a stream of record batches where the store can do that (DuckDB). It gives them to an online
store that takes them (those in ``online_store``). For all else it is Feast's local engine: views with transformations,
aggregations or filters, views that are written to an offline store too, and other online stores.
"""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

from feast.infra.common.materialization_job import MaterializationJobStatus
from feast.infra.compute_engines.local.arrow_table_value import ArrowTableValue
from feast.infra.compute_engines.local.compute import LocalComputeEngine
from feast.infra.compute_engines.local.feature_builder import LocalFeatureBuilder
from feast.infra.compute_engines.local.job import LocalMaterializationJob
from feast.infra.compute_engines.local.nodes import LocalOutputNode
from feast.repo_config import FeastConfigBaseModel

from rules_engine.clock import to_micros
from rules_engine.errors import ProjectError, pass_interrupt
from rules_engine.features.offline.newest import Reach, newest_rows, read_errors
from rules_engine.features.offline.parquet import local_path
from rules_engine.features.offline.parquet_rows import NewestRows
from rules_engine.features.offline.parquet_stream import raw_rows
from rules_engine.features.offline.source_file import SourceFile, unreadable
from rules_engine.features.offline.view_columns import ViewColumns
from rules_engine.features.writing.store import BulkStore

#: Rows of a record batch that is asked of an offline store.
BATCH = 20_000

#: Rows of a record batch that is read from a file.
BATCH_ROWS = 1_000


class ArrowEngineConfig(FeastConfigBaseModel):  # type: ignore[misc]  # Feast's types are Any here
    """Configuration of the engine.

    Attributes
    ----------
    memory_limit
        what DuckDB may use while it looks for the newest rows; what does not fit goes to a temporary folder.
    """

    type: Literal["rules_engine.features.arrow_engine.ArrowEngine"] = "rules_engine.features.arrow_engine.ArrowEngine"
    memory_limit: str = "48MB"


class ArrowEngine(LocalComputeEngine):  # type: ignore[misc]  # Feast's types are Any here
    """See the module."""

    def __init__(self, *, memory_limit: str = "48MB", **options: Any) -> None:
        super().__init__(**{**options, "backend": "pandas"})
        self._memory_limit = memory_limit

    def _materialize_one(self, registry: Any, task: Any, **options: Any) -> Any:
        if not isinstance(self.online_store, BulkStore):
            return super()._materialize_one(registry, task, **options)
        view = task.feature_view
        name = f"{view.name}-{task.start_time}-{task.end_time}"
        bar = task.tqdm_builder(None) if task.tqdm_builder else None
        progress = None if bar is None else bar.update
        try:
            if _is_plain(view, task):
                renames = view.batch_source.field_mapping or {}
                with self._newest_rows(registry, task) as batches:
                    renamed = (_renamed(batch, renames) for batch in batches)
                    self.online_store.write_arrow(self.repo_config, view, renamed, progress)
            else:
                context = self.get_execution_context(registry, task)
                _Builder(registry, task, self._get_backend(context), progress).build().execute(context)
        except Exception as error:  # noqa: BLE001  # Feast raises it where it asked for the job
            pass_interrupt(error)
            return LocalMaterializationJob(job_id=name, status=MaterializationJobStatus.ERROR, error=error)
        finally:
            if bar is not None:
                bar.close()
        return LocalMaterializationJob(job_id=name, status=MaterializationJobStatus.SUCCEEDED)

    @contextmanager
    def _newest_rows(self, registry: Any, task: Any) -> Iterator[Iterator[Any]]:
        """Read the newest row of each entity: out of a Parquet file directly, else from the offline store."""
        view = task.feature_view
        info = LocalFeatureBuilder(registry, task, backend=None).get_column_info(view)
        path = local_path(Path(self.repo_config.repo_path or "."), view.batch_source)
        if path is not None and len(info.join_keys) == 1:
            yield self._rows_of(
                path, view, info, Reach(to_micros(_utc(task.end_time)), to_micros(_utc(task.start_time)))
            )
            return
        job = self.offline_store.pull_latest_from_table_or_query(
            config=self.repo_config,
            data_source=view.batch_source,
            join_key_columns=info.join_keys,
            feature_name_columns=info.feature_cols,
            timestamp_field=info.ts_col,
            created_timestamp_column=info.created_ts_col,
            start_date=task.start_time,
            end_date=task.end_time,
        )
        with self._batches(job) as batches:
            yield batches

    def _rows_of(self, path: Path, view: Any, info: Any, reach: Reach) -> Iterator[Any]:
        """Read the newest row of each entity out of a file, by the names that the file has."""
        renames = view.batch_source.field_mapping or {}
        features = {f"{view.name}:{renames.get(name, name)}": name for name in info.feature_cols}
        columns = ViewColumns(str(view.name), info.join_keys[0], info.ts_col, info.created_ts_col or None, features)
        source = SourceFile.open(path, columns)
        source.require(features)
        try:
            chosen = NewestRows(newest_rows(source, reach, Path(_folder()), self._memory_limit))
            read_columns = list(dict.fromkeys([columns.key, columns.timestamp, *features.values()]))
            yield from raw_rows(source, chosen, read_columns, BATCH_ROWS)
        except read_errors() as error:
            raise unreadable(columns.view, path, str(error)) from error

    @contextmanager
    def _batches(self, job: Any) -> Iterator[Iterator[Any]]:
        """Return a job's rows as record batches: streamed by DuckDB within a limit of memory, else cut from a table."""
        table: Any = getattr(job, "table", None)
        if not hasattr(table, "to_pyarrow_batches"):
            yield iter(job.to_arrow().to_batches(max_chunksize=BATCH))
            return
        with self._limited(table):
            yield iter(table.to_pyarrow_batches(chunk_size=BATCH))

    @contextmanager
    def _limited(self, table: Any) -> Iterator[None]:
        """Let DuckDB find the newest rows in little memory, as long as the block lasts."""
        connection = getattr(table.get_backend(), "con", None)
        if connection is None or not type(connection).__module__.lstrip("_").startswith("duckdb"):
            yield
            return
        settings = {
            "memory_limit": self._memory_limit,
            "preserve_insertion_order": "false",
            "enable_progress_bar": "false",
            # It makes one large aggregate of "the newest row", which cannot move to disk, and fails beyond the limit.
            "disabled_optimizers": "top_n_window_elimination",
        }
        before = {name: connection.execute(f"SELECT current_setting('{name}')").fetchone()[0] for name in settings}
        _set(connection, {**settings, "temp_directory": _folder()})
        try:
            yield
        finally:
            _set(connection, before)


@cache
def _folder() -> str:
    """Return the folder for what does not fit into memory: DuckDB cannot change to another once it used this."""
    folder = tempfile.TemporaryDirectory(prefix="feast-segments-")
    atexit.register(folder.cleanup)
    return folder.name


class _Builder(LocalFeatureBuilder):  # type: ignore[misc]  # Feast's types are Any here
    """Feast's plan, whose last step writes in bulk."""

    def __init__(self, registry: Any, task: Any, backend: Any, progress: Any) -> None:
        super().__init__(registry, task, backend=backend)
        self._progress = progress

    def build_output_nodes(self, view: Any, input_node: Any) -> Any:  # noqa: ARG002  # Feast passes it
        node = _BulkOutput("output", self.dag_root.view, inputs=[input_node])
        node.progress = self._progress
        self.nodes.append(node)
        return node


class _BulkOutput(LocalOutputNode):  # type: ignore[misc]  # Feast's types are Any here
    """Writes to the online store in bulk; to the offline store as Feast does."""

    progress: Any = None

    def execute(self, context: Any) -> Any:
        table = self.get_single_table(context).data
        output = ArrowTableValue(data=table)
        context.node_outputs[self.name] = output
        view = self.feature_view
        if view.online and table.num_rows:
            context.online_store.write_arrow(context.repo_config, view, table.to_batches(BATCH), self.progress)
        if view.offline and table.num_rows:
            context.offline_store.offline_write_batch(
                config=context.repo_config, feature_view=view, table=table, progress=lambda _: None
            )
        return output


def _is_plain(view: Any, task: Any) -> bool:
    """Tell whether a view's rows are those of its source, as they are."""
    special = ("aggregations", "feature_transformation", "enable_validation", "filter", "source_views", "offline")
    return (
        task.only_latest
        and bool(view.online)
        and view.batch_source is not None
        and not any(getattr(view, name, None) for name in special)
    )


def _utc(instant: datetime) -> datetime:
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def _renamed(batch: Any, renames: dict[str, str]) -> Any:
    return batch.rename_columns([renames.get(name, name) for name in batch.schema.names]) if renames else batch


def _set(connection: Any, values: dict[str, Any]) -> None:
    """Set what DuckDB is to do; a connection that has used its folder already keeps it.

    Raises
    ------
    ProjectError
        if DuckDB refuses a value, such as a `memory_limit` that is no size.
    """
    import duckdb

    for name, value in values.items():
        text = str(value).replace("'", "''")
        try:
            connection.execute(f"SET {name} = '{text}'")
        except duckdb.Error as error:
            if name != "temp_directory":
                raise ProjectError(f"DuckDB refuses {name}: {value!r}: {error}", hint="e.g. `48MB`") from error
