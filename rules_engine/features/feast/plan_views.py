"""Describe how feature views lie in the online store, as the read plan carries it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

from rules_engine.errors import ProjectError
from rules_engine.read_plan import Connection, PlanFeature, PlanView
from rules_engine.redis.feast_layout import field_number

_REDIS_STORES = ("redis", "rules_engine.features.online_store.BulkRedisOnlineStore")
#: The type of the embedded store in ``feature_store.yaml``.
EMBEDDED_STORE = "rules_engine.features.online_store.EmbeddedOnlineStore"


def plan_view(view: Any, *, versioned: bool) -> PlanView:
    """Return how a feature view lies in the store; ``versioned`` if names in the store have the view's version."""
    from feast.infra.online_stores.helpers import compute_versioned_name

    stored_name = compute_versioned_name(view, versioned)
    features = tuple(
        PlanFeature(field.name, str(field.dtype), field_number(stored_name, field.name), field.description or "")
        for field in view.features
    )
    return PlanView(view.name, stored_name, features, ttl_micros(view.ttl))


def ttl_micros(ttl: timedelta | None) -> int | None:
    """Return a ttl in microseconds; Feast writes "none" as zero."""
    return ttl // timedelta(microseconds=1) if ttl else None


def check_fields(views: Iterable[PlanView]) -> None:
    """Refuse two features in one field: Feast's field is 32 bits of a hash of the name, and it checks nothing.

    Raises
    ------
    ProjectError
        if two features share a field.
    """
    taken: dict[int, str] = {}
    for view in views:
        for feature in view.features:
            name = f"{view.name}:{feature.name}"
            other = taken.setdefault(feature.field, name)
            if other != name:
                raise ProjectError(
                    f"the features {other} and {name} share one field of the online store, which keeps only one",
                    hint="rename one of them: their names have the same 32-bit hash",
                )


def connection_of(config: Any, feature_store_yaml: Path) -> Connection:
    """Return how the online store of Feast's configuration is reached.

    A connection string is taken from the file, so that its environment variables stay unexpanded.
    """
    name = "" if config is None else str(config.type)
    if name in _REDIS_STORES:
        spelt = _spelt_connection_string(feature_store_yaml)
        return Connection(
            "redis",
            connection_string=config.connection_string if spelt is None else spelt,
            redis_type=str(config.redis_type.value),
            sentinel_master=str(config.sentinel_master),
            store=name,
        )
    return Connection("embedded" if name == EMBEDDED_STORE else "feast", store=name)


def _spelt_connection_string(feature_store_yaml: Path) -> str | None:
    section = yaml.safe_load(feature_store_yaml.read_text(encoding="utf-8")).get("online_store")
    spelt = section.get("connection_string") if isinstance(section, dict) else None
    return None if spelt is None else str(spelt)
