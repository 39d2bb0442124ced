"""The choice of the events that decide, among those of a stream that are not too old."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rules_engine.events.state.pieces import Choice
from rules_engine.events.state.requirements import KeepRule
from rules_engine.rules.types import Value


def _all(rows: list[int], _values: Sequence[Value], _limit: int | None) -> list[int]:
    return rows


def _newest(rows: list[int], _values: Sequence[Value], limit: int | None) -> list[int]:
    return rows if limit is None else rows[-limit:]


def _earliest(rows: list[int], _values: Sequence[Value], limit: int | None) -> list[int]:
    return rows[:limit]


def _least(rows: list[int], values: Sequence[Value], _limit: int | None) -> list[int]:
    return _record(rows, values, lambda value, best: value < best)


def _greatest(rows: list[int], values: Sequence[Value], _limit: int | None) -> list[int]:
    return _record(rows, values, lambda value, best: value > best)


def _record(rows: list[int], values: Sequence[Value], is_better: Callable[[Value, Value], bool]) -> list[int]:
    """Choose, from the newest back, those that are better than every later one."""
    chosen: list[int] = []
    for row in reversed(rows):
        value = values[row]
        if value is not None and (not chosen or is_better(value, values[chosen[-1]])):
            chosen.append(row)
    return chosen[::-1]


def _newest_of_each(rows: list[int], values: Sequence[Value], limit: int | None) -> list[int]:
    seen: set[tuple[bool, Value]] = set()
    chosen: list[int] = []
    for row in reversed(rows):
        value = values[row]
        identity = isinstance(value, bool), value
        if value is not None and identity not in seen:
            seen.add(identity)
            chosen.append(row)
        if len(chosen) == limit:
            break
    return chosen[::-1]


#: How the rows that are needed are chosen, by the rule. What makes a row needless are newer ones.
CHOICES: Mapping[KeepRule, Choice] = {
    KeepRule.ALL: _all,
    KeepRule.NEWEST: _newest,
    KeepRule.EARLIEST: _earliest,
    KeepRule.LEAST: _least,
    KeepRule.GREATEST: _greatest,
    KeepRule.DISTINCT: _newest_of_each,
    KeepRule.TOTAL: _all,
}
