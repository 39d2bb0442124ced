"""One entity's recorded events through the machine, on a clock that only they and the timers move."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from rules_engine.events.state.entity_state import empty_state, update
from rules_engine.events.state.pruning import prune
from rules_engine.features.online.selection import EntityFeatures
from rules_engine.rules.inputs import Event
from rules_engine.triggers.machine import Machine
from rules_engine.triggers.record import Outgoing, Record
from rules_engine.triggers.rules import TriggerRules

#: The cause of the first look at somebody who was known before.
START = "start"

#: After so many events, what no later instant needs is given up.
_PRUNE_EVERY = 16


class Simulated:
    """What happens to an entity from one instant to another.

    Parameters
    ----------
    rules
        the definitions.
    features
        the entity's features; they stay as they are, until they are past their views' ttl.
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
        known = iter(before)
        while some := list(islice(known, _PRUNE_EVERY)):
            is_known = True
            self._state = prune(update(self._state, some, needs), needs, min(some[-1].at, start))
        self.record = Record()
        self._swept = frozenset() if is_known else rules.names
        if is_known:
            machine = self._machine()
            machine.look(start, START)
            self._keep(machine)

    def run(self, events: Iterable[Event], end: int) -> Iterator[Outgoing]:
        """Do events in the order in which they are given, each arriving when it happened, and what is due by the end.

        Parameters
        ----------
        end
            the last instant, in microseconds.
        """
        yield from self._taken()
        waiting = iter(events)
        while some := list(islice(waiting, _PRUNE_EVERY)):
            machine = self._machine()
            for event in some:
                machine.event(event, event.at)
            self._keep(machine)
            yield from self._taken()
        machine = self._machine()
        machine.timers(end + 1)
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
        told, self.record = self.record.outbox, self.record.published()
        yield from told
