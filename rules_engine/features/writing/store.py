"""Extend Feast's Redis store: guarded writes in bulk, and deletions that touch only keys of this project.

Everything else, such as reading, is Feast's. The stored data are the same, byte for byte.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

from feast.infra.key_encoding_utils import serialize_entity_key_prefix
from feast.infra.online_stores.helpers import _mmh3, compute_versioned_name
from feast.infra.online_stores.redis import RedisOnlineStore
from feast.repo_config import RepoConfig
from feast.utils import _convert_arrow_to_proto, _validate_vector_field_lengths

from rules_engine.events.looks import request_looks
from rules_engine.features.writing.rows import BulkRows, RowMaker
from rules_engine.features.writing.writer import BulkWriter

#: One row as Feast hands it to a store: key, values, event timestamp, creation timestamp.
Row = tuple[Any, dict[str, Any], datetime, datetime | None]

#: Rows that become one piece of work: two pieces are in memory at a time. Measured: with 2,500 the peak is six
#: megabytes higher, and a row costs us a microsecond and a half less; the server takes longer either way.
PIECE = 1000

_KEYS_AT_ONCE = 1_000
_SPECIAL = b"*?[]\\"


class BulkStore(RedisOnlineStore):  # type: ignore[misc]  # Feast's types are Any here
    """Replaces the writes and deletions of Feast's Redis store.

    A row older than the stored one is left out; one of the same instant is written. No writer comes between comparing
    and writing, whoever it is. ``skip_dedup`` has no effect: the check is always done.
    """

    def write_arrow(
        self,
        config: RepoConfig,
        table: Any,
        batches: Iterable[Any],
        progress: Callable[[int], Any] | None = None,
    ) -> int:
        """Write the rows of record batches: columns of the join key, the features and the timestamp.

        Parameters
        ----------
        config
            Feast's configuration.
        table
            the feature view.
        batches
            ``pyarrow.RecordBatch``es; each is read when the one before is on its way, and is let go of after.
        progress
            called with the number of rows of each piece that the server has.

        Returns
        -------
        int
            how many rows were written; older ones are not.
        """
        return self._writer(config).write(self._pieces(config, table, batches), progress)

    def online_write_batch(
        self, config: RepoConfig, table: Any, data: list[Row], progress: Callable[[int], Any] | None
    ) -> None:
        """Write rows as Feast gives them: those of a push, of ``write_to_online_store``, or of its own engine.

        The workers are asked to look at these entities, as a membership may begin or end with what was written.
        """
        maker = RowMaker(config, table)
        parts = (data[start : start + PIECE] for start in range(0, len(data), PIECE))
        self._writer(config).write((piece for part in parts for piece in maker.from_feast(part)), progress)
        if len(table.join_keys) == 1:
            entities = [entity for key, *_ in data if (entity := _entity(key))]
            request_looks(self._get_client(config.online_store), config.project, entities, "push", [table.name])

    async def online_write_batch_async(
        self, config: RepoConfig, table: Any, data: list[Row], progress: Callable[[int], Any] | None
    ) -> None:
        """Write rows as Feast gives them, in a thread."""
        await asyncio.to_thread(self.online_write_batch, config, table, data, progress)

    def delete_entity_values(self, config: RepoConfig, join_keys: list[str]) -> None:
        """Delete all users of this project; Feast's own goes by a pattern that fits other projects' keys too."""
        client = self._get_client(config.online_store)
        for keys in _batches(self._own_keys(config, client, join_keys)):
            with client.pipeline(transaction=False) as pipe:
                for key in keys:
                    pipe.unlink(key)
                pipe.execute()

    def delete_table(self, config: RepoConfig, table: Any) -> None:
        """Delete a view's fields of all users of this project, and the users of whom nothing is left."""
        client = self._get_client(config.online_store)
        name = compute_versioned_name(table, config.registry.enable_online_feature_view_versioning)
        stamp = f"_ts:{name}".encode()
        fields = [stamp, *(_mmh3(f"{name}:{feature.name}") for feature in table.features)]
        for keys in _batches(self._own_keys(config, client, table.join_keys)):
            with client.pipeline(transaction=False) as pipe:
                for key in keys:
                    pipe.hkeys(key)
                stamps = [{field for field in names if field.startswith(b"_ts:")} for names in pipe.execute()]
                for key, of_views in zip(keys, stamps, strict=True):
                    if of_views == {stamp}:
                        pipe.unlink(key)
                    elif stamp in of_views:
                        pipe.hdel(key, *fields)
                pipe.execute()

    def _writer(self, config: RepoConfig) -> BulkWriter:
        return BulkWriter(self._get_client(config.online_store), config.online_store.key_ttl_seconds)

    def _pieces(self, config: RepoConfig, table: Any, batches: Iterable[Any]) -> Iterator[BulkRows]:
        maker = RowMaker(config, table)
        key_types = {column.name: column.dtype.to_value_type() for column in table.entity_columns}
        for batch in batches:
            _validate_vector_field_lengths(batch, table)
            for start in range(0, batch.num_rows, PIECE):
                rows = batch.slice(start, PIECE)
                if maker.in_bulk:
                    yield maker.from_arrow(rows)
                else:
                    yield from maker.from_feast(_convert_arrow_to_proto(rows, table, key_types))

    @staticmethod
    def _own_keys(config: RepoConfig, client: Any, join_keys: Sequence[str]) -> Iterator[bytes]:
        prefix = serialize_entity_key_prefix(list(join_keys), config.entity_key_serialization_version)
        project = config.project.encode()
        pattern = b"".join(b"\\" + bytes([byte]) if byte in _SPECIAL else bytes([byte]) for byte in prefix)
        for key in client.scan_iter(pattern + b"*" + project, count=_KEYS_AT_ONCE):
            if _rest(key, len(prefix), len(join_keys)) == project:
                yield key


def _entity(key: Any) -> str:
    """Return the key of an entity as rules know it: a text, also of a whole number."""
    value = key.entity_values[0]
    return str(getattr(value, value.WhichOneof("val")))


def _rest(key: bytes, at: int, values: int) -> bytes | None:
    """Return what follows the values in a key: the project's name. None if the values do not fit in."""
    for _ in range(values):
        if len(key) < at + 8:
            return None
        at += 8 + int(struct.unpack_from("<I", key, at + 4)[0])
    return key[at:]


def _batches(keys: Iterator[bytes]) -> Iterator[list[bytes]]:
    while batch := list(islice(keys, _KEYS_AT_ONCE)):
        yield batch
