"""Hold what a plan says: by segment, whom the files would move, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rules_engine.deploy.differences import ADDED
from rules_engine.deploy.stages import ApplyStages
from rules_engine.rules.explanation import Explanation

ENTERS, LEAVES = "enters", "leaves"


@dataclass(frozen=True, slots=True)
class Example:
    """A user who moves, and why by the new definition; a segment that is removed explains nothing."""

    entity: str
    move: str
    explanation: Explanation | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """A trigger that starts for everyone who moves so. Its own conditions may then hold some of them back."""

    trigger: str
    move: str


@dataclass(frozen=True, slots=True)
class Movement:
    """One segment of a plan.

    Attributes
    ----------
    segment, kind
        its name, and whether it is added, changed or removed itself, or affected because it refers to such a one.
    enters, leaves, stays
        how many users.
    dependents
        the segments that refer to it, directly or through others.
    examples
        some users who move.
    starts
        the triggers that start for those who move. None does where a segment is added or removed: whoever is in a new
        one is there from the beginning, and did not enter.
    uncounted
        why nobody was counted; None if everybody was.
    """

    segment: str
    kind: str
    enters: int = 0
    leaves: int = 0
    stays: int = 0
    dependents: tuple[str, ...] = ()
    examples: tuple[Example, ...] = ()
    starts: tuple[Start, ...] = ()
    uncounted: str | None = None

    def moving(self, move: str) -> int:
        """Return how many entities enter, or leave."""
        return self.enters if move == ENTERS else self.leaves

    @property
    def change(self) -> float:
        """Return those who move as a share of the members now; a new segment has none to compare with.

        >>> Movement("vip", "changed", enters=1, leaves=2, stays=4).change
        0.5
        """
        if self.kind == ADDED or not self.enters + self.leaves:
            return 0.0
        before = self.leaves + self.stays
        return (self.enters + self.leaves) / before if before else float("inf")


@dataclass(frozen=True, slots=True)
class Reassignment:
    """One decision of a plan.

    Attributes
    ----------
    decision, kind
        its name, and whether it is added, changed or removed itself, or affected by what it refers to.
    moved
        how many users would get another variant. Nobody does where a decision is added or removed.
    before, after
        by variant, how many users get it.
    uncounted
        why nobody was counted; None if everybody was.
    """

    decision: str
    kind: str
    moved: int = 0
    before: Mapping[str, int] = field(default_factory=dict)
    after: Mapping[str, int] = field(default_factory=dict)
    uncounted: str | None = None


@dataclass(frozen=True, slots=True)
class ProjectPlan:
    """Say what applying the files would do, and whom it moves, as of an instant (microseconds), among how many."""

    as_of: int
    stages: ApplyStages
    movements: tuple[Movement, ...] = ()
    users: int = 0
    decisions: tuple[Reassignment, ...] = ()

    @property
    def changes_anything(self) -> bool:
        """Tell whether the files differ from what is applied."""
        return bool(self.stages.differs or self.movements or self.decisions)

    def over(self, limit: float) -> tuple[Movement, ...]:
        """Return the movements of the segments whose share of movers is above ``limit``."""
        return tuple(movement for movement in self.movements if movement.change > limit)


def largest(movements: Iterable[Movement], most: int) -> list[Movement]:
    """Return the movements that concern most users, in their order; first of all those that were not counted.

    >>> found = [Movement("a", "changed", enters=1), Movement("b", "changed"), Movement("c", "changed", leaves=2)]
    >>> [movement.segment for movement in largest(found, 2)]
    ['a', 'c']
    """
    ranked = sorted(movements, key=lambda each: (each.uncounted is None, -each.enters - each.leaves, each.segment))
    return sorted(ranked[:most], key=lambda each: each.segment)
