"""Select the features to read, and hold what was read of an entity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rules_engine.diagnostics import nearest
from rules_engine.errors import UnknownNameError
from rules_engine.read_plan import PlanView, ReadPlan
from rules_engine.rules.types import Value


@dataclass(slots=True)
class EntityFeatures:
    """Holds what the online store has of one entity. Treat it as immutable: frozen, it would take a microsecond more.

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
    event_state
        the encoded state of the entity's events, if it was asked for and there is one.

    Examples
    --------
    >>> EntityFeatures("42").is_known
    False
    """

    entity: str
    values: Mapping[str, Value] = field(default_factory=dict)
    updated_at: Mapping[str, int] = field(default_factory=dict)
    expires_at: Mapping[str, int] = field(default_factory=dict)
    event_state: bytes | None = None

    @property
    def is_known(self) -> bool:
        """Tell whether any of the views that were read has a row for the entity."""
        return bool(self.updated_at)


@dataclass(frozen=True, slots=True)
class Selection:
    """Holds the features to read, by view, looked up in the read plan once instead of at every request."""

    views: tuple[PlanView, ...]

    @classmethod
    def of(cls, plan: ReadPlan, features: Sequence[str] | None) -> Selection:
        """Return the named features, or all. Without any, the views' timestamps are still read.

        Raises
        ------
        UnknownNameError
            if the plan has no such feature.
        """
        if not features:
            names: set[str] = {f"{view.name}:{feature.name}" for view in plan.views for feature in view.features}
            return cls(tuple(_only(view, names if features is None else set()) for view in plan.views))
        requested = set(features)
        views = tuple(view for view in (_only(view, requested) for view in plan.views) if view.features)
        selected = {f"{view.name}:{feature.name}" for view in views for feature in view.features}
        for name in sorted(requested - selected):
            all_names = [f"{view.name}:{feature.name}" for view in plan.views for feature in view.features]
            raise UnknownNameError(f"there is no feature `{name}` in the read plan", hint=nearest(name, all_names))
        return cls(views)


def _only(view: PlanView, names: set[str]) -> PlanView:
    features = tuple(feature for feature in view.features if f"{view.name}:{feature.name}" in names)
    return PlanView(view.name, view.stored_name, features, view.ttl)


def checked(entity: str) -> str:
    """Give back an entity's key, if it is a string.

    Raises
    ------
    TypeError
        if it is something else.
    """
    if not isinstance(entity, str):
        raise TypeError(f"an entity key is a string, and {entity!r} is none: write {str(entity)!r}")
    return entity
