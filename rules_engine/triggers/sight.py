"""Holds what conditions are evaluated on: an entity's features, its events so far, and those known to come next.

A worker takes several events of an entity at once, and evaluates after each. Most cannot change most answers: a
segment that more events can only make true, and that is false with all of them, is false after each. So each group of
segments is looked at once with all events, and after a single event only the segments whose answer that leaves open.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from rules_engine.events.state.entity_state import EventState, PlacedRow, add_rows, placed_row
from rules_engine.features.online.selection import EntityFeatures
from rules_engine.rules.inputs import Event
from rules_engine.targets.stepwise.view import View

if TYPE_CHECKING:
    from rules_engine.triggers.rules import TriggerRules

#: The segments that were looked at, those of them that are true, and until when that stays so.
Looked = tuple[Collection[str], Collection[str], int]


class Sight:
    """The features of an entity and its events so far.

    Parameters
    ----------
    rules
        the definitions.
    features
        the entity's features that the rules read.
    state
        its event state.
    """

    __slots__ = ("_ahead", "_coming", "_foreseen", "_left", "_names", "_new", "_open", "_rules", "_view")

    def __init__(self, rules: TriggerRules, features: EntityFeatures, state: EventState) -> None:
        self._rules = rules
        self._view = rules.view(features, state)
        self._new: list[PlacedRow] = []
        self._names: frozenset[str] = frozenset()
        self._coming: dict[int, tuple[Event, PlacedRow | None]] = {}
        self._left = 0
        self._ahead: View | None = None
        self._foreseen: dict[str, tuple[Collection[str], int]] = {}
        self._open: dict[str, Collection[str]] = {}

    # --- events -----------------------------------------------------------------------------------------------------

    def expect(self, events: Sequence[Event]) -> None:
        """Say which events are added next, with looks in between; no others are added before all of them were."""
        self._view = self.view
        requirements = self._rules.events.requirements
        self._coming = {id(event): (event, placed_row(event, requirements)) for event in events}
        self._left = len(self._coming)
        self._names = frozenset([event.name for event in events])
        self._ahead = None
        self._foreseen = {}
        self._open = {}

    def add(self, event: Event) -> None:
        """Add an event. One that was not expected is taken to be the only one that comes."""
        if id(event) not in self._coming:
            self.expect((event,))
        _, row = self._coming[id(event)]
        self._left -= 1
        if row is not None:
            self._new.append(row)

    # --- what is seen -----------------------------------------------------------------------------------------------

    @property
    def view(self) -> View:
        """Return the features and the events so far, for evaluation."""
        new = self._new
        if new:
            self._new = []
            self._view = self._grown(new) if self._left or self._ahead is None else self._ahead
        return self._view

    def _grown(self, rows: Iterable[PlacedRow]) -> View:
        state = self._view.reader.state
        grown = add_rows(state, rows, self._rules.events.requirements)
        return self._view if grown is state else self._view.grown(grown)

    def look_after(self, group: str, members: Collection[str], due: int, at: int) -> Looked:
        """Look at the segments of a group whose answers may have changed by the last event.

        Parameters
        ----------
        group
            the name of the event.
        members
            the segments that were true before it.
        due
            the instant until which that would have stayed so without it; later than ``at``.
        """
        if self._rules.is_indexed(group):  # such a look costs no more than to find out what is open
            return self._rules.groups[group], *self._rules.look(group, self.view, at)
        holding, until = self._foresee(group, at)
        if not self._left:
            return self._rules.groups[group], holding, until
        names = self._open.get(group)
        if names is None:
            names = self._open[group] = self._rules.open_names(group, self._names, members, holding)
        if not names:
            return (), (), min(until, due)
        holding, lasts = self._rules.look(group, self.view, at, names)
        return names, holding, min(until, lasts, due)

    def forget_open(self) -> None:
        """Forget which answers are open: memberships changed."""
        self._open.clear()

    def _foresee(self, group: str, at: int) -> tuple[Collection[str], int]:
        """Return the segments of a group that are true at an instant with all expected events, and until when."""
        foreseen = self._foreseen.get(group)
        if foreseen is None or at >= foreseen[1]:
            if self._ahead is None:
                self._ahead = self._grown([row for _, row in self._coming.values() if row is not None])
            foreseen = self._foreseen[group] = self._rules.look(group, self._ahead, at)
            self._open.pop(group, None)
        return foreseen
