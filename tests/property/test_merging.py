"""The state of a joined id in that of a person answers as all events of both do, whatever was dropped before."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from rules_engine.events.joins import handed_on
from rules_engine.events.state.merging import merged
from rules_engine.rules.inputs import Event
from tests.property.test_event_state import TOTALS, Drawn, Simulation, aggregates, comparisons, sequences, simulations

ANON = "anon"


@dataclass
class Half(Simulation):
    """One of two ids, which did some of the events; ``joined`` says that it is the person and has become both."""

    is_person: bool = True
    joined: bool = field(default=False)

    def deliver(self, batch: list[Event]) -> None:
        own = [event for event in batch if sum(map(ord, event.id)) % 2 == self.is_person]
        others = [handed_on(event, ANON) for event in batch if self.joined and event not in own]
        super().deliver([*own, *others])

    def join(self, other: Half) -> None:
        """Take over what the other one did."""
        self.joined = True
        self.state = merged(self.state, other.state, [ANON], self.now, self.requirements)
        self.log += [handed_on(event, ANON) for event in other.log]


def test_the_states_of_both_answer_as_their_events_do() -> None:
    seen: Counter[str] = Counter()

    @given(simulations(comparisons() | sequences(), st.lists(aggregates() | TOTALS, max_size=3)), st.integers(0, 30))
    def check_all(drawn: Drawn, place: int) -> None:
        _, requirements, actions = drawn
        person, anon = Half(requirements), Half(requirements, is_person=False)
        place %= len(actions) + 1
        for action in actions[:place]:
            action(person)
            action(anon)
        person.join(anon)
        for action in [Simulation.store, *actions[place:], Simulation.prune]:
            action(person)
            seen.update(person.notes())
            for later in (0, 2, 10):
                assert not person.disagreements(person.now + later), (person.now, later, person.state)
            twice = merged(person.state, anon.state, [ANON], person.now, requirements)
            rows = [(kept.rows.ats, kept.rows.keys) for kept in person.state.kept]
            if not any(kept.totals for kept in anon.state.kept) and person.state.pruned_at is None:
                assert [(kept.rows.ats, kept.rows.keys) for kept in twice.kept] == rows

    check_all()
    assert seen["dropped"] > seen["step"] * 0.3, seen
    assert seen["settled"] > 20, seen
    assert seen["in pieces"] > seen["step"] * 0.1, seen
