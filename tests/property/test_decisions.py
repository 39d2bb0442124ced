"""Decisions are one function: cells on the plain evaluator, the index and SQL say what choosing says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rules_engine.clock import DAY, to_micros
from rules_engine.errors import UnsupportedError
from rules_engine.rules.decisions.cells import Cell, cells_of, with_cells
from rules_engine.rules.decisions.choosing import Chooser
from rules_engine.rules.decisions.explaining import course_of
from rules_engine.rules.decisions.nodes import (
    Decision,
    ExperimentRef,
    Rule,
    Serve,
    Served,
    Split,
    Variant,
    with_decisions,
)
from rules_engine.rules.evaluate import Evaluation
from rules_engine.rules.experiments.nodes import Arm, Experiment
from rules_engine.rules.inputs import Inputs
from rules_engine.rules.nodes import SegmentRef
from rules_engine.rules.program import Program
from rules_engine.targets.index.rule_index import RuleIndex
from rules_engine.targets.sql import evaluate_duckdb
from tests.property.test_sql import Batch, batches

NAMES = ("a", "b", "c")
WEIGHTS = ((0.5, 0.3, 0.2), (0.0, 0.5, 0.5), (0.3334, 0.3333, 0.3333), (1.0, 0.0, 0.0), (0.0001, 0.9998, 0.0001))


@st.composite
def choosers(draw: st.DrawFn, now: int) -> Chooser:
    served: st.SearchStrategy[Served] = st.one_of(
        st.builds(Serve, st.sampled_from(NAMES)),
        st.builds(Split, st.sampled_from(["s", "t"]), st.just(NAMES), st.sampled_from(WEIGHTS)),
        st.builds(ExperimentRef, st.sampled_from(["e", "f"])),
    )
    when = st.one_of(st.none(), st.builds(SegmentRef, st.sampled_from([f"s{number}" for number in range(5)])))
    rules = draw(st.lists(st.builds(Rule, served, when), min_size=1, max_size=6))
    experiments = {
        name: Experiment(
            name,
            tuple(Arm(arm, variant, 0.5) for arm, variant in (("control", "a"), ("other", "b"))),
            name,
            draw(st.sampled_from([0.0, 0.3, 1.0])),
            start=draw(st.sampled_from([None, now - DAY, now - 1, now, now + 1])),
            stop=draw(st.sampled_from([None, None, now, now + 1, now + DAY])),
            winner=draw(st.sampled_from([None, "other"])),
        )
        for name in ("e", "f")
    }
    decision = Decision("d", tuple(Variant(name, f'"{name}"') for name in NAMES), tuple(rules), "c", "string")
    return Chooser(decision, experiments, draw(st.sampled_from([0.0, 0.2])))


def first_true(cells: Sequence[Cell], is_true: Callable[[str], bool], default: str) -> str:
    return next((cell.variant for cell in cells if is_true(cell.name)), default)


@settings(suppress_health_check=list(HealthCheck))
@given(batches(), st.data())
def test_every_target_decides_alike(batch: Batch, data: st.DataObject) -> None:
    program, now = batch.program(), to_micros(batch.words.now)
    chooser = data.draw(choosers(now))
    users = [(name, replace(inputs, entity=name)) for name, inputs in batch.inputs()]
    cells = cells_of(chooser, now)
    whole, default = with_cells(program, cells), chooser.decision.default
    index = RuleIndex(whole)
    names = [cell.name for cell in cells]
    for entity, inputs in users:
        expected = choice_of(program, chooser, entity, inputs, now)
        evaluation = Evaluation(whole, inputs, now)
        assert first_true(cells, lambda name: evaluation.segment(name) is True, default) == expected  # noqa: B023
        members = index.match(inputs, now, names)
        assert first_true(cells, members.__contains__, default) == expected
    try:
        answers = evaluate_duckdb(whole, users, now, names)
    except UnsupportedError:
        return
    for entity, inputs in users:
        found = first_true(cells, lambda name: answers[entity][name] is True, default)  # noqa: B023
        assert found == choice_of(program, chooser, entity, inputs, now)


def choice_of(program: Program, chooser: Chooser, entity: str, inputs: Inputs, now: int) -> str:
    course = course_of(with_decisions(program, [chooser.decision]), chooser, inputs)
    choice = chooser.choose(entity, course.at(now), now)
    return choice.variant
