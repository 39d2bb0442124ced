"""Takes one entity's recorded events and features through the machine, on a clock that only they and timers move."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from operator import itemgetter

from rules_engine.events.state.entity_state import empty_state, update
from rules_engine.events.state.pruning import prune
from rules_engine.features.online.selection import EntityFeatures
from rules_engine.rules.inputs import Event
from rules_engine.simulation.feature_changes import FeatureChange
from rules_engine.simulation.recorded import Recorded, arrivals
from rules_engine.triggers.machine import Machine
from rules_engine.triggers.record import Outgoing, Record
from rules_engine.triggers.rules import TriggerRules

#: The cause of the first look at an entity that was known before, and of those when its features changed.
START, FEATURES = "start", "features"

#: After so many events, what no later instant needs is given up.
_PRUNE_EVERY = 16


class Simulated:
    """Computes what happens to an entity from one instant to another.

    Parameters
    ----------
    rules
        the definitions.
    features
        the entity's features at the start.
    before
        events from before the start, in the order in which they happened.
    start
        the first instant, in microseconds.
    is_known
        whether the entity was known before the start: then it is looked at there, and whoever is a member is taken to
        have been one. Of others the first event makes somebody new.

    Attributes
    ----------
    record
        what is remembered after what was done.
    """

    def __init__(
        self,
        rules: TriggerRules,
        features: EntityFeatures,
        before: Iterable[Event],
        start: int,
        *,
        is_known: bool,
    ) -> None:
        self._rules = rules
        self._features = features
        needs = rules.events.requirements
        self._state = empty_state(needs)
        events = iter(before)
        while some := list(islice(events, _PRUNE_EVERY)):
            is_known = True
            self._state = prune(update(self._state, some, needs), needs, min(some[-1].at, start))
        self.record = Record()
        self._swept = frozenset() if is_known else rules.names
        if is_known:
            machine = self._machine()
            machine.look(start, START)
            self._keep(machine)

    def run(self, events: Sequence[Recorded], end: int, changes: Sequence[FeatureChange] = ()) -> Iterator[Outgoing]:
        """Do events in the order in which they arrive, and what is due by the end.

        Parameters
        ----------
        end
            the last instant, in microseconds.
        changes
            later features, by instant. A row counts from its instant on, so also for an event of the same instant.
        """
        yield from self._taken()
        done = 0
        for change in changes:
            upto = bisect_left(events, change.at, lo=done, key=itemgetter(0))
            yield from self._events(events[done:upto])
            done = upto
            yield from self._timers(change.at)  # what is due before is judged with the features of before
            self._features = change.features
            machine = self._machine()
            machine.look(change.at, FEATURES, change.views)
            self._keep(machine)
            yield from self._taken()
        yield from self._events(events[done:])
        yield from self._timers(end + 1)

    def _timers(self, until: int) -> Iterator[Outgoing]:
        machine = self._machine()
        machine.timers(until)
        self._keep(machine)
        yield from self._taken()

    def _events(self, events: Iterable[Recorded]) -> Iterator[Outgoing]:
        waiting = arrivals(events, self._rules.events.requirements)
        while some := list(islice(waiting, _PRUNE_EVERY)):
            machine = self._machine()
            for arrival, event in some:
                machine.event(event, arrival)
            self._keep(machine)
            yield from self._taken()

    def _machine(self) -> Machine:
        return Machine(self._rules, self.record, self._features, self._state, swept=self._swept)

    def _keep(self, machine: Machine) -> None:
        self.record = machine.record
        self._state = machine.state
        if self.record.at is not None:
            self._state = prune(machine.state, self._rules.events.requirements, self.record.at)

    def _taken(self) -> Iterator[Outgoing]:
        outgoing, self.record = self.record.outbox, self.record.published()
        yield from outgoing
