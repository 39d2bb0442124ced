"""A source that can only be added to, as a table in a warehouse: a Parquet file that Feast alone reads and writes."""

from __future__ import annotations

from typing import Any

from feast import FileSource
from feast.data_format import ParquetFormat
from feast.protos.feast.core.DataSource_pb2 import DataSource


class Warehouse(FileSource):  # type: ignore[misc]  # Feast ships no types
    """A file that this package does not know, as it is no plain ``FileSource``."""

    def _to_proto_impl(self) -> Any:
        proto = super()._to_proto_impl()
        proto.type = DataSource.CUSTOM_SOURCE
        proto.data_source_class_type = "tests.warehouse.Warehouse"
        return proto

    @staticmethod
    def from_proto(proto: Any) -> Warehouse:
        """Read what the registry has."""
        path, stamp = proto.file_options.uri, proto.timestamp_field
        return Warehouse(name=proto.name, path=path, timestamp_field=stamp, file_format=ParquetFormat())
