"""Online reads through Feast, for stores that are not read directly.

The same values come out as from the direct reader, because Feast's messages are decoded by the same tables. What
differs: Feast is imported, which takes a second; a read is one call to the store for each feature view; and each costs
several times what a direct read does.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC
from pathlib import Path
from typing import Any

from rules_engine.clock import to_micros
from rules_engine.errors import ProjectError, StoreUnavailableError, pass_interrupt
from rules_engine.features.feast_import import import_feast, quiet
from rules_engine.features.online.decode import Decoder
from rules_engine.features.online.selection import EntityFeatures, Selection, checked
from rules_engine.folders import Project
from rules_engine.read_plan import PlanView, ReadPlan
from rules_engine.redis.server import keeps_no_events
from rules_engine.rules.types import Value


class FeastReader:
    """Reads an online store of any kind through Feast.

    Parameters
    ----------
    plan
        the project's read plan.
    root
        the project's folder.
    """

    def __init__(self, plan: ReadPlan, root: Path) -> None:
        self._plan = plan
        self._root = root
        self._decoders = {feature.type: Decoder(feature.type) for view in plan.views for feature in view.features}
        self._lock = threading.Lock()  # Feast's stores keep one connection and are not made for threads
        feast = import_feast()
        with quiet():
            self._store: Any = feast.FeatureStore(repo_path=str(Project(root).feature_repo))
            self._views = {view.name: self._registered(view) for view in plan.views}

    def _registered(self, view: PlanView) -> Any:
        from feast.errors import FeastError

        try:
            return self._store.registry.get_any_feature_view(view.name, self._plan.project)
        except (FeastError, FileNotFoundError) as error:
            raise ProjectError(
                f"Feast's registry has no feature view `{view.name}`, which the read plan names",
                hint="run `segments apply`",
            ) from error

    def read(
        self, entities: Sequence[str], features: Sequence[str] | None = None, state_name: bytes | None = None
    ) -> list[EntityFeatures]:
        """Read entities, in order. See :meth:`OnlineReader.read`."""
        if state_name is not None:
            raise keeps_no_events(self._plan.connection)
        selection = Selection.of(self._plan, features)
        rows = [EntityFeatures(checked(entity), {}, {}, {}) for entity in entities]
        if not rows:
            return rows
        keys = [self._key(entity) for entity in entities]
        for view in selection.views:
            for into, (at, row) in zip(rows, self._read_view(view, keys), strict=True):
                if _is_row(at, row):
                    self._fill(into, view, at, row)
        return rows

    def _key(self, entity: str) -> Any:
        from feast.protos.feast.types.EntityKey_pb2 import EntityKey
        from feast.protos.feast.types.Value_pb2 import Value as ValueMessage

        return EntityKey(join_keys=[self._plan.join_key], entity_values=[ValueMessage(string_val=entity)])

    def _read_view(self, view: PlanView, keys: list[Any]) -> list[tuple[Any, Any]]:
        names = [feature.name for feature in view.features]
        try:
            with self._lock, quiet():
                rows: list[tuple[Any, Any]] = self._store.provider.online_read(
                    self._store.config, self._views[view.name], keys, requested_features=names or None
                )
        except Exception as error:  # each store raises its own kinds
            pass_interrupt(error)
            raise StoreUnavailableError(
                f"the online store ({self._plan.connection.store}) cannot be read: {error}",
                hint="check `online_store` in feature_repo/feature_store.yaml; was the view materialized?",
            ) from error
        return rows

    def _fill(self, into: EntityFeatures, view: PlanView, at: Any, row: dict[str, Any]) -> None:
        micros = to_micros(at if at.tzinfo else at.replace(tzinfo=UTC))
        updated_at: Any = into.updated_at
        expires_at: Any = into.expires_at
        values: Any = into.values
        updated_at[view.name] = micros
        if view.ttl is not None:
            expires_at[view.name] = micros + view.ttl + 1
        for feature in view.features:
            name = f"{view.name}:{feature.name}"
            message = row.get(feature.name)
            value: Value = None if message is None else self._decoders[feature.type](message.SerializeToString(), name)
            if value is not None:
                values[name] = value

    @property
    def undecoded(self) -> None:
        """Return None: Feast decodes."""
        return None

    def for_plan(self, plan: ReadPlan) -> FeastReader | None:
        """Give a reader of a newer plan. See :meth:`OnlineReader.for_plan`."""
        return FeastReader(plan, self._root) if plan.connection == self._plan.connection else None

    def close(self) -> None:
        """Do nothing: Feast's stores have no common way to be closed."""


def _is_row(at: Any, row: Any) -> bool:
    """Tell whether a store found something. For an absent entity some give None, others a row of nulls from 1970."""
    if at is None or row is None:
        return False
    return at.timestamp() != 0 or any(message.WhichOneof("val") for message in row.values())
