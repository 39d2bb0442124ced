"""Feast's Spark engine, whose workers write Arrow batches to our online stores.

::

    batch_engine:
      type: rules_engine.features.spark_engine.SparkArrowEngine
    offline_store:
      type: spark
      spark_conf: {...}

In Feast's own Spark engine every worker turns every value into a Python object and then into a message. Here each
partition is written as ``ArrowEngine`` writes, by the worker that has it, and with the same guarantees. Everything
before the writing is Feast's: reading, transformations, aggregations, the newest row of each entity. Options are those
of ``spark.engine``; with an online store of another kind this is ``spark.engine``.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from feast.infra.common.materialization_job import MaterializationJobStatus
from feast.infra.common.serde import SerializedArtifacts
from feast.infra.compute_engines.spark.compute import SparkComputeEngine, SparkComputeEngineConfig
from feast.infra.compute_engines.spark.feature_builder import SparkFeatureBuilder
from feast.infra.compute_engines.spark.job import SparkMaterializationJob
from feast.infra.compute_engines.spark.nodes import SparkWriteNode

from rules_engine.errors import pass_interrupt
from rules_engine.features.writing.spark_worker import write_partition
from rules_engine.features.writing.store import BulkStore


class SparkArrowEngineConfig(SparkComputeEngineConfig):  # type: ignore[misc]  # Feast's types are Any here
    """Configuration of the engine: that of Feast's."""

    type: Literal["rules_engine.features.spark_engine.SparkArrowEngine"] = (
        "rules_engine.features.spark_engine.SparkArrowEngine"
    )


class SparkArrowEngine(SparkComputeEngine):  # type: ignore[misc]  # Feast's types are Any here
    """See the module."""

    def _materialize_one(self, registry: Any, task: Any, *arguments: Any, **options: Any) -> Any:
        if any(arguments) or any(options.values()) or not isinstance(self.online_store, BulkStore):
            return super()._materialize_one(registry, task, *arguments, **options)
        name = f"{task.feature_view.name}-{task.start_time}-{task.end_time}"
        bar = task.tqdm_builder(None) if task.tqdm_builder else None
        try:
            context = self.get_execution_context(registry, task)
            session = self._get_feature_view_spark_session(task.feature_view)
            partitions = int(self.repo_config.batch_engine.partitions)
            _Builder(registry, session, task, partitions, bar).build().execute(context)
        except Exception as error:  # noqa: BLE001  # Feast raises it where it asked for the job
            pass_interrupt(error)
            return SparkMaterializationJob(job_id=name, status=MaterializationJobStatus.ERROR, error=error)
        finally:
            if bar is not None:
                bar.close()
        return SparkMaterializationJob(job_id=name, status=MaterializationJobStatus.SUCCEEDED)


class _Builder(SparkFeatureBuilder):  # type: ignore[misc]  # Feast's types are Any here
    """Feast's plan, whose last step writes in bulk."""

    def __init__(self, registry: Any, session: Any, task: Any, partitions: int, bar: Any) -> None:
        super().__init__(registry, session, task)
        self._partitions = partitions
        self._bar = bar

    def build_output_nodes(self, view: Any, input_node: Any) -> Any:
        node = _BulkWrite(f"{view.name}:output", self.dag_root.view, inputs=[input_node])
        node.partitions, node.bar = self._partitions, self._bar
        self.nodes.append(node)
        return node


class _BulkWrite(SparkWriteNode):  # type: ignore[misc]  # Feast's types are Any here
    """Writes to the online store in bulk; to the offline store as Feast does."""

    partitions = 0
    bar: Any = None

    def execute(self, context: Any) -> Any:
        view = self.feature_view
        if view.online:
            rows = self.get_single_input_value(context).data
            if self.partitions:
                rows = rows.repartition(self.partitions)
            packed = SerializedArtifacts.serialize(feature_view=view, repo_config=context.repo_config)
            write = partial(write_partition, packed.feature_view_proto, packed.repo_config_byte)
            sent = sum(counted for (counted,) in rows.mapInArrow(write, "rows long").collect())
            if self.bar is not None:
                self.bar.update(sent)
        online = view.online
        view.online = False  # what is left to do is Feast's: writing to the offline store
        try:
            return super().execute(context)
        finally:
            view.online = online
