"""Definitions that must be refused, with code and place; and near misses that must load."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rules_engine.clock import parse_duration
from rules_engine.errors import DefinitionError
from rules_engine.rules.catalog import Catalog, EventType, Feature
from rules_engine.rules.load import load_text
from rules_engine.rules.types import ValueType, from_feast_name
from tests.conformance.cases import HERE, read_yaml

MARK = "«"
FOLDER = HERE / "refusals"


def read_all(folder: Path) -> list[dict[str, Any]]:
    return [{**case, "file": path.stem} for path in sorted(folder.glob("*.yaml")) for case in read_yaml(path)]


REFUSED = read_all(FOLDER)
ACCEPTED = read_all(FOLDER / "accepted")


def feast_type(name: str) -> ValueType:
    found = from_feast_name(name)
    assert found is not None
    return found


def read_catalog() -> Catalog:
    data = read_yaml(HERE / "catalog.yaml")
    features = {
        f"{view}:{name}": Feature(view, name, feast_type(kind), kind)
        for view, spec in data["views"].items()
        for name, kind in spec["features"].items()
    }
    ttl = {view: parse_duration(spec["ttl"]) for view, spec in data["views"].items() if "ttl" in spec}
    return Catalog(features, ttl, {name: read_event(name, spec) for name, spec in data["events"].items()})


def read_event(name: str, spec: Mapping[str, Any]) -> EventType:
    properties = {key: feast_type(kind) for key, kind in spec.get("properties", {}).items()}
    return EventType(name, properties, parse_duration(spec["retention"]) if "retention" in spec else None)


CATALOG = read_catalog()


SEGMENT = "segment: s\nwhen: {feature: user:age, equals: 5}\n"

#: What stands beside a case of a trigger.
PROJECT = """\
project: shop
consent: {marketing: user:vip}
sinks:
  crm: {webhook: "https://crm.example/actions", secret: "${CRM_SECRET}"}
  orders: {kafka: "kafka.example:9092", topic: actions}
  audit: {file: actions.jsonl}
"""


def marked(case: Mapping[str, Any]) -> str:
    if "trigger" in case:
        return f"{PROJECT}---\n{SEGMENT}---\n{{trigger: t, {case['trigger'].removeprefix('{')}\n"
    if "project" in case:
        return f"project: shop\n{case['project']}\n"
    return case["text"] if "text" in case else f"segment: s\nwhen: {case['when']}\n"


def place(text: str) -> tuple[int, int] | None:
    """Return line and column of the mark, counted from 1."""
    before, mark, _ = text.partition(MARK)
    return (before.count("\n") + 1, len(before) - before.rfind("\n")) if mark else None


def name_of(case: Mapping[str, Any]) -> str:
    return f"{case['file']}: {case['name']}"


@pytest.mark.parametrize("case", REFUSED, ids=name_of)
def test_refused(case: dict[str, Any]) -> None:
    text = marked(case)
    with pytest.raises(DefinitionError) as caught:
        load_text(text.replace(MARK, ""), CATALOG)
    found = sorted(caught.value.diagnostics, key=lambda problem: (problem.span.line, problem.span.column))
    first = found[0]
    assert first.code == case["code"], str(caught.value)
    if place(text):
        assert (first.span.line, first.span.column) == place(text), str(caught.value)
    assert case.get("hint", "") in (first.hint or ""), str(caught.value)
    assert len(found) == case.get("problems", 1), str(caught.value)


@pytest.mark.parametrize("case", ACCEPTED, ids=name_of)
def test_accepted(case: dict[str, Any]) -> None:
    load_text(marked(case), CATALOG)


def test_there_are_many_refusals_of_every_sort() -> None:
    assert len(REFUSED) >= 100
    assert len({case["code"] for case in REFUSED}) >= 40
    names = [name_of(case) for case in REFUSED + ACCEPTED]
    assert len(names) == len(set(names))
