"""The answer to a decision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict
from datetime import datetime
from functools import partial
from typing import Any

from rules_engine.clock import format_instant, from_micros, to_micros
from rules_engine.errors import StoreError
from rules_engine.rules.decisions.choosing import Choice, Chooser, Course

_Unknown = Callable[[], AbstractSet[str]] | None


class Assignment:
    """The variant that an entity gets of a decision at an instant, and why. Safe to share between threads.

    Attributes
    ----------
    entity
        the entity's key.
    decision
        the decision's name.
    choice
        the variant's name, and why it was chosen: the rule, the experiment and its arm, the bucket.
    at
        the instant of the answer, in UTC.
    error
        why the store could not be read, if the client was told to go on without it (``on_error="no_match"``). Then
        the variant is the default because nothing is known.
    """

    __slots__ = ("_change", "_chooser", "_unknown", "at", "choice", "decision", "entity", "error")

    def __init__(
        self,
        chooser: Chooser,
        entity: str,
        choice: Choice,
        at: datetime,
        change: datetime | Callable[[], datetime | None] | None = None,
        error: StoreError | None = None,
        unknown: _Unknown = None,
    ) -> None:
        self._chooser = chooser
        self.entity = entity
        self.decision = chooser.decision.name
        self.choice = choice
        self.at = at
        self.error = error
        self._change = change
        self._unknown = unknown

    @classmethod
    def failed(cls, chooser: Chooser, entity: str, at: datetime, error: StoreError) -> Assignment:
        """Return the assignment for an entity of whom nothing is known, because the store cannot be read."""
        return cls(chooser, entity, chooser.default, at, error=error)

    @property
    def variant(self) -> str:
        """Return the variant's name."""
        return self.choice.variant

    @property
    def value(self) -> Any:
        """Return the variant's value, as JSON has it: a copy that may be changed."""
        return self._chooser.decision.variant(self.choice.variant).value

    @property
    def bucket(self) -> float | None:
        """Return the entity's bucket where the variant was chosen by it, from 0 to below 1."""
        return self.choice.bucket

    @property
    def changes_at(self) -> datetime | None:
        """Return the first instant after ``at`` at which the variant differs if no new data comes; None if never.

        It is computed when it is first asked for, from the data that was read.
        """
        change = self._change
        if callable(change):
            change = self._change = change()  # two threads may both compute it; they find the same
        return change

    @property
    def is_undecided(self) -> bool:
        """Tell whether a rule up to the deciding one may be true, as the entity did more than is kept of it."""
        if self._unknown is None:
            return False
        last = self.choice.rule or len(self._chooser.decision.rules)
        unknown = self._unknown()
        return any(self._chooser.decision.condition_name(rule) in unknown for rule in range(1, last + 1))

    def reason(self) -> str:
        """Return why, in a line.

        >>> from rules_engine.rules.decisions.nodes import Decision, Variant
        >>> chooser = Chooser(Decision("banner", (Variant("none", "null"),), (), "none", "object"))
        >>> Assignment(chooser, "42", chooser.choose("42", set(), 0), from_micros(0)).reason()
        'the default, as no rule decides'
        """
        return self._chooser.describe(self.choice)

    def to_dict(self) -> dict[str, Any]:
        """Return the assignment as JSON data, with instants as ISO 8601."""
        change = self.changes_at
        choice = {name: value for name, value in asdict(self.choice).items() if value is not None}
        return {
            "entity": self.entity,
            "decision": self.decision,
            "value": self.value,
            **choice,
            "because": self.reason(),
            "at": format_instant(to_micros(self.at)),
            "changes_at": None if change is None else format_instant(to_micros(change)),
            **({"undecided": True} if self.is_undecided else {}),
            **({} if self.error is None else {"error": str(self.error)}),
        }

    def __repr__(self) -> str:
        at = format_instant(to_micros(self.at))
        return f"Assignment({self.entity!r}, {self.decision!r}, {self.variant!r}, {self.reason()!r}, at={at!r})"


def assignments_of(
    choosers: Sequence[Chooser], entity: str, course: Course, now: int, at: datetime, unknown: _Unknown = None
) -> list[Assignment]:
    """Return the assignments for an entity whose conditions take a course; ``at`` is ``now`` as a datetime."""
    members = course.at(now)
    return [
        Assignment(
            chooser,
            entity,
            chooser.choose(entity, members, now),
            at,
            partial(_change, chooser, entity, course, now),
            unknown=unknown,
        )
        for chooser in choosers
    ]


def _change(chooser: Chooser, entity: str, course: Course, now: int) -> datetime | None:
    instant = chooser.next_change(entity, course, now)
    return None if instant is None else from_micros(instant)
