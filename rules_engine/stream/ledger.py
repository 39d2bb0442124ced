"""The ledger: memberships that began and ended, and the steps of every instance of a trigger. Parquet files by day.

::

    feature_repo/data/transitions/day=2026-03-01/00001772323200000000-3f9c1e2a.parquet
    feature_repo/data/trigger_steps/day=2026-03-01/00001772323200000000-5d01b7aa.parquet

A row that is published twice may be stored twice; readers and compaction take the first of rows with the same key.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rules_engine.clock import DAY, from_micros
from rules_engine.events.log.day_files import add_file, compact, stable_tables
from rules_engine.files import entries
from rules_engine.folders import Project
from rules_engine.triggers.record import MembershipChange, Transition, TriggerStep

_INSTANT = pa.timestamp("us", tz="UTC")

TRANSITIONS = pa.schema(
    [
        ("key", pa.string()),
        ("entity", pa.string()),
        ("segment", pa.string()),
        ("change", pa.string()),
        ("at", _INSTANT),
        ("cause", pa.string()),
        ("definitions_version", pa.string()),
    ]
)

TRIGGER_STEPS = pa.schema(
    [
        ("key", pa.string()),
        ("entity", pa.string()),
        ("trigger", pa.string()),
        ("state", pa.string()),
        ("reason", pa.string()),
        ("at", _INSTANT),
        ("due", _INSTANT),
        ("cause", pa.string()),
        ("definitions_version", pa.string()),
    ]
)

#: The columns that identify a row.
_KEYS = {"transitions": ("key",), "trigger_steps": ("key", "state", "at")}
_SCHEMAS = {"transitions": TRANSITIONS, "trigger_steps": TRIGGER_STEPS}


class Ledger:
    """The ledger of one project.

    Parameters
    ----------
    folder
        where both logs lie; created with the first row.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of(cls, project: Project) -> Ledger:
        """Return the ledger of a project."""
        return cls(project.feature_repo / "data")

    def append(self, outgoing: Iterable[tuple[str, Transition | TriggerStep]], stored_at: int) -> None:
        """Add transitions and trigger steps of entities. They are on disk when this returns.

        Parameters
        ----------
        stored_at
            the time now, in microseconds.
        """
        parts: dict[tuple[str, int], list[tuple[Any, ...]]] = {}
        for entity, item in outgoing:
            name, row = (
                ("transitions", _moved(entity, item)) if isinstance(item, Transition) else _stepped(entity, item)
            )
            parts.setdefault((name, item.at // DAY), []).append(row)
        for (name, day), rows in parts.items():
            schema, folder = _SCHEMAS[name], self._folder(name, day)
            columns = zip(zip(*rows, strict=True), schema, strict=True)
            add_file(
                folder,
                pa.Table.from_arrays([pa.array(column, field.type) for column, field in columns], schema=schema),
                stored_at,
            )
            compact(folder, self.folder / name / ".compaction", _KEYS[name])

    def transitions(
        self,
        *,
        entity: str | None = None,
        segment: str | None = None,
        start: int | None = None,
        end: int | None = None,
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        """Return the memberships that began or ended in [start, end), the latest first."""
        return self._read("transitions", {"entity": entity, "segment": segment}, start, end, limit)

    def steps(
        self,
        *,
        entity: str | None = None,
        trigger: str | None = None,
        start: int | None = None,
        end: int | None = None,
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        """Return the steps of instances of triggers in [start, end), the latest first."""
        return self._read("trigger_steps", {"entity": entity, "trigger": trigger}, start, end, limit)

    def instances(
        self,
        *,
        entity: str | None = None,
        trigger: str | None = None,
        states: Collection[str] | None = None,
        start: int | None = None,
        end: int | None = None,
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        """Return the last step of every instance of a trigger that had one in [start, end), the latest first.

        Parameters
        ----------
        states
            only instances whose last step is in one of these states.
        """
        seen: set[str] = set()
        latest: list[dict[str, Any]] = []
        for row in self._rows("trigger_steps", {"entity": entity, "trigger": trigger}, start, end):
            if row["key"] in seen:
                continue
            seen.add(row["key"])
            if states is None or row["state"] in states:
                latest.append(row)
                if len(latest) == limit:
                    break
        return latest

    def members(self, segment: str) -> list[str]:
        """Return the entities that are in a segment by their last transition, sorted."""
        tables = list(self._days("transitions", {"segment": segment}, None, None))
        if not tables:
            return []
        transitions = pa.concat_tables(reversed(tables)).select(["entity", "change", "at"])
        in_order = transitions.take(pc.sort_indices(transitions, [("at", "ascending")]))  # stable
        last = in_order.group_by("entity", use_threads=False).aggregate([("change", "last")])
        inside = last.filter(pc.field("change_last") != MembershipChange.EXIT.value)
        return sorted(inside["entity"].to_pylist())

    # --- reading ----------------------------------------------------------------------------------------------------

    def _read(
        self, name: str, where: Mapping[str, str | None], start: int | None, end: int | None, limit: int | None
    ) -> list[dict[str, Any]]:
        return list(islice(self._rows(name, where, start, end), limit))

    def _rows(
        self, name: str, where: Mapping[str, str | None], start: int | None, end: int | None
    ) -> Iterator[dict[str, Any]]:
        """Yield the rows, each once, the latest first; of rows of one instant the one stored last comes first."""
        for table in self._days(name, where, start, end):
            seen: set[tuple[Any, ...]] = set()
            rows = []
            for row in table.to_pylist():
                key = tuple(row[part] for part in _KEYS[name])
                if key not in seen:
                    seen.add(key)
                    rows.append(row)
            rows.reverse()
            yield from sorted(rows, key=lambda row: row["at"], reverse=True)

    def _days(
        self, name: str, where: Mapping[str, str | None], start: int | None, end: int | None
    ) -> Iterator[pa.Table]:
        """Yield the matching rows of each day, the latest day first."""
        terms = [pc.field(column) == value for column, value in where.items() if value is not None]
        terms += [pc.field("at") >= pa.scalar(start, _INSTANT)] if start is not None else []
        terms += [pc.field("at") < pa.scalar(end, _INSTANT)] if end is not None else []
        condition = None
        for term in terms:
            condition = term if condition is None else condition & term
        for day in sorted(_days_of(self.folder / name), reverse=True):
            if (start is None or (day + 1) * DAY > start) and (end is None or day * DAY < end):
                tables = stable_tables(self._folder(name, day), filters=condition)
                if tables:
                    yield pa.concat_tables(tables)

    def _folder(self, name: str, day: int) -> Path:
        return self.folder / name / f"day={from_micros(day * DAY):%Y-%m-%d}"


def _days_of(folder: Path) -> Sequence[int]:
    days = (path.name.removeprefix("day=") for path in entries(folder, "day=*"))
    return [int(datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()) * 1_000_000 // DAY for day in days]


def _moved(entity: str, transition: Transition) -> tuple[Any, ...]:
    return (
        transition.key(entity),
        entity,
        transition.segment,
        transition.change.value,
        transition.at,
        transition.cause,
        transition.version,
    )


def _stepped(entity: str, step: TriggerStep) -> tuple[str, tuple[Any, ...]]:
    reason = None if step.reason is None else step.reason.value
    row = step.key(entity), entity, step.trigger, step.state.value, reason, step.at, step.due, step.cause, step.version
    return "trigger_steps", row
