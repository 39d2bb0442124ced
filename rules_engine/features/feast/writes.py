"""Feast's writes to a Redis store, counted, and with two of Feast's rules put right.

Feast drops a row whose event timestamp equals the stored one, so that a corrected value, or a feature that was
added to a view, never arrives. Here an equal timestamp is written again; only a row older than the stored one is
left out.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from rules_engine.clock import to_micros
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.features.feast_import import setting
from rules_engine.features.online.decode import decode_timestamp
from rules_engine.redis import client as redis_client
from rules_engine.redis.feast_layout import KeyMaker
from rules_engine.redis.server import event_server
from rules_engine.redis.store_mark import StoreMark, ViewMark

#: One row as Feast hands it to a store: key, values, event timestamp, creation timestamp.
Row = tuple[Any, dict[str, Any], datetime, datetime | None]


class DirectWrites:
    """A connection to the online store of a repository, for what Feast has no call for.

    Parameters
    ----------
    repo
        a repository on the embedded store or on Redis.
    """

    def __init__(self, repo: FeastRepo) -> None:
        self._repo = repo
        server = event_server(repo.connection(), repo.project.root)
        self.address = server.address
        self._client: Any = server.client()
        self._mark = StoreMark(self._client, repo.name)
        version = repo.store.config.entity_key_serialization_version
        self._key = KeyMaker(repo.name, repo.entity().join_key, version)

    def materialized(self, view: Any) -> ViewMark | None:
        """Tell what the store holds of a view; None if it does not say that it holds something."""
        with redis_client.store_errors(self.address):
            return self._mark.view(str(view.name))

    def note(self, view: Any, end: int) -> None:
        """Write into the store that it holds a view up to an instant. Call it when all rows are written."""
        with redis_client.store_errors(self.address):
            self._mark.note_view(str(view.name), ViewMark(end, features_digest(self._repo, view)))

    def not_older(self, table: Any, rows: list[Row]) -> list[Row]:
        """Return the rows that are at least as new as what the store holds for their entity and view."""
        field = self._repo.plan_view(table).timestamp_field
        with redis_client.store_errors(self.address), self._client.pipeline(transaction=False) as pipeline:
            for key, *_ in rows:
                pipeline.hget(self._key(key.entity_values[0].string_val), field)
            stored = pipeline.execute()
        return [row for row, at in zip(rows, stored, strict=True) if at is None or _micros(row) >= decode_timestamp(at)]

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def features_digest(repo: FeastRepo, view: Any) -> str:
    """Hash the names and types of a view's features: what was written with others is not all there."""
    planned = repo.plan_view(view)
    features = sorted((feature.name, feature.type) for feature in planned.features)
    return hashlib.sha256(repr((planned.stored_name, features)).encode()).hexdigest()[:16]


def _micros(row: Row) -> int:
    at = row[2]
    return to_micros(at if at.tzinfo else at.replace(tzinfo=UTC))


@contextlib.contextmanager
def watched_writes(repo: FeastRepo, direct: DirectWrites | None, on_rows: Callable[[int], None]) -> Iterator[None]:
    """Report every batch of rows that Feast materializes, and decide which rows are written.

    Parameters
    ----------
    repo
        the repository that is materialized.
    direct
        None for a store that is no Redis: Feast's own rules then stay.
    on_rows
        called with the number of rows of each batch, once it is written.
    """
    online_store = repo.store.provider.online_store
    write_batch = online_store.online_write_batch

    def write(config: Any, table: Any, data: list[Row], progress: Callable[[int], Any] | None) -> None:
        rows = data if direct is None else direct.not_older(table, data)
        if rows:
            write_batch(config, table, rows, progress)
        on_rows(len(data))

    online_store.online_write_batch = write  # on this object only; the class stays as it is
    try:
        with setting(repo.store.config.online_store, "skip_dedup", value=direct is not None):
            yield
    finally:
        del online_store.online_write_batch
