"""Turn rows of a feature view into commands of the server: each writes all fields of one entity at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from struct import pack
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feast.infra.key_encoding_utils import serialize_entity_key_prefix
from feast.infra.online_stores.helpers import _mmh3, _redis_key, compute_versioned_name
from feast.value_type import ValueType

from rules_engine.clock import to_micros
from rules_engine.features.column_values import entity_keys, event_instants
from rules_engine.features.writing.arrow_values import columns_for, strings, timestamp_parts, value_parts
from rules_engine.features.writing.ragged import Ints, Part, Ragged, bulk, bulk_string, constant, fixed, join

#: Key types whose keys are made in bulk, with their number in Feast's ``ValueType``.
_KEY_TYPES = {ValueType.STRING: 2, ValueType.INT32: 3, ValueType.INT64: 4}


@dataclass(frozen=True)
class BulkRows:
    """Holds rows that are ready to be sent.

    Attributes
    ----------
    fields
        the names of the hash fields of each row; the first is that of its timestamp.
    keys
        the key of each row, as a bulk string of the server's protocol.
    instants
        the timestamp of each row, in microseconds.
    values
        the parts of the stored value of each field.
    distinct
        whether no key comes twice.
    """

    fields: Sequence[bytes]
    keys: Ragged
    instants: Ints
    values: Sequence[Sequence[Part]]
    distinct: bool

    @classmethod
    def of(
        cls,
        fields: Sequence[bytes],
        keys: Sequence[Part],
        instants: Ints,
        values: Sequence[Sequence[Part]],
        *,
        distinct: bool,
    ) -> BulkRows:
        r"""Make rows of the parts of keys, and of the values of each field but the first, which is the timestamp's.

        >>> keys, values = [Ragged.of([b"k"])], [[Ragged.of([b"x"])]]
        >>> rows = BulkRows.of([b"_ts:v", b"f"], keys, np.array([1_000_000]), values, distinct=True)
        >>> rows.commands.row(0)[:21], rows.commands.row(0)[-14:]
        (b'*6\r\n$4\r\nHSET\r\n$1\r\nk\r\n', b'$1\r\nf\r\n$1\r\nx\r\n')
        """
        return cls(fields, join(bulk(keys)), instants, [timestamp_parts(instants), *values], distinct)

    def __len__(self) -> int:
        return len(self.instants)

    @cached_property
    def commands(self) -> Ragged:
        """Return the ``HSET`` command of each row."""
        rows = len(self)
        head = constant(b"*%d\r\n$4\r\nHSET\r\n" % (2 + 2 * len(self.fields)), rows)
        parts: list[Part] = [head, self.keys]
        for field, value in zip(self.fields, self.values, strict=True):
            parts += [constant(bulk_string(field), rows), *bulk(value)]
        return join(parts)

    def pairs(self, row: int) -> bytes:
        """Return the fields of a row with their values, each a bulk string."""
        command = self.commands.row(row)
        return command[command.index(b"\r\n$") + 12 + len(self.keys.row(row)) :]


class RowMaker:
    """Makes the rows of one feature view.

    Parameters
    ----------
    config
        Feast's ``RepoConfig``.
    table
        the feature view.
    """

    def __init__(self, config: Any, table: Any) -> None:
        self._project: str = config.project
        self._version: int = config.entity_key_serialization_version
        self._view = compute_versioned_name(table, config.registry.enable_online_feature_view_versioning)
        self._table = table
        self._keys = [(column.name, column.dtype.to_value_type()) for column in getattr(table, "entity_columns", ())]

    @property
    def in_bulk(self) -> bool:
        """Tell whether rows can be made of Arrow columns: the view has one join key, a string or a whole number."""
        return len(self._keys) == 1 and self._keys[0][1] in _KEY_TYPES and hasattr(self._table, "batch_source")

    def from_arrow(self, batch: Any) -> BulkRows:
        """Make the rows of a record batch, which has the columns of the join key, the features and the timestamp.

        Rows without a key or without a timestamp are left out.

        Raises
        ------
        ValueError
            if a column is missing.
        DataError
            if a column cannot be keys or timestamps, or a value cannot be of its feature's type.
        """
        name, _ = self._keys[0]
        features, timestamp = self._table.features, self._table.batch_source.timestamp_field
        key, at = columns_for([name, timestamp], batch)
        keys, instants = entity_keys(key, name), event_instants(at, timestamp)
        if keys.null_count or instants.null_count:
            whole = pc.and_(keys.is_valid(), instants.is_valid())
            batch, keys, instants = (each.filter(whole) for each in (batch, keys, instants))
        columns = columns_for([feature.name for feature in features], batch)
        values = [
            value_parts(column, feature.dtype, f"{self._table.name}:{feature.name}")
            for feature, column in zip(features, columns, strict=True)
        ]
        fields = self._fields(feature.name for feature in features)
        distinct = bool(pc.count_distinct(keys).as_py() == len(keys))
        return BulkRows.of(fields, self._key_parts(keys), instants.to_numpy(), values, distinct=distinct)

    def from_feast(self, rows: Sequence[tuple[Any, dict[str, Any], datetime, datetime | None]]) -> list[BulkRows]:
        """Return rows as Feast hands them to an online store. Neighbours with the same features come together."""
        pieces: list[BulkRows] = []
        start = 0
        for stop in range(1, len(rows) + 1):
            if stop == len(rows) or rows[stop][1].keys() != rows[start][1].keys():
                pieces.append(self._uniform(rows[start:stop]))
                start = stop
        return pieces

    def _uniform(self, rows: Sequence[tuple[Any, dict[str, Any], datetime, datetime | None]]) -> BulkRows:
        names = list(rows[0][1])
        keys = [_redis_key(self._project, row[0], entity_key_serialization_version=self._version) for row in rows]
        instants = np.array([to_micros(at if at.tzinfo else at.replace(tzinfo=UTC)) for _, _, at, _ in rows], np.int64)
        values = [[Ragged.of([row[1][name].SerializeToString() for row in rows])] for name in names]
        return BulkRows.of(
            self._fields(names), [Ragged.of(keys)], instants, values, distinct=len(set(keys)) == len(keys)
        )

    def _fields(self, names: Any) -> tuple[bytes, ...]:
        return (f"_ts:{self._view}".encode(), *(_mmh3(f"{self._view}:{name}") for name in names))

    def _key_parts(self, keys: Any) -> list[Part]:
        """Make the keys as Feast lays them out; ``keys`` are texts, none of them missing."""
        name, kind = self._keys[0]
        number = pack("<I", _KEY_TYPES[kind])
        prefix = constant(serialize_entity_key_prefix([name], self._version) + number, len(keys))
        project = constant(self._project.encode(), len(keys))
        if kind is ValueType.STRING:
            values = strings(keys)
            return [prefix, fixed(values.sizes.astype("<u4")), values, project]
        width = "<i4" if kind is ValueType.INT32 else "<i8"
        numbers = keys.cast(pa.int32() if width == "<i4" else pa.int64()).to_numpy(zero_copy_only=False)
        size = constant(pack("<I", int(width[2])), len(keys))
        return [prefix, size, fixed(numbers.astype(width)), project]
