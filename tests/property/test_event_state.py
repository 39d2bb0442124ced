"""The event state, fed piecemeal and in disorder, says what a pass over the whole log says."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rules_engine.events.state.entity_state import EventState, empty_state, update
from rules_engine.events.state.kept_events import StateEvents
from rules_engine.events.state.pruning import prune
from rules_engine.events.state.reading import StateLayout, StateReader
from rules_engine.events.state.requirements import DEFAULT_PIECE, StateRequirements, requirements_of
from rules_engine.events.state.waiting import decode_current
from rules_engine.rules.aggregates import AGGREGATES, NUMBERS_AND_TIMES, Aggregate
from rules_engine.rules.changes import changes_at
from rules_engine.rules.evaluate import Evaluation
from rules_engine.rules.events import aggregate_value
from rules_engine.rules.inputs import Event, Inputs, in_order
from rules_engine.rules.nodes import (
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
from rules_engine.rules.sequences import sequence_matches
from rules_engine.rules.types import FLOAT, INTEGER, STRING
from tests.state_target import encode_whole

NAMES = ("view", "view", "buy")
WINDOWS = (2, 5, 10, 10, 20, 30, None, None)
STEP_WINDOWS = (1, 2, 5, 10)
LATENESS = 6

NUMBERS = (1, 2, 3, -3, 1, 2, 1.0, 0.1, 0.2, 1e16, -1e16, 2**53 + 1, 1e-30, True, "2", None, math.nan)
TEXTS = ("a", "a", "b", "b", "", "å", 1, None)
IS_A = Predicate(PropertyRef("kind", STRING), "equals", "a", STRING)
WHERE = st.sampled_from(
    [
        *((), (), (), (), (), ()),
        (IS_A,),
        (Predicate(PropertyRef("kind", STRING), "not_equals", "a", STRING),),
        (Predicate(PropertyRef("amount", FLOAT), "at_least", 1, FLOAT, or_missing=True),),
        (IS_A, Predicate(PropertyRef("amount", FLOAT), "less_than", 2, FLOAT)),
    ]
)
MATCHES = st.builds(EventMatch, st.sampled_from(NAMES), WHERE)


@st.composite
def aggregates(draw: st.DrawFn, functions: Iterable[Aggregate] = Aggregate) -> EventAggregate:
    function = draw(st.sampled_from(list(functions)))
    match, within = draw(MATCHES), draw(st.sampled_from(WINDOWS))
    if function is Aggregate.COUNT:
        return EventAggregate(function, match, within)
    kinds = AGGREGATES[function].kinds or frozenset()
    numeric = kinds <= NUMBERS_AND_TIMES or draw(st.booleans())
    return EventAggregate(function, match, within, *(("amount", FLOAT) if numeric else ("kind", STRING)))


@st.composite
def comparisons(draw: st.DrawFn, functions: Iterable[Aggregate] = Aggregate) -> Predicate:
    number = st.integers(0, 3)
    operator = draw(st.sampled_from(["at_least", "equals", "less_than", "between", "in"]))
    argument: Any = draw(number)
    if operator in ("between", "in"):
        argument = tuple(sorted((argument, draw(number))))
    return Predicate(draw(aggregates(functions)), operator, argument, INTEGER)


@st.composite
def sequences(draw: st.DrawFn) -> Sequence:
    within = st.sampled_from(STEP_WINDOWS)
    negations = draw(st.sampled_from(["+", "-", "-", "++", "+-", "-+", "--", "-+-"]))
    last = len(negations.rstrip("-"))  # from here on each step has to say how long to wait
    steps = tuple(
        SequenceStep(draw(MATCHES), sign == "-", draw(within if place >= last else within | st.none()))
        for place, sign in enumerate(negations)
    )
    own, match_on = draw(st.sampled_from((None, 5, 10, 30))), draw(st.sampled_from((None, "kind")))
    return Sequence((SequenceStep(draw(MATCHES)), *steps), own, match_on, draw(st.booleans()))


AMOUNTS, KINDS = st.sampled_from(NUMBERS), st.sampled_from(TEXTS)
PROPERTIES = st.fixed_dictionaries({"kind": KINDS}, optional={"amount": AMOUNTS}) | st.just({})
Action = Callable[["Simulation"], None]


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

    def wait(self, time: int) -> None:
        self.now += time

    def store(self) -> None:
        self.state = decode_current(encode_whole(self.state, self.requirements), self.requirements)

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
            value, expected = reader.sequence(sequence, now), sequence_matches(sequence, log, now)
            if value is not expected:
                found.append(f"{sequence} is {value}")
        return found

    def notes(self) -> list[str]:
        """What happened, in words to be counted."""
        reader = StateReader(self.state, self.layout)
        values = {aggregate: reader.aggregate(aggregate, self.now) for aggregate in self.requirements.limits}
        reached = [
            limit for aggregate, limit in self.requirements.limits.items() if limit and values[aggregate] == limit
        ]
        return [
            "step",
            *("value" if value else "no value" for value in values.values()),
            *("at the limit" for _ in reached),
            *(f"sequence {reader.sequence(sequence, self.now)}" for sequence in self.requirements.sequences),
            *("settled" for kept in self.state.kept for total in kept.totals if total.events),
            *("dropped" for _ in range(sum(kept.number for kept in self.state.kept) < len(in_order(self.log)))),
            *("in pieces" for kept in self.state.kept if kept.older.pieces),
            *("among those in pieces" for kept in self.state.kept if kept.older.pieces and not kept.is_in_order),
        ]


def deliver(batch: list[Event]) -> Action:
    return lambda simulation: simulation.deliver(batch)


def wait(time: int) -> Action:
    return lambda simulation: simulation.wait(time)


TOTALS = st.builds(
    lambda function, match: EventAggregate(function, match, None, "amount", FLOAT),
    st.sampled_from((Aggregate.SUM, Aggregate.AVG)),
    MATCHES,
) | st.builds(lambda match: EventAggregate(Aggregate.COUNT, match, None), MATCHES)

Drawn = tuple[Program, StateRequirements, list[Action]]


@st.composite
def simulations(
    draw: st.DrawFn, conditions: st.SearchStrategy[Condition], features: st.SearchStrategy[list[EventAggregate]]
) -> Drawn:
    drawn = draw(st.lists(conditions, min_size=1, max_size=4))
    named = {str(number): aggregate for number, aggregate in enumerate(draw(features))}
    program = Program({f"s{number}": Segment(f"s{number}", when) for number, when in enumerate(drawn)})
    piece = draw(st.sampled_from((1, 2, DEFAULT_PIECE)))
    requirements = requirements_of(program, named, lateness=LATENESS, piece=piece)
    # What was settled is not counted again, so where there are totals an event is at most so late.
    has_totals = any(requirement.totals for requirement in requirements.events)
    ages = st.sampled_from([-5, -4, -3, -2, -1, -1, 0, 0, 1, 2, 9, *(() if has_totals else (-8, -15, -30))])
    log: list[Event] = []
    actions: list[Action] = []
    now = 0
    for number in range(draw(st.integers(2, 6))):
        given = draw(st.lists(st.tuples(st.sampled_from(NAMES), ages, PROPERTIES), min_size=4, max_size=12))
        fresh = [Event(name, now + age, f"{number}-{place}", held) for place, (name, age, held) in enumerate(given)]
        again = draw(st.lists(st.sampled_from(log), max_size=4)) if log else []
        log += fresh
        time = draw(st.sampled_from((0, 1, 3, 9)))
        now += time
        actions += [deliver(draw(st.permutations([*fresh, *again, *fresh[:1]]))), wait(time)]
        actions += draw(
            st.sampled_from([[], [Simulation.prune], [Simulation.store], [Simulation.prune, Simulation.store]])
        )
    return program, requirements, actions


def check(program: Program, requirements: StateRequirements, actions: list[Action]) -> list[str]:
    """Run a simulation, and compare with the log at every step, for now and for later. Return what happened."""
    simulation, notes = Simulation(requirements), ["example"]
    for action in actions:
        action(simulation)
        notes += simulation.notes()
        log = Inputs(events=in_order(simulation.log))
        kept = Inputs(events=StateEvents(StateReader(simulation.state, simulation.layout)))
        for later in (0, 1, 2, 5, 10):
            now = simulation.now + later
            assert not simulation.disagreements(now), (simulation.now, later, simulation.state)
            for name in program.names:
                assert Evaluation(program, kept, now).segment(name) is Evaluation(program, log, now).segment(name)
        for segment in program.segments.values():
            expected = changes_at(program, segment.when, log, simulation.now)
            assert changes_at(program, segment.when, kept, simulation.now) == expected, segment
    return notes


def run(
    conditions: st.SearchStrategy[Condition], features: st.SearchStrategy[list[EventAggregate]] | None = None
) -> Counter[str]:
    """Check many simulations. Return how often what happened: examples in which nothing happens prove nothing."""
    seen: Counter[str] = Counter()

    @given(simulations(conditions, st.just([]) if features is None else features))
    def check_all(drawn: Drawn) -> None:
        seen.update(check(*drawn))

    check_all()
    assert seen["dropped"] > seen["step"] * 0.3, seen
    return seen


def test_any_conditions() -> None:
    seen = run(comparisons() | sequences(), st.lists(aggregates(), max_size=3))
    assert seen["value"] > seen["no value"] * 0.5, seen
    assert seen["in pieces"] > seen["step"] * 0.1, seen
    assert seen["among those in pieces"] > seen["in pieces"] * 0.1, seen


def test_counts() -> None:
    seen = run(comparisons([Aggregate.COUNT, Aggregate.DISTINCT]))
    assert seen["at the limit"] > seen["value"] * 0.1, seen


def test_sequences() -> None:
    seen = run(sequences())
    assert seen["sequence True"] > seen["sequence False"] * 0.1, seen


def test_totals() -> None:
    seen = run(comparisons(), st.lists(TOTALS, min_size=1, max_size=3))
    assert seen["settled"] > seen["step"] * 0.2, seen


@given(simulations(comparisons() | sequences(), st.lists(aggregates(), max_size=3)), st.integers(1, 4))
def test_beyond_the_bound_every_answer_is_exact_or_says_that_it_may_not_be(drawn: Drawn, bound: int) -> None:
    _, requirements, actions = drawn
    requirements = replace(requirements, bound=bound)
    simulation = Simulation(requirements)
    for action in actions:
        action(simulation)
        simulation.prune()
        for kept, requirement in zip(simulation.state.kept, requirements.events, strict=True):
            assert kept.number <= 4 * bound * len(requirement.needs), "of a piece at least half is needed"
        for later in (0, 2, 10):
            now = simulation.now + later
            reader, log = StateReader(simulation.state, simulation.layout), in_order(simulation.log)
            for aggregate, limit in requirements.limits.items():
                expected = aggregate_value(aggregate, log, now)
                if reader.incomplete_until(aggregate, now) is None:
                    assert reader.aggregate(aggregate, now) == (expected if limit is None else min(expected, limit))
            for sequence in requirements.sequences:
                if reader.incomplete_until(sequence, now) is None:
                    assert reader.sequence(sequence, now) is sequence_matches(sequence, log, now)
