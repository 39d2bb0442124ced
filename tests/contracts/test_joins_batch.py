"""Ids that are joined to persons, in batch: as of each instant what brute force finds in the whole history."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from rules_engine.batch.engine import BatchProject, BatchRules
from rules_engine.batch.parity import compare
from rules_engine.batch.through_time import RulesThroughTime
from rules_engine.batch.training import training_set
from rules_engine.cli import main
from rules_engine.clock import HOUR, from_micros, to_micros
from rules_engine.events.declarations.events_yaml import parse_events
from rules_engine.events.joins import Join
from rules_engine.events.log import offline
from rules_engine.features.offline.history import Instants
from rules_engine.folders import Project
from rules_engine.rules.events import aggregate_value
from rules_engine.simulation.simulate import Happening, Simulator
from rules_engine.stream.event_sink import event_log
from rules_engine.triggers.record import MembershipChange, Transition
from tests.batch_shop import NOW, History, history, make_shop
from tests.event_shop import EVENTS
from tests.reference_joins import Joined, log_of, path, taken

HEAD = to_micros(NOW)
EMBEDDED = "rules_engine.features.online_store.EmbeddedOnlineStore"


@pytest.fixture(scope="module")
def happened() -> History:
    return history(seed=13, users=40)


@pytest.fixture(scope="module")
def joins(happened: History) -> list[Joined]:
    """Chains, several ids of one person, ids with rows, and persons who did nothing themselves."""
    draw = random.Random(7)
    ids = sorted({*happened.events, *(str(row["user_id"]) for row in happened.rows["facts"]), "nobody", "v1", "v2"})
    pairs = [draw.sample(ids, 2) for _ in range(40)]
    return taken(Joined(entity, person, HEAD - draw.randrange(100) * HOUR) for entity, person in pairs)[:18]


@pytest.fixture
def shop(make_project: Callable[..., Project], happened: History, joins: Sequence[Joined]) -> Project:
    project = make_shop(make_project, happened, online=EMBEDDED)
    log = event_log(project)
    for place, join in enumerate(joins):
        log.append([(join.entity, Join(join.entity, join.person, join.at).event)], stored_at=HEAD + place)
    return project


def joined(happened: History, joins: Sequence[Joined], as_of: int) -> History:
    """The history as of an instant, with what was joined by then."""
    everybody = {*happened.events, *(join.person for join in joins)}
    log = [(user, event) for user, events in happened.events.items() for event in events]
    gone = {join.entity for join in joins if join.at <= as_of}
    rows = {view: [row for row in rows if row["user_id"] not in gone] for view, rows in happened.rows.items()}
    return History(rows, {user: log_of(user, log, joins, as_of) for user in everybody - gone})


def instants(joins: Sequence[Joined]) -> list[int]:
    """Now, and the instants of some joins with those beside."""
    return [HEAD, *(join.at + shift for join in joins[::5] for shift in (-1, 0, 1))]


def test_everyone_is_answered_as_by_the_history_with_its_joins(
    shop: Project, happened: History, joins: Sequence[Joined], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len({len(path(join.entity, joins)) for join in joins}) > 1, "there are joins of joins"
    project = BatchProject.open(shop)
    for number, as_of in enumerate(instants(joins)):
        if number % 2:
            monkeypatch.setattr(offline, "find_spec", lambda name: None)  # without DuckDB
        rules = BatchRules(project.repo, project.program)
        want = joined(happened, joins, as_of).members(project.program, as_of)
        found: dict[str, frozenset[str]] = {}
        for answered in rules.answers(as_of):
            found |= dict(zip(answered.entities.to_pylist(), answered.matches.segments(), strict=True))
        assert found == want, from_micros(as_of)
        assert rules.sizes(as_of).users == len(want)
        some = sorted(want)[::3]
        (chosen,) = [
            dict(zip(answered.entities.to_pylist(), answered.matches.segments(), strict=True))
            for answered in rules.answers(as_of, [*some, joins[0].entity])
            if len(answered.entities)
        ]
        assert chosen == {user: want[user] for user in {*some, joins[0].entity} if user in want}
        monkeypatch.undo()


def test_a_segment_over_time_follows_the_joins(shop: Project, happened: History, joins: Sequence[Joined]) -> None:
    project = BatchProject.open(shop)
    through = RulesThroughTime(project.repo, project.program)
    steps = Instants(HEAD - 96 * HOUR, 8 * HOUR, 13)
    found: list[dict[str, frozenset[str]]] = [{} for _ in steps]
    for group in through.groups(steps):
        for number, step in enumerate(group):
            for answered in step:
                found[number] |= dict(zip(answered.entities.to_pylist(), answered.matches.segments(), strict=True))
    for at, answers in zip(steps, found, strict=True):
        assert answers == joined(happened, joins, at).members(project.program, at), from_micros(at)


def test_a_training_set_has_what_counted_then(shop: Project, happened: History, joins: Sequence[Joined]) -> None:
    declared = parse_events(EVENTS).features
    draw = random.Random(3)
    users = sorted({*happened.events, *(join.person for join in joins)})
    rows = pd.DataFrame(
        [{"user_id": user, "at": from_micros(at)} for user in users for at in draw.sample(instants(joins), 3)]
    )
    names = [f"events:{name}" for name in declared]
    frame = training_set(shop, rows, names, instants="at")
    for row in frame.to_dict("records"):
        at = to_micros(row["at"].to_pydatetime())
        events = tuple(joined(happened, joins, at).events.get(row["user_id"], ()))
        in_order = tuple(sorted({event.id: event for event in events}.values(), key=lambda event: event.order))
        want = {f"events:{name}": aggregate_value(feature, in_order, at) for name, feature in declared.items()}
        assert {name: None if pd.isna(row[name]) else row[name] for name in names} == want, row


def test_a_simulation_ends_with_the_members_of_then(shop: Project, happened: History, joins: Sequence[Joined]) -> None:
    told: list[Happening] = []
    simulator = Simulator(shop, features=False)
    simulator.run(None, end=HEAD, tell=told.append)
    members: dict[str, set[str]] = {}
    for happening in told:
        move = happening.what
        assert isinstance(move, Transition)
        if move.change is MembershipChange.EXIT:
            members[happening.entity].discard(move.segment)
        else:
            members.setdefault(happening.entity, set()).add(move.segment)
    program = BatchProject.open(shop).program
    bare = History({view: [] for view in happened.rows}, joined(happened, joins, HEAD).events)
    want = bare.members(program, HEAD)
    assert {user: found for user, found in members.items() if found} == {user: set(w) for user, w in want.items() if w}
    assert any("join:" in str(happening.what.cause) for happening in told)


def test_store_and_batch_agree_on_everyone(shop: Project, happened: History, joins: Sequence[Joined]) -> None:
    def run(*arguments: str) -> Any:
        done = CliRunner().invoke(main.app, [*arguments, "--repo", str(shop.root)], catch_exceptions=False)
        assert done.exit_code == 0, done.stderr
        return done.stdout

    run("apply")
    run("materialize")
    run("run", "--once")
    for as_of in (HEAD, HEAD + 2 * HOUR):
        parity = compare(shop, None, as_of)
        assert parity.disagreements == (), from_micros(as_of)
        assert parity.users == len(joined(happened, joins, HEAD).users(as_of))
