"""What a plan says, where no store is needed."""

from __future__ import annotations

import pytest

from rules_engine.deploy.differences import ADDED, CHANGED, REMOVED, differences
from rules_engine.deploy.movements import Movement, ProjectPlan
from rules_engine.deploy.stages import ApplyStages, KeepVersion, Register
from rules_engine.features.feast.registry import RegistryChange
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.load import load_text
from rules_engine.rules.program import Program

NOTHING = ApplyStages((Register(RegistryChange((), (), ())),), "a", differs=False)


def program(**conditions: str) -> Program:
    documents = [f"segment: {name}\nwhen: {{{condition}}}" for name, condition in conditions.items()]
    return load_text("\n---\n".join(documents), Catalog(closed=False)).program


def test_what_differs_is_found_through_references_and_nothing_else() -> None:
    before = program(a="feature: u:x, equals: 1", b="in_segment: a", c="in_segment: b", d="feature: u:y, equals: 1")
    after = program(a="feature: u:x, equals: 2", b="in_segment: a", c="in_segment: b", d="feature: u:y, equals: 1")
    assert differences(before, after) == {"a": "changed", "b": "affected", "c": "affected"}
    assert differences(before, before) == {}
    moved = program(d="feature: u:y, equals: 1", a="feature: u:x, equals: 1", b="in_segment: a", c="in_segment: b")
    assert differences(before, moved) == {}, "where a definition stands does not matter"
    fewer = program(a="feature: u:x, equals: 1", d="feature: u:y, equals: 1", e="in_segment: a")
    assert differences(before, fewer) == {"b": "removed", "c": "removed", "e": "added"}


@pytest.mark.parametrize(
    ("movement", "change"),
    [
        (Movement("m", CHANGED, enters=30, leaves=0, stays=100), 0.3),
        (Movement("m", CHANGED, enters=0, leaves=0, stays=0), 0.0),
        (Movement("m", CHANGED, enters=1, leaves=0, stays=0), float("inf")),
        (Movement("m", REMOVED, leaves=5), 1.0),
        (Movement("m", ADDED, enters=500), 0.0),
    ],
)
def test_the_change_is_the_part_of_the_members_that_moves(movement: Movement, change: float) -> None:
    assert movement.change == change
    assert bool(ProjectPlan(0, NOTHING, (movement,)).over(0.2)) == (change > 0.2)


def test_a_plan_without_differences_changes_nothing() -> None:
    assert not ProjectPlan(0, NOTHING).changes_anything
    assert ProjectPlan(0, ApplyStages((KeepVersion(1),), "a")).changes_anything
