"""Online reads: the values of one user or of many, in one round trip to the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rules_engine.diagnostics import nearest
from rules_engine.errors import StoreUnavailableError, UnknownNameError
from rules_engine.features import redis_client
from rules_engine.features.embedded import EmbeddedStore
from rules_engine.features.read_plan import PlanView, ReadPlan
from rules_engine.features.redis_decode import Decoder, decode_timestamp
from rules_engine.features.redis_layout import KeyMaker, field_bytes
from rules_engine.rules.types import Value

if TYPE_CHECKING:
    import redis

#: Prepared selections of features. An application asks for the same few again and again.
_LAYOUTS_KEPT = 256


@dataclass(frozen=True, slots=True)
class EntityFeatures:
    """What the online store holds about one entity.

    Attributes
    ----------
    entity
        the entity's key.
    values
        by ``"view:name"``; missing values are absent. Values past their view's ttl are still among them: whether one
        is past it depends on the time of evaluation, and ``expires_at`` tells.
    updated_at
        by view: the event timestamp of its row, in microseconds. A view without a row is absent.
    expires_at
        by view with a ttl: the first instant at which its values count as missing.

    Examples
    --------
    >>> EntityFeatures("42").known
    False
    """

    entity: str
    values: Mapping[str, Value] = field(default_factory=dict)
    updated_at: Mapping[str, int] = field(default_factory=dict)
    expires_at: Mapping[str, int] = field(default_factory=dict)

    @property
    def known(self) -> bool:
        """Whether any of the views that were read has a row for the entity."""
        return bool(self.updated_at)


class OnlineReader(Protocol):
    """Reads features from an online store. Safe to share between threads."""

    def read(self, entities: Sequence[str], features: Sequence[str] | None = None) -> list[EntityFeatures]:
        """Read entities, in order.

        Parameters
        ----------
        entities
            their keys. An entity that the store does not know gives an ``EntityFeatures`` without values.
        features
            ``"view:name"`` each; by default all of the read plan.

        Raises
        ------
        UnknownNameError
            if the read plan has no such feature.
        StoreError
            if the store cannot be read.
        """
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


@dataclass(frozen=True, slots=True)
class Selection:
    """Features of the read plan, by view; what is to be read is looked up once and not at every request."""

    views: tuple[PlanView, ...]

    @classmethod
    def of(cls, plan: ReadPlan, features: Sequence[str] | None) -> Selection:
        """The named features, or all. Without any, the views' timestamps are still read.

        Raises
        ------
        UnknownNameError
            if the plan has no such feature.
        """
        if not features:
            names: set[str] = {f"{view.name}:{feature.name}" for view in plan.views for feature in view.features}
            wanted = names if features is None else set()
            return cls(tuple(_only(view, wanted) for view in plan.views))
        wanted = set(features)
        views = tuple(view for view in (_only(view, wanted) for view in plan.views) if view.features)
        found = {f"{view.name}:{feature.name}" for view in views for feature in view.features}
        for name in sorted(wanted - found):
            known = [f"{view.name}:{feature.name}" for view in plan.views for feature in view.features]
            raise UnknownNameError(f"there is no feature `{name}` in the read plan", hint=nearest(name, known))
        return cls(views)


def _only(view: PlanView, wanted: set[str]) -> PlanView:
    features = tuple(feature for feature in view.features if f"{view.name}:{feature.name}" in wanted)
    return PlanView(view.name, view.stored_name, features, view.ttl)


class _Layout:
    """A selection as hash fields, with what makes values of their contents."""

    __slots__ = ("fields", "views")

    def __init__(self, selection: Selection) -> None:
        decoders = {feature.type: Decoder(feature.type) for view in selection.views for feature in view.features}
        self.fields: list[bytes] = []
        #: For each view: its name, ttl, the position of its timestamp, and its features' positions, names and decoders.
        self.views: list[tuple[str, int | None, int, list[tuple[int, str, Decoder]]]] = []
        for view in selection.views:
            position = len(self.fields)
            self.fields.append(view.timestamp_field)
            self.fields += [field_bytes(feature.field) for feature in view.features]
            features = [
                (position + offset, f"{view.name}:{feature.name}", decoders[feature.type])
                for offset, feature in enumerate(view.features, 1)
            ]
            self.views.append((view.name, view.ttl, position, features))

    def decode(self, entity: str, contents: Sequence[bytes | None]) -> EntityFeatures:
        """A view without a timestamp has no row; whatever lies in its fields is not Feast's."""
        values: dict[str, Value] = {}
        updated_at: dict[str, int] = {}
        expires_at: dict[str, int] = {}
        for view, ttl, position, features in self.views:
            timestamp = contents[position]
            if timestamp is None:
                continue
            at = updated_at[view] = decode_timestamp(timestamp)
            if ttl is not None:
                expires_at[view] = at + ttl + 1
            for index, name, decoder in features:
                raw = contents[index]
                if raw:
                    value = decoder(raw, name)
                    if value is not None:
                        values[name] = value
        return EntityFeatures(entity, values, updated_at, expires_at)


class RedisReader:
    """Reads what Feast's Redis store wrote, directly.

    Parameters
    ----------
    plan
        the project's read plan.
    root
        the project's folder; it says where the embedded server is.
    timeout
        seconds to wait for a connection and for an answer.
    """

    def __init__(self, plan: ReadPlan, root: Path, *, timeout: float | None = None) -> None:
        self._plan = plan
        self._root = root
        self._key = KeyMaker(plan.project, plan.join_key, plan.key_version)
        self._layouts: dict[tuple[str, ...] | None, _Layout] = {}
        self.address = redis_client.resolve(plan.connection, root)
        self.client: redis.Redis | redis.RedisCluster = redis_client.connect(plan.connection, self.address, timeout)

    def read(self, entities: Sequence[str], features: Sequence[str] | None = None) -> list[EntityFeatures]:
        """Read entities, in order. See :meth:`OnlineReader.read`."""
        layout = self._layout(features)
        keys = [self._key(checked(entity)) for entity in entities]
        if not keys:
            return []
        try:
            rows = self._fetch(keys, layout.fields)
        except StoreUnavailableError:
            if self._plan.connection.kind != "embedded":
                raise
            EmbeddedStore(self._root).ensure_running()  # it was stopped: whoever needs it starts it
            rows = self._fetch(keys, layout.fields)
        return [layout.decode(entity, row) for entity, row in zip(entities, rows, strict=True)]

    def _fetch(self, keys: list[bytes], fields: list[bytes]) -> list[list[bytes | None]]:
        if not fields:
            return [[] for _ in keys]
        client: Any = self.client  # the client's types cover single servers only
        with redis_client.store_errors(self.address):
            if len(keys) == 1:
                return [client.hmget(keys[0], fields)]
            with client.pipeline(transaction=False) as pipeline:
                for key in keys:
                    pipeline.hmget(key, fields)
                rows: list[list[bytes | None]] = pipeline.execute()
            return rows

    def _layout(self, features: Sequence[str] | None) -> _Layout:
        name = None if features is None else tuple(features)
        layout = self._layouts.get(name)
        if layout is None:
            if len(self._layouts) >= _LAYOUTS_KEPT:
                self._layouts.clear()
            # Two threads may both make it; they make the same.
            layout = self._layouts[name] = _Layout(Selection.of(self._plan, features))
        return layout

    def close(self) -> None:
        """Close the connections."""
        self.client.close()


def checked(entity: str) -> str:
    """The key itself, if it is a string."""
    if not isinstance(entity, str):
        raise TypeError(f"an entity key is a string, and {entity!r} is none: write {str(entity)!r}")
    return entity


def open_reader(plan: ReadPlan, root: Path, *, timeout: float | None = None) -> OnlineReader:
    """The reader that fits the project's online store.

    Redis, Valkey and the embedded server are read directly. Any other store is read through Feast, which takes seconds
    to import.
    """
    if plan.connection.kind in ("embedded", "redis"):
        return RedisReader(plan, root, timeout=timeout)
    from rules_engine.features.feast_reader import FeastReader

    return FeastReader(plan, root)
