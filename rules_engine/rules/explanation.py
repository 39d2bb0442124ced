"""Explanations as data: the conditions of an answer with their values and verdicts, as a tree, as text and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from rules_engine.clock import format_duration, format_instant, to_micros
from rules_engine.diagnostics import printable
from rules_engine.rules.inputs import Event
from rules_engine.rules.predicates import Truth

#: The most events of a condition that are named: the latest ones.
MAX_EVENTS = 5

#: So many joined ids are named in the text.
MAX_JOINS = 5

_MICROSECOND = timedelta(microseconds=1)

_WORDS: dict[Truth, str] = {True: "true", False: "false", None: "unknown"}


@dataclass(frozen=True, slots=True)
class Reason:
    """One condition with its value and its verdict.

    Attributes
    ----------
    text
        the condition in one line; for a group its word: ``all``, ``any``, ``none``, ``not``.
    verdict
        True, False, or None for unknown.
    value
        the value that the condition read, as people write it; None for groups.
    threshold
        the operator and its argument, as written; None for groups and sequences.
    missing
        the reason why the value is missing: ``absent`` (no such row), ``null``, ``expired ...``, ``not passed``
        (context), ``no such event``, ``absent from the event``, ``of another type``.
    age
        the time since the value's row was observed; None if unknown.
    distance
        the distance of a number or time from fulfilling the comparison, as people write it.
    events, event_count
        the latest events that counted, and the number of all that did.
    note
        a remark on the events, where not all of them are kept.
    changes_at
        the instant at which this verdict changes by time alone, in UTC; None if never.
    children
        the conditions inside.
    """

    text: str
    verdict: Truth
    value: str | None = None
    threshold: str | None = None
    missing: str | None = None
    age: timedelta | None = None
    distance: str | None = None
    events: tuple[Event, ...] = ()
    event_count: int | None = None
    changes_at: datetime | None = None
    children: tuple[Reason, ...] = ()
    note: str | None = None

    def line(self) -> str:
        """Return the reason in one line, without its children."""
        notes = [self._reading()]
        if self.distance:
            notes.append(self.distance)
        if self.age is not None:
            notes.append(f"observed {format_duration(self.age // _MICROSECOND)} ago")
        if self.event_count:
            instants = ", ".join(format_instant(event.at) for event in self.events)
            notes.append(("events at " if self.event_count <= MAX_EVENTS else "latest events at ") + instants)
        if self.note:
            notes.append(self.note)
        if self.changes_at is not None and not self.children:
            notes.append(f"until {_text(self.changes_at)}")
        shown = "; ".join(note for note in notes if note)
        return printable(f"{_WORDS[self.verdict]}: {self.text}" + (f" ({shown})" if shown else ""))

    def _reading(self) -> str:
        if self.missing:
            return f"missing: {self.missing}"
        return f"is {self.value}" if self.value is not None else ""

    def to_dict(self) -> dict[str, Any]:
        """Return the reason as JSON data; instants as ISO 8601, durations in seconds."""
        return {
            "condition": self.text,
            "verdict": self.verdict,
            "value": self.value,
            "threshold": self.threshold,
            "missing": self.missing,
            "age_seconds": None if self.age is None else self.age.total_seconds(),
            "distance": self.distance,
            "events": [
                {"event": event.name, "at": format_instant(event.at), "id": event.spelled_id} for event in self.events
            ],
            "event_count": self.event_count,
            "note": self.note,
            "changes_at": None if self.changes_at is None else _text(self.changes_at),
            "children": [child.to_dict() for child in self.children],
        }


@dataclass(frozen=True, slots=True)
class Explanation:
    """The reason why an entity is, or is not, in a segment at an instant. ``str()`` of it is a tree.

    ``blocking`` is the nearest miss: the fewest conditions whose change would make the entity a member; empty for a
    member. ``joined`` has the ids that were joined to the entity, each with the instant of the join, the newest first;
    what they did counts.
    """

    entity: str
    segment: str
    verdict: Truth
    at: datetime
    changes_at: datetime | None
    reason: Reason
    blocking: tuple[Reason, ...] = ()
    joined: tuple[tuple[str, datetime], ...] = ()

    def __str__(self) -> str:
        return "\n".join([self.headline(), *self._joins(), *tree(self.reason), *self._nearest_miss()])

    def headline(self) -> str:
        """Return the answer in one line."""
        answer = {True: "is in", False: "is not in", None: "is not known to be in"}[self.verdict]
        until = f", until {_text(self.changes_at)}" if self.changes_at is not None else ""
        return printable(f"{self.entity} {answer} {self.segment} at {_text(self.at)}{until}")

    def _joins(self) -> list[str]:
        if not self.joined:
            return []
        shown = [f"{entity} since {_text(at)}" for entity, at in self.joined[:MAX_JOINS]]
        others = [f"{len(self.joined) - MAX_JOINS} others"] if len(self.joined) > MAX_JOINS else []
        return [printable(f"counts what joined ids did: {', '.join([*shown, *others])}")]

    def _nearest_miss(self) -> list[str]:
        if not self.blocking:
            return []
        number = "one condition" if len(self.blocking) == 1 else f"{len(self.blocking)} conditions"
        return [f"nearest miss: {number} would have to change", *(f"  - {reason.line()}" for reason in self.blocking)]

    def to_dict(self) -> dict[str, Any]:
        """Return the explanation as JSON data."""
        return {
            "entity": self.entity,
            "segment": self.segment,
            "verdict": self.verdict,
            "at": _text(self.at),
            "changes_at": None if self.changes_at is None else _text(self.changes_at),
            "joined": {entity: _text(at) for entity, at in self.joined},
            "reason": self.reason.to_dict(),
            "nearest_miss": [reason.to_dict() for reason in self.blocking],
        }


def tree(reason: Reason, first: str = "", rest: str = "") -> list[str]:
    """Return a reason and its children as the lines of a tree; ``first`` and ``rest`` are what its lines begin with."""
    lines = [f"{first}└─ {reason.line()}"] if not first else [f"{first}{reason.line()}"]
    indent = rest + "   " if not first else rest
    for position, child in enumerate(reason.children):
        last = position == len(reason.children) - 1
        lines += tree(child, indent + ("└─ " if last else "├─ "), indent + ("   " if last else "│  "))
    return lines


def _text(instant: datetime) -> str:
    return format_instant(to_micros(instant))
