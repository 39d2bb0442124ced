"""The Feast repository of tests that write columns of every type: its configuration, and a short way to a view."""

from __future__ import annotations

STORE = """\
project: shop
provider: local
registry: ../.segments/registry.db
offline_store: {{type: {offline}}}
online_store: {{type: rules_engine.features.online_store.EmbeddedOnlineStore}}
batch_engine: {{type: rules_engine.features.arrow_engine.ArrowEngine}}
entity_key_serialization_version: 3
"""

HEAD = """\
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Bool, Bytes, Float32, Float64, Int32, Int64, String, UnixTimestamp

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)


def view(name, created=None, **fields):
    path = str(Path(__file__).parent / f"{name}.parquet")
    source = FileSource(name=name, path=path, timestamp_field="at", created_timestamp_column=created or "")
    schema = [Field(name=field, dtype=dtype) for field, dtype in fields.items()]
    return FeatureView(name=name, entities=[user], ttl=timedelta(0), source=source, schema=schema)


"""
