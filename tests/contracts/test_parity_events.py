"""Request time and batch agree on segments that read events; and where they do not, each condition is shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from typer.testing import CliRunner

from rules_engine.batch.parity import Parity, compare
from rules_engine.cli import main
from rules_engine.clock import MINUTE, SECOND, from_micros, to_micros
from rules_engine.folders import Project
from rules_engine.rules.inputs import Event
from rules_engine.stream.event_sink import event_log
from tests.batch_shop import NOW, History, history, make_shop

EMBEDDED = "rules_engine.features.online_store.EmbeddedOnlineStore"
HEAD = to_micros(NOW)
HOUR_1, DAY_1 = 60 * MINUTE, 24 * 60 * MINUTE


def run(project: Project, *arguments: str) -> str:
    done = CliRunner().invoke(main.app, [*arguments, "--repo", str(project.root)], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return done.stdout


@pytest.fixture
def happened() -> History:
    return history(seed=11, users=60)


@pytest.fixture
def shop(make_project: Callable[..., Project], happened: History) -> Project:
    """Applied, with states from the log, and materialized."""
    project = make_shop(make_project, happened, online=EMBEDDED)
    run(project, "apply")
    run(project, "materialize")
    return project


def shown(found: Parity) -> Iterator[tuple[str, str, str]]:
    for one in found.disagreements:
        yield one.entity, one.segment, one.condition


def instants(happened: History) -> list[int]:
    """Now, and instants from now on at which windows end and rows expire, with the microseconds beside."""
    later = [event.at + wait for events in happened.events.values() for event in events for wait in (HOUR_1, DAY_1)]
    edges = sorted(at for at in later if at > HEAD)
    edges = edges[:: len(edges) // 2]
    fresh = max(to_micros(row["at"]) for row in happened.rows["fresh"]) + 30 * HOUR_1
    return [HEAD, *(edge + shift for edge in (*edges, fresh) for shift in (-1, 0, 1))]


def test_everyone_agrees_now_at_the_edges_of_windows_and_past_the_ttl(shop: Project, happened: History) -> None:
    asked = instants(happened)
    assert len(asked) >= 10
    for as_of in asked:
        found = compare(shop, None, as_of)
        assert found.disagreements == (), from_micros(as_of)
        assert found.users == len(happened.users(as_of))
    assert len(found.segments) == 16


def test_what_only_one_side_knows_is_shown_with_both_values(shop: Project) -> None:
    user = "somebody"
    views = [Event("view", HEAD - at * SECOND, f"view:{at}", {"page": "a", "seconds": 1}) for at in range(1, 4)]
    event_log(shop).append([(user, event) for event in views], stored_at=HEAD)
    found = compare(shop, None, HEAD)
    assert {entity for entity, _, _ in shown(found)} == {user}
    keen = {one.condition: one for one in found.disagreements if one.segment == "keen"}
    assert (keen["member"].online, keen["member"].offline) == (False, True)
    (condition,) = keen.keys() - {"member"}
    assert "view" in condition
    assert (keen[condition].online, keen[condition].offline) == (False, True)
    assert (keen[condition].online_value, keen[condition].offline_value) == ("0", "3")
    idle = [one for one in found.disagreements if one.segment == "idle"]
    assert {(one.condition == "member", one.online, one.offline) for one in idle} == {
        (True, True, False),
        (False, True, False),
    }
    done = CliRunner().invoke(main.app, ["parity", "--all", "--repo", str(shop.root), "--format", "json"])
    assert done.exit_code == 1
    assert len(json.loads(done.stdout)["disagreements"]) == len(found.disagreements)


def test_a_sample_is_the_same_for_the_same_seed_and_has_users_of_events_alone(shop: Project, happened: History) -> None:
    from rules_engine.batch.engine import BatchProject
    from rules_engine.batch.entities import EntityReader
    from rules_engine.batch.parity import sample_users
    from rules_engine.features.feast.repo import FeastRepo

    assert compare(shop, 7, HEAD).users == 7
    program = BatchProject.open(shop).program
    everyone = EntityReader(FeastRepo(shop), (program, program.names))
    first, again, other = (sample_users(everyone, HEAD, 30, seed) for seed in (1, 1, 2))
    assert first == again != other
    with_rows = {str(row["user_id"]) for rows in happened.rows.values() for row in rows}
    assert set(sample_users(everyone, HEAD, 10_000, 0)) == happened.users(HEAD) != with_rows
