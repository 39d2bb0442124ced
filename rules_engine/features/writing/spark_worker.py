"""Write a partition in a worker of Spark. The worker imports this module first, so it imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any


def write_partition(view: bytes, config: bytes, batches: Iterable[Any]) -> Iterator[Any]:
    """Write the record batches of a partition to the online store; yield one batch with the number of rows.

    Spark may run it again for the same rows, which changes nothing.

    Parameters
    ----------
    view
        the feature view, as Feast's protobuf message.
    config
        Feast's ``RepoConfig``, pickled by dill.
    batches
        what Spark hands over.
    """
    from rules_engine.features.feast_import import import_feast, quiet

    with quiet():
        import_feast()
        from feast.infra.common.serde import SerializedArtifacts

        table, store, _, settings = SerializedArtifacts(view, config).unserialize()
    rows = 0

    def counted() -> Iterator[Any]:
        nonlocal rows
        for batch in batches:
            rows += batch.num_rows
            yield batch

    store.write_arrow(settings, table, counted())
    import pyarrow as pa

    yield pa.RecordBatch.from_pydict({"rows": pa.array([rows], pa.int64())})
