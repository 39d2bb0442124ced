"""What a plan says, where no store is needed."""

from __future__ import annotations

from typing import Any

import pytest

from rules_engine.deploy.differences import ADDED, CHANGED, REMOVED, differences
from rules_engine.deploy.movements import Movement, ProjectPlan
from rules_engine.deploy.stage_finder import definition_changes
from rules_engine.deploy.stages import ApplyStages, KeepVersion, NameChanges, Register
from rules_engine.features.feast.registry import RegistryChange
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.load import load_text
from rules_engine.rules.program import Program
from rules_engine.rules.triggers.codec import encode_triggers

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


def test_a_plan_lists_the_triggers_that_will_hold_out_other_people() -> None:
    text = "trigger: {}\non_event: {{did: view}}\n{}\nsend: [{{stream: a}}]"

    def definitions(**lines: str) -> dict[str, Any]:
        documents = [text.format(name, line) for name, line in lines.items()]
        return encode_triggers(load_text("\n---\n".join(documents), Catalog(closed=False)).triggers)

    after = definitions(
        same="holdout: {percent: 10}", more="holdout: {percent: 20}", new="holdout: {percent: 5}", no=""
    )
    before = definitions(same="holdout: {percent: 10}", more="holdout: {percent: 10}", new="", no="")
    changes = dict(definition_changes(before, after))
    assert changes["holdouts"] == NameChanges(added=("new",), changed=("more",))
    for trigger in after["triggers"].values():
        before["triggers"][trigger["name"]] = {key: trigger[key] for key in trigger if key != "holdout_seed"}
    of_an_earlier_release = dict(definition_changes(before, after))
    assert of_an_earlier_release["holdouts"] == NameChanges(changed=("more", "new", "same"))
