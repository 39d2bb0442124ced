"""Simulations see features as they were at each instant, and people without events: as a batch of that instant does."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rules_engine.batch.entities import EntityReader
from rules_engine.clock import DAY, HOUR, MINUTE, parse_instant
from rules_engine.deploy.new_project import new_project
from rules_engine.errors import UnsupportedError
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.folders import Project
from rules_engine.project.catalog import project_catalog
from rules_engine.rules.evaluate import Evaluation
from rules_engine.rules.inputs import Event, Inputs
from rules_engine.rules.load import load_folder
from rules_engine.simulation.simulate import Happening, Simulation, Simulator
from rules_engine.triggers.record import State, Transition, TriggerStep

START = datetime(2026, 3, 1, tzinfo=UTC)
BEGIN = parse_instant("2026-03-01T00:00:00Z")

EVENTS = "events:\n  visit: {properties: {}, retention: 30d}\n"

DEFINITIONS = """\
segment: spenders
when: {feature: orders:spend_30d, at_least: 100}
---
segment: keen
when: {all: [{feature: profile:newsletter, equals: true}, {did: visit, within: 6h}]}
---
segment: quiet
when: {all: [{feature: profile:country, exists: true}, {did_not: visit, within: 12h}]}
---
trigger: thank
on_enter: spenders
delay: 1h
if: {feature: profile:newsletter, equals: true}
send: [{stream: thanks}]
payload: {spend: {feature: orders:spend_30d}, country: {feature: profile:country}}
"""

Rows = list[dict[str, Any]]


def orders(user: str, hours: float, spend: float | None) -> dict[str, Any]:
    at = START + timedelta(hours=hours)
    return {"customer_id": user, "event_timestamp": at, "orders_30d": 1, "spend_30d": spend, "last_order": at}


def profile(user: str, hours: float, newsletter: bool | None) -> dict[str, Any]:
    at = START + timedelta(hours=hours)
    return {"customer_id": user, "event_timestamp": at, "country": "NO", "signed_up": at, "newsletter": newsletter}


def project_of(root: Path, order_rows: Rows, profile_rows: Rows) -> Project:
    made = new_project(root / "shop")
    for path in made.segments_dir.rglob("*.yaml"):
        path.unlink()
    (made.feature_repo / "events.yaml").write_text(EVENTS)
    (made.segments_dir / "all.yaml").write_text(DEFINITIONS)
    data = made.feature_repo / "data"
    for name, rows in (("orders", order_rows), ("profile", profile_rows)):
        pd.DataFrame(rows).astype({"newsletter": "boolean"} if name == "profile" else {}).to_parquet(
            data / f"{name}.parquet", index=False
        )
    return made


def visits(path: Path, at_hours: list[tuple[str, float]]) -> Path:
    rows = [
        {"entity": user, "event": "visit", "at": (START + timedelta(hours=hours)).isoformat(), "id": f"{user}-{hours}"}
        for user, hours in at_hours
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def simulated(project: Project, log: Path, hours: float = 240) -> tuple[Simulation, list[Happening]]:
    told: list[Happening] = []
    found = Simulator(project).run(log, None, BEGIN, BEGIN + int(hours * HOUR), tell=told.append)
    return found, told


def test_people_without_any_event_are_counted(tmp_path: Path) -> None:
    """Of those who have rows by the start, the members are there at the start; others enter with their first row."""
    project = project_of(
        tmp_path,
        [orders("a", -1, 150), orders("b", -1, 50), orders("c", 5, 120), orders("d", -200, 500)],
        [profile(user, -300, True) for user in "abd"],
    )
    found, told = simulated(project, visits(tmp_path / "log.jsonl", [("e", 1)]), hours=10)
    assert found.entities == 5
    spenders = found.segments["spenders"]
    assert (spenders.at_start, spenders.entered, spenders.left, spenders.at_end) == (1, 1, 0, 2)
    assert found.segments["quiet"].at_start == 3
    [enter] = [one for one in told if isinstance(one.what, Transition) and one.what.change.value == "enter"]
    assert (enter.entity, enter.what.at) == ("c", BEGIN + 5 * HOUR)


def test_features_change_when_their_rows_come_and_end_with_their_ttl(tmp_path: Path) -> None:
    project = project_of(
        tmp_path,
        [orders("a", -1, 10), orders("a", 24, 200), orders("b", 2, 300), orders("b", 30, 10), orders("b", 50, 400)],
        [profile("a", 0, True), profile("b", 0, False), profile("b", 49, True)],
    )
    found, told = simulated(project, visits(tmp_path / "log.jsonl", [("a", 1)]))
    moves = [
        (one.entity, one.what.change.value, (one.what.at - BEGIN) / HOUR)
        for one in told
        if isinstance(one.what, Transition) and one.what.segment == "spenders"
    ]
    ended = 3 * DAY + 1
    assert moves == [
        ("a", "enter", 24),
        ("a", "exit", (24 * HOUR + ended) / HOUR),
        ("b", "enter", 2),
        ("b", "exit", 30),
        ("b", "enter", 50),
        ("b", "exit", (50 * HOUR + ended) / HOUR),
    ]
    # A trigger is judged, and its payload read, with the features of its own instant.
    steps = [one for one in told if isinstance(one.what, TriggerStep) and one.what.state is not State.PENDING]
    assert [(one.entity, one.what.state, (one.what.at - BEGIN) / HOUR) for one in steps] == [
        ("a", State.FIRED, 25),
        ("b", State.SUPPRESSED, 3),
        ("b", State.FIRED, 51),
    ]
    assert [dict(one.what.payload)["spend"] for one in found.actions] == [200, 400]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_memberships_are_those_of_a_batch_as_of_every_instant(seed: int, tmp_path: Path) -> None:
    """Random rows and events, on few instants so that many coincide; a batch answers as of each, and just before."""
    draw = random.Random(seed)
    users = [f"u{number}" for number in range(25)]
    hours = [-80, -3, 0, *(draw.choice(range(1, 200)) for _ in range(30))]
    order_rows = [
        orders(user, draw.choice(hours), draw.choice([50, 100, 200, None]))
        for user in users[:20]
        for _ in range(draw.choice([0, 1, 3, 6]))
    ]
    profile_rows = [
        profile(user, draw.choice(hours), draw.choice([True, False, None])) for user in users[5:] for _ in range(2)
    ]
    log = [(user, float(draw.choice(hours))) for user in users[:15] for _ in range(draw.choice([0, 1, 4]))]
    project = project_of(tmp_path, order_rows, profile_rows)
    _, told = simulated(project, visits(tmp_path / "log.jsonl", log), hours=210)
    program = load_folder(project.segments_dir, project_catalog(project)).program
    everyone = EntityReader(FeastRepo(project), (program, program.names))
    probes = {BEGIN + hour * HOUR + step for hour in hours if hour >= 0 for step in (-1, 0, 1, 30 * MINUTE)}
    compared = 0
    for instant in sorted(probe for probe in probes if probe >= BEGIN):
        inputs = everyone.inputs(instant, users)
        evaluations = {
            user: Evaluation(program, replace(inputs.get(user, Inputs()), events=_visits(log, user)), instant)
            for user in users
        }
        for name in program.names:
            expected = {user for user, evaluation in evaluations.items() if evaluation.segment(name) is True}
            assert _members(told, name, instant) == expected, (name, (instant - BEGIN) / HOUR)
            compared += len(expected)
    assert compared > 500


def _visits(log: list[tuple[str, float]], user: str) -> tuple[Event, ...]:
    found = {int(BEGIN + hours * HOUR) for name, hours in log if name == user}
    return tuple(Event("visit", at, f"{user}-{at}") for at in sorted(found))


def _members(told: list[Happening], segment: str, at: int) -> set[str]:
    """Who is in a segment at an instant, by the transitions until then."""
    found: set[str] = set()
    for one in told:
        what = one.what
        if isinstance(what, Transition) and what.segment == segment and what.at <= at:
            (found.discard if what.change.value == "exit" else found.add)(one.entity)
    return found


@pytest.fixture
def _without_duckdb(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("rules_engine.features.offline.newest.has_duckdb", lambda: False)
    return


@pytest.mark.usefixtures("_without_duckdb")
def test_what_cannot_be_read_over_time_is_refused_before_anything_runs(tmp_path: Path) -> None:
    project = project_of(tmp_path, [orders("a", 0, 10)], [profile("a", 0, True)])
    with pytest.raises(UnsupportedError, match="features as they were at each instant") as caught:
        Simulator(project)
    assert "--no-features" in str(caught.value.hint)
    found = Simulator(project, features=False).run(visits(tmp_path / "log.jsonl", [("e", 1)]))
    assert found.entities == 1
