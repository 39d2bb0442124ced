"""More events than are kept: an answer is that of the whole log or unknown, and the same wherever it is asked."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from rules_engine.clock import LAST_INSTANT
from rules_engine.events.state.kept_events import StateEvents
from rules_engine.events.state.reading import StateLayout
from rules_engine.features.online.selection import EntityFeatures
from rules_engine.rules.changes import candidates, changes_at, clocks_of, first_change, reachable
from rules_engine.rules.evaluate import Evaluation
from rules_engine.rules.predicates import Truth
from rules_engine.targets.index.rule_index import RuleIndex
from rules_engine.targets.stepwise.compile import Checks
from rules_engine.targets.stepwise.view import View
from rules_engine.testing import CONDITION
from tests.property.strategies import Example, examples
from tests.property.test_lasting import LOOKS, load
from tests.state_target import read_through_state


@settings(max_examples=settings().max_examples * 3)
@given(examples(largest=16, depth=2), st.integers(0, 2**32), st.integers(1, 3))
def test_an_answer_is_right_or_unknown_and_the_same_everywhere(example: Example, seed: int, bound: int) -> None:
    scenario = load(example)
    reader = read_through_state(scenario, seed, bound)
    program, now = scenario.program, scenario.now
    kept = replace(scenario.inputs, events=StateEvents(reader))
    whole = Evaluation(program, scenario.inputs, now).segment(CONDITION)
    truth = Evaluation(program, kept, now).segment(CONDITION)
    assert truth in (None, whole)
    index = RuleIndex(program)
    members, until = index.match_until(replace(kept, events=()), now, [CONDITION], events=reader)
    if CONDITION in members:  # the index also sees what is true of every number of events, such as "some or none"
        assert whole is True
    assert truth is not True or CONDITION in members
    conditions = reachable(program, [program.segment(CONDITION).when])

    def is_member(at: int) -> bool:
        return CONDITION in index.match(replace(kept, events=()), at, [CONDITION], events=reader)

    assert until == first_change(is_member, candidates(conditions, kept, now), now, clocks_of(conditions, kept))


@settings(max_examples=settings().max_examples * 3)
@given(examples(largest=16, depth=2), st.integers(0, 2**32), st.integers(1, 3), st.booleans())
def test_a_worker_sees_the_same_and_looks_again_in_time(example: Example, seed: int, bound: int, wanted: bool) -> None:
    scenario = load(example)
    reader = read_through_state(scenario, seed, bound)
    program, at = scenario.program, scenario.now
    kept = replace(scenario.inputs, events=StateEvents(reader))
    view = View(EntityFeatures("somebody", kept.features, kept.updated_at, kept.expires_at), reader)
    check = Checks(program, StateLayout(reader.requirements)).segment(CONDITION, wanted)

    def truth(at: int) -> Truth:
        return Evaluation(program, kept, at).segment(CONDITION) is wanted

    conditions = reachable(program, [program.segment(CONDITION).when])
    change = first_change(truth, candidates(conditions, kept, at), at, clocks_of(conditions, kept))
    first = truth(at)
    for _ in range(LOOKS):
        holds, until = check(view, at)
        assert holds is first
        if until > LAST_INSTANT or until == change:
            assert until == change or change is None
            return
        assert change is None or until < change
        at = until


def test_the_bound_decides_often_enough_to_be_tried() -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=300, database=None)
    @given(examples(largest=16, depth=1), st.integers(1, 3))
    def count(example: Example, bound: int) -> None:
        scenario = load(example)
        reader = read_through_state(scenario, 0, bound)
        kept = replace(scenario.inputs, events=StateEvents(reader))
        whole = Evaluation(scenario.program, scenario.inputs, scenario.now).segment(CONDITION)
        truth = Evaluation(scenario.program, kept, scenario.now).segment(CONDITION)
        change = changes_at(scenario.program, scenario.program.segment(CONDITION).when, kept, scenario.now)
        seen["dropped"] += not reader.is_whole
        seen["unknown"] += truth is None and whole is not None
        seen["decided"] += not reader.is_whole and truth is not None
        seen["unknown for a time"] += truth is None and whole is not None and change is not None

    count()
    assert min(seen[word] for word in ("dropped", "unknown", "decided", "unknown for a time")) >= 3, seen
