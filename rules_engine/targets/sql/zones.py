"""Local time in the zone that a feature names: a small table of every zone, worked out when the query is written.

The instant is fixed, so the local time in each zone is a constant. A table of them gives the answers of
:mod:`rules_engine.rules.local_time` in every engine, however old its own zone data is, and an unknown zone is just
not in it (DuckDB's own function would stop the query).
"""

from __future__ import annotations

from zoneinfo import available_timezones

from sqlglot import exp

from rules_engine.clock import format_instant
from rules_engine.rules.local_time import local_time
from rules_engine.rules.nodes import ClockField
from rules_engine.rules.types import STRING, Kind, ValueType
from rules_engine.targets.sql.engines import Engine
from rules_engine.targets.sql.events import Step
from rules_engine.targets.sql.expressions import Sql, compare, integer, join, own, select, table
from rules_engine.targets.sql.names import UniqueNames
from rules_engine.targets.sql.values import Stored, readable

_COLUMNS = ("zone", "time_of_day", "day_of_week")
_TYPES = {ClockField.TIME_OF_DAY: ValueType(Kind.TIME_OF_DAY), ClockField.DAY_OF_WEEK: ValueType(Kind.DAY_OF_WEEK)}


class ZoneStep:
    """Collects the features that name zones; each is joined to the table of zones once."""

    def __init__(self, engine: Engine, now: int, names: UniqueNames) -> None:
        self._engine = engine
        self._now = now
        self._names = names
        self._joins: dict[str, tuple[str, Sql]] = {}
        self._table = ""
        self._read: dict[tuple[str, str], str] = {}

    @property
    def used(self) -> bool:
        """Say whether any rule reads local time in a feature's zone."""
        return bool(self._joins)

    def local(self, field: ClockField, zones: list[Stored]) -> list[Stored]:
        """Return the local time in a feature's zone, to be read after the joins."""
        return [Stored(_TYPES[field], own(self._column(field, zone))) for zone in readable(zones, STRING)]

    def _column(self, field: ClockField, zone: Stored) -> str:
        key = zone.sql.name
        if key not in self._joins:
            self._table = self._table or self._names.unique("local_times")
            self._joins[key] = self._names.numbered("local"), zone.sql
        alias = self._joins[key][0]
        return self._read.setdefault((alias, field.value), self._names.numbered(field.value))

    def step(self) -> Step:
        """Return the table of zones."""
        rows = []
        for name in sorted(available_timezones()):
            local = local_time(self._now, name)
            if local is not None:
                rows.append(
                    exp.Tuple(expressions=[exp.Literal.string(name), integer(local[0]), exp.Literal.string(local[1])])
                )
        alias = exp.TableAlias(this=exp.to_identifier("zones"), columns=[exp.to_identifier(name) for name in _COLUMNS])
        values = exp.Values(expressions=rows, alias=alias)
        comment = f"the local time in every zone at {format_instant(self._now)}, in microseconds since midnight"
        return Step(self._table, select(*(own(name) for name in _COLUMNS), source=values), comment)

    def join_to(self, query: exp.Select, features: str) -> None:
        """Join the local times that are read to the entities."""
        for alias, zone in self._joins.values():
            value = zone.copy()
            value.set("table", exp.to_identifier(features))
            join(query, table(self._table, alias), compare(exp.EQ, own("zone", alias), value), "LEFT")
        for (alias, field), name in self._read.items():
            query.select(exp.alias_(own(field, alias), name), copy=False)
