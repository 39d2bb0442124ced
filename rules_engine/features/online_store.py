"""The online stores for ``feature_store.yaml``: the embedded server, and a Redis or Valkey of your own.

::

    online_store:
      type: rules_engine.features.online_store.EmbeddedOnlineStore

A server of your own is a one-line change::

    online_store: {type: rules_engine.features.online_store.BulkRedisOnlineStore, connection_string: "HOST:6379"}

Options are those of Feast's own ``type: redis``, which works as well, but writes slower and with less care. What lies
in the store is the same, byte for byte. ``feast apply`` and ``feast materialize`` work by hand with all three.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Literal

from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from feast.repo_config import RepoConfig

from rules_engine.errors import ProjectError
from rules_engine.features.writing.store import BulkStore
from rules_engine.redis.embedded import EmbeddedStore


class BulkRedisOnlineStoreConfig(RedisOnlineStoreConfig):  # type: ignore[misc]  # Feast's types are Any here
    """Configuration of a server of your own: that of Feast's Redis store."""

    type: Literal["rules_engine.features.online_store.BulkRedisOnlineStore"] = (
        "rules_engine.features.online_store.BulkRedisOnlineStore"
    )


class BulkRedisOnlineStore(BulkStore):
    """A Redis or Valkey server, cluster, or master behind sentinels."""


class EmbeddedOnlineStoreConfig(RedisOnlineStoreConfig):  # type: ignore[misc]  # Feast's types are Any here
    """Configuration of the embedded store: there is nothing to configure. The address follows from the folder."""

    type: Literal["rules_engine.features.online_store.EmbeddedOnlineStore"] = (
        "rules_engine.features.online_store.EmbeddedOnlineStore"
    )
    connection_string: str = ""


def _on_running_server(method: Callable[..., Any]) -> Callable[..., Any]:
    """Make a method of the store, whose first argument is the configuration, start the server when it is down."""

    @wraps(method)
    def call(self: RedisOnlineStore, config: RepoConfig, *args: Any, **kwargs: Any) -> Any:
        store = embedded_store(config)
        store.ensure_running()
        config.online_store.connection_string = store.connection_string
        return method(self, config, *args, **kwargs)

    return call


class EmbeddedOnlineStore(BulkStore):
    """The embedded server, started on demand. Every method that opens a connection is listed."""

    _client_async: Any = None

    delete_entity_values = _on_running_server(BulkStore.delete_entity_values)
    delete_table = _on_running_server(BulkStore.delete_table)
    online_write_batch = _on_running_server(BulkStore.online_write_batch)
    online_write_batch_async = _on_running_server(BulkStore.online_write_batch_async)
    write_arrow = _on_running_server(BulkStore.write_arrow)
    online_read_async = _on_running_server(RedisOnlineStore.online_read_async)
    _read_features_per_fv_async = _on_running_server(RedisOnlineStore._read_features_per_fv_async)  # noqa: SLF001
    _read_hash_fields = _on_running_server(RedisOnlineStore._read_hash_fields)  # noqa: SLF001

    async def close(self) -> None:
        """Close the asynchronous connections, which Feast's own store leaves open."""
        if self._client_async is not None:
            await self._client_async.aclose()
            self._client_async = None


def embedded_store(config: RepoConfig) -> EmbeddedStore:
    """Return the embedded store of the project whose Feast repository this is: the folder above ``feature_repo/``."""
    if config.repo_path is None:
        raise ProjectError(
            "the embedded store needs to know the project's folder, and this Feast configuration was made without one",
            hint="use FeatureStore(repo_path=...), or set `repo_path` on the configuration",
        )
    return EmbeddedStore(Path(config.repo_path).resolve().parent)
