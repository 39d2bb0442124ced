"""Groups of segments: in every target everybody is in the first that holds, and it is said who takes precedence."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from rules_engine.rules.catalog import Catalog
from rules_engine.rules.evaluate import Evaluation
from rules_engine.rules.explain import explain
from rules_engine.rules.inputs import Inputs
from rules_engine.rules.load import load_text
from rules_engine.rules.program import Program
from rules_engine.targets.columns.column_index import ColumnIndex
from rules_engine.targets.index.rule_index import RuleIndex
from rules_engine.targets.sql import evaluate_duckdb

NAMES = ("a", "b", "c", "d")
FLAGS = st.sampled_from([True, False, None])
PEOPLE = st.lists(st.tuples(*[FLAGS] * len(NAMES)), min_size=1, max_size=30)
ORDERS = st.permutations(NAMES).flatmap(lambda order: st.integers(2, len(NAMES)).map(lambda size: order[:size]))


def grouped(order: list[str]) -> Program:
    documents = [f"segment: {name}\nwhen: {{feature: 'u:{name}', equals: true}}" for name in NAMES]
    documents.append(f"segment: outside\nwhen: {{in_segment: {order[-1]}}}")
    documents.append(f"group: g\nexclusive: [{', '.join(order)}]")
    return load_text("\n---\n".join(documents), Catalog(closed=False)).program


def expected(order: list[str], person: dict[str, bool | None]) -> dict[str, bool | None]:
    """Say who is in what: nobody after one that holds, nobody known after one of which it is not known."""
    answers = dict(person)
    for place, name in enumerate(order):
        before = [person[other] for other in order[:place]]
        if True in before:
            answers[name] = False
        elif None in before and person[name] is not False:
            answers[name] = None
    return {**answers, "outside": answers[order[-1]]}


@given(ORDERS, PEOPLE)
def test_everybody_is_in_the_first_that_holds(order: list[str], people: list[tuple[bool | None, ...]]) -> None:
    program = grouped(order)
    crowd = [dict(zip(NAMES, flags, strict=True)) for flags in people]
    inputs = [Inputs({f"u:{name}": flag for name, flag in person.items()}) for person in crowd]
    wanted = [expected(order, person) for person in crowd]
    names = list(program.names)
    assert [{name: Evaluation(program, each, 0).segment(name) for name in names} for each in inputs] == wanted
    sql = evaluate_duckdb(program, [(str(place), each) for place, each in enumerate(inputs)], 0)
    assert [sql[str(place)] for place in range(len(inputs))] == wanted
    members = [{name for name, answer in answers.items() if answer} for answers in wanted]
    assert [RuleIndex(program).match(each, 0) for each in inputs] == members
    batch = pa.record_batch({f"u:{name}": pa.array([person[name] for person in crowd], pa.bool_()) for name in NAMES})
    assert list(ColumnIndex(RuleIndex(program)).match_many(batch, 0).segments()) == members
    assert all(len(found & set(order)) <= 1 for found in members)


def told(person: dict[str, Any], segment: str) -> str:
    return str(explain(grouped(["a", "b", "c"]), segment, Inputs(person), 0, "42"))


def test_an_explanation_says_who_takes_precedence() -> None:
    both = told({"u:a": False, "u:b": True, "u:c": True}, "c")
    assert "false: none of those before it in g (b takes precedence)" in both
    assert "true: b: u:b equals true (is true)" in both
    late = told({"u:a": None, "u:b": False, "u:c": True}, "c")
    assert "unknown: none of those before it in g (it is not known whether a takes precedence)" in late
    first = told({"u:a": True}, "a")
    assert "before it" not in first
    through_another = told({"u:a": True, "u:b": True, "u:c": True}, "outside")
    assert "(a takes precedence)" in through_another
