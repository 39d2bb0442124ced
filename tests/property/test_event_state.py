"""The event state, fed piecemeal and in disorder, says what a pass over the whole log says."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import event as note
from hypothesis import given
from hypothesis import strategies as st

from rules_engine.events.encoding import decode_state, encode_state
from rules_engine.events.pruning import prune
from rules_engine.events.reading import StateLayout, StateReader
from rules_engine.events.requirements import StateRequirements, requirements_of
from rules_engine.events.state import EventState, empty_state, update
from rules_engine.rules.events import aggregate_value, sequence_matches
from rules_engine.rules.inputs import Event, in_order
from rules_engine.rules.nodes import (
    Aggregate,
    Condition,
    EventAggregate,
    EventMatch,
    Predicate,
    PropertyRef,
    Segment,
    Sequence,
    SequenceStep,
)
from rules_engine.rules.program import Program
from rules_engine.rules.types import FLOAT, INTEGER, STRING

NAMES = ("view", "cart", "buy")
WINDOWS = (1, 2, 5, 10, 30, None)
STEP_WINDOWS = (1, 2, 5, 10)
LATENESS = 12

NUMBERS = (0, 1, 2, -3, 1.0, 0.1, 0.2, 1e16, -1e16, 2**53 + 1, 1e-30, True, "2", None, math.nan)
TEXTS = ("", "a", "b", "å", "A", 1, None)
WHERE = st.sampled_from(
    [
        (),
        (Predicate(PropertyRef("kind", STRING), "equals", "a", STRING),),
        (Predicate(PropertyRef("kind", STRING), "not_equals", "a", STRING),),
        (Predicate(PropertyRef("amount", FLOAT), "at_least", 1, FLOAT),),
        (
            Predicate(PropertyRef("kind", STRING), "in", ("a", "b"), STRING),
            Predicate(PropertyRef("amount", FLOAT), "less_than", 2, FLOAT, or_missing=True),
        ),
    ]
)
MATCHES = st.builds(EventMatch, st.sampled_from(NAMES), WHERE)


@st.composite
def aggregates(draw: st.DrawFn) -> EventAggregate:
    function = draw(st.sampled_from(list(Aggregate)))
    match, within = draw(MATCHES), draw(st.sampled_from(WINDOWS))
    if function is Aggregate.COUNT:
        return EventAggregate(function, match, within)
    numeric = function in (Aggregate.SUM, Aggregate.AVG, Aggregate.MIN, Aggregate.MAX) or draw(st.booleans())
    return EventAggregate(function, match, within, *(("amount", FLOAT) if numeric else ("kind", STRING)))


@st.composite
def comparisons(draw: st.DrawFn) -> Predicate:
    number = st.integers(0, 5)
    operator = draw(st.sampled_from(["at_least", "equals", "less_than", "between", "in"]))
    argument: Any = draw(number)
    if operator in ("between", "in"):
        argument = tuple(sorted((argument, draw(number))))
    return Predicate(draw(aggregates()), operator, argument, INTEGER)


@st.composite
def sequences(draw: st.DrawFn) -> Sequence:
    within = st.sampled_from(STEP_WINDOWS)
    steps = [SequenceStep(draw(MATCHES))]
    for negated in draw(st.lists(st.booleans(), min_size=1, max_size=3)):
        steps.append(SequenceStep(draw(MATCHES), negated, draw(within | st.none())))
    if steps[-1].negated:
        steps[-1] = SequenceStep(steps[-1].match, True, draw(within))
        if len(steps) > 2 and steps[-2].negated:
            steps[-2] = SequenceStep(steps[-2].match, True, draw(within))
        if len(steps) > 3 and steps[-2].negated and steps[-3].negated:
            steps[-3] = SequenceStep(steps[-3].match, True, draw(within))
    own = draw(st.sampled_from((None, 5, 10, 30)))
    return Sequence(tuple(steps), own, draw(st.sampled_from((None, None, "kind"))), draw(st.booleans()))


INSTANTS = st.integers(0, 40)
PROPERTIES = st.fixed_dictionaries({}, optional={"amount": st.sampled_from(NUMBERS), "kind": st.sampled_from(TEXTS)})
CONDITIONS: st.SearchStrategy[Condition] = comparisons() | sequences()


@dataclass
class Simulation:
    """A state, beside the log of all that was delivered."""

    requirements: StateRequirements
    now: int = 0
    log: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.layout = StateLayout(self.requirements)
        self.state: EventState = empty_state(self.requirements)

    def deliver(self, batch: list[Event]) -> None:
        self.state = update(self.state, batch, self.requirements)
        self.log += batch

    def store(self) -> None:
        self.state = decode_state(encode_state(self.state, self.requirements), self.requirements)

    def prune(self) -> None:
        self.state = prune(self.state, self.requirements, self.now)

    def disagreements(self, now: int) -> list[str]:
        log, reader = in_order(self.log), StateReader(self.state, self.layout)
        found = []
        for aggregate, limit in self.requirements.limits.items():
            expected = aggregate_value(aggregate, log, now)
            expected = expected if limit is None else min(expected, limit)
            value = reader.aggregate(aggregate, now)
            if value != expected or isinstance(value, bool) != isinstance(expected, bool):
                found.append(f"{aggregate} is {value}, not {expected}")
        for sequence in self.requirements.sequences:
            if reader.sequence(sequence, now) is not sequence_matches(sequence, log, now):
                found.append(f"{sequence} is {reader.sequence(sequence, now)}")
        return found


@st.composite
def simulations(draw: st.DrawFn) -> tuple[StateRequirements, list[Callable[[Simulation], None]]]:
    conditions = draw(st.lists(CONDITIONS, min_size=1, max_size=4))
    features = {str(number): aggregate for number, aggregate in enumerate(draw(st.lists(aggregates(), max_size=3)))}
    program = Program({f"s{number}": Segment(f"s{number}", when) for number, when in enumerate(conditions)})
    requirements = requirements_of(program, features, lateness=LATENESS)
    has_totals = any(requirement.totals for requirement in requirements.events)
    log: list[Event] = []
    actions: list[Callable[[Simulation], None]] = []
    now = 0
    for _ in range(draw(st.integers(1, 6))):
        # What was settled is not counted again, so fresh events are at most so late where there are totals.
        earliest = now - LATENESS + 1 if has_totals else 0
        fresh = [
            Event(draw(st.sampled_from(NAMES)), max(earliest, draw(INSTANTS)), f"{len(log) + number}", draw(PROPERTIES))
            for number in range(draw(st.integers(0, 8)))
        ]
        again = draw(st.lists(st.sampled_from(log), max_size=4)) if log else []
        log += fresh
        batch = draw(st.permutations([*fresh, *again, *fresh[:1]]))
        actions.append(lambda one, batch=batch: one.deliver(batch))
        now += draw(st.integers(0, 10))
        actions.append(lambda one, now=now: setattr(one, "now", now))
        actions += draw(
            st.sampled_from([[], [Simulation.prune], [Simulation.store], [Simulation.prune, Simulation.store]])
        )
    return requirements, actions


@given(simulations())
def test_the_state_says_what_the_whole_log_says(
    simulated: tuple[StateRequirements, list[Callable[[Simulation], None]]],
) -> None:
    requirements, actions = simulated
    simulation = Simulation(requirements)
    for action in actions:
        action(simulation)
        for later in (0, 1, 2, 5, 10, 30):
            assert not simulation.disagreements(simulation.now + later), (simulation.now, later, simulation.state)
    note(f"sequences: {len(requirements.sequences)}")
