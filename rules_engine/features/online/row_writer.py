"""Writes single rows of a feature view, as a request brings them: without Feast, in its bytes and by its rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rules_engine.diagnostics import nearest
from rules_engine.errors import DataError, ProjectError
from rules_engine.events.looks import look_command
from rules_engine.features.online.value_bytes import encode, timestamp
from rules_engine.read_plan import ReadPlan
from rules_engine.redis.feast_layout import KeyMaker, field_bytes
from rules_engine.redis.row_script import WRITE_ROWS


class RowWriter:
    """Makes the commands that write rows of one view. A row older than the stored one changes nothing.

    Parameters
    ----------
    plan
        the read plan.
    view
        the name of the view.

    Raises
    ------
    ProjectError
        if the plan has no such view.
    """

    def __init__(self, plan: ReadPlan, view: str) -> None:
        planned = next((candidate for candidate in plan.views if candidate.name == view), None)
        if planned is None:
            hint = nearest(view, [candidate.name for candidate in plan.views]) or "apply anew"
            raise ProjectError(f"the read plan has no feature view `{view}`", hint=hint)
        self._plan = plan
        self._view = planned
        self._features = {feature.name: feature for feature in planned.features}
        self._key = KeyMaker(plan.project, plan.join_key, plan.key_version)

    @property
    def features(self) -> frozenset[str]:
        """Return the names of the view's features."""
        return frozenset(self._features)

    def commands(self, entity: str, values: Mapping[str, Any], at: int) -> list[tuple[Any, ...]]:
        """Return the commands that write some features of an entity, and have the workers look at it again.

        Parameters
        ----------
        entity
            the entity's key.
        values
            by name; what the view does not have is left out, and a feature that is not given stays as it is.
        at
            the row's event timestamp, in microseconds.

        Raises
        ------
        DataError
            if a value is not of its feature's type.
        """
        fields: list[bytes] = [self._view.timestamp_field, timestamp(at)]
        for name, value in values.items():
            feature = self._features.get(name)
            if feature is not None:
                try:
                    fields += [field_bytes(feature.field), encode(value, feature.type)]
                except ValueError as error:
                    raise DataError(f"`{name}`: {error}") from None
        if len(fields) == 2:
            return []
        write = ("EVAL", WRITE_ROWS, 1, self._key(entity), 0, len(fields) // 2, *fields)
        return [write, look_command(self._plan.project, [entity], "push", [self._view.name])]
